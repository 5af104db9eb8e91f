"""Writes docs/tasks/: a page for every pretext task, made from its docstrings and fields, and its row of results.

    make docs                                 # the pages, and the pictures that are missing (a minute or two each)
    .venv/bin/python docs/make.py jigsaw      # the same, and these tasks' pictures anew

Pictures are views of crops of photos that packages carry; where a task makes pictures, it was trained on these photos
for some hundred steps first. Nothing is downloaded.
"""

import inspect
import json
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from selftaught.api.demo import which_photo
from selftaught.api.pretrain import pretrain
from selftaught.config.build import load_pretraining
from selftaught.config.settings import Setting, offered
from selftaught.contracts import Task
from selftaught.figures.grid import enlarge
from selftaught.pretext import TASKS, task_class
from selftaught.rendering.render import render

HERE = Path(__file__).parent
MEASURED = HERE.parent / "results" / "tasks.json"
PHOTOS = ("chelsea", "china", "astronaut", "coffee", "flower", "rocket")
SCENES = 1000
"""Rendered scenes for tasks that need them."""
SHOWN = 8
"""Images in a picture."""
WIDE = 640
"""Pixels along a picture, at most."""
HEIGHT = {"igpt": 64}
"""What views are magnified to, in pixels, where it is not 128: its pictures come in rows of eight."""
GUTTER = 8
"""White pixels between pictures: more than between tiles."""
LARGEST = 60_000
"""Bytes of a picture, at most."""
OPTIONS: Mapping[str, dict[str, Any]] = {
    "context": {"size": 96},
    "jigsaw": {"size": 96},
    "autoencoder": {"steps": 200, "size": 32},
    "colorization": {"steps": 400},
    "inpainting": {"steps": 200, "size": 32},
    "gan": {"steps": 600, "size": 32},
    "bigan": {"steps": 6000, "size": 32},
    "mae": {"steps": 150, "size": 32, "encoder": "vit"},
    "igpt": {"steps": 150, "size": 16, "encoder": "gpt"},
    "synthetic": {"steps": 250},
}
"""What tasks are shown with, beside their defaults; those without `steps` make no pictures and are shown untrained."""


def main(anew: Sequence[str]) -> None:
    """Write every page, and the pictures that are missing or named."""
    for name in TASKS:
        picture = HERE / "tasks" / f"{name}.png"
        if name in anew or not picture.exists():
            draw(name, picture)
        (HERE / "tasks" / f"{name}.md").write_text(page(name, measured(name)))


def measured(name: str) -> list[dict[str, Any]]:
    """What results/tasks.json knows of a task."""
    found = json.loads(MEASURED.read_text()) if MEASURED.exists() else []
    return [row for row in found if row["task"] == name]


def page(name: str, results: Sequence[Mapping[str, Any]]) -> str:
    """The page of a task, as Markdown."""
    task = task_class(name)
    idea, *more = (inspect.getdoc(inspect.getmodule(task)) or "").split("\n\n")
    title, _, question = " ".join(idea.split()).partition(": ")
    said = [text(part) for part in more if not part.startswith("Letters:")]
    own = [setting for setting in offered(name, encoder(name)) if setting.owner == f"Task {name}"]
    parts = [
        f"# {title}",
        question[:1].upper() + question[1:],
        *said,
        f"![Views of {name}]({name}.png)",
        f"*{caption(name)}*",
        "## To train it",
        f"    {command(name)}",
        "What is true of every run (budget, size of views, optimizer) is in `selftaught pretrain --help`.",
        *advised(task),
        "## Its settings",
        table(("setting", "default", "what it does"), [row(setting) for setting in own]),
    ]
    if task.shortcut_guards:
        parts += [
            "## What its audit switches",
            "`selftaught audit RUN` ([what that is](../audit.md)) asks the trained net again with each of these "
            "guards switched, beside changes of the images:",
            table(
                ("guard", "off", "on"),
                [(each, code(off), code(on)) for each, (off, on) in task.shortcut_guards.items()],
            ),
        ]
    parts += ["## Measured", *(result(row) for row in results)]
    if not results:
        parts.append("Not measured yet. What was measured of other tasks is in [results](../../results/README.md).")
    return "\n\n".join([*parts, "*Made from the code by `make docs`: change it there.*"]) + "\n"


def encoder(name: str) -> str:
    """What the task is shown with."""
    return str(OPTIONS.get(name, {}).get("encoder", "convnet"))


def command(name: str) -> str:
    """What starts it."""
    with_encoder = "" if encoder(name) == "convnet" else f" --encoder {encoder(name)}"
    source = "scenes" if is_rendered(name) else "my/images"
    return f"selftaught pretrain {source} --task {name}{with_encoder} --minutes 10 --out runs/{name}"


def advised(task: type[Task]) -> list[str]:
    """How it wants its weights to move, where that is not as usual."""
    return [f"It comes with its own {code(task.defaults)}."] if task.defaults else []


def is_rendered(name: str) -> bool:
    """Whether the task needs rendered images."""
    return "depth" in task_class(name)().required_targets()


def caption(name: str) -> str:
    """What the picture shows, in the words of the task."""
    said = " ".join((inspect.getdoc(task_class(name).visualize) or "").split("\n\n")[0].split())
    steps = OPTIONS.get(name, {}).get("steps")
    said = re.sub(r" \(\w+, [^)]*\)", "", said)  # shapes are for those who read code
    images = "rendered scenes" if is_rendered(name) else f"crops of {len(PHOTOS)} photos"
    return text(said) + (f" After {steps} steps on {images}." if steps else "")


