"""A thousand damaged images: no crash, no hang, no warning, and every one is decoded or listed with a reason.

They are decoded in a separate process with a time limit: a decoder in C that crashes or hangs
takes its process with it.
"""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from corpus import animated_gif, encoded, noise
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from selftaught.data.decode import RGB, decode, decode_whole, short_side

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # whether warnings of odd files are shown is up to the host

SECONDS = 180
"""A child may take this long; on an idle core it takes one for a hundred images, and three to begin."""
CHILD = """
import json, sys
from pathlib import Path
from selftaught.data.cache import decode_cached
from selftaught.data.folder import folder_splits

root = Path(sys.argv[1])
reader = folder_splits(root)["all"]
result = decode_cached(reader, 16, folder=root / ".cache")
print(json.dumps({"read": len(reader), "kept": result.indices.tolist(), "skipped": result.skipped}))
"""


def originals() -> dict[str, bytes]:
    """Suffix -> a sound image of 24 x 32 pixels, with what decoders stumble over: metadata, palettes, frames."""
    picture, exif = noise(24, 32), Image.Exif()
    exif[0x0112] = 6
    result = {
        "jpg": encoded(picture, "JPEG", exif=exif),
        "jpeg": encoded(picture, "JPEG", progressive=True, quality=60),
        "png": encoded(picture, exif=exif),
        "apng": encoded(Image.fromarray(picture).convert("P"), transparency=2),
        "gif": animated_gif(),
        "bmp": encoded(picture, "BMP"),
        "tiff": encoded(picture, "TIFF", compression="tiff_lzw"),
        "ppm": encoded(picture, "PPM"),
        "ico": encoded(picture, "ICO"),
    }
    return result | ({"webp": encoded(picture, "WEBP")} if features.check("webp") else {})


def mutated(content: bytes, draw: random.Random) -> bytes:
    """One to four changes: bytes flipped, cut off, put in, swapped or repeated; half of them where headers are."""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(min(len(changed), 64) if draw.random() < 0.5 else len(changed))
        until = at + draw.randint(1, 16)
        match draw.choice(["flip", "flip", "set", "cut", "insert", "swap", "repeat"]):
            case "flip":
                changed[at] ^= 1 << draw.randrange(8)
            case "set":
                changed[at] = draw.choice([0, 1, 0x7F, 0x80, 0xFF])
            case "cut":
                del changed[at : until if draw.random() < 0.7 else None]
            case "insert":
                changed[at:at] = draw.randbytes(draw.randint(1, 16))
            case "swap":
                to = draw.randrange(len(changed))
                changed[at], changed[to] = changed[to], changed[at]
            case "repeat":
                changed[at:at] = changed[at:until]
        changed = changed or bytearray(b"\0")
    return bytes(changed)


def write_mutations(folder: Path, count: int, seed: int) -> None:
    draw, kinds = random.Random(seed), originals()
    for number in range(count):
        suffix = list(kinds)[number % len(kinds)]
        (folder / f"{number}.{suffix}").write_bytes(mutated(kinds[suffix], draw))


@pytest.mark.parametrize(
    ("count", "seed"), [(100, 0), *(pytest.param(1000, seed, marks=pytest.mark.slow) for seed in range(1, 4))]
)
def test_damaged_images_are_decoded_or_listed(tmp_path: Path, count: int, seed: int) -> None:
    write_mutations(tmp_path, count, seed)
    command = [sys.executable, "-W", "error", "-X", "faulthandler", "-c", CHILD, str(tmp_path)]
    child = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert child.returncode == 0, child.stderr[-2000:]
    # libtiff writes its own messages to standard error; Python must have written none.
    output = [
        line for line in child.stderr.splitlines() if not line.startswith(("TIFF", "LZW", "_TIFF", "tempfile.tif"))
    ]
    assert not output, output
    result = json.loads(child.stdout)
    listed = dict(result["skipped"])
    assert result["read"] == count
    assert sorted([*result["kept"], *listed]) == list(range(count))
    assert (
        0.2 * count < len(listed) < 0.8 * count
    )  # the damage is neither too small nor too great for a meaningful test
    for reason in listed.values():
        assert reason.isprintable()
        assert len(reason) < 200


@pytest.mark.parametrize("suffix", list(originals()))
def test_sound_originals_decode(suffix: str) -> None:
    result = decode(originals()[suffix], 16)
    assert not isinstance(result, str), result


@pytest.mark.parametrize("suffix", list(originals()))
def test_truncated_files_are_decoded_or_listed(suffix: str) -> None:
    content = originals()[suffix]
    for end in range(0, len(content), max(1, len(content) // 60)):
        sound(decode(content[:end], 8), content[:end])


@settings(max_examples=150, deadline=None)
@given(
    content=st.binary(max_size=200), start=st.sampled_from([b"", *(content[:40] for content in originals().values())])
)
def test_any_bytes_give_pixels_or_a_reason(content: bytes, start: bytes) -> None:
    sound(decode(start + content, 8), start + content)
    whole = decode_whole(start + content)
    assert isinstance(whole, str) or whole.ndim == 3
    side = short_side(start + content)
    assert side is None or side >= 1


def sound(result: RGB | str, content: bytes) -> None:
    """RGB, or a reason: words in one line that name no Python type."""
    if isinstance(result, str):
        assert result.isprintable(), content
        assert "decoder object" not in result
        assert result.split()[0] in ("is", "has", "begins", "cannot", "does", "needs", "makes")
    else:
        assert result.shape == (3, 8, 8)
