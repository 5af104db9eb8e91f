"""Generate docs/tasks/: one page for each pretext task, from its docstrings, its settings and its results.

    make docs                                 # all pages, and the missing pictures (a minute or two each)
    .venv/bin/python docs/make.py jigsaw      # all pages, and new pictures of the named tasks

Pictures show views of crops of photos bundled with scikit-learn and scikit-image, or of rendered scenes. Tasks that
generate images are trained on these for some hundred steps first. Nothing is downloaded.
"""

import inspect
import json
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from selftaught.api.demo import which_photo
from selftaught.api.pretrain import pretrain
from selftaught.config.build import load_pretraining
from selftaught.config.settings import Setting, offered
from selftaught.contracts import Source, Task
from selftaught.figures.grid import enlarge
from selftaught.pretext import TASKS, task_class
from selftaught.rendering.render import render

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "results" / "tasks.json"
LIMITS = DOCS / "limits.yaml"
PHOTOS = ("chelsea", "china", "astronaut", "coffee", "flower", "rocket")
NUM_SCENES = 1000
"""Number of rendered scenes, for tasks that need them."""
NUM_IMAGES = 8
"""Number of images in a picture."""
PICTURE_WIDTH = 640
"""Maximum width of a picture in pixels."""
VIEW_HEIGHT = {"igpt": 64}
"""Height in pixels to which views are enlarged, where it is not 128: iGPT's come in rows of eight."""
PADDING = 8
"""White pixels between views: more than between tiles."""
MAX_BYTES = 60_000
"""Maximum size of a picture file."""
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
"""Settings of the runs that make the pictures. Tasks without `steps` generate no images: their views are shown."""


def main(redrawn: Sequence[str]) -> None:
    """Write every page, and the pictures that are missing or named."""
    for name in TASKS:
        picture = DOCS / "tasks" / f"{name}.png"
        if name in redrawn or not picture.exists():
            draw(name, picture)
        (DOCS / "tasks" / f"{name}.md").write_text(page(name, results_of(name)))


def results_of(name: str) -> list[dict[str, Any]]:
    """The entries of a task in results/tasks.json."""
    entries = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    return [entry for entry in entries if entry["task"] == name]


def page(name: str, results: Sequence[Mapping[str, Any]]) -> str:
    """The page of a task, as Markdown."""
    task = task_class(name)
    first, *paragraphs = (inspect.getdoc(inspect.getmodule(task)) or "").split("\n\n")
    title, _, method = " ".join(first.split()).partition(": ")
    own = [setting for setting in offered(name, encoder(name)) if setting.owner == f"Task {name}"]
    parts = [
        f"# {title}",
        method,
        *(text(paragraph) for paragraph in paragraphs if not paragraph.startswith("Letters:")),
        f"![Example views of {name}]({name}.png)",
        f"*{caption(name)}*",
        "## Training",
        f"    {command(name)}",
        *default_settings(task),
        "## Settings",
        table(("setting", "default", "meaning"), [setting_row(setting) for setting in own]),
        "General settings (budget, size of the views, optimizer): `selftaught pretrain --help`.",
        "## Evaluation",
        *evaluation(name, task),
        *guards(task),
        "## Results",
        *(result(entry) for entry in results),
        *([] if results else ["Not in the [table of all tasks](../../results/all-tasks.md) yet."]),
        "## Limits",
        limits(name),
        "*Generated from the code by `make docs`.*",
    ]
    return "\n\n".join(parts) + "\n"


def encoder(name: str) -> str:
    """The encoder of the task's example run."""
    return str(OPTIONS.get(name, {}).get("encoder", "convnet"))


def command(name: str) -> str:
    """The command of an example run."""
    with_encoder = "" if encoder(name) == "convnet" else f" --encoder {encoder(name)}"
    source = "scenes" if is_rendered(name) else "my/images"
    return f"selftaught pretrain {source} --task {name}{with_encoder} --minutes 10 --out runs/{name}"


def default_settings(task: type[Task]) -> list[str]:
    """The general settings of which the task has another default."""
    return [f"General settings with another default for this task: {code(task.defaults)}."] if task.defaults else []


