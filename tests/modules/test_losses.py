"""Noise contrastive estimation against the formulas of both papers, term by term."""

import math

import pytest
import torch
import torch.nn.functional as F

from selftaught.modules.losses import nce

OWN = [2.0, -1.5, 0.3]
OTHERS = [[0.5, -2.0, 1.0, 3.0], [0.0, 0.0, 0.1, -4.0], [5.0, 4.0, -1.0, 0.2]]


def test_sum_normalizer_equals_the_formula_of_pirl():
    expected = []
    for own, others in zip(OWN, OTHERS, strict=True):
        noise = sum(math.exp(s) for s in others)

        def h(score, noise=noise):
            return math.exp(score) / (math.exp(score) + noise)

        expected.append(-math.log(h(own)) - sum(math.log(1 - h(s)) for s in others))
    assert nce(torch.tensor(OWN), torch.tensor(OTHERS)).tolist() == pytest.approx(expected, rel=1e-5)


def test_constant_normalizer_equals_the_posterior_of_npid():
    images, negatives, z = 50, 4, 123.0
    expected = []
    for own, others in zip(OWN, OTHERS, strict=True):

        def h(score):
            p = math.exp(score) / z
            return p / (p + negatives / images)

        expected.append(-math.log(h(own)) - sum(math.log(1 - h(s)) for s in others))
    found = nce(torch.tensor(OWN), torch.tensor(OTHERS), torch.tensor(math.log(negatives * z / images)))
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_excluded_negatives_do_not_change_the_loss():
    own, others = torch.tensor(OWN), torch.tensor(OTHERS)
    held = others.clone()
    held[:, 1] = -torch.inf
    held.requires_grad_()
    without = others[:, [0, 2, 3]].clone().requires_grad_()
    for noise in (None, torch.tensor(1.5)):
        losses = nce(own, held, noise), nce(own, without, noise)
        assert torch.allclose(*losses)
        gradients = [torch.autograd.grad(loss.sum(), x)[0] for loss, x in zip(losses, (held, without), strict=True)]
        assert torch.allclose(gradients[0][:, [0, 2, 3]], gradients[1])
        assert (gradients[0][:, 1] == 0).all()


def test_sum_normalizer_exceeds_softmax_cross_entropy_by_at_most_one():
    own, others = torch.randn(64) * 5, torch.randn(64, 10) * 5
    logits = torch.cat([own[:, None], others], 1)
    more = nce(own, others) - torch.nn.functional.cross_entropy(logits, torch.zeros(64, dtype=int), reduction="none")
    assert more.min() > math.log(2) - 1e-4
    assert more.max() < 1 + 1e-4


def test_loss_falls_with_positive_similarity_and_rises_with_negative_similarity():
    own, others = torch.tensor(OWN, requires_grad=True), torch.tensor(OTHERS, requires_grad=True)
    nce(own, others, torch.tensor(2.0)).sum().backward()
    assert (own.grad < 0).all()
    assert (others.grad > 0).all()


def test_extreme_scores_and_half_precision_stay_finite_and_exact():
    own, others = torch.tensor([14.0, -14.0, 1e4]), torch.tensor([[14.0, -14.0], [14.0, 14.0], [-1e4, 1e4]])
    found = nce(own.bfloat16(), others.bfloat16())
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert torch.equal(found, nce(own.bfloat16().float(), others.bfloat16().float()))


def test_manual_gradients_equal_finite_differences_and_autograd():
    generator = torch.Generator().manual_seed(0)
    own = (3 * torch.randn(5, generator=generator)).requires_grad_()
    others = 4 * torch.randn(5, 7, generator=generator)
    others[torch.arange(5), torch.tensor([0, 6, 3, 3, 1])] = -torch.inf
    others.requires_grad_()
    weight = torch.rand(5, generator=generator)

    def plain(own, others):
        log_c = others.logsumexp(1)
        return F.softplus(log_c - own) + F.softplus(others - log_c[:, None]).sum(1)

    expected = torch.autograd.grad(plain(own, others) @ weight, (own, others))
    found = torch.autograd.grad(nce(own, others) @ weight, (own, others))
    torch.testing.assert_close(nce(own, others), plain(own, others))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    low, high = own.detach().clone(), own.detach().clone()
    low[2] -= 1e-2
    high[2] += 1e-2
    slope = (nce(high, others) - nce(low, others))[2] / 2e-2
    torch.testing.assert_close(found[0][2], slope * weight[2], rtol=1e-2, atol=1e-4)
