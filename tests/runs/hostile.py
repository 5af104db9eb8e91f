"""Run folders as a stranger might prepare them: links, pipes, programs named pictures, bombs, escapes, lies.

`HAZARDS` plants one hazard each into a copy of a valid run; `Outside` holds what must stay unread, unwritten and unrun.
As a script it prints what every command says of every hazard: `python -m tests.runs.hostile RUN IMAGES`.
"""

import io
import json
import os
import shutil
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from pickle import dumps
from typing import Any

import torch

SECRET = "correct horse battery staple"
ESCAPE = "\x1b]0;owned\x07\x1b[31m\u202e\x9b2J[bold]x[/nothing]"
OPENED: list[str] = []
"""Paths that were opened while `watched` was active."""
_watching = [False]


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if _watching[0] and event == "open" and isinstance(arguments[0], str | bytes):
        OPENED.append(os.fsdecode(arguments[0]))


sys.addaudithook(_note)


@contextmanager
def watched() -> Iterator[list[str]]:
    """What is opened within the block, by path."""
    OPENED.clear()
    _watching[0] = True
    try:
        yield OPENED
    finally:
        _watching[0] = False


class Outside:
    """What lies beside the run folder: private files, and programs and pickles that leave a trace when they run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.secret, self.trace = folder, folder / "secret.txt", folder / "trace"
        self.programs = folder / "bin"
        self.programs.mkdir(parents=True)
        self.secret.write_text(SECRET)
        (folder / "private").mkdir()
        (folder / "private" / "views.png").write_text(SECRET)
        (folder / "private" / "probe.json").write_text(SECRET)
        for name in ("gs", "gswin32c", "eps2pdf"):
            program = self.programs / name
            program.write_text(f"#!/bin/sh\ntouch {self.trace}\n")
            program.chmod(0o755)
        self.before = self.contents()

    def contents(self) -> dict[str, tuple[bytes, int]]:
        """Every file, its bytes and when it was changed."""
        return {
            str(path): (path.read_bytes(), path.stat().st_mtime_ns)
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }


class Marker:
    """Unpickled by a loader that runs code, leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (os.system, (f"touch {self.trace}",))


def png(width: int, height: int, rows: int = 1) -> bytes:
    """A grey PNG whose header claims a size; `rows` of it are there."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress((b"\0" + bytes(width)) * rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n%%EOF\n"
ALIASES = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
)


def replace(path: Path, content: bytes | str) -> None:
    """Another file in the place of what is there."""
    path.parent.mkdir(exist_ok=True)
    remove(path)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def link(path: Path, target: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    remove(path)
    path.symlink_to(target)


def pipe(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    remove(path)
    os.mkfifo(path)


def edit(path: Path, **changes: object) -> None:
    """Change fields of a JSON file."""
    replace(path, json.dumps({**json.loads(path.read_text()), **changes}))


def edit_config(run: Path, **changes: object) -> None:
    """Change settings of the config, or drop them (None); JSON is YAML."""
    import yaml

    config = yaml.safe_load((run / "config.yaml").read_text())
    kept = {name: value for name, value in {**config, **changes}.items() if value is not None}
    replace(run / "config.yaml", json.dumps(kept))


def digested(content: bytes) -> bytes:
    """As checkpoints end."""
    return content + blake2b(content, digest_size=32).digest()


def bomb(compression: int = zipfile.ZIP_DEFLATED, size: int = 2**24) -> bytes:
    """A checkpoint of a few kilobytes that unpacks to 64 megabytes of zeros."""
    torch.save({"step": 6, "weights": torch.zeros(size)}, written := io.BytesIO())
    packed = io.BytesIO()
    with zipfile.ZipFile(written) as source, zipfile.ZipFile(packed, "w", compression) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    return digested(packed.getvalue())


def pickled(trace: Path) -> bytes:
    torch.save({"step": 6, "weights": Marker(trace)}, written := io.BytesIO())
    return digested(written.getvalue())


def lying(header: dict[str, object], length: int | None = None, body: bytes = b"\0" * 16) -> bytes:
    """A safetensors file whose header says what we like."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def everywhere(run: Path, make: Callable[[Path], None]) -> None:
    for path in sorted(path for path in run.rglob("*") if path.is_file()):
        if path.name != "config.yaml":
            make(path)


