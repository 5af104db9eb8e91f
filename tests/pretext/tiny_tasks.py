"""Settings with which the tasks of the table are trained in a second."""

from functools import partial

from selftaught.modules.decoders import Decoder
from selftaught.modules.domain import discriminator
from selftaught.pretext import autoencoder, colorization, context, inpainting, jigsaw, synthetic
from selftaught.pretext.barlow import BarlowTwins
from selftaught.pretext.bigan import BiGAN
from selftaught.pretext.byol import BYOL
from selftaught.pretext.dino import DINO
from selftaught.pretext.emp import EMP
from selftaught.pretext.gan import GAN
from selftaught.pretext.jigsaw import Jigsaw
from selftaught.pretext.mae import MAE
from selftaught.pretext.moco import MoCo
from selftaught.pretext.simsiam import SimSiam
from selftaught.pretext.swav import SwAV
from selftaught.pretext.vicreg import VICReg

OPTIONS: dict[type, dict[str, object]] = {
    Jigsaw: {"permutations": 4},
    GAN: {"generator_width": 16},
    BiGAN: {"generator_width": 16, "critic_width": 16},
    MoCo: {"queue": 36},
    BYOL: {"dimensions": 16, "hidden": 64},
    SimSiam: {"dimensions": 32, "bottleneck": 16},
    VICReg: {"dimensions": 32},
    BarlowTwins: {"dimensions": 32},
    # The check of mismatches compares with the initial loss, most of which would be the coefficient of 200.
    # Patches of the toy images differ in little but color, so gray ones make them hard to learn in 60 steps.
    EMP: {"patches": 4, "dimensions": 16, "hidden": 32, "invariance": 20.0, "grayscale": 0.0},
    MAE: {"decoder_width": 32, "decoder_depth": 1},
    SwAV: {"prototypes": 8, "dimensions": 16, "hidden": 32, "local_views": 2},
    DINO: {"outputs": 32, "hidden": 32, "bottleneck": 16, "local_views": 2},
}
"""Settings with which a task and its subclasses are learned in a second."""
OTHER_WAYS = [
    ("autoencoder", {"space": "lab", "noise": 0.1, "masked": 0.25}),
    ("colorization", {"target": "mean", "shrink": 3}),
    ("igpt", {"objective": "masked"}),
    ("inpainting", {"adversarial": 0.1, "holes": "free"}),
    ("npid", {"nce_normalizer": "constant", "proximal": 1.0, "bank": "half"}),
    ("pirl", {"transform": "both", "head": "mlp"}),
    ("rotation", {"angles": (0, 45)}),
    ("synthetic", {"predict": ("normals",), "channel": "random"}),
]
"""Options under which a task computes something else."""
NARROW_HEADS = [
    *((module, "UNITS", 64) for module in (context, jigsaw)),
    *((module, "Decoder", partial(Decoder, width=32)) for module in (autoencoder, colorization, inpainting, synthetic)),
    (synthetic, "discriminator", partial(discriminator, width=32)),
]
"""Widths without a setting, as arguments of `setattr`: these heads took most of the time of the suite."""
