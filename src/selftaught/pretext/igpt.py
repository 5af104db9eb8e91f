"""iGPT: Predict the color of every pixel from the pixels before it, or masked pixels from all others.

An image becomes a sequence of tokens, colors of a palette. Autoregressive: every token is predicted from all before it.
Masked (as BERT): some tokens are hidden and predicted from all others. Completing half of an image requires a model of
the objects in it. The best features for a probe are in the middle: later layers return to single colors.

Chen, Radford, Child, Wu, Jun, Luan, Sutskever, "Generative Pretraining from Pixels", ICML 2020.
http://proceedings.mlr.press/v119/chen20s.html

Not included: joint fine-tuning on class and pixels. A probe's input has no masked tokens, unlike the training input of
the masked objective; this costs some accuracy.

Letters: B images, L tokens of one image, K colors.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.draws import rand
from selftaught.augment.warp import random_crop, require_shares, to_device
from selftaught.contracts import Batch, Encoder, Outputs, Source, Task, Views
from selftaught.errors import require_ranges
from selftaught.limits import INNER_FRACTION, TEMPERATURE
from selftaught.modules.processes import average


class Palette(Protocol):
    """The interface that the task requires of the encoder's `preprocess`."""

    colors: Tensor
    """(K, 3) in [0, 1]."""

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, L) int64."""

    def pictures(self, tokens: Tensor) -> Tensor:
        """(B, L) -> (B, 3, side, side)."""


class PixelModel(Protocol):
    """The interface that the task requires of an encoder beyond the contract; `gpt` implements it."""

    preprocess: Palette
    hidden: int
    """The mask token."""

    def complete(
        self, tokens: Tensor, predict: Callable[[Tensor], Tensor], draws: Tensor, temperature: float
    ) -> Tensor:
        """Extend sequences by sampling: (B, n) -> (B, L)."""


@dataclass(frozen=True)
class IGPT(Task):
    """Predict the color of each pixel from those before it, or of masked pixels from all others."""

    # No weight decay, as in the paper, whose other optimizer settings are the general defaults. Size and batch are for
    # a CPU: a step at 32 pixels, the paper's smallest, takes more than four times as long as one at 16.
    defaults = {"encoder": "gpt", "size": 16, "batch_size": 32, "weight_decay": 0.0}  # noqa: RUF012

    objective: Literal["autoregressive", "masked"] = "autoregressive"
    """autoregressive: predict each pixel from those before it (better linear probes in the paper); masked: predict
    masked pixels from all others."""
    hidden: float = 0.15
    """Probability that a pixel is masked, independently of the others (paper: 0.15)."""
    temperature: float = 1.0
    """Sampling temperature of the completions in the pictures; no effect on training."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Smallest and largest area of a crop, as a fraction of the image; by default whole images, as in a probe."""
    flip: bool = True
    """Mirror half of the images."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        require_shares("--scale", self.scale)
        require_ranges(self, hidden=INNER_FRACTION, temperature=TEMPERATURE)

    def encoder_options(self) -> Mapping[str, object]:
        """Token input, with causal attention for the autoregressive objective."""
        return {"input_mode": "tokens", "causal": self.objective == "autoregressive"}

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """A linear layer from the last layer to the logits of K colors."""
        channels = encoder.last.channels
        color = nn.Linear(channels, len(_pixel_model(encoder).preprocess.colors), bias=False)
        # Not tied to the embedding: the released code has a separate matrix, initialized to zero (`model.py`), so the
        # initial loss is exactly log K.
        nn.init.zeros_(color.weight)
        return nn.ModuleDict({"color": color})

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (B, 3, S, S); masked: also `noise` (B, S, S), uniform in [0, 1), which determines the mask."""
        images = batch.warp(random_crop(len(batch), generator, scale=self.scale, flip=0.5 * self.flip), self.size)
        if self.objective == "autoregressive":
            return {"images": images}
        noise = rand(len(batch), self.size, self.size, generator=generator)
        return {"images": images, "noise": to_device(noise, images.device)}

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """Cross-entropy in nats per token: the paper's L_AR divided by L, or L_BERT by the number of masked tokens.

        Logged: `accuracy` over the predicted tokens, and `bits`, the loss in bits.
        """
        tokens = _pixel_model(encoder).preprocess(views["images"])
        if self.objective == "autoregressive":
            shown, predicted = tokens, torch.ones_like(tokens, dtype=torch.bool)
        else:
            predicted = self._hidden(views["noise"], tokens)
            shown = tokens.masked_fill(predicted, _pixel_model(encoder).hidden)
        *_, last = encoder.features(shown).values()
        logits = heads["color"](last).float()
        count = average(predicted.sum()).clamp(min=1)
        # Other positions are ignored through their target instead of indexing, which would wait for the device.
        target = tokens.masked_fill(~predicted, -100).flatten()
        loss = F.cross_entropy(logits.flatten(0, 1), target, reduction="sum") / count
        accuracy = ((logits.argmax(2) == tokens) & predicted).sum() / count
        return loss, {"accuracy": accuracy, "bits": loss / math.log(2)}

    def _hidden(self, noise: Tensor, tokens: Tensor) -> Tensor:
        """(B, S, S) -> (B, L) bool; the upper left part of the noise where the encoder has fewer than S x S tokens."""
        side = math.isqrt(tokens.shape[1])
        return noise[:, :side, :side].flatten(1) < self.hidden

    def visualize(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """Rows of eight images. Autoregressive: `completions` (upper half, six completions, original) and `samples`.

        Masked: `filled`, two images per row: masked input, most likely colors, sampled colors, original.
        """
        generator = torch.Generator().manual_seed(0)  # the same draws each time, so that pictures are comparable
        tokens = _pixel_model(encoder).preprocess(views["images"][: 4 if self.objective == "autoregressive" else 8])
        if self.objective == "masked":
            return {"filled": self._filled(encoder, heads, tokens, views["noise"], generator)}
        empty = tokens.new_empty(16, 0)
        return {
            "completions": self._completed(encoder, heads, tokens, generator),
            "samples": _pixel_model(encoder).preprocess.pictures(
                self._sampled(encoder, heads, empty, tokens.shape[1], generator)
            ),
        }

    def _sampled(
        self, encoder: Encoder, heads: nn.ModuleDict, start: Tensor, length: int, generator: torch.Generator
    ) -> Tensor:
        """Extend sequences by sampling: (B, n) -> (B, length)."""
        draws = to_device(torch.rand(len(start), length, generator=generator), start.device)
        return _pixel_model(encoder).complete(start, heads["color"], draws, self.temperature)

    def _completed(self, encoder: Encoder, heads: nn.ModuleDict, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """(B, L) -> (8 * B, 3, side, side): the upper half, six completions, the original."""
        preprocess, (count, length) = _pixel_model(encoder).preprocess, tokens.shape
        start = tokens[:, : length // 2].repeat_interleave(6, 0)
        completed = preprocess.pictures(self._sampled(encoder, heads, start, length, generator))
        original = preprocess.pictures(tokens)
        visible = torch.arange(length, device=tokens.device).view(original.shape[2:]) < length // 2
        upper = torch.where(visible, original, 0.5)[:, None]
        return torch.cat([upper, completed.reshape(count, 6, *original.shape[1:]), original[:, None]], 1).flatten(0, 1)

    def _filled(
        self, encoder: Encoder, heads: nn.ModuleDict, tokens: Tensor, noise: Tensor, generator: torch.Generator
    ) -> Tensor:
        """(B, L) -> (4 * B, 3, side, side): masked input, most likely colors, sampled colors, original."""
        preprocess, hidden = _pixel_model(encoder).preprocess, self._hidden(noise[: len(tokens)], tokens)
        *_, last = encoder.features(tokens.masked_fill(hidden, _pixel_model(encoder).hidden)).values()
        probabilities = (heads["color"](last).float() / self.temperature).softmax(2).cpu()
        sampled = torch.multinomial(probabilities.flatten(0, 1), 1, generator=generator)
        sampled = sampled.view(tokens.shape).to(tokens.device)
        likeliest = probabilities.argmax(2).to(tokens.device)
        filled = [torch.where(hidden, other, tokens) for other in (likeliest, sampled)]
        original = preprocess.pictures(tokens)
        masked = torch.where(hidden.view(len(tokens), 1, *original.shape[2:]), 0.5, original)
        return torch.stack([masked, *map(preprocess.pictures, filled), original], 1).flatten(0, 1)


def _pixel_model(encoder: Encoder) -> PixelModel:
    return cast(PixelModel, encoder)  # `encoder_options` admits no other encoder