def first(run: Path, folder: str) -> Path:
    return sorted((run / folder).glob("*.json"))[0]


Hazard = Callable[[Path, Outside], None]
FILES = (
    "config.yaml", "run.json", "log.jsonl", "encoder.json", "encoder.safetensors", "skipped.txt", "report.html",
    "report.html.part", ".lock", "checkpoint/last.pt", "shown/views.png", "probes/a.json", "audit/a.json",
    "invariance/a.json", "pictures/a.json", "pictures/toy.png",
)  # fmt: skip
FOLDERS = ("checkpoint", "shown", "probes", "audit", "invariance", "pictures")

HAZARDS: dict[str, Hazard] = {
    **{f"link {name}": lambda run, out, name=name: link(run / name, out.secret) for name in FILES},
    **{f"link {name}/": lambda run, out, name=name: link(run / name, out.folder / "private") for name in FOLDERS},
    **{f"pipe {name}": lambda run, out, name=name: pipe(run / name) for name in FILES if "html" not in name},
    **{f"folder {name}": lambda run, out, name=name: (remove(run / name), (run / name).mkdir()) for name in FILES[:6]},
    "dangling": lambda run, out: everywhere(run, lambda path: link(path, out.folder / "new")),
    "postscript": lambda run, out: replace(run / "shown" / "views.png", POSTSCRIPT),
    "wide picture": lambda run, out: replace(run / "shown" / "views.png", png(17_000, 2, 2)),
    "picture bomb": lambda run, out: replace(run / "shown" / "views.png", png(60_000, 60_000)),
    "short picture": lambda run, out: replace(run / "shown" / "views.png", png(500, 500)),
    "postscript drawn": lambda run, out: replace(run / "pictures" / "toy.png", POSTSCRIPT),
    "drawn bomb": lambda run, out: replace(run / "pictures" / "toy.png", png(60_000, 60_000)),
    "escapes in a title": lambda run, out: edit(first(run, "pictures"), title=ESCAPE, note=ESCAPE),
    "aliases": lambda run, out: replace(run / "config.yaml", ALIASES),
    "yaml code": lambda run, out: replace(
        run / "config.yaml", f'task: !!python/object/apply:os.system ["touch {out.trace}"]'
    ),
    "yaml depth": lambda run, out: replace(run / "config.yaml", "a: " + "[" * 5000 + "]" * 5000),
    "yaml size": lambda run, out: replace(run / "config.yaml", "task: " + "x" * 2**21),
    "yaml tag": lambda run, out: replace(run / "config.yaml", 'steps: !!int ""'),
    "not utf-8": lambda run, out: everywhere(run, lambda path: replace(path, b"\xff\xfe\x00")),
    "escapes in config": lambda run, out: edit_config(run, task=ESCAPE),
    "escapes in data": lambda run, out: edit_config(run, data=[ESCAPE]),
    "escapes in status": lambda run, out: edit(run / "run.json", source=ESCAPE, hardware=ESCAPE, status=ESCAPE),
    "escapes in a probe": lambda run, out: edit(first(run, "probes"), data=ESCAPE, spread=ESCAPE, probe=ESCAPE),
    "escapes in a name": lambda run, out: shutil.copy(first(run, "probes"), run / "probes" / "\x1b[31m.json"),
    "escapes in a damaged name": lambda run, out: replace(run / "probes" / "\x1b[31m.json", "{"),
    "escapes in skipped": lambda run, out: replace(run / "skipped.txt", ESCAPE * 3),
    "escapes in layers": lambda run, out: edit(
        first(run, "probes"), layers=[{"layer": ESCAPE, "accuracy": 0.5, "random": 0.4}]
    ),
    "numbers": lambda run, out: edit(run / "run.json", step=10**400),
    "many digits": lambda run, out: replace(run / "run.json", '{"step": ' + "9" * 5000 + "}"),
    "infinity": lambda run, out: edit(first(run, "probes"), pixels=float("inf"), test=-5),
    "huge log": lambda run, out: replace(run / "log.jsonl", '{"step": 1, "seconds": 1e400, "loss": 1e308}\n' * 9),
    "long line": lambda run, out: replace(run / "log.jsonl", '{"step": 1, "x": "' + "y" * 2**20 + '"}\n'),
    "huge size": lambda run, out: edit_config(run, size=10**9),
    "huge steps": lambda run, out: edit_config(run, steps=10**30),
    "json depth": lambda run, out: replace(first(run, "probes"), '{"layers":' + "[" * 900 + "]" * 900 + "}"),
    "pickle": lambda run, out: replace(run / "checkpoint" / "last.pt", dumps(Marker(out.trace))),
    "torch pickle": lambda run, out: replace(run / "checkpoint" / "last.pt", pickled(out.trace)),
    "zip bomb": lambda run, out: replace(run / "checkpoint" / "last.pt", bomb()),
    "pickled weights": lambda run, out: replace(run / "encoder.safetensors", dumps(Marker(out.trace))),
    "lying offsets": lambda run, out: replace(
        run / "encoder.safetensors", lying({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}})
    ),
    "lying length": lambda run, out: replace(run / "encoder.safetensors", lying({}, 2**60)),
    "download": lambda run, out: edit_config(run, data=["food101"]),
    "private data": lambda run, out: edit_config(run, data=[str(out.secret)]),
    "published": lambda run, out: edit_config(run, encoder="timm:resnet18", pretrained=True, width=None),
    "hub": lambda run, out: edit_config(run, encoder="timm:hf-hub:nobody/nothing", width=None),
    "many files": lambda run, out: [(run / "probes" / f"{n}.json").touch() for n in range(2001)],
}


