"""A small valid run with every kind of file."""

import json
from pathlib import Path

import torch
from PIL import Image

from selftaught import cli
from selftaught.analysis.audit_table import AuditRow, AuditTable
from selftaught.analysis.invariance import Distances, InvarianceTable

TINY = ["--size", "16", "--batch-size", "8", "--precision", "32", "--steps", "2", "--width", "8", "--threads", "1"]


def make_images(root: Path) -> Path:
    """Thirty pictures of noise in two classes."""
    generator = torch.Generator().manual_seed(0)
    for number in range(30):
        pixels = torch.randint(256, (20, 20, 3), generator=generator, dtype=torch.uint8)
        folder = root / ("left", "right")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    return root


def make_run(root: Path, images: Path) -> Path:
    """Pretrained by the command; results as `probe`, `audit` and `invariance` would write them."""
    run = root / "run"
    assert cli.main(["pretrain", str(images), "--out", str(run), *TINY]) == 0
    layers = [{"layer": f"layer{n}", "accuracy": 0.5 + n / 10, "random": 0.5, "lambda": 1.0} for n in range(3)]
    probe = {"data": "toy", "layers": layers, "chance": 0.5, "pixels": 0.5, "probe": "ridge", "train": 8, "test": 8}
    rows = tuple(
        AuditRow(name, kind, name, 0.8, "as trained", 0.8, 0.1)
        for name, kind in (("as trained", "trained"), ("grayscale", "removed"), ("vignette", "planted"))
    )
    distances = tuple(
        Distances(layer, name, 0.2, None, 0.4, None, (9, *[0] * 39), (*[0] * 39, 9))
        for layer in ("layer0", "layer1")
        for name in ("rotation", "crop")
    )
    results = {
        "probes": probe,
        "audit": AuditTable("toy", "accuracy", 0.25, 16, 1, rows).to_json(),
        "invariance": InvarianceTable("toy", 16, 1, False, distances).to_json(),
    }
    results["pictures"] = {"kind": "attention", "title": "Attention maps", "note": "p = 1", "data": "toy"}
    for folder, result in results.items():
        (run / folder).mkdir()
        (run / folder / "toy.json").write_text(json.dumps({**result, "step": 2}))
    Image.new("RGB", (8, 8)).save(run / "pictures" / "toy.png")
    (run / "skipped.txt").write_text("a.png: is empty\n")
    return run
