"""A folder of everything that people, phones and vandals put among images, made anew by a script.

Every file has a fate: it is an image however strange, or it is listed with words that must stand in the reason, or it
is none of our business. Run it to look at the list: `python tests/data/rubbish.py FOLDER`.
"""

import os
import socket
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from corpus import animated_gif, encoded, noise
from PIL import Image, PngImagePlugin, features


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int, kind: int, data: bytes, *more: bytes, interlaced: bool = False) -> bytes:
    """A PNG of compressed `data`, with other chunks before them."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(more) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def zeros(count: int) -> bytes:
    """`count` zero bytes, compressed as zlib would but in no time: one block of a megabyte, again and again."""
    block = bytes(2**20)
    packer = zlib.compressobj(9)
    start = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    whole, rest = divmod(count, 2**20)
    assert whole, "smaller ones need no trick"
    end = packer.compress(bytes(rest)) + packer.flush(zlib.Z_FINISH)
    checksum = struct.pack(">I", (count % 65521) << 16 | 1)  # Adler-32 of zeros
    return start + again * (whole - 1) + end[:-4] + checksum


def black_png(side: int) -> bytes:
    """A sound PNG of side x side black pixels, a thousandth of their size: a decompression bomb."""
    return png(side, side, 8, 0, zeros(side * (side + 1)))


def interlaced_png() -> bytes:
    """An 8 x 8 grey PNG in Adam7's seven passes, all white."""
    passes = [(1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4)]
    rows = b"".join((b"\0" + b"\xff" * width) * height for width, height in passes)
    return png(8, 8, 8, 0, zlib.compress(rows), interlaced=True)


