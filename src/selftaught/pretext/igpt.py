"""iGPT: Predict the color of every pixel from the pixels before it, or masked pixels from all others.

An image becomes a sequence of tokens, colors of a palette. Autoregressive: every token is predicted from all before it.
Masked (as BERT): some tokens are hidden and predicted from all others. Completing half of an image requires a model of
the objects in it. The best features for a probe are in the middle: later layers return to single colors.

Chen, Radford, Child, Wu, Jun, Luan, Sutskever, "Generative Pretraining from Pixels", ICML 2020.
http://proceedings.mlr.press/v119/chen20s.html

Not included: fine-tuning on class and pixels at once. A probe shows every token, an input that an encoder trained on
masked tokens has never had; this costs it some accuracy.

Letters: B images, L tokens of one image, K colors.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.warp import random_crop, require_shares, to_device
from selftaught.contracts import Batch, Encoder, Outcome, Source, Task, Views
from selftaught.errors import UserError


class Palette(Protocol):
    """What the task asks of the encoder's `look`."""

    colors: Tensor
    """(K, 3) in [0, 1]."""

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, L) int64."""

    def pictures(self, tokens: Tensor) -> Tensor:
        """(B, L) -> (B, 3, side, side)."""


class Reader(Protocol):
    """What the task asks of an encoder beyond the contract: `gpt` has it."""

    preprocess: Palette
    hidden: int
    """The token of what is not shown."""

    def complete(
        self, tokens: Tensor, predict: Callable[[Tensor], Tensor], draws: Tensor, temperature: float
    ) -> Tensor:
        """(B, n) -> (B, L): go on with pictures."""


@dataclass(frozen=True)
class IGPT(Task):
    """Predict colors from the colors before them, or masked ones from all others."""

    # No weight decay, as in the paper, whose other optimizer settings are the general defaults. Size and batch are for
    # a CPU: a step at 32 pixels, the paper's smallest, takes more than four times as long as one at 16.
    defaults = {"encoder": "gpt", "size": 16, "batch_size": 32, "weight_decay": 0.0}  # noqa: RUF012

    objective: Literal["autoregressive", "masked"] = "autoregressive"
    """autoregressive: predict each pixel from those before it (better linear probes in the paper); masked: predict
    hidden pixels from all others."""
    hidden: float = 0.15
    """Probability that a pixel is masked, independently of the others (paper: 0.15)."""
    temperature: float = 1.0
    """Sampling temperature of the completions in the pictures; no effect on training."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Smallest and largest area of a crop, as a fraction of the image; by default whole images, as in a probe."""
    flip: bool = True
    """Mirror half of the images."""

    def __post_init__(self) -> None:
        """Refuse shares and temperatures of nothing."""
        require_shares("--scale", self.scale)
        if not 0 < self.hidden < 1:
            raise UserError(f"--hidden must be a chance above 0 and below 1, found {self.hidden}: try 0.15.")
        if not 0 < self.temperature < math.inf:
            raise UserError(f"--temperature must be above 0 and finite, found {self.temperature}: try 1.")

    def encoder_options(self) -> Mapping[str, object]:
        """Tokens, of which it may look back only, or all around."""
        return {"input_mode": "tokens", "causal": self.objective == "autoregressive"}

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """One linear layer from the last layer to the logits of K colours."""
        channels = encoder.last.channels
        color = nn.Linear(channels, len(_reader(encoder).preprocess.colors), bias=False)
        # Not the embedding transposed: the release has a matrix of its own, and it begins at zero (`model.py`), so that
        # the first loss is log K exactly.
        nn.init.zeros_(color.weight)
        return nn.ModuleDict({"color": color})

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (B, 3, S, S); masked, also `noise` (B, S, S), uniform in [0, 1), which decides what is hidden."""
        images = batch.warp(random_crop(len(batch), generator, scale=self.scale, flip=0.5 * self.flip), self.size)
        if self.objective == "autoregressive":
            return {"images": images}
        noise = torch.rand(len(batch), self.size, self.size, generator=generator)
        return {"images": images, "noise": to_device(noise, images.device)}

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outcome]:
        """Nats per token: the paper's L_AR divided by L, or its L_BERT by the number of hidden tokens."""
        tokens = _reader(encoder).preprocess(views["images"])
        if self.objective == "autoregressive":
            shown, asked = tokens, torch.ones_like(tokens, dtype=torch.bool)
        else:
            asked = self._hidden(views["noise"], tokens)
            shown = tokens.masked_fill(asked, _reader(encoder).hidden)
        *_, last = encoder.features(shown).values()
        logits = heads["color"](last).float()
        count = asked.sum().clamp(min=1)
        # Positions that are not asked are passed over by their target and not cut out: nothing waits for their number.
        target = tokens.masked_fill(~asked, -100).flatten()
        loss = F.cross_entropy(logits.flatten(0, 1), target, reduction="sum") / count
        accuracy = ((logits.argmax(2) == tokens) & asked).sum() / count
        return loss, {"accuracy": accuracy, "bits": loss / math.log(2)}

    def _hidden(self, noise: Tensor, tokens: Tensor) -> Tensor:
        """(B, S, S) -> (B, L) bool. A corner of the noise where the encoder reads fewer than S x S tokens."""
        side = math.isqrt(tokens.shape[1])
        return noise[:, :side, :side].flatten(1) < self.hidden

    def show(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """Rows of eight. Autoregressive: `completions`, half an image, six ways to go on, the truth; and `samples`.

        Masked: `filled`, twice in a row: what is shown, the likeliest filling, one drawn, the truth.
        """
        generator = torch.Generator().manual_seed(0)  # the same draws each time: pictures of a run can be compared
        tokens = _reader(encoder).preprocess(views["images"][: 4 if self.objective == "autoregressive" else 8])
        if self.objective == "masked":
            return {"filled": self._filled(encoder, heads, tokens, views["noise"], generator)}
        nothing = tokens.new_empty(16, 0)
        return {
            "completions": self._completed(encoder, heads, tokens, generator),
            "samples": _reader(encoder).preprocess.pictures(
                self._drawn(encoder, heads, nothing, tokens.shape[1], generator)
            ),
        }

    def _drawn(
        self, encoder: Encoder, heads: nn.ModuleDict, begun: Tensor, length: int, generator: torch.Generator
    ) -> Tensor:
        """(B, n) -> (B, length): go on with pictures."""
        draws = to_device(torch.rand(len(begun), length, generator=generator), begun.device)
        return _reader(encoder).complete(begun, heads["color"], draws, self.temperature)

    def _completed(self, encoder: Encoder, heads: nn.ModuleDict, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """(B, L) -> (8 * B, 3, side, side): the upper half, six ways to go on, the truth."""
        look, (count, length) = _reader(encoder).preprocess, tokens.shape
        begun = tokens[:, : length // 2].repeat_interleave(6, 0)
        completed = look.pictures(self._drawn(encoder, heads, begun, length, generator))
        truth = look.pictures(tokens)
        given = torch.arange(length, device=tokens.device).view(truth.shape[2:]) < length // 2
        upper = torch.where(given, truth, 0.5)[:, None]
        return torch.cat([upper, completed.reshape(count, 6, *truth.shape[1:]), truth[:, None]], 1).flatten(0, 1)

    def _filled(
        self, encoder: Encoder, heads: nn.ModuleDict, tokens: Tensor, noise: Tensor, generator: torch.Generator
    ) -> Tensor:
        """(B, L) -> (4 * B, 3, side, side): hidden in grey, filled with the likeliest, filled by chance, the truth."""
        look, hidden = _reader(encoder).preprocess, self._hidden(noise[: len(tokens)], tokens)
        *_, last = encoder.features(tokens.masked_fill(hidden, _reader(encoder).hidden)).values()
        share = (heads["color"](last).float() / self.temperature).softmax(2).cpu()
        drawn = torch.multinomial(share.flatten(0, 1), 1, generator=generator).view(tokens.shape).to(tokens.device)
        filled = [torch.where(hidden, other, tokens) for other in (share.argmax(2).to(tokens.device), drawn)]
        truth = look.pictures(tokens)
        grey = torch.where(hidden.view(len(tokens), 1, *truth.shape[2:]), 0.5, truth)
        return torch.stack([grey, *map(look.pictures, filled), truth], 1).flatten(0, 1)


def _reader(encoder: Encoder) -> Reader:
    return cast(Reader, encoder)  # no other can be built with what the task wants
