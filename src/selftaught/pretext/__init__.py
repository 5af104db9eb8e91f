"""Pretext tasks and their supervised baseline, one file each. To add one: write its file and its line in the table."""

from importlib import import_module

from selftaught.contracts import Task
from selftaught.errors import unknown

TASKS = {
    "autoencoder": "selftaught.pretext.autoencoder:Autoencoder",
    "gan": "selftaught.pretext.gan:GAN",
    "colorization": "selftaught.pretext.colorization:Colorization",
    "inpainting": "selftaught.pretext.inpainting:Inpainting",
    "igpt": "selftaught.pretext.igpt:IGPT",
    "bigan": "selftaught.pretext.bigan:BiGAN",
    "context": "selftaught.pretext.context:Context",
    "jigsaw": "selftaught.pretext.jigsaw:Jigsaw",
    "rotation": "selftaught.pretext.rotation:Rotation",
    "scaling": "selftaught.pretext.scaling:Scaling",
    "deepcluster": "selftaught.pretext.deepcluster:DeepCluster",
    "npid": "selftaught.pretext.npid:NPID",
    "pirl": "selftaught.pretext.pirl:PIRL",
    "simclr": "selftaught.pretext.simclr:SimCLR",
    "moco": "selftaught.pretext.moco:MoCo",
    "byol": "selftaught.pretext.byol:BYOL",
    "simsiam": "selftaught.pretext.simsiam:SimSiam",
    "vicreg": "selftaught.pretext.vicreg:VICReg",
    "barlow": "selftaught.pretext.barlow:BarlowTwins",
    "swav": "selftaught.pretext.swav:SwAV",
    "dino": "selftaught.pretext.dino:DINO",
    "mae": "selftaught.pretext.mae:MAE",
    "emp": "selftaught.pretext.emp:EMP",
    "synthetic": "selftaught.pretext.synthetic:Synthetic",
    "supervised": "selftaught.pretext.supervised:Supervised",
}
"""Name on the command line -> location of the class, imported on use, so that start-up is fast."""


def task_class(name: str) -> type[Task]:
    """The class of the task named `name`."""
    if name not in TASKS:
        raise unknown("pretext task", name, TASKS)
    module, attribute = TASKS[name].split(":")
    task: type[Task] = getattr(import_module(module), attribute)
    return task
