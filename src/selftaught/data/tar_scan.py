"""List the images in a tar file of WebDataset's layout, without extracting anything.

The members of a sample follow each other and have the same key, the path up to the first dot of its file name:
`000012.jpg`, `000012.cls`, `000012.json`. Only their positions are returned; a name is never used as a path.
"""

import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from selftaught.data.decode import SUFFIXES
from selftaught.data.label_columns import LABEL_COLUMNS
from selftaught.data.reader import readable
from selftaught.data.shards import File, located, size_of
from selftaught.errors import UserError

COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "Zstandard", b"PK": "zip"}
"""First bytes of compressed archives, in which members cannot be read in random order."""
LONGEST = 2**16
"""Maximum size of a label member in bytes; a longer one is no label."""
READ_AHEAD = 2**20
"""Bytes of a request while the headers of a remote file are read of which there is no copy."""
LONGEST_TITLE = 1000
"""Maximum length of the original path that a sample may declare, in characters."""


@dataclass(slots=True)
class Sample:
    """An image in a tar file."""

    title: str
    """Its original path if the sample declares one, else file and member."""
    offset: int
    """Position of its first byte in the file."""
    size: int
    """Size in bytes."""
    folder: str
    """Its folder in the file, with "/"; "" at the top."""
    number: Any = None
    """Label in the member `.cls`: an integer or a text; None if there is none."""
    name: Any = None
    """Label in the member `.json`, likewise."""


@dataclass
class Scanned:
    """The samples of a tar file, and what was left out of it."""

    samples: list[Sample] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    """Reason -> number of members or samples."""
    examples: dict[str, str] = field(default_factory=dict)
    """Reason -> name of the first of them."""

    def leave_out(self, reason: str, name: str) -> None:
        """Count a member or a sample that is not used."""
        self.left_out[reason] += 1
        self.examples.setdefault(reason, readable(name))


def scan(path: File) -> Scanned:
    """List the images of a tar file, in its order.

    Raises:
        UserError: the file cannot be read, is compressed, is not a tar file, or is truncated or damaged.
    """
    scanned, shown = Scanned(), readable(str(path))
    try:
        place = located(path, whole=True)  # the headers are all over the file
        with place.open("rb") if isinstance(place, Path) else BufferedReader(place, READ_AHEAD) as file:
            for members in _by_key(_members(file, size_of(path), scanned, shown)):
                _add(scanned, file, path.name, members)
    except OSError as error:
        raise UserError(f"cannot read {shown} ({(error.strerror or str(error)).lower()}): check the file.") from error
    return scanned


def _members(file: BinaryIO, size: int, scanned: Scanned, shown: str) -> Iterator[tarfile.TarInfo]:
    """The regular files of a tar file that are completely in it."""
    start = file.read(8)
    if kind := next((kind for magic, kind in COMPRESSED.items() if start.startswith(magic)), None):
        raise UserError(f"{shown} is compressed ({kind}), and images are read in random order: write it as plain tar.")
    file.seek(0)
    try:
        archive: Any = tarfile.TarFile(fileobj=file)
        while (member := archive.next()) is not None:
            archive.members.clear()  # a tar file of a million images would otherwise take gigabytes
            position = file.tell()
            if member.offset_data + (member.size if member.isreg() else 0) > size:
                raise tarfile.ReadError("truncated")
            if _is_used(member, scanned):
                yield member
            file.seek(position)
        end = archive.offset
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):  # `next` ends without an error at an invalid header
            raise tarfile.ReadError("truncated")
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        what = "is truncated or damaged" if size >= tarfile.BLOCKSIZE else "is not a tar file"
        raise UserError(f"{shown} {what}: download or write it again.") from error


def _is_used(member: tarfile.TarInfo, scanned: Scanned) -> bool:
    """Whether a member may belong to a sample."""
    parts = member.name.split("/")
    if member.isdir() or parts[-1].startswith(".") or parts[0] == "__MACOSX":
        return False
    if member.issym() or member.islnk():
        scanned.leave_out("links", member.name)
    elif not member.isreg():
        scanned.leave_out("devices and pipes", member.name)
    elif member.name.startswith("/") or ".." in parts:
        scanned.leave_out("paths outside of the archive", member.name)
    elif member.sparse is not None:
        scanned.leave_out("sparse files", member.name)
    else:
        return True
    return False


def _by_key(members: Iterator[tarfile.TarInfo]) -> Iterator[dict[str, tarfile.TarInfo]]:
    """The members of each sample by extension; a second one with the same extension begins a new sample."""
    current: dict[str, tarfile.TarInfo] = {}
    key = None
    for member in members:
        folder, slash, name = member.name.rpartition("/")
        stem, _, extension = name.partition(".")
        own, extension = f"{folder}{slash}{stem}", extension.lower()
        if own != key or extension in current:
            if current:
                yield current
            current, key = {}, own
        current[extension] = member
    if current:
        yield current


def _add(scanned: Scanned, file: BinaryIO, name: str, members: dict[str, tarfile.TarInfo]) -> None:
    """Add the sample that some members form, if one of them is an image."""
    images = [extension for extension in members if f".{extension.rpartition('.')[2]}" in SUFFIXES]
    if not images:
        scanned.leave_out("samples without an image", next(iter(members.values())).name)
        return
    image = members[min(images, key=lambda extension: extension.count("."))]  # x.jpg rather than x.mask.png
    folder = "/".join(PurePosixPath(image.name).parts[:-1])
    sample = Sample(f"{name}:{readable(image.name)}", image.offset_data, image.size, folder)
    if text := _text(file, members.get("cls")):
        sample.number = int(text) if text.lstrip("-").isdecimal() and text.isascii() and len(text) < 19 else text
    if text := _text(file, members.get("json")):
        try:
            _describe(sample, json.loads(text))
        except (ValueError, RecursionError):
            scanned.leave_out("damaged JSON members", members["json"].name)
    scanned.samples.append(sample)


def _text(file: BinaryIO, member: tarfile.TarInfo | None) -> str:
    """The content of a small text member; empty if there is none."""
    if member is None or member.size > LONGEST:
        return ""
    file.seek(member.offset_data)
    return file.read(member.size).decode("utf-8", "replace").strip()


def _describe(sample: Sample, content: Any) -> None:
    """Add the content of a JSON member to its sample: label and, in shards of `selftaught shard`, the original path."""
    if not isinstance(content, dict):
        content = {LABEL_COLUMNS[0]: content}
    names = [content[name] for name in LABEL_COLUMNS if isinstance(content.get(name), str | int | float)]
    sample.name = names[0] if names else None
    title = content.get("path")
    if isinstance(title, str) and 0 < len(title) <= LONGEST_TITLE:
        sample.title = readable(title)
