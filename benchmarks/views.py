"""Two augmented views per image: one warp and one color matrix per batch, against transforms in loader workers.

    python -m benchmarks.views                two SimCLR views at CIFAR-10's size, images and views of 32 px
    python -m benchmarks.views --size 96      larger views, from images a quarter larger, as runs store them

Two SimCLR views of every image (Chen et al. 2020, appendix A and B.9: crop of 0.08 to 1 of the area, horizontal flip,
jitter of strength 0.5 with probability 0.8, grayscale with probability 0.2, no blur at this size), from decoded square
uint8 images to float views in [0, 1]. All sides have the same parameters. Differences: ours clamps colors once and
rotates hue in YIQ (`augment/color.py`), antialiases by a pyramid, and clips a crop that is wider than the image instead
of drawing another one.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from benchmarks.images import LoaderBatches, TransformedImages, View, noise, stored
from benchmarks.interleaved import Table, interleaved, parse_options, publish, rate, shared_options
from selftaught.augment.color import random_color, recolor
from selftaught.augment.warp import random_crop
from selftaught.cli.process import keep_freed_memory
from selftaught.contracts import Batch

SCALE, JITTER, HUE, JITTERED, GRAYSCALE = (0.08, 1.0), 0.4, 0.1, 0.8, 0.2
"""SimCLR's values at strength 0.5; at full strength jitter is 0.8, 0.8, 0.8, 0.2."""


def two_views(batch: Batch, size: int, generator: torch.Generator) -> Tensor:
    """Ours: (2 * B, 3, size, size), the two views of an image in a row."""
    count = 2 * len(batch)
    crop = random_crop(count, generator, scale=SCALE)
    views = batch.warp(crop.reshape(-1, 2, 3, 3), size).flatten(0, 1)
    jitter = {"brightness": JITTER, "contrast": JITTER, "saturation": JITTER, "hue": HUE}
    return recolor(views, *random_color(count, generator, **jitter, grayscale=GRAYSCALE, probability=JITTERED))


class TorchvisionViews:
    """The usual recipe: a list of v2 transforms, called twice per image.

    Args:
        size: side of the views in pixels.
    """

    def __init__(self, size: int) -> None:
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(size, SCALE),
                v2.RandomHorizontalFlip(),
                v2.RandomApply([v2.ColorJitter(JITTER, JITTER, JITTER, HUE)], JITTERED),
                v2.RandomGrayscale(GRAYSCALE),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
            ]
        )

    def __call__(self, image: Image.Image) -> tuple[Tensor, Tensor]:
        """One image to two views, (3, size, size) in [0, 1] each."""
        return self.transform(image), self.transform(image)


def lightly_views(size: int) -> View:
    """The `lightly` package's own transform with the same parameters."""
    from lightly.transforms.simclr_transform import SimCLRTransform

    return SimCLRTransform(size, cj_strength=0.5, min_scale=SCALE[0], gaussian_blur=0.0, normalize=None)


def loader_rate(batches: LoaderBatches, seconds: float) -> Callable[[], float]:
    """A function that returns the images per second of a loader, with two views each."""

    def measured() -> float:
        batches.start()
        images_per_second = rate(lambda: len(batches.next()[0]), seconds)()
        batches.stop()
        return images_per_second

    return measured


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its tables."""
    parser = shared_options(__doc__, rounds=9)
    parser.add_argument("--size", type=int, default=32, help="side of the views in pixels")
    parser.add_argument(
        "--side", type=int, help="side of the images; default: 32, or a quarter more than views above 32"
    )
    parser.add_argument("--batch-size", type=int, default=256, help="images per batch")
    parser.add_argument("--workers", type=int, default=2, help="loader workers of the usual recipes")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds per side and round")
    parser.add_argument("--images", type=int, default=5000, help="number of images")
    options = parse_options(parser, arguments, batch_size=8, seconds=0.05, images=64)

    keep_freed_memory()  # as the command line does; loader workers inherit it
    pixels = noise(options.images, options.side or (32 if options.size <= 32 else options.size * 5 // 4))
    source, generator = stored(pixels), torch.Generator().manual_seed(0)

    def ours() -> int:
        indices = torch.randint(len(source), (options.batch_size,), generator=generator)
        return len(two_views(source.batch(indices, torch.device("cpu")), options.size, generator)) // 2

    usual: dict[str, View] = {"torchvision v2": TorchvisionViews(options.size)}
    if find_spec("lightly"):
        usual["lightly"] = lightly_views(options.size)
    sides = {"ours": rate(ours, options.seconds)}
    for name, view in usual.items():
        batches = LoaderBatches(TransformedImages(pixels, view), options.batch_size, options.workers)
        sides[f"{name}, {options.workers} workers"] = loader_rate(batches, options.seconds)
    title = f"two SimCLR views of {options.size} px, batches of {options.batch_size}"
    table = Table(title, "images/s", interleaved(sides, options.rounds))
    remarks = [f"Images are noise of {source.side} px, already decoded for all sides."]
    if "lightly" not in usual:
        remarks.append("The `lightly` package is not installed; `pip install selftaught[bench]` adds it.")
    publish("views", "Two views per image", [table], remarks, options)


if __name__ == "__main__":
    main()
