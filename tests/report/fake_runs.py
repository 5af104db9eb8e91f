"""Run folders made by hand, as training and the probe would leave them."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

LAYERS = ("layer1", "layer2", "layer3", "layer4")


def probe(
    trained: Sequence[float],
    random: Sequence[float | None],
    data: str = "cifar10",
    layers: Sequence[str] = LAYERS,
    **changes: Any,
) -> dict[str, Any]:
    """A probe whose best layers are the same by held-out and test accuracy, and whose gain is ± 0.01."""
    rows = [
        {
            "layer": layer,
            "accuracy": accuracy,
            "std": 0.003,
            "held_out": accuracy,
            "random": chance,
            "random_std": None if chance is None else 0.005,
            "random_held_out": chance,
            "lambda": 10.0,
        }
        for layer, accuracy, chance in zip(layers, trained, random, strict=True)
    ]
    return {
        "gain": gain(trained, random, layers),
        "data": data,
        "metric": "accuracy",
        "chance": 0.1,
        "pixels": 0.402,
        "layers": rows,
        "spread": "Random weights: mean ± standard deviation over 3 random initializations.",
        "initializations": 3,
        "overlap": 0,
        "train": 50000,
        "test": 10000,
        "probe": "ridge",
        "dimensions": 9000,
    } | changes


def gain(
    trained: Sequence[float], random: Sequence[float | None], layers: Sequence[str], margin: float = 0.01
) -> dict[str, Any] | None:
    """What the probe says of its best layers; nothing where a number is missing."""
    known = [level for level in random if level is not None]
    if len(known) < len(layers):
        return None
    value = max(trained) - max(known)
    best, other = layers[trained.index(max(trained))], layers[random.index(max(known))]
    return {"layer": best, "random_layer": other, "value": value, "low": value - margin, "high": value + margin}


GOOD = probe([0.601, 0.674, 0.723, 0.655], [0.558, 0.563, 0.511, 0.478])


def fake_run(
    folder: Path,
    *,
    task: str = "rotation",
    encoder: str = "convnet",
    lines: int = 120,
    status: str = "finished",
    probes: Sequence[dict[str, Any]] = (GOOD,),
    shown: Sequence[str] = ("views",),
    skipped: Sequence[str] = (),
    seed: int = 0,
    **config: Any,
) -> Path:
    """A run of 20 steps a line whose accuracy climbs from 0.25 towards 0.8."""
    generator = torch.Generator().manual_seed(seed)
    folder.mkdir(parents=True)
    settings = {
        "data": ["../data/cifar10"], "task": task, "task_options": {"size": 32}, "encoder": encoder,
        "encoder_options": {"widths": [64, 128, 128]}, "steps": 20 * lines, "batch_size": 256, "seed": seed, "size": 32,
        "minutes": 5.0, "precision": "32-true", "device": "cpu",
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(settings | config, sort_keys=False), encoding="utf-8")
    noise = torch.randn(max(lines, 1), generator=generator)
    with (folder / "log.jsonl").open("w", encoding="utf-8") as log:
        for line in range(lines):
            part = 1 - math.exp(-3 * line / max(lines, 1))
            jitter = float(noise[line])
            found = {
                "step": 20 * (line + 1),
                "seconds": 2.5 * (line + 1),
                "images_per_second": 1850.0 + 20 * jitter,
                "learning_rate": 0.1 * (1 - line / lines),
                "loss": 1.386 - 0.9 * part + 0.03 * jitter,
                "accuracy": 0.25 + 0.55 * part + 0.02 * jitter,
            }
            log.write(json.dumps(found) + "\n")
    state = {
        "status": status,
        "step": 20 * lines,
        "steps": 2400,
        "seconds": 2.5 * lines,
        "images": 50000,
        "source": "../data/cifar10 (train)",
        "chance": {"accuracy": 0.25},
        "skipped": len(skipped),
        "hardware": "2 cores of a CPU",
        "version": "0.1.0",
        "torch": "2.15.0",
    }
    (folder / "run.json").write_text(json.dumps(state), encoding="utf-8")
    name = "stem.conv.weight"
    layers = {layer: [64, 2] for layer in LAYERS}
    described = {"name": encoder, "options": {}, "size": 32, "layers": layers, "filters": name}
    (folder / "encoder.json").write_text(json.dumps(described), encoding="utf-8")
    save_file({name: torch.randn(64, 3, 5, 5, generator=generator)}, str(folder / "encoder.safetensors"))
    for number, found in enumerate(probes):
        (folder / "probes").mkdir(exist_ok=True)
        (folder / "probes" / f"{number}.json").write_text(json.dumps(found), encoding="utf-8")
    for picture in shown:
        (folder / "shown").mkdir(exist_ok=True)
        pixels = torch.randint(0, 256, (4, 8, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).resize((270, 135)).save(folder / "shown" / f"{picture}.png")
    if skipped:
        (folder / "skipped.txt").write_text("\n".join(skipped) + "\n", encoding="utf-8")
    return folder


def probed_run(folder: Path, rates: tuple[float, float], seed: int = 0, count: int = 2000, **config: object) -> Path:
    """A run whose layers classify images correctly at these rates; layer2 is best on held-out images."""
    rng = np.random.default_rng([seed, int(1000 * rates[1])])
    easy = np.random.default_rng(0).random(count)  # shared: images are easy for all runs or for none
    correct = np.stack([0.8 * easy + 0.2 * rng.random(count) < rate for rate in rates])
    random = np.stack([easy < 0.3, easy < 0.2])[None]
    found = probe([0.4, 0.5], [0.3, 0.2], layers=LAYERS[:2], test=count, correctness="0.npz")
    run = fake_run(folder, probes=[found], seed=seed, **config)
    np.savez(
        run / "probes" / "0.npz",
        layers=np.array(LAYERS[:2]),
        trained=correct[None],
        random=random,
        labels=np.arange(count),
        test_ids=np.arange(count),
    )
    return run
