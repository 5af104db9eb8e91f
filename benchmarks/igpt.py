"""Tokens per second of iGPT: ours against the same net written plainly in fp32; and what each keeps for the way back.

    python -m benchmarks.igpt
    python -m benchmarks.igpt --size 16 --depth 8 --width 256 --heads 8

The plain net is what one writes from the paper: three matrices for queries, keys and values, scores of all pairs of
positions, a triangle, a softmax, GELU, every block in turn; the same depth, width, heads, batch and optimizer. Both
sides train on tokens of the same images; ours finds them in the palette at every step, the other has them beforehand.
Kept for the way back: all tensors that autograd holds between forward and backward, weights apart, once each.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.images import noise, stored
from benchmarks.interleaved import Table, interleaved, options, parsed, publish, rate
from selftaught.cli.process import keep_freed_memory
from selftaught.contracts import ParameterGroup
from selftaught.encoders.gpt import GPT
from selftaught.pretext.igpt import IGPT
from selftaught.training.loop import Pretraining, Trainer
from selftaught.training.optimizer import Optimization
from selftaught.training.plan import choose_precision, make_fabric

CPU = torch.device("cpu")


class PlainBlock(nn.Module):
    """Attention and perceptron as the formulas have them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.merge = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.widen, self.narrow = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        normed, length = self.norm1(hidden), hidden.shape[1]
        query, key, value = (
            matrix(normed).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for matrix in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        attended = scores.masked_fill(later, -torch.inf).softmax(3) @ value
        hidden = hidden + self.merge(attended.transpose(1, 2).flatten(2))
        return hidden + self.narrow(F.gelu(self.widen(self.norm2(hidden))))


class Plain(nn.Module):
    """The usual way: tokens (B, L) -> their mean negative log-likelihood."""

    def __init__(self, colors: int, length: int, depth: int, width: int, heads: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(colors + 1, width), nn.Parameter(torch.zeros(length, width))
        self.blocks = nn.Sequential(*(PlainBlock(width, heads) for _ in range(depth)))
        self.norm, self.color, self.start = nn.LayerNorm(width), nn.Linear(width, colors, bias=False), colors

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L) int64 -> ()."""
        seen = F.pad(tokens[:, :-1], (1, 0), value=self.start)
        last = self.norm(self.blocks(self.tokens(seen) + self.positions))
        return F.cross_entropy(self.color(last).flatten(0, 1), tokens.flatten())


def kept(forward: Callable[[], Tensor], weights: Sequence[Tensor]) -> int:
    """Bytes that autograd holds for the way back, weights apart."""
    held = {weight.untyped_storage().data_ptr(): 0 for weight in weights}

    def hold(tensor: Tensor) -> Tensor:
        held.setdefault(tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        loss = forward()  # kept alive until all is counted, or memory would be used twice
    found = sum(held.values())
    loss.backward()
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = options(__doc__, rounds=5)
    parser.add_argument("--size", type=int, default=32, help="side of the pictures in pixels: size * size tokens")
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2.0, help="per side and round, at least three steps")
    given = parsed(parser, words, size=8, depth=1, width=16, heads=2, batch_size=2, seconds=0.02)
    keep_freed_memory()
    torch.manual_seed(0)
    source, task = stored(noise(max(600, given.batch_size), given.size)), IGPT(size=given.size)
    encoder = GPT(size=given.size, depth=given.depth, width=given.width, heads=given.heads)
    encoder.fit(source)
    heads = task.heads(encoder, source)
    views = task.views(source.batch(torch.arange(given.batch_size), CPU), torch.Generator().manual_seed(0))
    tokens = encoder.preprocess(views["images"])
    plain = Plain(len(encoder.preprocess.colors), tokens.shape[1], given.depth, given.width, given.heads)
    run = Pretraining(task, encoder, heads, source, Optimization(), 1, given.batch_size, 0)
    precision = choose_precision("auto", CPU)
    trainer, optimizer = (
        Trainer(make_fabric(CPU, precision), run),
        Optimization().build([ParameterGroup(list(plain.parameters()))]),
    )

    def ours() -> int:
        trainer.step(views, 0.5)
        return tokens.numel()

    def usual() -> int:
        optimizer.zero_grad()
        plain(tokens).backward()
        optimizer.step()
        return tokens.numel()

    sides = {"ours": rate(ours, given.seconds), "plain": rate(usual, given.seconds)}
    weights = [*encoder.parameters(), *heads.parameters(), *plain.parameters()]
    bytes_ = {
        "ours": kept(lambda: task.loss(encoder, heads, views)[0], weights),
        "plain": kept(lambda: plain(tokens), weights),
    }
    notes = {name: f"keeps {found / 2**20:,.1f} MiB" for name, found in bytes_.items()}
    title = (
        f"a step of {given.batch_size} pictures of {given.size} px, {given.depth} blocks of {given.width}, "
        f"{given.heads} heads"
    )
    table = Table(title, "tokens/s", interleaved(sides, given.rounds), notes=notes)
    remarks = [f"Ours: {'fp32' if precision == '32' else precision}. Images are noise, pictures of 512 colours."]
    publish("igpt", "iGPT", [table], remarks, given)


if __name__ == "__main__":
    main()
