import copy

import pytest
import torch
from torch import nn

from selftaught.modules.norms import untracked


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4, track_running_stats=False))


def test_untracked_batches_use_their_own_statistics_and_update_none():
    module, images = net(), torch.randn(8, 3, 6, 6) + 3
    module(torch.randn(8, 3, 6, 6))
    before, expected = copy.deepcopy(module.state_dict()), copy.deepcopy(module)(images)
    with untracked(module):
        assert torch.equal(module(images), expected)
    assert all(torch.equal(module.state_dict()[name], value) for name, value in before.items())


def test_tracking_resumes_after_untracked():
    module, other, images = net(), net(), torch.randn(8, 3, 6, 6) + 3
    with untracked(module):
        module(torch.randn(8, 3, 6, 6))
    module(images), other(images)
    assert all(torch.equal(module.state_dict()[name], value) for name, value in other.state_dict().items())
    assert not module[3].track_running_stats  # what kept none keeps none


def test_untracked_in_eval_mode_uses_running_statistics():
    module, images = net(), torch.randn(8, 3, 6, 6) + 3
    module(images)
    expected = module.eval()(images)
    with untracked(module):
        assert torch.equal(module(images), expected)


def test_exceptions_inside_untracked_restore_tracking():
    module = net()
    with pytest.raises(RuntimeError), untracked(module):
        module(torch.zeros(1))
    assert module[1].track_running_stats
