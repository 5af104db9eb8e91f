"""Value ranges of images other than 8-bit ones: which range is mapped to 0 to 255.

A 16-bit file may contain 12-bit data, and floating-point images have no fixed range. The range is chosen once per
source, from a sample of its images, because a range per image would brighten dark images and darken bright ones.
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selftaught.data.atomic import replacing
from selftaught.data.opening import Unreadable, open_image
from selftaught.data.reader import Raw, Reader

SAMPLE = 200
"""Number of images of a source that are measured."""
TOPS = (1, 255, 4095, 65535)
"""Common maximum values: of masks and normalized images, and of 8, 12 and 16 bits."""

VERSION = 1
"""Version of the rule, part of the file name of cached ranges: increase it when the rule changes."""

Range = tuple[float, float]
"""The values mapped to 0 and 255."""


@dataclass(frozen=True)
class Ranges:
    """The value ranges of a source; None if its sample has no such images."""

    integers: Range | None = None
    """Range of images with 16 or 32 bits per pixel."""
    floats: Range | None = None
    """Range of images with floating-point pixels."""

    def of(self, image: Image.Image) -> Range:
        """The range for an image; the full range of its type if the sample had no such image."""
        if image.mode == "F":
            return self.floats or (0.0, 1.0)
        return self.integers or (0.0, 65535.0)

    def notes(self) -> tuple[str, ...]:
        """One sentence for each type of image in the sample."""
        kinds = {"16-bit": self.integers, "floating-point": self.floats}
        return tuple(
            f"{kind} images: values {chosen[0]:g} to {chosen[1]:g} are mapped to 0 to 255"
            for kind, chosen in kinds.items()
            if chosen
        )


NOMINAL = Ranges()
"""0 to 65535 for integers, 0 to 1 for floating-point pixels."""


def is_wide(image: Image.Image) -> bool:
    """Whether the pixels of an image are not 8-bit."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def to_bytes(image: Image.Image, limits: Range) -> NDArray[np.uint8]:
    """Map the values of an image to 0..255: (H, W) uint8. Values outside the range are clipped.

    Raises:
        Unreadable: no value is finite, or most are outside the range.
    """
    values = np.asarray(image)
    low, high = limits
    if image.mode == "F":
        finite = np.isfinite(values)
        if not finite.any():
            raise Unreadable("has no finite value")
        values = np.where(finite, values, low)
    outside = np.count_nonzero((values < low) | (values > high))
    if outside * 2 > values.size:
        raise Unreadable(f"has values outside {low:g} to {high:g}, the range of the other images of this source")
    scale = 255 / (high - low) if high > low else 0.0
    return np.rint((np.clip(values.astype(np.float64), low, high) - low) * scale).astype(np.uint8)


def measure(raws: Iterable[Raw]) -> Ranges:
    """The ranges of some images: 0 to 1, 255, 4095 or 65535 if that covers all values, else minimum to maximum."""
    extremes: dict[str, list[Range]] = {"integers": [], "floats": []}
    for raw in raws:
        with suppress(Exception), open_image(raw) as image:  # the reason is reported when the image is decoded
            if is_wide(image):
                extremes["floats" if image.mode == "F" else "integers"] += _extremes(image)
    return Ranges(**{kind: _covering(limits) for kind, limits in extremes.items()})


def _extremes(image: Image.Image) -> list[Range]:
    """Minimum and maximum of the finite values; empty if no value is finite."""
    values = np.asarray(image)
    finite = values[np.isfinite(values)]
    return [(float(finite.min()), float(finite.max()))] if finite.size else []


def _covering(extremes: list[Range]) -> Range | None:
    """The smallest common range that covers all values, else their minimum and maximum; None if all are 0."""
    low, high = min((low for low, _ in extremes), default=0.0), max((high for _, high in extremes), default=0.0)
    if low == high == 0:
        return None
    top = next((top for top in TOPS if low >= 0 and high <= top), None)
    return (low, high) if top is None else (0.0, float(top))


def source_ranges(reader: Reader, folder: Path) -> Ranges:
    """The ranges of a source, measured once for all of its parts and stored in the cache folder.

    Args:
        reader: all images of the source.
        folder: the cache folder.
    """
    sample = reader.sample(SAMPLE)
    if not any(_is_wide(raw) for raw in reader.stream(sample)):
        return NOMINAL
    cached = folder / f"ranges-{VERSION}-{reader.fingerprint()}.json"
    with suppress(OSError, ValueError, TypeError):
        loaded = json.loads(cached.read_text(encoding="utf-8"))
        return Ranges(**{kind: limits and (float(limits[0]), float(limits[1])) for kind, limits in loaded.items()})
    ranges = measure(reader.stream(sample))
    with suppress(OSError), replacing(cached) as part:  # the decode cache reports a folder that cannot be written
        part.write_text(json.dumps(asdict(ranges)), encoding="utf-8")
    return ranges


def _is_wide(raw: Raw) -> bool:
    try:
        with open_image(raw) as image:
            return is_wide(image)
    except Exception:  # the reason is reported when the image is decoded
        return False