def evaluation(name: str, task: type[Task]) -> list[str]:
    """How runs of the task are evaluated, by the attributes of its class."""
    features = [
        "**Features:** a probe on every layer, compared with random weights, raw pixels and chance, and fine-tuning "
        "with few or all labels ([evaluation](../evaluation.md)):",
        f"    selftaught probe runs/{name} --data cifar10",
    ]
    if task().encoder_options():
        features.append("Random weights get the same input preprocessing.")
    if task().uses_tiles():
        features.append(
            "The encoder is trained on tiles, so its batch statistics are recomputed on whole images first."
        )
    levels = task().chance(example_source(), 64)
    logged = " and ".join(f"`{value}`" for value in levels)
    if not levels:
        pretext = "no logged value has a chance level, so there is no shortcut audit."
    elif any(value in inspect.getsource(task.critic_loss) for value in levels):
        pretext = f"{logged} of the critic, logged with the chance level during training. There is no shortcut audit."
    else:
        pretext = f"{logged} on the views of each batch, logged with the chance level during training. "
        pretext += f"`selftaught audit runs/{name}` tests whether shortcuts are used ([audit](../audit.md))"
        pretext += ", on the pretraining images only." if task.index_based else "."
    return [*features, f"**Pretext task:** {pretext}"]


@cache
def example_source() -> Source:
    """Crops of bundled photos, labeled with their photo."""
    return which_photo(64)[0]


def guards(task: type[Task]) -> list[str]:
    """The guards against shortcuts that an audit switches off and on."""
    if not task.shortcut_guards:
        return []
    rows = [(name, code(off), code(on)) for name, (off, on) in task.shortcut_guards.items()]
    return ["Guards against shortcuts that the audit switches off and on:", table(("guard", "off", "on"), rows)]


def limits(name: str) -> str:
    """Where the task fails, from limits.yaml."""
    texts = yaml.safe_load(LIMITS.read_text())
    if name not in texts:
        sys.exit(f"docs/limits.yaml has no entry for {name}: describe there where the task fails.")
    return str(texts[name]).strip()


def is_rendered(name: str) -> bool:
    """Whether the task needs rendered images."""
    return "depth" in task_class(name)().required_targets()


def caption(name: str) -> str:
    """What the picture shows: the docstring of the task's own `visualize`, without shapes."""
    visualize = task_class(name).visualize
    if visualize is Task.visualize:
        return "Images as the encoder gets them."
    summary = " ".join((inspect.getdoc(visualize) or "").split("\n\n")[0].split())
    summary = re.sub(r" \(\w+, [^)]*\)", "", summary)
    steps = OPTIONS.get(name, {}).get("steps")
    images = "rendered scenes" if is_rendered(name) else f"crops of {len(PHOTOS)} photos"
    return text(summary) + (f" After {steps} steps on {images}." if steps else "")


def text(paragraph: str) -> str:
    """A paragraph of a docstring as one line of Markdown, with links and without accidental markup."""
    line = " ".join(paragraph.split()).replace("<", "&lt;").replace("*", "\\*")
    return re.sub(r"https?://[^\s)]*[^\s).,;]", r"<\g<0>>", line)


def setting_row(setting: Setting) -> tuple[str, str, str]:
    """A setting: its flag, its default with the alternatives, its help text."""
    choices = get_args(setting.annotation) if get_origin(setting.annotation) is Literal else ()
    others = [str(choice) for choice in choices if choice != setting.default]
    alternatives = f" (or {', '.join(others)})" if others else ""
    return f"`--{setting.name.replace('_', '-')}`", as_argument(setting.default) + alternatives, text(setting.help)


