"""Cost of the memory bank: a step of NPID against the same step without a bank.

    python -m benchmarks.bank
    python -m benchmarks.bank --images 1000000 --negatives 32000

Both sides make the same views and run the encoder forwards and backwards. The side without a bank has a trivial loss.
The difference is the cost of drawing negatives, gathering their entries, similarities, the NCE loss and the update of
the bank. The target is a tenth of a step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor, nn

from benchmarks.images import noise, stored
from benchmarks.interleaved import Table, interleaved, parse_options, publish, rate, shared_options
from selftaught.cli.process import keep_freed_memory
from selftaught.contracts import Batch, Encoder, Outputs, Source, Views
from selftaught.data.stored import StoredBatch
from selftaught.encoders import make_encoder
from selftaught.modules.bank import unit
from selftaught.pretext.npid import NPID
from selftaught.training.loop import Pretraining, Trainer
from selftaught.training.optimizer import Optimization
from selftaught.training.plan import choose_precision, make_fabric

CPU = torch.device("cpu")


@dataclass(frozen=True)
class WithoutBank(NPID):
    """NPID with the same views and features, but without negatives, NCE loss and updates of the bank."""

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` only."""
        return {"images": self.augmentation().views(batch, self.side, generator)}

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """A trivial loss with a gradient for every weight."""
        return unit(heads["project"](encoder(views["images"])))[:, 0].mean(), {}

    def after_step(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, outputs: Outputs, progress: float = 0.0
    ) -> None:
        """Does nothing."""


class Repeated(Source):
    """A source of any length that repeats a few images: only the size of the bank depends on the length."""

    def __init__(self, distinct: Source, images: int) -> None:
        self.distinct, self.images, self.side = distinct, images, distinct.side
        self.name, self.fingerprint, self.classes, self.targets = distinct.name, distinct.fingerprint, None, frozenset()

    def __len__(self) -> int:
        return self.images

    def batch(self, indices: Tensor, device: torch.device) -> Batch:
        """See `Source`."""
        batch = self.distinct.batch(indices % len(self.distinct), device)
        assert isinstance(batch, StoredBatch)
        return StoredBatch(batch.images, indices.to(device), {}, len(self))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its tables."""
    parser = shared_options(__doc__, rounds=7)
    parser.add_argument("--encoder", default="convnet", help="encoder")
    parser.add_argument("--images", type=int, default=50_000, help="number of images, so of entries of the bank")
    parser.add_argument("--negatives", type=int, default=4096, help="negatives per image")
    parser.add_argument("--batch-size", type=int, default=64, help="images per step")
    parser.add_argument("--size", type=int, default=32, help="side of the views in pixels")
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds per side and round")
    options = parse_options(parser, arguments, images=40, batch_size=4, seconds=0.02)
    keep_freed_memory()
    source = Repeated(stored(noise(min(options.images, 1000), options.size)), options.images)
    sides = {}
    for name, task_class in (("without a bank", WithoutBank), ("with the bank", NPID)):
        torch.manual_seed(0)
        task, encoder = (
            task_class(size=options.size, negatives=options.negatives),
            make_encoder(options.encoder, size=options.size),
        )
        run = Pretraining(task, encoder, task.heads(encoder, source), source, Optimization(), 1, options.batch_size, 0)
        trainer = Trainer(make_fabric(CPU, choose_precision("auto", CPU)), run)
        trainer.encoder.train(), trainer.heads.train()

        def step(trainer: Trainer = trainer, task: NPID = task, seeds: count = count()) -> int:  # noqa: B008
            generator = torch.Generator().manual_seed(next(seeds))
            indices = torch.randint(len(source), (options.batch_size,), generator=generator)
            trainer.step(task.views(source.batch(indices, CPU), generator), 0.5)
            return options.batch_size

        sides[name] = rate(step, options.seconds)
    title = (
        f"NPID, {options.encoder}, {options.batch_size} images of {options.size} px, {options.negatives:,} negatives, "
        f"{options.images:,} entries"
    )
    rates = interleaved(sides, options.rounds)
    table = Table(title, "images/s", rates, reference="without a bank")
    publish(
        "bank",
        "The memory bank",
        [table],
        ["The ratio minus one is the cost of the bank as a fraction of a step."],
        options,
    )


if __name__ == "__main__":
    main()
