"""Write the images of any source to indexed tar shards in WebDataset's layout, as they are encoded."""

import errno
import io
import json
import shutil
import tarfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from selftaught.data.brightness import Ranges, source_ranges
from selftaught.data.cache import cache_folder
from selftaught.data.content import loaded
from selftaught.data.decode import decode_with_id
from selftaught.data.opening import open_image
from selftaught.data.parallel import in_threads
from selftaught.data.photos import Spec
from selftaught.data.reader import UNLABELED, Raw, Reader, readable
from selftaught.data.resolve import open_readers
from selftaught.data.shards import local_shards
from selftaught.data.sources import DEFAULT_SIDE
from selftaught.data.tar_index import INDEX, TarIndex, write_index
from selftaught.display.console import stderr_console
from selftaught.display.progress import Meter
from selftaught.errors import UserError, require_between
from selftaught.limits import Range

SUFFIXES = {"JPEG": "jpg", "JPEG2000": "jp2", "TIFF": "tif", "DIB": "bmp"}
"""Suffix of images by Pillow's name of their format; of others, the name itself."""
SKIPPED = "skipped.txt"
SHARD_SIZE = Range(1, 10**6)


def shard(
    source: Spec,
    *,
    out: str | Path,
    shard_size: int = 256,
    labels: str | Path | None = None,
    download: bool = True,
) -> Path:
    """Write the images of a source to tar shards, unchanged, with an index; the folder is a source.

    Images that cannot be decoded are left out and listed in `skipped.txt`. Arrays, such as those of cifar10,
    become PNG. The folder is complete or absent: it is written as `OUT.part` and renamed.

    Args:
        source: see `open_source`; all of its splits are written.
        out: the folder, new or empty.
        shard_size: size of a shard in MB, reached by all but the last one of a split.
        labels: CSV file with path and label.
        download: whether a named data set may be downloaded.

    Returns:
        The folder.

    Raises:
        UserError: the source cannot be opened or has dense targets, or the folder cannot be written.
    """
    require_between("--shard-size", shard_size, *SHARD_SIZE)
    folder = Path(out)
    if not folder.name:
        raise UserError(f"--out expects the name of a folder, got {readable(str(out))!r}.")
    part = folder.with_name(f"{folder.name}.part")
    _require_new(folder, part)
    splits = open_readers(source, None if labels is None else Path(labels), download=download)
    whole = splits.pop("all")
    if whole.dense:
        raise UserError(
            f"shards contain images and labels, but {whole.name} also has {', '.join(whole.dense)}: use the source "
            "itself, with --storage encoded."
        )
    if whole.labels is not None and whole.labels.ndim == 2:
        raise UserError(
            f"shards contain one label per image, but {whole.name} has several: shard it without them, and give "
            "--labels when the shards are used."
        )
    splits = dict(sorted(splits.items())) or {"images": whole}
    if (rest := len(whole) - sum(map(len, splits.values()))) > 0:
        _print(f"{rest:,} images of {whole.name} that are in no split are left out")
    written = _Written(part, shard_size * 10**6, whole.classes)
    try:
        part.mkdir(parents=True)
        ranges = source_ranges(whole, cache_folder())
        with Meter(f"writing {folder.name}", sum(map(len, splits.values()))) as meter:
            for split, reader in splits.items():
                written.add_split(split, reader, ranges, meter)
        written.finish(whole.name)
        part.replace(folder)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "free some space, or choose another --out" if full else "choose another --out"
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"cannot write shards to {readable(str(folder))} ({reason}): {hint}.") from error
    except BaseException:  # Ctrl-C too
        shutil.rmtree(part, ignore_errors=True)
        raise
    return folder


def _require_new(folder: Path, part: Path) -> None:
    with suppress(FileNotFoundError, NotADirectoryError):
        if folder.is_file() or any(folder.iterdir()):
            raise UserError(f"{readable(str(folder))} exists and is not empty: choose a new folder as --out.")
    if part.exists():
        raise UserError(
            f"{readable(str(part))} exists: another process is writing it, or was killed. Remove it, or choose another "
            "--out."
        )