def text(said: str) -> str:
    """A docstring's paragraph as Markdown: on one line, its addresses as links, brackets not taken for tags."""
    plain = " ".join(said.split()).replace("<", "&lt;").replace("*", "\\*")
    return re.sub(r"https?://[^\s)]*[^\s).,;]", r"<\g<0>>", plain)


def row(setting: Setting) -> tuple[str, str, str]:
    """A setting: its flag, its default, what it says."""
    choices = get_args(setting.annotation) if get_origin(setting.annotation) is Literal else ()
    others = [str(choice) for choice in choices if choice != setting.default]
    of = f" (or {', '.join(others)})" if others else ""
    return f"`--{setting.name.replace('_', '-')}`", value(setting.default) + of, text(setting.help)


def value(found: object) -> str:
    """A setting's value as it is written on the command line."""
    if isinstance(found, tuple):
        return " ".join(map(value, found))
    if isinstance(found, bool):
        return "yes" if found else "no"
    return f"{found:.4g}" if isinstance(found, float) else "none" if found is None else str(found)


def code(fields: Mapping[str, object]) -> str:
    """Fields as flags."""
    flags = []
    for name, found in fields.items():
        flag = name.replace("_", "-")
        flags.append(f"--{flag}" if found is True else f"--no-{flag}" if found is False else f"--{flag} {value(found)}")
    return f"`{' '.join(flags)}`"


def result(found: Mapping[str, Any]) -> str:
    """What was measured of it, best layer in bold."""
    best = max(layer["accuracy"] for layer in found["layers"])
    rows = []
    for layer in found["layers"]:
        spread = f" ± {layer['std']:.3f}" if layer.get("std") is not None else ""
        accuracy = f"{layer['accuracy']:.3f}{spread}"
        shown = f"**{accuracy}**" if layer["accuracy"] == best else accuracy
        rows.append((layer["layer"], shown, f"{layer['random']:.3f}", f"{layer['accuracy'] - layer['random']:+.3f}"))
    seeds = f"{found['seeds']} seed{'s' if found['seeds'] != 1 else ''}"
    steps = f" ({found['steps']:,} steps)" if "steps" in found else ""
    options = f", with {code(found['options'])}" if found.get("options") else ""
    net = f", `{found['encoder']}`, views of {found['size']} px" if "encoder" in found else ""
    parts = [f"{found['data']}{net}, {value(found['minutes'])} minutes{steps}, {seeds}{options}:"]
    for name, level in found.get("solved", {}).items():
        said = name.replace("_", " ").capitalize()
        parts.append(f"{said} {level['reached']:.3f} at the end (chance {level['chance']:.3f}).")
    if found.get("command"):
        parts.append(f"    {found['command']}")
    parts.append(table(("layer", "accuracy", "random weights", "gain"), rows))
    return "\n\n".join([*parts, *([text(found["note"])] if found.get("note") else [])])


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    cells = [[str(cell).replace("|", "\\|") for cell in line] for line in (heads, ["---"] * len(heads), *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def draw(name: str, path: Path) -> None:
    """Train as long as is needed to have something to show, and show it."""
    if "label" in task_class(name)().required_targets():
        draw_labeled(name, path)
        return
    options: dict[str, Any] = {"steps": 1, "size": 64, "batch_size": 32, **OPTIONS.get(name, {})}
    plain = {"crop_rotation": 0.0, "crop_jitter": 0.0, "crop_area": (0.1, 1.0), "num_crops": 2000}
    with tempfile.TemporaryDirectory() as folder:
        source: Any = list(PHOTOS)
        if is_rendered(name):
            source, plain = render(SCENES, size=64, out=Path(folder) / "scenes"), {}
        made = pretrain(source, task=name, out=Path(folder) / "run", device="cpu", **plain, **options)
        if not made.finished:
            sys.exit(f"{name} was stopped: no picture")
        run, _ = load_pretraining(made.folder)
    run.encoder.eval(), run.heads.eval()
    views = run.task.views(run.source.batch(torch.arange(SHOWN), torch.device("cpu")), torch.Generator().manual_seed(1))
    with torch.no_grad():
        shown = run.task.visualize(run.encoder, run.heads, views)
    path.parent.mkdir(exist_ok=True)
    save(list(shown.values()), path, HEIGHT.get(name, 128))


def draw_labeled(name: str, path: Path) -> None:
    """Show the views of a task that needs labels: of crops labeled with their photo."""
    task, (source, _) = task_class(name)(size=64), which_photo(64)
    batch = source.batch(torch.arange(SHOWN), torch.device("cpu"))
    save([task.views(batch, torch.Generator().manual_seed(1))["images"]], path, 128)


def save(shown: Sequence[Tensor], path: Path, height: int) -> None:
    """Lay pictures out, two rows of each kind or one of several, in as many colours as the file may take."""
    blocks = []
    for pictures in shown:
        tall, wide = pictures.shape[-2:]
        large = enlarge(pictures.float().cpu(), max(1, round(height / max(tall, wide / 2))))
        columns = max(1, min(8, WIDE // (large.shape[-1] + GUTTER)))
        rows = 2 if len(shown) == 1 or columns == 8 else 1
        block = make_grid(large[: rows * columns].clamp(0, 1), columns, GUTTER, pad_value=1.0)
        blocks.append(F.pad(block, (0, WIDE - block.shape[-1]), value=1.0))
    whole = Image.fromarray((255 * torch.cat(blocks, 1)).round().byte().permute(1, 2, 0).numpy())
    for colors in (256, 128, 64, 32):
        whole.quantize(colors).save(path, optimize=True)
        if path.stat().st_size < LARGEST:
            return


if __name__ == "__main__":
    main(sys.argv[1:])
