"""Weights of an encoder as bytes: safetensors, which cannot run code, with a digest, because it has none of its own."""

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
"""The one entry of the file's metadata. With a second, their order, and so the bytes, would differ by process."""


def weights_bytes(weights: Mapping[str, Tensor]) -> bytes:
    """A safetensors file of the weights; the same bytes for the same weights."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    return bytes(save(plain, metadata={MARK: weights_digest(plain)}))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights in a file; of one without our digest (another program's) nothing but its header is checked.

    Raises:
        UserError: it is missing, no regular file, cut short or changed.
    """
    open_regular(path, path.parent).close()  # safetensors opens by name
    try:
        with safe_open(path, "pt") as file:
            weights: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            noted = (file.metadata() or {}).get(MARK)
        reason = "" if noted in (None, weights_digest(weights)) else "bytes that were changed"
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError, KeyError, AttributeError) as error:
        reason = str(error)
    if reason:
        raise UserError(
            f"the encoder of a run must be readable, found {readable(reason)[:200]} in {readable(str(path))}: restore "
            "the file or train again."
        )
    return weights


def read_weight(path: Path, name: str) -> Tensor | None:
    """One tensor of a file of weights, None where it cannot be had.

    Raises:
        UserError: the file is no regular file of the run.
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
    """A digest of names, types, shapes and values; `encoder.safetensors` has that of its weights in its metadata."""
    digest = blake2b(digest_size=16)
    for name in sorted(weights):
        tensor = weights[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.flatten().view(uint8).numpy().data)
    return digest.hexdigest()
