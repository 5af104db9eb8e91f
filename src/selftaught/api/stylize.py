"""Style transfer by the features of a run."""

from pathlib import Path

from torch import Tensor

from selftaught import figures
from selftaught.analysis.images import fitted
from selftaught.analysis.style import StyleTransfer, Stylized, require_convolutions, stylize
from selftaught.api.loaded import load_trained
from selftaught.api.pictures import SINGLE, Picture, crops, save, trained_and_random
from selftaught.contracts import Encoder
from selftaught.data import Photo, is_photos, photos
from selftaught.display.mosaic import png_bytes
from selftaught.display.progress import Meter
from selftaught.errors import UserError, readable, require_between
from selftaught.limits import Range
from selftaught.runs.atomic import write_bytes
from selftaught.runs.folder import RunFolder
from selftaught.training.interruption import Stop, stop_on_signals

IMAGE_SIDE = Range(16, 2048)
"""Maximum side of a stylized image in pixels: memory and time grow with its square."""


def style_transfer(
    run: RunFolder,
    content: str | Path,
    style: str | Path,
    *,
    size: int,
    random: bool,
    out: str | Path | None,
    device: str,
    stop: Stop | None,
    settings: StyleTransfer,
) -> Picture:
    """See `Run.stylize`."""
    target = None if out is None else _new_file(Path(out))
    require_between("--size", size, *IMAGE_SIDE)
    loaded = load_trained(run, None, device)
    require_convolutions(loaded.arguments["encoder"])
    folder = run.prepare_results(run.pictures)
    pair = [_photo("--content", content), _photo("--style", style)]
    images = [fitted(photo.image, size) for photo in pair]
    calibration = crops([str(content), str(style)], loaded.arguments["size"])
    nets = dict(zip(("trained", "random weights"), trained_and_random(loaded, calibration), strict=True))
    if not random:
        del nets["random weights"]
    results = _run_all(nets, images[0], images[1], settings, stop or Stop())
    first = results["trained"]
    if target is not None:
        write_bytes(target, png_bytes(first.image[None]))
    cells = figures.padded([*images, *(result.image for result in results.values())])
    drawn = figures.image_table(cells[None], ["content", "style", *results], [])
    steps = " and ".join(f"{result.steps:,} ({name})" for name, result in results.items())
    facts = {
        "kind": "style",
        "data": f"{Path(content).stem}-{Path(style).stem}",
        "title": f"Style transfer: {Path(content).name} in the style of {Path(style).name}",
        "note": f"Content: {', '.join(first.content_layers)}; style: {', '.join(first.style_layers)}, weight "
        f"{settings.style_weight:g}. Steps: {steps}.{' ' + SINGLE if random else ''}",
        "loss": {name: [result.losses[0], result.losses[-1]] for name, result in results.items()},
        "steps": {name: result.steps for name, result in results.items()},
        "size": size,
        "settings": {**vars(settings), "content_layers": first.content_layers, "style_layers": first.style_layers},
    }
    return save(run, loaded, folder, drawn, facts, str([photo.content_id for photo in pair]))


def _run_all(
    nets: dict[str, Encoder], content: Tensor, style: Tensor, settings: StyleTransfer, stop: Stop
) -> dict[str, Stylized]:
    """Transfer the style with each network in turn, until a stop is requested; at least the first has a result."""
    results = {}
    with Meter("style transfer", settings.steps * len(nets)) as meter, stop_on_signals(stop):

        def on_step(loss: float) -> bool:
            meter.advance(1, f"loss {loss:.4f}")
            return stop.requested

        for name, net in nets.items():
            results[name] = stylize(net, content, style, settings, on_step)
            if stop.requested:
                break
    return results


def _photo(flag: str, name: str | Path) -> Photo:
    if not is_photos(name):
        raise UserError(f"{flag} expects an image file or the name of a bundled photo, got {readable(str(name))!r}.")
    return photos(name)[0]


def _new_file(path: Path) -> Path:
    """Check before a long computation that a PNG can be written."""
    if path.suffix.lower() != ".png":
        raise UserError(f"--out expects a PNG file, such as picture.png, got {readable(str(path))!r}.")
    if path.exists():
        raise UserError(f"{readable(str(path))} exists: give another --out, or remove it.")
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    return path.absolute()