def as_argument(value: object) -> str:
    """The value of a setting as on the command line."""
    if isinstance(value, tuple):
        return " ".join(map(as_argument, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else "none" if value is None else str(value)


def code(settings: Mapping[str, object]) -> str:
    """Settings as flags."""
    flags = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        switch = {True: f"--{flag}", False: f"--no-{flag}"} if isinstance(value, bool) else {}
        flags.append(switch[bool(value)] if switch else f"--{flag} {as_argument(value)}")
    return f"`{' '.join(flags)}`"


def result(entry: Mapping[str, Any]) -> str:
    """An entry of results/tasks.json: conditions, pretext accuracy and the accuracy of every layer, best in bold."""
    layers = entry["layers"]
    current = all("held_out" in layer for layer in layers)
    best = max(layers, key=lambda layer: layer["held_out" if current else "accuracy"])
    rows = []
    for layer in layers:
        std = f" ± {layer['std']:.3f}" if layer.get("std") is not None else ""
        accuracy = f"{layer['accuracy']:.3f}{std}"
        cell = f"**{accuracy}**" if layer is best else accuracy
        rows.append((layer["layer"], cell, f"{layer['random']:.3f}", f"{layer['accuracy'] - layer['random']:+.3f}"))
    seeds = f"{entry['seeds']} seed{'s' if entry['seeds'] != 1 else ''}"
    steps = f" ({entry['steps']:,} steps)" if "steps" in entry else ""
    options = f", {code(entry['options'])}" if entry.get("options") else ""
    setup = f", `{entry['encoder']}`, views of {entry['size']} px" if "encoder" in entry else ""
    parts = [f"**{entry['data']}**{setup}, {entry['minutes']:g} minutes{steps}, {seeds}{options}:"]
    if entry.get("command"):
        parts.append(f"    {entry['command']}")
    parts.append(table(("layer", "top-1 accuracy", "random weights", "gain"), rows))
    reached = [
        f"{name.replace('_', ' ')} {level['reached']:.3f} (chance {level['chance']:.3f})"
        for name, level in entry.get("solved", {}).items()
    ]
    notes = [f"Pretext task at the end of training: {', '.join(reached)}."] if reached else []
    notes += ["± is the standard deviation over seeds of pretraining."] if entry["seeds"] > 1 else []
    notes += [text(entry["note"])] if entry.get("note") else []
    notes += [f"Bold: the best layer on {'held-out training' if current else 'the test'} images."]
    return "\n\n".join([*parts, " ".join(notes)])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def draw(name: str, path: Path) -> None:
    """Draw the example views of a task, after some training if it generates images."""
    if "label" in task_class(name)().required_targets():
        draw_labeled(name, path)
        return
    options: dict[str, Any] = {"steps": 1, "size": 64, "batch_size": 32, **OPTIONS.get(name, {})}
    crops = {"crop_rotation": 0.0, "crop_jitter": 0.0, "crop_area": (0.1, 1.0), "num_crops": 2000}
    with tempfile.TemporaryDirectory() as folder:
        source: Any = list(PHOTOS)
        if is_rendered(name):
            source, crops = render(NUM_SCENES, size=64, out=Path(folder) / "scenes"), {}
        run = pretrain(source, task=name, out=Path(folder) / "run", device="cpu", **crops, **options)
        if not run.finished:
            sys.exit(f"{name} was interrupted: no picture")
        trained, _ = load_pretraining(run.folder)
    trained.encoder.eval(), trained.heads.eval()
    batch = trained.source.batch(torch.arange(NUM_IMAGES), torch.device("cpu"))
    views = trained.task.views(batch, torch.Generator().manual_seed(1))
    with torch.no_grad():
        images = trained.task.visualize(trained.encoder, trained.heads, views)
    path.parent.mkdir(exist_ok=True)
    save(list(images.values()), path, VIEW_HEIGHT.get(name, 128))


def draw_labeled(name: str, path: Path) -> None:
    """Draw the views of a task that needs labels: crops labeled with their photo."""
    task = task_class(name)(size=64)
    batch = example_source().batch(torch.arange(NUM_IMAGES), torch.device("cpu"))
    save([task.views(batch, torch.Generator().manual_seed(1))["images"]], path, 128)


def save(groups: Sequence[Tensor], path: Path, height: int) -> None:
    """Save groups of images below each other, two rows of one group or one of each, with as many colors as fit."""
    blocks = []
    for images in groups:
        rows_of_pixels, columns_of_pixels = images.shape[-2:]
        factor = max(1, round(height / max(rows_of_pixels, columns_of_pixels / 2)))
        large = enlarge(images.float().cpu(), factor)
        columns = max(1, min(8, PICTURE_WIDTH // (large.shape[-1] + PADDING)))
        rows = 2 if len(groups) == 1 or columns == 8 else 1
        block = make_grid(large[: rows * columns].clamp(0, 1), columns, PADDING, pad_value=1.0)
        blocks.append(F.pad(block, (0, PICTURE_WIDTH - block.shape[-1]), value=1.0))
    picture = Image.fromarray((255 * torch.cat(blocks, 1)).round().byte().permute(1, 2, 0).numpy())
    for colors in (256, 128, 64, 32):
        picture.quantize(colors).save(path, optimize=True)
        if path.stat().st_size < MAX_BYTES:
            return


if __name__ == "__main__":
    main(sys.argv[1:])
