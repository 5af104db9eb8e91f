"""Valid, unusual and broken images, generated so that their correct decoding is given."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from selftaught.data.reader import Listed


def noise(height: int, width: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    """Random pixels: (H, W, channels), or (H, W) for one channel."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def huge_png(width: int = 30_000, height: int = 30_000) -> bytes:
    """A PNG of 900 million pixels as far as its header goes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def animated_gif() -> bytes:
    """A red frame, then a blue one."""
    red, blue = (Image.new("P", (8, 8), 1) for _ in range(2))
    red.putpalette([0, 0, 0, 255, 0, 0])
    blue.putpalette([0, 0, 0, 0, 0, 255])
    return encoded(red, "GIF", save_all=True, append_images=[blue], duration=100)


def broken_files() -> dict[str, tuple[bytes, str]]:
    """Name -> (content, text expected in the reason)."""
    jpeg = encoded(noise(64, 64), "JPEG")
    return {
        "zero.jpg": (b"", "empty"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "cannot be decoded"),
        "text.png": (b"I am a text file called .png\n" * 20, "not in a supported image format"),
        "huge.png": (huge_png(), "million"),
        "page.heic": (b"\0\0\0\x18ftypheic" + bytes(64), "not in a supported image format"),
        "script.jpg": (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
            "not in a supported image format",
        ),
    }


def write_broken(folder: Path) -> dict[str, str]:
    """Fill a folder with broken files and links; name -> words in the reason."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (content, _) in broken_files().items():
        (folder / name).write_bytes(content)
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    (folder / "itself.png").symlink_to(folder / "itself.png")
    return {name: words for name, (_, words) in broken_files().items()} | {
        "dangling.png": "does not exist",
        "itself.png": "circular",
    }


def listed(count: int, side: int = 8, classes: int = 2) -> Listed:
    """A reader of arrays in memory with cyclic labels."""
    labels = np.arange(count) % classes
    names = tuple(f"kind {number}" for number in range(classes))
    return Listed(
        "toys", labels, names, [noise(side, side, i) for i in range(count)], [f"toy {i}" for i in range(count)]
    )


def write_images(folder: Path, count: int, side: int = 8, seed: int = 0) -> None:
    """`count` PNGs of noise, called 0.png, 1.png, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}.png").write_bytes(encoded(noise(side, side, seed * 1000 + number)))