def commands(run: Path, images: Path, new: Path) -> dict[str, list[str]]:
    """Every command that reads a run."""
    return {
        "report": ["report", str(run)],
        "compare": ["compare", str(run)],
        "config": ["pretrain", str(images), "--config", str(run / "config.yaml"), "--steps", "1", "--out", str(new)],
        "resume": ["pretrain", "--resume", "--out", str(run)],
        "probe": ["probe", str(run), "--data", str(images)],
        "invariance": ["invariance", str(run), "--data", str(images), "--images", "4"],
        "audit": ["audit", str(run), "--images", "16"],
    }


def main() -> None:
    """Print a table for a person."""
    import contextlib
    import tempfile

    from selftaught import cli

    valid, images = map(Path, sys.argv[1:3])
    for name, plant in HAZARDS.items():
        with tempfile.TemporaryDirectory() as place:
            outside = Outside(Path(place) / "outside")
            os.environ["PATH"] = f"{outside.programs}:{os.environ['PATH']}"
            run = Path(shutil.copytree(valid, Path(place) / "run"))
            plant(run, outside)
            for command, words in commands(run, images, Path(place) / "new").items():
                out, err = io.StringIO(), io.StringIO()
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                    try:
                        code: object = cli.main(words)
                    except BaseException as error:
                        code = f"TRACEBACK {error!r}"
                said = [line for line in err.getvalue().splitlines() if line.startswith("selftaught: ")]
                hurt = "" if outside.contents() == outside.before else "  OUTSIDE CHANGED"
                print(f"{name} | {command} | {code} | {' '.join(said).replace(place, '')[:230]}{hurt}", flush=True)


if __name__ == "__main__":
    main()


def require_harmless(code: int, said: Any, outside: Outside, opened: Iterable[str]) -> None:
    """A command succeeded or printed one short, printable sentence; nothing outside was read, written or executed."""
    assert code in (0, 2)
    assert "Traceback" not in said.err
    sentences = [line for line in said.err.splitlines() if line.startswith("selftaught: ")]
    assert len(sentences) == (code == 2), said.err
    assert all(len(line) < 1500 for line in sentences)
    assert not any(char in said.out + said.err for char in "\x1b\x07\x9b\u202e")
    assert not outside.trace.exists()
    assert not [path for path in opened if Path(path).is_relative_to(outside.folder)]
    assert outside.contents() == outside.before
