"""Rows C09, C10, C11, X09: the decay of what an adapter adds, against autograd of the stated penalty."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from trainer.loop.decay import Decay, norm_of
from trainer.loop.layer import Pair

S, RATE = 1.7, 1e-2
PENALTIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l2": lambda a, b: 0.5 * (S * b.T @ a).square().sum(),
    "nuclear": lambda a, b: S * (a.square().sum() + b.square().sum()),
}


def pair(zero: bool = False) -> Pair:
    draw = torch.Generator().manual_seed(3)
    a, b = (torch.randn(4, size, generator=draw, dtype=torch.float64) for size in (11, 7))
    return Pair(a, b * (not zero), None, S, 0.0)


@pytest.mark.parametrize("penalty", ["l2", "nuclear"])
def test_a_step_is_the_rate_times_the_gradient_of_the_stated_penalty(penalty) -> None:
    one = pair()
    a, b = (value.detach().clone().requires_grad_() for value in (one.a, one.b))
    PENALTIES[penalty](a, b).backward()
    Decay(penalty, strength=0.3)([one], RATE)
    torch.testing.assert_close(one.a.detach(), a.detach() - RATE * 0.3 * a.grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(one.b.detach(), b.detach() - RATE * 0.3 * b.grad, rtol=0, atol=1e-12)


def test_the_nuclear_penalty_is_twice_the_nuclear_norm_where_a_and_b_are_balanced_and_more_elsewhere() -> None:
    one = pair()
    u, sigma, v = torch.linalg.svd(S * one.b.detach().T @ one.a.detach(), full_matrices=False)
    root = (sigma / S).sqrt()
    balanced = PENALTIES["nuclear"](root[:, None] * v, root[:, None] * u.T)
    assert float(balanced) == pytest.approx(2 * float(sigma.sum()))
    assert float(PENALTIES["nuclear"](one.a.detach(), one.b.detach())) > 1.01 * float(balanced)


@pytest.mark.parametrize("strength", [0.5, 1e6])
def test_frobenius_lowers_the_norm_by_exactly_its_step_and_never_below_zero(strength: float) -> None:
    one = pair()
    before = float(norm_of(one))
    found = Decay("frobenius", strength)([one], RATE)
    assert float(norm_of(one)) == pytest.approx(before - min(RATE * strength, before), abs=1e-9)
    assert found["adapter_decay"] == pytest.approx(min(RATE * strength, before) / before)


def test_no_layer_is_longer_than_the_largest_norm_allowed() -> None:
    long, short = pair(), pair()
    with torch.no_grad():
        short.b.mul_(1e-3)
    kept = short.b.detach().clone()
    found = Decay("nuclear", 0.0, max_norm=2.0)([long, short], RATE)
    assert float(norm_of(long)) == pytest.approx(2.0, abs=1e-6)
    assert torch.equal(short.b, kept)
    assert found["adapter_norm_max"] == pytest.approx(2.0, abs=1e-6)
    assert found["adapter_norm"] < 1.1


@pytest.mark.parametrize("penalty", ["l2", "nuclear", "frobenius"])
def test_an_adapter_that_adds_nothing_yet_keeps_the_a_that_was_drawn(penalty) -> None:
    one = pair(zero=True)
    before = one.a.detach().clone()
    assert Decay(penalty, 10.0, 1.0)([one], RATE)["adapter_norm"] == 0
    assert torch.equal(one.a, before)


def test_the_norm_is_that_of_the_whole_matrix() -> None:
    one = pair()
    assert float(norm_of(one)) == pytest.approx(float(torch.linalg.norm(S * one.b.detach().T @ one.a.detach())))
