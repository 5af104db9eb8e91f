"""The scene of a number: a room or a landscape."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from selftaught.rendering.landscapes import landscape
from selftaught.rendering.rooms import room
from selftaught.rendering.scenes import Scene

VERSION = 1
"""Version of the scenes: increase it when the scene of a number changes."""
ROOMS = 0.6
"""Share of rooms."""


def random_scene(seed: int, number: int, photos: NDArray[np.uint8] | None = None) -> Scene:
    """The scene of a number, which does not depend on other scenes.

    Args:
        seed: random seed of the data set.
        number: number of the scene.
        photos: (n, 3, S, S) images for textures.
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, number))))
    scene = (room if rng.uniform() < ROOMS else landscape)(rng, photos)
    return replace(scene, seed=int(rng.integers(2**31)))