def turned(orientation: int) -> bytes:
    """A JPEG with an orientation, which may be none of the eight."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(noise(16, 24), "JPEG", exif=exif)


def texts(kind: bytes, size: int) -> bytes:
    """A PNG with a compressed text of `size` bytes."""
    return png(4, 4, 8, 0, zlib.compress(bytes(20)), chunk(kind, b"Comment\0\0" + zlib.compress(b"a" * size)))


def strange() -> dict[str, bytes]:
    """Images all of them: name -> content."""
    rgb, jpeg = noise(20, 30), encoded(noise(20, 30), "JPEG")
    rgba = Image.fromarray(noise(20, 20, channels=4))
    palette = rgba.convert("P")
    cmyk = Image.fromarray(noise(20, 20, channels=4), "CMYK")
    found = {
        "plain.jpg": jpeg,
        "SHOUTED.JPEG": jpeg,
        "wrong-suffix.png": jpeg,
        "two.dots.tar.jpg": jpeg,
        "progressive.jpg": encoded(rgb, "JPEG", progressive=True),
        "cmyk.jpg": encoded(cmyk, "JPEG"),
        "grey.jpg": encoded(noise(20, 20, channels=1), "JPEG"),
        "cmyk-adobe-marker.jpg": adobe(encoded(cmyk, "JPEG")),
        "trailing-rubbish.jpg": jpeg + b"rubbish" * 100,
        "sixteen-bits.png": encoded(Image.fromarray(noise(9, 9, channels=1).astype(np.uint16) * 257)),
        "one-bit.png": encoded(Image.fromarray(noise(9, 9, channels=1) > 127)),
        "grey-alpha.png": encoded(rgba.convert("LA")),
        "palette-transparent.png": encoded(palette, transparency=3),
        "palette-alphas.png": encoded(palette, transparency=bytes(range(0, 250, 5))),
        "rgb-transparent.png": encoded(rgb, transparency=(1, 2, 3)),
        "interlaced.png": interlaced_png(),
        "much-text.png": encoded(rgb, pnginfo=text_of(900_000)),
        "odd-text.png": texts(b"zTXt", 1000),
        "no-gamma.png": png(4, 4, 8, 0, zlib.compress(bytes(20)), chunk(b"gAMA", bytes(4)), chunk(b"zzZz", b"what")),
        "bad-profile.png": png(4, 4, 8, 0, zlib.compress(bytes(20)), chunk(b"iCCP", b"icc\0\0" + b"no zlib")),
        "bad-profile.jpg": encoded(rgb, "JPEG", icc_profile=b"this is no profile" * 9),
        "bad-exif.jpg": encoded(rgb, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + bytes(9)),
        "exif-of-nothing.jpg": encoded(rgb, "JPEG", exif=b"Exif\0\0"),
        "orientation-99.jpg": turned(99),
        "animated.gif": animated_gif(),
        "animated.png": encoded(rgb, save_all=True, append_images=[Image.fromarray(noise(20, 30, 1))]),
        "one-pixel.png": encoded(noise(1, 1)),
        "needle.png": encoded(noise(1, 10_000)),
        "pole.png": encoded(noise(10_000, 1)),
        "float.tiff": encoded(Image.fromarray(np.linspace(-3, 7, 81, dtype=np.float32).reshape(9, 9)), "TIFF"),
        "constant.tiff": encoded(Image.fromarray(np.full((9, 9), -7e30, np.float32)), "TIFF"),
        "int32.tif": encoded(Image.fromarray(np.arange(81, dtype=np.int32).reshape(9, 9) - 40), "TIFF"),
        "pages.tiff": encoded(rgb, "TIFF", save_all=True, append_images=[Image.fromarray(rgb)]),
        "cmyk.tiff": encoded(cmyk, "TIFF"),
        "picture.bmp": encoded(rgb, "BMP"),
        "picture.ppm": encoded(rgb, "PPM"),
        "favicon.ico": encoded(noise(32, 32), "ICO"),
        "larger-inside.ico": icon(encoded(noise(300, 300))),
        "twelve-bits.tif": encoded(Image.fromarray(np.linspace(0, 4095, 81).reshape(9, 9).astype(np.uint16)), "TIFF"),
        "사진 하나.jpg": jpeg,
        "new\nline.jpg": jpeg,
        "'quotes\" and `ticks`.jpg": jpeg,
        "[bold]markup[/nothing].jpg": jpeg,
        "escape\x1b[2J.jpg": jpeg,
        "-rf.jpg": jpeg,
        "right\u202egpj.png": jpeg,
        "\u00e9.png": encoded(rgb),  # e with an accent, in one letter ...
        "e\u0301.png": encoded(rgb),  # ... and in two
        "n" * 251 + ".jpg": jpeg,
        "not utf-8 \udcff\udcfe.jpg": jpeg,
        "deep/er/and/still.deeper/9.jpg": jpeg,
        "a folder.jpg/inside.jpg": jpeg,
        **{f"orientation-{number}.jpg": turned(number) for number in range(1, 9)},
    }
    if features.check("webp"):
        found |= {"picture.webp": encoded(rgb, "WEBP"), "lossless.WebP": encoded(rgb, "WEBP", lossless=True)}
    return found


def tiff(channels: int, bits: int, kind: int = 1, compression: int = 1) -> bytes:
    """A TIFF of 4 x 4 pixels, all zero, in any layout; `kind` is 1 for unsigned, 3 for floating-point."""
    tags = [(256, 4, 1, 4), (257, 4, 1, 4), (258, 3, 1, bits), (259, 3, 1, compression), (262, 3, 1, 1)]
    tags += [
        (273, 4, 1, 134),
        (277, 3, 1, channels),
        (278, 4, 1, 4),
        (279, 4, 1, 2 * channels * bits),
        (339, 3, 1, kind),
    ]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + bytes(2 * channels * bits)


def icon(content: bytes) -> bytes:
    """An icon of 256 pixels, says its header, that holds a PNG."""
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(content), 22) + content


def text_of(size: int) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "a" * size)
    return info


def adobe(jpeg: bytes) -> bytes:
    """With Adobe's marker, which says that the inks are inverted, moved to where few look for it."""
    marker = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x02"
    return jpeg[:2] + marker + jpeg[2:]


