"""Repeated trainings of an evaluation: each with several learning rates, resumable, tested once and recorded.

A repetition is a folder in the run: one training per learning rate, of which the weights that are best on validation
images are tested, and the result. What is recorded is not computed again, so the same command continues after an
interruption, and more seeds or encoders reuse what exists.
"""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from selftaught.api.best import Stopped, Validate, best_weights, train_best
from selftaught.contracts import Encoder
from selftaught.errors import DivergedError, UserError, readable
from selftaught.runs.atomic import write_bytes, write_text
from selftaught.runs.files import exists, make_folder, read_limited, remove_tree
from selftaught.runs.models import mismatch
from selftaught.runs.parse import parse_arrays, parse_json
from selftaught.runs.result_models import Training
from selftaught.runs.validated import TrainingPlan, read_typed
from selftaught.runs.weights import weights_bytes
from selftaught.training.interruption import Stop
from selftaught.training.loop import Pretraining
from selftaught.training.plan import Budget, choose_precision, make_plan

RESULT, PLAN, MODEL = "result.npz", "plan.json", "model.safetensors"
MAX_BYTES = 2**30
"""Maximum size of a file of results."""


@dataclass(frozen=True)
class Recorded:
    """The result of a repetition."""

    facts: Mapping[str, Any]
    """Plain values, such as the chosen learning rate."""
    arrays: Mapping[str, NDArray[Any]]
    """What was found on the test images, by name."""


@dataclass(frozen=True)
class Chosen:
    """The weights that are best on validation images, among all learning rates and evaluations."""

    encoder: Encoder
    heads: torch.nn.ModuleDict
    """On the device, like the encoder."""
    held_out: float
    """The first score on the validation images."""
    learning_rate: float
    step: int
    """Optimizer steps after which they were taken."""

    def facts(self) -> dict[str, Any]:
        """What is recorded of the choice."""
        return {"held_out": self.held_out, "learning_rate": self.learning_rate, "step": self.step}


@dataclass(frozen=True)
class Repetitions:
    """What all repetitions of one evaluation share."""

    run: Path
    """The run folder that contains them."""
    learning_rates: tuple[float, ...]
    evaluations: int
    """How often each training is evaluated on validation images."""
    score: str
    """Name of the first score, for messages."""
    device: torch.device
    stop: Stop
    console: Console

    def result(self, folder: Path, compute: Callable[[], None], check: Callable[[Recorded], bool]) -> Recorded:
        """The recorded result of a repetition.

        Args:
            folder: where it is.
            compute: trains and calls `record` where there is none yet.
            check: whether a result, which may be a stranger's, has the arrays that are expected.

        Raises:
            Stopped: a signal stopped the training.
            UserError: the result is damaged.
        """
        path = folder / RESULT
        if not exists(path):
            if self.stop.requested:
                raise Stopped
            compute()
        for left in (*folder.glob("rate-*/checkpoint"), *folder.glob("rate-*/best")):
            remove_tree(left, self.run)
        content = read_limited(path, self.run, MAX_BYTES)
        try:
            arrays = parse_arrays(content)
            recorded = Recorded(parse_json(str(arrays.pop("facts")).encode()), arrays)
            if mismatch(Training, recorded.facts) or not check(recorded):
                raise ValueError("other content than that of a training")
            return recorded
        except Exception as error:  # numpy, zip and JSON raise many exception types for damaged files
            raise UserError(f"{readable(str(path))} is damaged: remove it and repeat the command.") from error

    def record(self, folder: Path, recorded: Recorded) -> None:
        """Write the result of a repetition."""
        make_folder(folder, self.run)
        file = io.BytesIO()
        np.savez_compressed(file, facts=np.array(json.dumps(recorded.facts)), **recorded.arrays)  # type: ignore[arg-type]
        write_bytes(folder / RESULT, file.getvalue(), self.run)

    def choose(
        self, folder: Path, name: str, make: Callable[[float], Pretraining], validate: Validate, precision: str
    ) -> Chosen:
        """Train with each learning rate, and return the weights that are best on validation images.

        Args:
            folder: of the repetition.
            name: what is trained, for messages.
            make: learning rate -> the training, with its initial weights.
            validate: see `train_best`.
            precision: 32 or bf16.

        Raises:
            Stopped: a signal stopped a training.
            UserError: every learning rate diverged.
        """
        make_folder(folder, self.run)
        outcomes = [
            (
                *train_best(
                    make(rate),
                    folder / f"rate-{rate:g}",
                    self.run,
                    validate=validate,
                    evaluations=self.evaluations,
                    device=self.device,
                    precision=precision,
                    name=self.score,
                    console=self.console,
                    stop=self.stop,
                ),
                rate,
            )
            for rate in self.learning_rates
        ]
        held_out, _, step, rate = max(outcomes)
        if step == 0:
            raise DivergedError(
                f"the loss of {name!r} became NaN or infinite with every learning rate: try lower --learning-rates."
            )
        run = make(rate)
        best = best_weights(folder / f"rate-{rate:g}", run).load()
        if best is None:
            raise UserError(f"the weights in {readable(str(folder))} are missing: remove the folder and repeat.")
        run.encoder.load_state_dict(best["encoder"]), run.heads.load_state_dict(best["heads"])
        return Chosen(run.encoder.to(self.device), run.heads.to(self.device), held_out, rate, step)

    def keep_model(self, folder: Path, chosen: Chosen) -> None:
        """Write the weights of a chosen model, with the prefixes `encoder.` and `heads.`."""
        parts = {"encoder": chosen.encoder, "heads": chosen.heads}
        tensors = {
            f"{part}.{key}": value for part, module in parts.items() for key, value in module.state_dict().items()
        }
        write_bytes(folder / MODEL, weights_bytes(tensors), self.run)

    def plan(
        self, folder: Path, run: Callable[[], Pretraining], budget: Callable[[Pretraining], Budget]
    ) -> TrainingPlan:
        """Steps and precision of the trainings in a folder, recorded there by the first one.

        Args:
            folder: the folder.
            run: one of the trainings, of any number of steps.
            budget: its budget.
        """
        path = folder / PLAN
        if not exists(path):
            first, precision = run(), choose_precision("auto", self.device)
            plan = make_plan(first, budget(first), device=str(self.device), precision=precision, compiling="off")
            write_text(path, json.dumps({"steps": plan.steps, "precision": precision}), self.run)
        return self.planned(folder)

    def planned(self, folder: Path) -> TrainingPlan:
        """The plan recorded in a folder."""
        return read_typed(folder / PLAN, self.run, TrainingPlan)
