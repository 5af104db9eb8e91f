"""Between two log lines no task makes the host wait for the device: a GPU would idle until the next launch."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from shared_batches import CASES, WRONG, built
from torch import Tensor, nn

from selftaught.contracts import Encoder, Outputs, Views
from selftaught.pretext.rotation import Rotation
from selftaught.training.loop import Trainer, _begin_epoch
from selftaught.training.plan import make_fabric
from selftaught.training.randomness import epoch_indices
from synchronization import DeviceBatch, Found, Methods, OnDevice, Operations

STEPS = 1


def found_in(kind: Any, options: dict[str, object]) -> Found:
    """What waits in a step: its views, losses, `after_step`."""
    run = built(kind, options, STEPS)
    trainer = Trainer(make_fabric(torch.device("cpu"), "32", run.has_critic), run)
    _begin_epoch(run, trainer, 0)
    trainer.encoder.train(), trainer.heads.train()
    indices = epoch_indices(0, 0, len(run.source))
    found = Found()
    for step in range(STEPS):
        batch = run.source.batch(indices[step * run.batch_size : (step + 1) * run.batch_size], torch.device("cpu"))
        OnDevice.found = Found()
        views = run.task.views(DeviceBatch(batch), torch.Generator().manual_seed(step))
        found = Found(OnDevice.found)
        views = {name: view.as_subclass(Tensor) for name, view in views.items()}

        def guarded(part: Any, found: Found = found) -> Any:
            def call(*arguments: Any, **named: Any) -> Any:
                with Methods(found), Operations(found):
                    return part(*arguments, **named)

            return call

        with pytest.MonkeyPatch.context() as patch:
            for name in ("loss", "critic_loss", "after_step"):
                patch.setattr(type(run.task), name, guarded(getattr(type(run.task), name)))
            trainer.step(views, 0.5)
    return found


MASKED = "toy rendered"
"""Selects images with a mask in its loss, which is right but waits."""
RIGHT = [name for name in CASES if name not in {MASKED, *(kind.__name__ for kind in WRONG)}]


@pytest.mark.parametrize("name", RIGHT)
def test_a_step_does_not_wait_for_the_device(name: str) -> None:
    assert found_in(*CASES[name]) == []


def test_a_toy_that_selects_with_a_mask_is_noticed() -> None:
    assert any(place.endswith(" index") for place in found_in(*CASES[MASKED]))


@dataclass(frozen=True)
class Waiting(Rotation):
    """Wrong, in the way that `how` says."""

    how: str = "item"

    def views(self, batch: Any, generator: torch.Generator) -> Views:
        views = super().views(batch, generator)
        if self.how == "views":
            views["images"].mean().item()
        if self.how == "index":
            batch.index.tolist()
        return views

    def loss(self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0) -> Any:
        loss, outputs = super().loss(encoder, heads, views, progress)
        images = views["images"]
        waits = {
            "item": lambda: loss.item(), "float": lambda: float(loss.detach()), "bool": lambda: bool(loss > 0),
            "if": lambda: 1 if loss > 0 else 0, "cpu": lambda: loss.detach().cpu(), "to": lambda: loss.to("cpu"),
            "numpy": lambda: loss.detach().numpy(), "list": lambda: loss.tolist(),
            "nonzero": lambda: (images > 0.5).nonzero(), "mask": lambda: images[images > 0.5],
            "where": lambda: torch.where(images > 0.5), "unique": lambda: images.unique(),
            "slice": lambda: images[: (loss > 0).int()], "any": lambda: (images > 1).any() and None,
            "full": lambda: torch.zeros(2).fill_(0).expand(int(loss.detach() * 0 + 3), 2),
        }  # fmt: skip
        if self.how in waits:
            waits[self.how]()
        return loss, outputs

    def after_step(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, outputs: Outputs, progress: float = 0.0
    ) -> None:
        if self.how == "after":
            outputs["loss"].item()


HOW = (
    *("views", "index", "item", "float", "bool", "if", "cpu", "to", "numpy", "list", "nonzero", "mask", "where"),
    *("unique", "slice", "any", "full", "after"),
)


@pytest.mark.parametrize("how", HOW)
def test_the_guard_notices(how: str) -> None:
    assert found_in(Waiting, {"how": how, "crop": 1.0}) != []


def test_the_guard_lets_writes_at_a_mask_pass() -> None:
    found = Found()
    with Methods(found), Operations(found):
        x = torch.zeros(3)
        x[x > 1] = 2.0
        torch.where(x > 1, x, 2 * x).masked_fill(x > 1, 0.0)
    assert found == []
