"""What the memory bank costs: a step of NPID, against the same step with nothing to compare with or to remember.

    python -m benchmarks.bank
    python -m benchmarks.bank --images 1000000 --negatives 32000

Both sides make the same views, encode them and go back through the encoder; the other's loss is a sum, so what it
lacks is the draw of negatives, their entries, the comparison, the loss and the renewal of entries. The goal: a tenth of
a step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor, nn

from benchmarks.images import noise, stored
from benchmarks.interleaved import Table, interleaved, options, parsed, publish, rate
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
class Unremembered(NPID):
    """The same views and features, and no bank."""

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` alone."""
        return {"images": self.augmentation.views(batch, self.view_sizes()["crop"], generator)}

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """A number that moves every weight."""
        return unit(heads["project"](encoder(views["images"])))[:, 0].mean(), {}

    def after_step(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, outputs: Outputs, progress: float = 0.0
    ) -> None:
        """Nothing is remembered."""


class Many(Source):
    """As many images as are asked for, all of them the same few: what is compared is the bank."""

    def __init__(self, few: Source, images: int) -> None:
        self.few, self.images, self.side = few, images, few.side
        self.name, self.fingerprint, self.classes, self.targets = few.name, few.fingerprint, None, frozenset()

    def __len__(self) -> int:
        return self.images

    def batch(self, indices: Tensor, device: torch.device) -> Batch:
        """See `Source`."""
        few = self.few.batch(indices % len(self.few), device)
        assert isinstance(few, StoredBatch)
        return StoredBatch(few.images, indices.to(device), {}, len(self))


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = options(__doc__, rounds=7)
    parser.add_argument("--encoder", default="convnet")
    parser.add_argument("--images", type=int, default=50_000, help="entries of the bank")
    parser.add_argument("--negatives", type=int, default=4096)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=2.0, help="per side and round")
    given = parsed(parser, words, images=40, batch_size=4, seconds=0.02)
    keep_freed_memory()
    source = Many(stored(noise(min(given.images, 1000), given.size)), given.images)
    sides = {}
    for name, kind in (("without a bank", Unremembered), ("with the bank", NPID)):
        torch.manual_seed(0)
        task, encoder = kind(size=given.size, negatives=given.negatives), make_encoder(given.encoder, size=given.size)
        run = Pretraining(task, encoder, task.heads(encoder, source), source, Optimization(), 1, given.batch_size, 0)
        trainer = Trainer(make_fabric(CPU, choose_precision("auto", CPU)), run)
        trainer.encoder.train(), trainer.heads.train()

        def step(trainer: Trainer = trainer, task: NPID = task, numbers: count = count()) -> int:  # noqa: B008
            generator = torch.Generator().manual_seed(next(numbers))
            indices = torch.randint(len(source), (given.batch_size,), generator=generator)
            trainer.step(task.views(source.batch(indices, CPU), generator), 0.5)
            return given.batch_size

        sides[name] = rate(step, given.seconds)
    title = (
        f"NPID, {given.encoder}, {given.batch_size} images of {given.size} px, {given.negatives:,} of {given.images:,}"
    )
    found = interleaved(sides, given.rounds)
    table = Table(title, "images/s", found, reference="without a bank")
    publish("bank", "The memory bank", [table], ["The ratio less one is what the bank adds to a step."], given)


if __name__ == "__main__":
    main()