def broken() -> dict[str, tuple[bytes, str]]:
    """No images: name -> content, and words that must stand in the reason."""
    jpeg, whole = encoded(noise(64, 64), "JPEG"), encoded(noise(64, 64))
    gif = animated_gif()
    header = gif[: gif.index(b"!")] if b"!" in gif else gif[:30]
    return {
        "zero bytes.jpg": (b"", "is empty"),
        "one byte.png": (b"\x89", "not in a supported image format"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "truncated.png": (whole[: len(whole) // 2], "truncated"),
        "only a header.png": (whole[:33], "begins like PNG,"),
        "bad checksum.png": (whole[:20] + b"\1" + whole[21:], "begins like PNG,"),
        "text.png": (b"I am a text file called .png\n" * 20, "(it is text)"),
        "404.jpg": (b"<!DOCTYPE html><html><title>404 Not Found</title></html>", "(it is text)"),
        "drawing.svg": (
            b'<svg xmlns="http://www.w3.org/2000/svg"></svg>',
            "(it is text)",
        ),
        "phone.HEIC": (b"\0\0\0\x18ftypheic" + bytes(64), "HEIC"),
        "script.jpg": (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
            "not in a supported image format",
        ),
        "paper.png": (b"%PDF-1.7\n%%EOF\n", "not in a supported image format"),
        "archive.jpg": (b"PK\3\4" + bytes(60), "not in a supported image format"),
        "bomb.png": (black_png(30_000), "more than 179 million pixels"),
        "wide.png": (png(2**31 - 1, 1, 8, 2, b""), "million"),
        "flat.png": (png(0, 0, 8, 2, b""), "begins like PNG,"),
        "bomb.ico": (icon(black_png(30_000)), "more than 179 million pixels"),
        "five channels.tif": (tiff(5, 8), "(5 channels of 8 bits)"),
        "half floats.tif": (tiff(1, 16, 3), "(1 channel of 16 floating-point bits)"),
        "jpeg 2000.tif": (tiff(1, 8, compression=34712), "(1 channel of 8 bits, compression 34712)"),
        "lab.tif": (encoded(Image.new("LAB", (9, 9)), "TIFF"), "is in CIELAB color"),
        "large profile.png": (texts(b"iCCP", 2_000_000), "too large a color profile"),
        "zip of text.png": (texts(b"zTXt", 80_000_000), "too much text"),
        "no frames.gif": (header[:13] + b";", "begins like GIF,"),
        "not_utf-8_\udcff.gif": (b"GIF89a", "begins like GIF,"),
        "folder of.jpg/empty.bmp": (b"", "is empty"),
        "bad.bmp": (b"BM" + bytes(60), "cannot be decoded"),
        "nothing-but-nan.tif": (encoded(Image.fromarray(np.full((9, 9), np.nan, np.float32)), "TIFF"), "no finite"),
        "endless.tiff": (b"II*\0\x08\0\0\0\0\0\x08\0\0\0", "begins like TIFF,"),
    }


IGNORED = {
    ".hidden.jpg": b"hidden",
    "._resource fork.jpg": b"\0\5\x16\7",
    ".cache/inside hidden.jpg": b"hidden",
    "__MACOSX/copy.jpg": b"",
    "Thumbs.db": b"\xd0\xcf\x11\xe0",
    "desktop.ini": b"[.ShellClassInfo]",
    "notes.txt": b"notes",
    "no suffix": b"none",
    "jpg": b"a name, not a suffix",
}
"""What does not belong to the images, by name."""


def write_rubbish(root: Path) -> tuple[set[str], dict[str, str]]:
    """Fill a folder.

    Returns:
        Names of what must be decoded; and, of what must be skipped, name -> words in the reason.
    """
    kept, skipped = strange(), broken()
    for name, content in (kept | {name: content for name, (content, _) in skipped.items()} | IGNORED).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    reasons = {name: words for name, (_, words) in skipped.items()} | write_special(root)
    names = set(kept)
    (root / "link to an image.jpg").symlink_to(root / "plain.jpg")
    names.add("link to an image.jpg")
    return names, reasons


def write_special(root: Path) -> dict[str, str]:
    """What is no file at all; name -> words in the reason, where there must be one."""
    (root / "nested/empty/folders").mkdir(parents=True)
    (root / "nested/loop").symlink_to(root / "nested", target_is_directory=True)
    (root / "nested/up").symlink_to(root, target_is_directory=True)
    (root / "dangling.png").symlink_to(root / "nowhere.png")
    (root / "itself.png").symlink_to("itself.png")
    (root / "ping.png").symlink_to("pong.png")
    (root / "pong.png").symlink_to("ping.png")
    os.mkfifo(root / "pipe.jpg")
    here = Path.cwd()
    os.chdir(root)  # a socket's path has room for 108 bytes
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket.jpg")
    finally:
        os.chdir(here)
    (root / "device.jpg").symlink_to("/dev/zero")
    found = dict.fromkeys(("pipe.jpg", "socket.jpg", "device.jpg"), "pipe")
    found |= {"dangling.png": "does not exist"} | dict.fromkeys(("itself.png", "ping.png", "pong.png"), "circular")
    if os.geteuid():  # root may read everything
        (root / "locked.jpg").write_bytes(encoded(noise(8, 8), "JPEG"))
        (root / "locked.jpg").chmod(0)
        found["locked.jpg"] = "permission denied"
    return found


if __name__ == "__main__":
    from selftaught.data import open_source

    root = Path(sys.argv[1])
    write_rubbish(root)
    source = open_source(root)
    print(f"{len(source)} images of {source.side} pixels, {len(source.skipped)} skipped:")
    for title, reason in source.skipped:
        print(f"  {title}: {reason}")
