"""The solvers of the probes `logistic` and `svm` against scikit-learn, on the same problem with the same cost.

    python -m benchmarks.solvers                              digits, bundled with scikit-learn
    python -m benchmarks.solvers --data cifar10 --limit 5000

Both sides get the pooled features of the last layer of an encoder with random weights, scaled as the probes scale them,
and solve for one cost to their default tolerance. Features are computed before the time is taken. The accuracies of the
two sides agree up to this tolerance. Every round uses another seed for the weights of the encoder.
"""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor

from benchmarks.interleaved import Table, interleaved, parse_options, publish, seconds_of, shared_options
from selftaught.contracts import Source
from selftaught.data import open_splits
from selftaught.encoders.convnet import ConvNet
from selftaught.evaluation.features import Viewing, layer_features
from selftaught.evaluation.probes import logistic, svm_solver
from selftaught.evaluation.probes.base import indicators
from selftaught.evaluation.probes.svm import with_constant

LOGISTIC_COST, SVM_COST = 0.01, 1.0
"""Values of C."""
POSITIVE_WEIGHT = 2.0
"""Weight of the images of a class, as in the probe."""
ITERATIONS = 1000

Solve = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Training features (n, d), their labels (n,), test features (m, d) -> class scores (m, k)."""


def ours_logistic(train: Tensor, labels: Tensor, test: Tensor) -> Tensor:
    """L-BFGS of the `logistic` probe."""
    classes = int(labels.max()) + 1
    start = train.new_zeros(train.shape[1], classes), train.new_zeros(classes)
    weight, bias = logistic.minimize(train, labels, *start, LOGISTIC_COST, ITERATIONS)
    return torch.addmm(bias, test, weight)


def their_logistic(train: Tensor, labels: Tensor, test: Tensor) -> Tensor:
    """`LogisticRegression` of scikit-learn."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=LOGISTIC_COST, max_iter=ITERATIONS).fit(train.numpy(), labels.numpy())
    return torch.from_numpy(model.decision_function(test.numpy()))


def ours_svm(train: Tensor, labels: Tensor, test: Tensor) -> Tensor:
    """The Newton method of the `svm` probe, for all classes at once."""
    signs = 2.0 * indicators(labels, int(labels.max()) + 1).to(train.dtype) - 1
    costs = SVM_COST * torch.where(signs > 0, POSITIVE_WEIGHT, 1.0)
    return with_constant(test) @ svm_solver.minimize(with_constant(train), signs, costs)


def their_svm(train: Tensor, labels: Tensor, test: Tensor) -> Tensor:
    """`LinearSVC` of scikit-learn, one class after the other."""
    from sklearn.svm import LinearSVC

    inputs, others = with_constant(train).numpy(), with_constant(test).numpy()
    weights, scores = {0: 1.0, 1: POSITIVE_WEIGHT}, []
    for number in range(int(labels.max()) + 1):
        model = LinearSVC(C=SVM_COST, class_weight=weights, fit_intercept=False, max_iter=10 * ITERATIONS)
        model.fit(inputs, (labels == number).int().numpy())
        scores.append(torch.from_numpy(model.decision_function(others)))
    return torch.stack(scores, 1)


PROBLEMS: dict[str, dict[str, Solve]] = {
    "logistic regression": {"ours": ours_logistic, "scikit-learn": their_logistic},
    "support vector machines": {"ours": ours_svm, "scikit-learn": their_svm},
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its tables."""
    parser = shared_options(__doc__, rounds=3)
    parser.add_argument("--data", default="digits", help="labeled images, as for `selftaught probe --data`")
    parser.add_argument("--limit", type=int, help="number of training images, and of test images; default: all")
    parser.add_argument("--size", type=int, default=32, help="side of the views in pixels")
    parser.add_argument("--dimensions", type=int, default=1024, help="maximum size of pooled features")
    options = parse_options(parser, arguments, limit=60, dimensions=64, size=16)
    train, test = open_splits(options.data, limit=options.limit)
    tables = [problem_table(problem, sides, train, test, options) for problem, sides in PROBLEMS.items()]
    remarks = [
        f"{len(train):,} training and {len(test):,} test images ({options.data}); last layer of `convnet` with random "
        f"weights; C = {LOGISTIC_COST:g} and {SVM_COST:g}."
    ]
    publish("solvers", "Solvers", tables, remarks, options)


def problem_table(problem: str, sides: dict[str, Solve], train: Source, test: Source, options: Any) -> Table:
    """Both sides on the same problems."""
    viewing = Viewing(options.size, torch.device("cpu"), options.dimensions)
    features: dict[int, tuple[Tensor, Tensor, Tensor, Tensor]] = {}
    accuracies: dict[str, list[float]] = {side: [] for side in sides}
    seeds = {side: count() for side in sides}

    def run(side: str) -> float:
        seed = next(seeds[side])
        if seed not in features:
            features[seed] = scaled_features(seed, train, test, viewing)
        inputs, labels, others, truth = features[seed]
        scores: list[Tensor] = []
        seconds = seconds_of(lambda: scores.append(sides[side](inputs, labels, others)))
        accuracies[side].append(float((scores[0].argmax(1) == truth).double().mean()))
        return seconds

    measured = interleaved({side: lambda side=side: run(side) for side in sides}, options.rounds)
    notes = {side: f"accuracy {sum(own[1:]) / len(own[1:]):.3f}" for side, own in accuracies.items()}
    dimensions = features[0][0].shape[1]
    return Table(f"{problem}, {dimensions:,} dimensions", "seconds", measured, "ours", "less", notes)


def scaled_features(seed: int, train: Source, test: Source, viewing: Viewing) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features of the last layer with labels, of the training and the test images; mean variance 1."""
    torch.manual_seed(seed)
    encoder = ConvNet(size=viewing.size)
    found = []
    for source in (train, test):
        parts = list(layer_features(encoder, source, viewing))
        last = list(parts[0].layers)[-1]
        found.append((torch.cat([part.layers[last] for part in parts]), torch.cat([part.labels for part in parts])))
    (inputs, labels), (others, truth) = found
    mean = inputs.mean(0)
    scale = (inputs - mean).square().mean().sqrt()
    return (inputs - mean) / scale, labels, (others - mean) / scale, truth


if __name__ == "__main__":
    main()
