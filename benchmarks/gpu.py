"""Checks, speeds and one training on a GPU, in one script of less than ten minutes.

    python -m benchmarks.gpu --data /data/cifar10 --out gpu.json
    python -m benchmarks.gpu --device cpu --smoke --out gpu.json        # that it runs, in seconds

For every task, in fp32 and bf16: the loss of the first step is compared with that on the CPU in fp32 (same weights,
same views), a step is taken in which waiting for the device is an error (`torch.cuda.set_sync_debug_mode`), and steps
are timed: images per second, and the share of the peak of a large matrix product in the same precision. Images are
noise. RotNet (Gidaris et al. 2018) is trained first: rotation with the network-in-network encoder on CIFAR-10,
probed by ridge regression. The file is written after every part, so that what was measured is kept if time runs out.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

import selftaught
from benchmarks.images import noise
from selftaught.config.build import make_task
from selftaught.config.settings import Settings
from selftaught.data.dense import STORED
from selftaught.data.stored import Resident, Stored
from selftaught.encoders import make_encoder
from selftaught.encoders.inputs import require_input_sizes
from selftaught.errors import UserError
from selftaught.pretext import TASKS
from selftaught.training.loop import Pretraining
from selftaught.training.machine import hardware
from selftaught.training.plan import choose_device, make_fabric
from selftaught.training.profile import peak_throughput, wait
from selftaught.training.randomness import seeded_rng
from selftaught.training.trial import Trial

SIZES = (32, 64, 96, 128)
"""Sides of views; each task gets the first one at which its encoder can process its views."""
TOLERANCE = {"32": 0.01, "bf16": 0.05}
"""Largest difference of the first loss from that on the CPU, relative to it. Dropout draws other numbers on a GPU."""
PRECISIONS = ("32", "bf16")


def images(count: int, side: int) -> Stored:
    """Noise with random labels and dense targets."""
    rng = np.random.default_rng(0)
    dense = {
        name: rng.integers(0, 100, (count, channels, side, side)).astype(kind)
        for name, (channels, kind) in STORED.items()
    }
    labels = torch.arange(count) % 10
    targets = {name: Resident(array) for name, array in dense.items()}
    pixels, classes = Resident(noise(count, side)), tuple("abcdefghij")
    return Stored("noise", pixels, torch.arange(count), labels, classes, "noise", dense=targets)


def pretraining(name: str, source: Stored, batch_size: int) -> Pretraining:
    """A task with its default settings and encoder, at the first of `SIZES` that fits."""
    error: UserError | None = None
    for side in SIZES:
        settings = Settings.of(task=name)
        size = settings.general.size or side
        try:
            task = make_task(settings, size)
            options = {**settings.encoder, **task.encoder_options(), "size": size}
            with seeded_rng(0, "weights"):
                encoder = make_encoder(settings.general.encoder, **options)
                encoder.fit(source)
                require_input_sizes(encoder, task.view_sizes())
                heads = task.heads(encoder, source)
        except UserError as reason:
            error = reason
            continue
        batch = min(batch_size, len(source))
        return Pretraining(task, encoder, heads, source, settings.optimization, 1, batch, 0)
    assert error is not None
    raise error


def check(name: str, precision: str, source: Stored, device: torch.device, expected: float) -> dict[str, Any]:
    """Whether the first loss is that on the CPU, and whether a step waits for the device."""
    run = pretraining(name, source, 16)
    trial = Trial(run, make_fabric(device, precision, run.has_critic), False)
    loss = float(trial.step(0)["loss"])
    difference = abs(loss - expected) / abs(expected)
    with waiting_is_an_error(trial, device):
        trial.step(1)
    return {"loss": loss, "difference": difference, "agrees": bool(difference <= TOLERANCE[precision])}


@contextmanager
def waiting_is_an_error(trial: Trial, device: torch.device) -> Iterator[None]:
    """Within the block, a training step that waits for the GPU raises a RuntimeError; nothing on other devices."""
    step = trial.trainer.step

    def guarded(*arguments: Any) -> Any:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return step(*arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    if device.type == "cuda":
        trial.trainer.step = guarded  # type: ignore[method-assign]
    try:
        yield
    finally:
        trial.trainer.step = step  # type: ignore[method-assign]


def speed(
    name: str, precision: str, source: Stored, device: torch.device, options: argparse.Namespace, peak: float
) -> dict[str, Any]:
    """Images per second of the training step, and its share of the device's peak."""
    run = pretraining(name, source, options.batch_size)
    trial = Trial(run, make_fabric(device, precision, run.has_critic), False)
    with FlopCounterMode(display=False) as counted:
        trial.step(0)
    wait(device)
    begun, steps = monotonic(), 0
    while steps < 3 or monotonic() - begun < options.seconds:
        for _ in range(3):
            trial.step(steps + 1)
            steps += 1
        wait(device)
    seconds = (monotonic() - begun) / steps
    operations = counted.get_total_flops()
    return {
        "size": run.task.size,
        "batch_size": run.batch_size,
        "images_per_second": run.batch_size / seconds,
        "operations_per_step": operations,
        "share_of_peak": operations / seconds / peak,
    }


