"""Tokens per second of iGPT, and memory of the backward pass: ours against a plain fp32 implementation.

    python -m benchmarks.igpt
    python -m benchmarks.igpt --size 16 --depth 8 --width 256 --heads 8

The plain network follows the formulas of the paper: separate matrices for queries, keys and values, attention scores of
all pairs of positions, a triangular mask, a softmax, GELU; with the same depth, width, heads, batch and optimizer. Both
sides train on tokens of the same images. Ours looks them up in the palette at every step, the other side gets them
precomputed. The memory is that of all tensors that autograd saves for the backward pass, except weights, counted once.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.images import noise, stored
from benchmarks.interleaved import Table, interleaved, parse_options, publish, rate, shared_options
from selftaught.cli.process import keep_freed_memory
from selftaught.contracts import ParameterGroup
from selftaught.encoders.gpt import GPT
from selftaught.pretext.igpt import IGPT
from selftaught.training.loop import Pretraining, Trainer
from selftaught.training.optimizer import Optimization
from selftaught.training.plan import choose_precision, make_fabric

CPU = torch.device("cpu")


class PlainBlock(nn.Module):
    """A transformer block, attention written out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.project = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.expand, self.contract = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        normed, length = self.norm1(hidden), hidden.shape[1]
        query, key, value = (
            matrix(normed).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for matrix in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        attended = scores.masked_fill(future, -torch.inf).softmax(3) @ value
        hidden = hidden + self.project(attended.transpose(1, 2).flatten(2))
        return hidden + self.contract(F.gelu(self.expand(self.norm2(hidden))))


class Plain(nn.Module):
    """A plain implementation: tokens (B, L) -> their mean negative log-likelihood."""

    def __init__(self, colors: int, length: int, depth: int, width: int, heads: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(colors + 1, width), nn.Parameter(torch.zeros(length, width))
        self.blocks = nn.Sequential(*(PlainBlock(width, heads) for _ in range(depth)))
        self.norm, self.color, self.start = nn.LayerNorm(width), nn.Linear(width, colors, bias=False), colors

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L) int64 -> ()."""
        inputs = F.pad(tokens[:, :-1], (1, 0), value=self.start)
        last = self.norm(self.blocks(self.tokens(inputs) + self.positions))
        return F.cross_entropy(self.color(last).flatten(0, 1), tokens.flatten())


def saved_bytes(forward: Callable[[], Tensor], weights: Sequence[Tensor]) -> int:
    """Bytes of the tensors that autograd saves for the backward pass, except weights."""
    sizes = {weight.untyped_storage().data_ptr(): 0 for weight in weights}

    def save(tensor: Tensor) -> Tensor:
        sizes.setdefault(tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        loss = forward()  # keeps the tensors alive, so that no address is counted twice
    total = sum(sizes.values())
    loss.backward()
    return total


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its tables."""
    parser = shared_options(__doc__, rounds=5)
    parser.add_argument(
        "--size", type=int, default=32, help="side of the images in pixels; an image has size * size tokens"
    )
    parser.add_argument("--depth", type=int, default=4, help="number of blocks")
    parser.add_argument("--width", type=int, default=128, help="features per position")
    parser.add_argument("--heads", type=int, default=4, help="attention heads")
    parser.add_argument("--batch-size", type=int, default=8, help="images per step")
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds per side and round; at least three steps")
    options = parse_options(parser, arguments, size=8, depth=1, width=16, heads=2, batch_size=2, seconds=0.02)
    keep_freed_memory()
    torch.manual_seed(0)
    source, task = stored(noise(max(600, options.batch_size), options.size)), IGPT(size=options.size)
    encoder = GPT(size=options.size, depth=options.depth, width=options.width, heads=options.heads)
    encoder.fit(source)
    heads = task.heads(encoder, source)
    views = task.views(source.batch(torch.arange(options.batch_size), CPU), torch.Generator().manual_seed(0))
    tokens = encoder.preprocess(views["images"])
    plain = Plain(len(encoder.preprocess.colors), tokens.shape[1], options.depth, options.width, options.heads)
    run = Pretraining(task, encoder, heads, source, Optimization(), 1, options.batch_size, 0)
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

    sides = {"ours": rate(ours, options.seconds), "plain": rate(usual, options.seconds)}
    weights = [*encoder.parameters(), *heads.parameters(), *plain.parameters()]
    saved = {
        "ours": saved_bytes(lambda: task.loss(encoder, heads, views)[0], weights),
        "plain": saved_bytes(lambda: plain(tokens), weights),
    }
    notes = {name: f"saves {size / 2**20:,.1f} MiB" for name, size in saved.items()}
    title = (
        f"a step of {options.batch_size} images of {options.size} px, {options.depth} blocks of {options.width}, "
        f"{options.heads} heads"
    )
    table = Table(title, "tokens/s", interleaved(sides, options.rounds), notes=notes)
    remarks = [f"Ours: {'fp32' if precision == '32' else precision}. Images are noise, quantized to 512 colors."]
    publish("igpt", "iGPT", [table], remarks, options)


if __name__ == "__main__":
    main()
