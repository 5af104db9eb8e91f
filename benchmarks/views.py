"""Images into views: one warp and one colour matrix per batch, against transforms per image in loader workers.

    python -m benchmarks.views                two SimCLR views at CIFAR size, images and views of 32 px
    python -m benchmarks.views --size 96      larger ones, from images a quarter larger, as runs store them

Two SimCLR views of every image (Chen et al. 2020, appendix A and B.9: crop of 0.08 to 1 of the area, mirror, jitter of
strength 0.5 with probability 0.8, grey with probability 0.2, no blur at this size), from decoded uint8 squares to float
views in [0, 1]. All sides have the same parameters. What differs: ours clamps colour once and turns hue in YIQ
(`augment/color.py`), is antialiased by a pyramid, and cuts a crop that would be wider than the image to it instead of
drawing it again.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from benchmarks.images import Loaded, Pictures, View, noise, stored
from benchmarks.interleaved import Table, interleaved, options, parsed, publish, rate
from selftaught.augment.color import random_color, recolor
from selftaught.augment.warp import random_crop
from selftaught.cli.process import keep_freed_memory
from selftaught.contracts import Batch

SCALE, JITTER, HUE, JITTERED, GREY = (0.08, 1.0), 0.4, 0.1, 0.8, 0.2
"""Of SimCLR at strength 0.5: its full strength is 0.8, 0.8, 0.8, 0.2."""


def two_views(batch: Batch, size: int, generator: torch.Generator) -> Tensor:
    """Ours: (2 * B, 3, size, size), the two views of an image in a row."""
    count = 2 * len(batch)
    crop = random_crop(count, generator, scale=SCALE)
    views = batch.warp(crop.reshape(-1, 2, 3, 3), size).flatten(0, 1)
    jitter = {"brightness": JITTER, "contrast": JITTER, "saturation": JITTER, "hue": HUE}
    return recolor(views, *random_color(count, generator, **jitter, grey=GREY, probability=JITTERED))


class TorchvisionViews:
    """The usual way: a list of v2 transforms, called twice per image.

    Args:
        size: side of the views in pixels.
    """

    def __init__(self, size: int) -> None:
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(size, SCALE),
                v2.RandomHorizontalFlip(),
                v2.RandomApply([v2.ColorJitter(JITTER, JITTER, JITTER, HUE)], JITTERED),
                v2.RandomGrayscale(GREY),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
            ]
        )

    def __call__(self, image: Image.Image) -> tuple[Tensor, Tensor]:
        """One image to two views, (3, size, size) in [0, 1] each."""
        return self.transform(image), self.transform(image)


def lightly_views(size: int) -> View:
    """The `lightly` package's own pipeline, its switches set to the same."""
    from lightly.transforms.simclr_transform import SimCLRTransform

    return SimCLRTransform(size, cj_strength=0.5, min_scale=SCALE[0], gaussian_blur=0.0, normalize=None)


def loading(batches: Loaded, seconds: float) -> Callable[[], float]:
    """A function that says how many images per second come out of a loader as two views each."""

    def measured() -> float:
        batches.start()
        found = rate(lambda: len(batches.next()[0]), seconds)()
        batches.stop()
        return found

    return measured


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = options(__doc__, rounds=9)
    parser.add_argument("--size", type=int, default=32, help="side of the views in pixels")
    parser.add_argument("--side", type=int, help="of the images; by default 32, or a quarter more than larger views")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--workers", type=int, default=2, help="processes that load for the usual recipes")
    parser.add_argument("--seconds", type=float, default=1.0, help="per side and round")
    parser.add_argument("--images", type=int, default=5000)
    given = parsed(parser, words, batch_size=8, seconds=0.05, images=64)

    keep_freed_memory()  # as the command line does; the workers of the others inherit it
    pixels = noise(given.images, given.side or (32 if given.size <= 32 else given.size * 5 // 4))
    source, generator = stored(pixels), torch.Generator().manual_seed(0)

    def ours() -> int:
        indices = torch.randint(len(source), (given.batch_size,), generator=generator)
        return len(two_views(source.batch(indices, torch.device("cpu")), given.size, generator)) // 2

    usual: dict[str, View] = {"torchvision v2": TorchvisionViews(given.size)}
    if find_spec("lightly"):
        usual["lightly"] = lightly_views(given.size)
    sides = {"ours": rate(ours, given.seconds)}
    for name, view in usual.items():
        batches = Loaded(Pictures(pixels, view), given.batch_size, given.workers)
        sides[f"{name}, {given.workers} workers"] = loading(batches, given.seconds)
    title = f"two SimCLR views of {given.size} px, batches of {given.batch_size}"
    table = Table(title, "images/s", interleaved(sides, given.rounds))
    remarks = [f"Images are noise of {source.side} px, decoded beforehand for all sides."]
    if "lightly" not in usual:
        remarks.append("The `lightly` package is not installed here: `pip install selftaught[bench]`.")
    publish("views", "Images into views", [table], remarks, given)


if __name__ == "__main__":
    main()
