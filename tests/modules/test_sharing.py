"""What processes do together, with one process and with the parts of several played one after the other."""

import torch
from torch import nn

from selftaught.modules.processes import Processes, alone, average, gather, in_parts, own, processes, using
from selftaught.modules.synchronized import SynchronizedNorm, synchronize_norms

ROWS = torch.arange(12.0).reshape(6, 2)


class Played(Processes):
    """One of `count` processes, which all gather the same rows."""

    def __init__(self, rank: int, count: int) -> None:
        self.rank, self.count = rank, count

    def gather(self, rows):
        return torch.cat([rows] * self.count)

    def total(self, values):
        return values * self.count


def test_one_process_is_identity():
    assert processes().count == 1
    for same in (gather, own, average):
        assert same(ROWS) is ROWS
    assert in_parts(ROWS, lambda rows: rows + 1).equal(ROWS + 1)
    assert processes().first(lambda: 3) == 3
    assert processes().agree(5) == 5


def test_parts_follow_the_order_of_the_batch():
    for rank in range(3):
        with using(Played(rank, 3)):
            assert own(ROWS).equal(ROWS[2 * rank : 2 * rank + 2])
            with alone():
                assert own(ROWS) is ROWS
            assert average(ROWS).equal(ROWS)
    assert processes().count == 1


def test_passes_over_images_are_divided_even_if_their_number_is_not_divisible():
    class Other(Played):
        def gather(self, rows):
            computed.append(rows)
            return torch.cat(computed if len(computed) == self.count else [rows] * self.count)

    computed: list[torch.Tensor] = []
    for rank in range(4):
        with using(Other(rank, 4)):
            found = in_parts(torch.arange(6), lambda rows: 10.0 * rows[:, None])
    assert [len(rows) for rows in computed] == [2] * 4
    assert found.equal(10.0 * torch.arange(6)[:, None])


def test_norms_are_synchronized_in_place_and_keep_their_names():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3), nn.BatchNorm1d(3))
    before, norms = {**network.state_dict()}, [network[1], network[4]]
    synchronize_norms(network)
    assert network.state_dict().keys() == before.keys()
    assert all(isinstance(norm, SynchronizedNorm) for norm in norms)
    assert network[1] is norms[0]


def test_a_synchronized_norm_of_equal_parts_is_batch_norm_of_one():
    """All processes have the same rows here, so mean, variance and gradients are those of one process."""
    torch.manual_seed(0)
    for plain, inputs in (
        (nn.BatchNorm1d(5), torch.randn(8, 5)),
        (nn.BatchNorm2d(5, momentum=None), torch.randn(4, 5, 3, 3)),
    ):
        nn.init.normal_(plain.weight)
        shared = type(plain)(5, momentum=plain.momentum)
        shared.load_state_dict(plain.state_dict())
        synchronize_norms(nn.Sequential(shared))
        one, two = (inputs.clone().requires_grad_() for _ in range(2))
        slopes = torch.randn_like(inputs)
        expected = plain(one)
        expected.backward(slopes)
        with using(Played(0, 2)):
            found = shared(two)
            found.backward(slopes)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(two.grad, one.grad)
        torch.testing.assert_close(shared.weight.grad, plain.weight.grad)
        torch.testing.assert_close(shared.running_mean, plain.running_mean)