@dataclass
class _Written:
    """Shards that are being written, and what their index needs."""

    folder: Path
    limit: int
    """Bytes of a shard."""
    classes: tuple[str, ...] | None
    files: list[Path] = field(default_factory=list)
    rows: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    """Shard, offset, size, label and content id of each image."""
    titles: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def add_split(self, split: str, reader: Reader, ranges: Ranges, meter: Meter) -> None:
        """Write the images of a split to shards of their own."""
        images = in_threads(reader.stream(np.arange(len(reader))), lambda raw: _encoded(raw, ranges))
        archive: tarfile.TarFile | None = None
        number = 0
        try:
            for index, (content, suffix, content_id) in enumerate(images):
                title = reader.title(index)
                if content is None:
                    self.skipped.append((readable(title), suffix))
                else:
                    if archive is not None and archive.offset + len(content) > self.limit:
                        archive.close()
                        archive, number = None, number + 1
                    if archive is None:
                        self.files.append(self.folder / f"{split}-{number:06}.tar")
                        archive = tarfile.open(self.files[-1], "x", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
                    label = UNLABELED if reader.labels is None else int(reader.labels[index])
                    self._add(archive, content, suffix, content_id, label, readable(title))
                meter.advance()
        finally:
            if archive is not None:
                archive.close()

    def _add(
        self, archive: tarfile.TarFile, content: bytes, suffix: str, content_id: int, label: int, title: str
    ) -> None:
        key = f"{len(self.titles):09}"
        described: dict[str, object] = {"path": title}
        members = {suffix: content}
        if label != UNLABELED:
            assert self.classes is not None
            described["label"] = self.classes[label]
            members["cls"] = f"{label}".encode()
        members["json"] = json.dumps(described).encode()
        self.rows.append((len(self.files) - 1, archive.offset + tarfile.BLOCKSIZE, len(content), label, content_id))
        self.titles.append(title)
        for extension, part in members.items():
            info = tarfile.TarInfo(f"{key}.{extension}")
            info.size, info.mode = len(part), 0o644
            archive.addfile(info, io.BytesIO(part))

    def finish(self, name: str) -> None:
        """Write the index and the list of skipped images."""
        if not self.titles:
            first = f", for example {self.skipped[0][0]!r} {self.skipped[0][1]}" if self.skipped else ""
            raise UserError(f"no image in {name} can be decoded{first}: repair them.")
        shards, offsets, sizes, labels, content_ids = np.array(self.rows, np.int64).T
        labeled = None if self.classes is None else labels
        titles = pa.array(self.titles, pa.large_string())
        index = TarIndex(shards, offsets, sizes, titles, labeled, self.classes, content_ids)
        write_index(self.folder / INDEX, index, local_shards(self.folder, [file.name for file in self.files]))
        if self.skipped:
            lines = [f"{title}: {reason}\n" for title, reason in self.skipped]
            (self.folder / SKIPPED).write_text("".join(lines), encoding="utf-8")
            _print(f"{len(self.skipped):,} images skipped, listed with reasons in {SKIPPED}")


def _encoded(raw: Raw, ranges: Ranges) -> tuple[bytes | None, str, int]:
    """The bytes of an image, its suffix and its digest; or None, the reason why it cannot be decoded, and 0."""
    try:
        content = _bytes(raw)
    except OSError as error:
        return None, f"cannot be opened ({(error.strerror or str(error)).lower()})", 0
    except Exception as error:  # `Unreadable`, with the reason
        return None, str(error), 0
    image, content_id = decode_with_id(content, DEFAULT_SIDE, ranges)
    if isinstance(image, str) or isinstance(content, str):
        return None, str(image), 0
    with open_image(content) as opened:
        kind = opened.format or "PNG"
    return content, SUFFIXES.get(kind, kind.lower()), content_id


def _bytes(raw: Raw) -> bytes | str:
    """The encoded image, or the reason why there is none."""
    if isinstance(raw, np.ndarray):
        stream = io.BytesIO()
        Image.fromarray(raw).save(stream, "PNG")
        return stream.getvalue()
    content = loaded(raw)
    assert not isinstance(content, np.ndarray)
    return content.read_bytes() if isinstance(content, Path) else content


def _print(line: str) -> None:
    stderr_console(highlight=False, markup=False, soft_wrap=True).print(line)
