"""Ranges of numbers in settings: they catch typos before these exhaust the time, the memory or the precision.

Each is above what any paper uses. Ranges that follow from another setting or from the images are where they are known.
"""

from typing import NamedTuple


class Range(NamedTuple):
    """Arguments of `errors.require_between`."""

    low: float
    high: float
    above: bool = False
    """Whether `low` itself is excluded."""
    below: bool = False
    """Whether `high` itself is excluded."""


FRACTION = Range(0, 1)
POSITIVE_FRACTION = Range(0, 1, above=True)
FRACTION_BELOW_1 = Range(0, 1, below=True)
INNER_FRACTION = Range(0, 1, above=True, below=True)
WIDTH = Range(1, 2**14)
"""Units of a layer or dimensions of an embedding (Barlow Twins, VICReg: 8,192)."""
CHANNELS = Range(1, 1024)
"""Channels of the largest map of a convolutional network; smaller maps have multiples of it."""
OUTPUTS = Range(1, 2**17)
"""Outputs of a classifier without labels (DINO: 65,536)."""
DEPTH = Range(1, 128)
"""Blocks of a transformer."""
HEADS = Range(1, 256)
"""Attention heads."""
COLORS = Range(2, 2**13)
"""Colors of a palette (iGPT: 512)."""
VIEWS = Range(1, 1000)
"""Views, tiles or puzzles of one image (EMP-SSL: 200 patches)."""
ENTRIES = Range(1, 2**20)
"""Keys of a queue or negatives (MoCo: 65,536)."""
IMAGES = Range(1, 10**8)
"""Images per clustering or epoch."""
ITERATIONS = Range(1, 1000)
"""Iterations within one step or clustering."""
TEMPERATURE = Range(0.001, 1000)
"""Softmax temperatures: cosines divided by less would overflow half precision (papers: 0.04 to 1)."""
COEFFICIENT = Range(0, 10**6)
"""Weights of the terms of a loss (EMP-SSL: 200)."""
POSITIVE_COEFFICIENT = Range(0, 10**6, above=True)
LR_SCALE = Range(0, 1000, above=True)
"""Factors on the learning rate."""
MINUTES = Range(0, 10**7, above=True)
EPOCHS = Range(0, 10**6, above=True)
"""Passes over the images."""
STEPS = Range(1, 10**12)
SIZE = Range(1, 4096)
"""Side of the views in pixels."""
BATCH = Range(1, 2**20)
"""Images per step."""
NUM_IMAGES = Range(1, 10**12)
"""Images of a source to use, or neighbors among them; there may be fewer."""
CROPS = Range(1, 10**8)
"""Virtual crops of photos."""
SEED = Range(0, 2**32 - 1)
SEEDS = Range(1, 1000)
"""Repetitions of a training or an evaluation."""
STUDY_SEEDS = Range(1, 100)
"""Pretrainings of each variant."""
THREADS = Range(1, 1024)
"""CPU threads or processes."""
LEARNING_RATE = Range(0, 1e30, above=True)
"""A rate that is too high is an error of its own, when the loss becomes NaN."""
