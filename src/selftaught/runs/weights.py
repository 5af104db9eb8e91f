"""Encoder weights as safetensors, which cannot execute code, with a digest, which the format lacks."""

import json
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, uint8

from selftaught.errors import UserError, readable
from selftaught.runs.files import exists, open_regular

MARK = "blake2b"
"""The only metadata key: with several, their order, and so the bytes of the file, would differ between processes."""


def weights_bytes(weights: Mapping[str, Tensor]) -> bytes:
    """The weights as a safetensors file; deterministic for given weights."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    return bytes(save(plain, metadata={MARK: weights_digest(plain)}))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights in a file; without our digest (a file of another program) only the header is checked.

    Raises:
        UserError: it is missing, not a regular file, truncated or modified.
    """
    open_regular(path, path.parent).close()  # safetensors opens by name
    try:
        with safe_open(path, "pt") as file:
            weights: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            stored_digest = (file.metadata() or {}).get(MARK)
        reason = "" if stored_digest in (None, weights_digest(weights)) else "digest mismatch"
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError, KeyError, AttributeError) as error:
        reason = str(error)
    if reason:
        raise UserError(
            f"cannot read the encoder weights in {readable(str(path))} ({readable(reason)[:200]}): restore the file or "
            "train again."
        )
    return weights


def read_weight(path: Path, name: str) -> Tensor | None:
    """Read one tensor of a weights file; None if it is missing or damaged.

    Raises:
        UserError: the file is not a regular file of the run.
    """
    open_regular(path, path.parent).close()
    try:
        with safe_open(path, "pt") as file:
            weight: Tensor = file.get_tensor(name)
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError, KeyError, AttributeError):
        return None
    return weight


def read_digest(path: Path) -> str | None:
    """The digest in the header of a file of weights; None where there is no such file or no digest.

    Raises:
        UserError: there is something else at the path.
    """
    if not exists(path):
        return None
    open_regular(path, path.parent).close()
    try:
        with safe_open(path, "pt") as file:
            digest: str | None = (file.metadata() or {}).get(MARK)
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError, AttributeError):
        return None
    return digest


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """A digest of names, types, shapes and values, stored in the metadata of `encoder.safetensors`."""
    digest = blake2b(digest_size=16)
    for name in sorted(weights):
        tensor = weights[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.flatten().view(uint8).numpy().data)
    return digest.hexdigest()
