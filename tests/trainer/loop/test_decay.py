"""Rows C09, C10, C11, X09: the decay of what an adapter adds, against autograd of the stated penalty."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from swarm import kinds
from swarm.kinds import Shrinking
from swarm.settings import StreamSettings
from tests.trainer.loop import decoders
from tests.trainer.loop.recipes import FIVE, loop_of
from trainer.loop.certify import certify
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
    assert found["adapter_norm_min"] == float(norm_of(short)) < found["adapter_norm"] < 1.1
    assert 0 == found["adapter_decay_min"] < found["adapter_decay"] < found["adapter_decay_max"]


@pytest.mark.parametrize("penalty", ["l2", "nuclear", "frobenius"])
def test_an_adapter_that_adds_nothing_yet_keeps_the_a_that_was_drawn(penalty) -> None:
    one = pair(zero=True)
    before = one.a.detach().clone()
    assert Decay(penalty, 10.0, 1.0)([one], RATE)["adapter_norm"] == 0
    assert torch.equal(one.a, before)


def test_the_norm_is_that_of_the_whole_matrix() -> None:
    one = pair()
    assert float(norm_of(one)) == pytest.approx(float(torch.linalg.norm(S * one.b.detach().T @ one.a.detach())))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_streams_that_decay_go_as_with_peft_and_beside_one_that_does_not_and_their_norms_are_figures() -> None:
    """C09, C11, C32."""
    recipes = {
        "small": replace(FIVE["small"], decay=Decay("nuclear", 5.0)), "rs": replace(FIVE["rs"], decay=Decay("l2", 50.0, max_norm=0.05)),
        "wide": replace(FIVE["wide"], decay=Decay("frobenius", 1.0)), "lion": FIVE["lion"],
    }  # fmt: skip
    for certificate in certify(decoders.decoder(dtype=torch.float64), recipes, steps=4):
        assert certificate.holds, certificate
    loop, kept, streams = loop_of(recipes)
    loop.run()
    steps = kept.steps["rs"]
    assert max(step.figures["adapter_norm_max"] for step in steps) == pytest.approx(0.05, rel=1e-4)
    assert 0 < steps[-1].figures["adapter_decay"] < 1
    assert "adapter_norm" not in kept.steps["lion"][-1].figures
    free, _, without = loop_of({"small": FIVE["small"]})
    free.run()
    norms = [sum(float(norm_of(one)) for one in made["small"].adapter.pairs.values()) for made in (streams, without)]
    assert norms[0] < norms[1]


@pytest.mark.parametrize(
    ("settings", "shrinking"),
    [
        ({}, None),
        ({"lora_weight_decay": 0.1}, Shrinking("nuclear", 0.1, 0.0)),
        ({"lora_weight_decay": 0.1, "lora_weight_decay_type": "l1"}, Shrinking("frobenius", 0.1, 0.0)),
        ({"lora_weight_decay": 0.1, "lora_weight_decay_type": "none"}, None),
        ({"lora_weight_decay_type": "none", "lora_max_norm": 2.0}, Shrinking("l2", 0.0, 2.0)),
    ],
)
def test_settings_say_what_shrinks_an_adapter(settings, shrinking) -> None:
    """C10: `l1` is the source's name for the norm that is not squared."""
    kind = kinds.adapter("lora")
    made = kind.settings(**settings)
    assert kind.shrinking(made) == shrinking
    assert kind.engines_with(made) == ({"shared"} if shrinking else {"shared", "trl"})


@pytest.mark.parametrize("other", [{"lora_weight_dtype": "bfloat16"}, {"init_lora_weights": "pissa"}])
def test_a_decay_that_would_do_nothing_or_harm_is_refused(other) -> None:
    """C08."""
    wanted = {"base_model": "-", "datasets": [{"path": "-"}], "lora_max_norm": 1.0, **other}
    refused = kinds.adapter("lora").refusal(StreamSettings.model_validate(wanted))
    assert refused is not None and refused.key in other
