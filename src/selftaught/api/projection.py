"""The projection head of a run, from its checkpoint: the pretraining images are not needed."""

from torch import nn

from selftaught.api.loaded import Loaded
from selftaught.config.build import load_task
from selftaught.errors import UserError, readable
from selftaught.evaluation.embedding import Projection
from selftaught.runs.checkpoint import Checkpoints
from selftaught.runs.folder import RunFolder
from selftaught.runs.weights import weights_digest
from selftaught.training.randomness import seeded_rng


def load_projection(folder: RunFolder, loaded: Loaded) -> Projection | None:
    """The head that computes the embeddings which the loss of the run's task compares.

    Args:
        folder: the run.
        loaded: its encoder.

    Returns:
        None if the task compares no embeddings, or the run is a baseline.

    Raises:
        UserError: there is no checkpoint of the encoder's weights.
    """
    task, encoder = load_task(folder), loaded.arguments["encoder"]
    if task is None or task.projection(encoder) is None:
        return None

    def fresh(seed: int) -> nn.Module:
        with seeded_rng(seed, "projection"):
            made = task.projection(encoder)
        assert made is not None
        return made

    saved = Checkpoints(folder.checkpoints, folder.identity()).load()
    if saved is None:
        raise UserError(f"there is no checkpoint in {readable(str(folder.path))}")
    trained, prefix = fresh(0), f"{task.projection_name}."
    try:
        if weights_digest(saved["encoder"]) != loaded.stamp["weights"]:
            raise UserError("the checkpoint is of another step than encoder.safetensors")
        weights = {key.removeprefix(prefix): value for key, value in saved["heads"].items() if key.startswith(prefix)}
        trained.load_state_dict(weights)
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        raise UserError("the checkpoint does not match its run") from error
    return Projection(trained, fresh)
