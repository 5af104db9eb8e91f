"""The picture of rendered scenes in the docs."""

import importlib.util
from pathlib import Path

import torch

PATH = Path(__file__).parents[2] / "docs" / "contact_sheet.py"


def test_the_contact_sheet_shows_every_picture_of_every_scene():
    specification = importlib.util.spec_from_file_location("contact_sheet", PATH)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    depth = torch.tensor([[[[0.0, 1.0], [10.0, 100.0]]]]).repeat(3, 1, 1, 1)
    normals = torch.zeros(3, 3, 2, 2)
    normals[:, 2, 0] = 1
    images = torch.rand(3, 3, 2, 2)
    sheet = module.draw(images, {"depth": depth, "normals": normals, "contours": torch.ones(3, 1, 2, 2)}, columns=2)
    assert sheet.shape == (3, 4, 16)
    assert torch.equal(sheet[:, 2:, :2], images[2])
    assert torch.allclose(sheet[0, :2, 2:4], torch.tensor([[0.0, 1.0], [0.575, 0.15]]))
    assert torch.equal(sheet[:, 0, 4], torch.tensor([0.5, 0.5, 1.0]))
    assert (sheet[:, 1, 4:6] == 0).all()
    assert (sheet[:, :, 6:8] == 1).all()