def train(data: str, device: torch.device, options: argparse.Namespace) -> dict[str, Any]:
    """RotNet on CIFAR-10: a short training, and probes of its layers."""
    budget = (
        {"steps": 1, "batch_size": 4, "size": 16} if options.smoke else {"minutes": options.minutes, "batch_size": 256}
    )
    with TemporaryDirectory() as folder:
        begun = monotonic()
        run = selftaught.pretrain(
            data, out=Path(folder) / "run", task="rotation", encoder="nin", device=str(device), **budget
        )
        trained = monotonic() - begun
        table = run.probe(data, device=str(device), dimensions=16 if options.smoke else None, baselines=())
        last = run.folder.read_log()[-1]
    best = max(table.layers, key=lambda row: row.held_out)
    return {
        "steps": int(last["step"]),
        "training_seconds": trained,
        "probe_seconds": monotonic() - begun - trained,
        "pretext_accuracy": last.get("accuracy"),
        "best_layer": best.layer,
        "accuracy": best.value,
        "random_weights": max(row.random for row in table.layers),
        "test_images": table.test,
    }


def small_folder(root: Path) -> str:
    """A labeled folder of tiny images, in place of CIFAR-10."""
    from PIL import Image

    for number, pixels in enumerate(noise(24, 32)):
        path = root / f"{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.transpose(1, 2, 0)).save(path)
    return str(root)


def measure(options: argparse.Namespace, record: dict[str, Any], save: Any) -> None:
    """Fill the record part by part, until all is done or the time is up."""
    device, end = choose_device(options.device), monotonic() + 60 * options.limit
    source = images(64 if options.smoke else 4096, 40)
    peaks = {"32": peak_throughput(device, torch.float32), "bf16": peak_throughput(device, torch.bfloat16)}
    record |= {"hardware": hardware(device), "operations_per_second": peaks, "tasks": {}}
    if options.data or options.smoke:
        with TemporaryDirectory() as folder:
            data = options.data or small_folder(Path(folder))
            record["rotnet"] = attempted(lambda: train(data, device, options))
        save()
    for name in options.tasks:
        found = record["tasks"].setdefault(name, {})
        run = pretraining(name, source, 16)
        cpu = torch.device("cpu")
        expected = float(Trial(run, make_fabric(cpu, "32", run.has_critic), False).step(0)["loss"])
        for precision in PRECISIONS:
            if monotonic() > end:
                record["incomplete"] = f"the time of {options.limit:g} minutes was up at {name}"
                return
            peak = max(peaks["32"], peaks[precision])
            found[precision] = attempted(partial(check, name, precision, source, device, expected))
            if "error" not in found[precision]:
                found[precision] |= attempted(partial(speed, name, precision, source, device, options, peak))
            save()


def attempted(work: Any) -> dict[str, Any]:
    """What a part returns, or its error, because the others are still wanted."""
    try:
        return work()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:500]}


def failures(record: dict[str, Any]) -> list[str]:
    """The parts that failed, or whose loss is not that on the CPU."""
    parts = {f"{name} {precision}": each for name, own in record["tasks"].items() for precision, each in own.items()}
    return [name for name, part in {**parts, "rotnet": record.get("rotnet", {})}.items()
            if "error" in part or not part.get("agrees", True)]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the file, and print a line per task; returns 1 if a part failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda", help="device to measure")
    parser.add_argument("--data", help="CIFAR-10: a name or path; default: no training")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="JSON file, overwritten")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), help="tasks to check and to measure")
    parser.add_argument("--batch-size", type=int, default=256, help="images per step")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds of a measurement")
    parser.add_argument("--minutes", type=float, default=3.0, help="minutes of the training of RotNet")
    parser.add_argument("--limit", type=float, default=9.0, help="minutes after which no other task is begun")
    parser.add_argument("--smoke", action="store_true", help="a tiny size that only checks that the script runs")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.batch_size, options.seconds = 8, 0.0
    record: dict[str, Any] = {
        "date": date.today().isoformat(),
        "command": ["python", "-m", "benchmarks.gpu", *(sys.argv[1:] if arguments is None else arguments)],
        "torch": torch.__version__,
        "selftaught": selftaught.__version__,
    }

    def save() -> None:
        options.out.write_text(json.dumps(record, indent=1) + "\n")

    begun = monotonic()
    measure(options, record, save)
    record["seconds"] = monotonic() - begun
    record["failures"] = failures(record)
    save()
    for name, own in record["tasks"].items():
        for precision, part in own.items():
            facts = part.get("error") or (
                f"{part['images_per_second']:,.0f} images/s, {part['share_of_peak']:.1%} of the peak, first loss "
                f"{part['difference']:.1e} from that on the CPU"
            )
            print(f"{name} {precision}: {facts}")
    print(f"rotnet: {record.get('rotnet', 'not trained, without --data')}")
    print(f"failed: {', '.join(record['failures']) or 'none'}; {record['seconds']:.0f} s, written to {options.out}")
    return 1 if record["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
