"""What processes send to each other in a training step: counted here, and computed for more GPUs.

    python -m benchmarks.communication
    python -m benchmarks.communication --tasks simclr --encoders timm:resnet50@224 --batch-size 4096 --gpus 8 64

Counted: two processes (`--count`) take a step on CPUs with a small batch and one with a batch twice as large. Every
collective operation of torch.distributed is counted, by what it is for, with the bytes P that a process contributes. P
has a part that does not depend on the batch and one that grows with it: in an all-gather (embeddings, entries of a
memory bank) with the images of the process, in an all-reduce (gradients of embeddings) with those of all processes.

Computed: on a ring of N processes each one sends (Patarasuk and Yuan, 2009)

    all-reduce    2 (N - 1) / N * P
    all-gather    (N - 1) * P
    broadcast     P

and every link of the ring carries as much. Within a node the links are those between GPUs; over several nodes the
slowest is the network of a node. An operation takes its bytes / bandwidth + a latency. For the processes that were
counted, the sum is compared with the bytes that the kernel reports for their TCP connections.

A GPU computes for as long as the floating-point operations of its images (counted) take at the given rate. The network
binds where all operations together take longer than that. Gradients are sent during the backward pass, two thirds of
the computation, so only what exceeds it is waited for; everything else is waited for.

Not modeled: reading images, contention, several network cards per node, trees instead of rings.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

from benchmarks.collectives import REST, Step, count_steps

BACKWARD = 2 / 3
"""The backward pass, as a fraction of the computation."""


@dataclass(frozen=True)
class Cluster:
    """GPUs and what connects them."""

    count: int
    bandwidth: float
    """Bytes per second of the slowest link of the ring."""
    latency: float
    """Seconds of an operation of no bytes."""
    rate: float
    """Floating-point operations per second of a GPU."""
    image_seconds: float | None = None
    """Seconds of computation per image, where they were measured; otherwise they follow from the operations."""

    def network(self, step: Step, batch_size: int) -> tuple[float, float]:
        """Seconds that gradients take in a step, and seconds of everything else."""
        seconds = {True: 0.0, False: 0.0}
        for t in step.traffic:
            each = t.calls * self.latency + t.sent(batch_size, self.count) / self.bandwidth
            seconds[t.purpose == REST] += each
        return seconds[True], seconds[False]

    def compute(self, step: Step, batch_size: int) -> float:
        """Seconds of computation in a step."""
        each = step.operations / self.rate if self.image_seconds is None else self.image_seconds
        return each * batch_size / self.count

    def waiting(self, step: Step, batch_size: int) -> float:
        """The fraction of a step that waits for the network."""
        compute, (gradients, rest) = self.compute(step, batch_size), self.network(step, batch_size)
        waited = rest + max(0.0, gradients - BACKWARD * compute)
        return waited / (compute + waited)

    def binding(self, step: Step) -> float:
        """Images per GPU below which the network takes longer than the computation; both are linear in them."""
        none, one = (sum(self.network(step, images * self.count)) for images in (0, 1))
        gained = self.compute(step, self.count) - (one - none)
        return none / gained if gained > 0 else inf


def counted_table(steps: Sequence[Step]) -> list[str]:
    """What was counted, and the bytes that the formulas give for it."""
    lines = ["| task | encoder | for | operation | calls | bytes P | + per image |", "|---|---|---|---|---:|---:|---:|"]
    lines += [
        f"| {s.task} | {s.encoder} | {t.purpose} | {t.operation} | {t.calls} | {t.fixed:,.0f} | {t.per_image:,.0f} |"
        for s in steps
        for t in s.traffic
    ]
    lines += [
        "",
        f"| task | encoder | 4 × parameters | computed for {steps[0].count} processes | sent by TCP | ratio |",
    ]
    lines += ["|---|---|---:|---:|---:|---:|"]
    for s in steps:
        computed = s.sent(s.batch_size, s.count)
        sent = ("n.a.", "n.a.") if s.tcp is None else (f"{s.tcp:,.0f}", f"{s.tcp / computed:.4f}")
        lines.append(f"| {s.task} | {s.encoder} | {4 * s.parameters:,} | {computed:,.0f} | {' | '.join(sent)} |")
    return lines


def computed_table(steps: Sequence[Step], clusters: Sequence[Cluster], batch_size: int) -> list[str]:
    """Bytes and times for clusters."""
    head = ["task", "encoder", "GPUs", "images per GPU", "gradients MB", "other MB", "operations", "compute ms"]
    head += ["network ms", "waits", "binds below, images per GPU"]
    lines = [f"| {' | '.join(head)} |", f"|---|---|{'---:|' * (len(head) - 2)}"]
    for s in steps:
        for c in clusters:
            gradients = s.sent(batch_size, c.count, REST)
            cells = [s.task, s.encoder, f"{c.count}", f"{batch_size / c.count:,.0f}", f"{gradients / 1e6:,.1f}"]
            cells += [f"{(s.sent(batch_size, c.count) - gradients) / 1e6:,.2f}", f"{sum(t.calls for t in s.traffic)}"]
            cells += [f"{1e3 * c.compute(s, batch_size):,.1f}", f"{1e3 * sum(c.network(s, batch_size)):,.1f}"]
            cells += [f"{c.waiting(s, batch_size):.0%}", f"{c.binding(s):,.0f}" if c.binding(s) < inf else "always"]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def bank_table(steps: Sequence[Step], images: int) -> list[str]:
    """Memory of the banks in every process."""
    lines = [f"| task | encoder | bank of {images:,} images, MB per process | sent before an epoch, MB |"]
    lines += ["|---|---|---:|---:|"]
    for s in steps:
        if s.bank:
            memory = s.bank * images
            lines.append(f"| {s.task} | {s.encoder} | {memory / 1e6:,.0f} | {(memory + s.each_epoch) / 1e6:,.0f} |")
    return lines if len(lines) > 2 else []


def name_and_size(text: str) -> tuple[str, int]:
    """An encoder and the side of its views: "convnet@32" -> ("convnet", 32)."""
    name, _, size = text.rpartition("@")
    if not name or not size.isdecimal():
        raise argparse.ArgumentTypeError(f"expects an encoder and a size, such as convnet@32, got {text!r}")
    return name, int(size)


def main(arguments: Sequence[str] | None = None) -> None:
    """Count, compute, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=["rotation", "simclr", "byol", "npid", "pirl"], help="tasks")
    parser.add_argument(
        "--encoders", nargs="+", type=name_and_size, default=[("timm:resnet50", 224), ("convnet", 32)],
        help="encoders with the side of their views, as NAME@PIXELS",
    )  # fmt: skip
    parser.add_argument("--count", type=int, default=2, help="number of processes to count")
    parser.add_argument("--images", type=int, default=2, help="images per process in the smaller of the counted steps")
    parser.add_argument("--batch-size", type=int, default=4096, help="images per step, of all GPUs together")
    parser.add_argument("--gpus", nargs="+", type=int, default=[8, 64], help="numbers of GPUs")
    parser.add_argument("--gpus-per-node", type=int, default=8, help="number of GPUs in a node")
    parser.add_argument("--inside", type=float, default=300.0, help="GB/s between GPUs of a node, in each direction")
    parser.add_argument("--between", type=float, default=100.0, help="Gbit/s of the network of a node")
    parser.add_argument("--latency", nargs=2, type=float, default=[20.0, 50.0], help="microseconds, inside and between")
    parser.add_argument("--tflops", type=float, default=100.0, help="TFLOP/s that a GPU sustains")
    parser.add_argument("--image-ms", type=float, help="measured ms of computation per image, instead of --tflops")
    parser.add_argument("--bank-images", type=int, default=1_281_167, help="images of a memory bank; ImageNet's")
    parser.add_argument("--out", type=Path, help="file for the tables; default: print only")
    options = parser.parse_args(arguments)
    steps = []
    for encoder, size in options.encoders:
        steps += count_steps(options.tasks, encoder, size, options.images, options.count)
    clusters = []
    for count in options.gpus:
        between = count > options.gpus_per_node
        bandwidth = options.between * 1e9 / 8 if between else options.inside * 1e9
        seconds = None if options.image_ms is None else options.image_ms / 1e3
        clusters.append(Cluster(count, bandwidth, options.latency[between] / 1e6, options.tflops * 1e12, seconds))
    tables = [counted_table(steps), computed_table(steps, clusters, options.batch_size)]
    text = "\n\n".join("\n".join(table) for table in [*tables, bank_table(steps, options.bank_images)] if table)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
