"""Duo, AdamW and Lion in one optimizer: bit-exact identities (D02, D05, D06, D10, D27), and a stream that trains with it (D09)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from bitsandbytes.optim.lion import Lion
from torch import nn

from swarm import kinds
from trainer import Duo

Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
RATE, DECAY = 1e-2, 0.1


def weights(seed: int = 1) -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=draw)) for shape in ((64, 33), (7,))]


def stepped(
    values: list[nn.Parameter], optimizer: torch.optim.Optimizer, steps: int = 20, first: int = 0
) -> list[nn.Parameter]:
    for step in range(first, first + steps):
        draw = torch.Generator().manual_seed(step)
        for value in values:
            value.grad = torch.randn(value.shape, generator=draw) * (1 + step)
        optimizer.step()
    return values


def after(make: Make, **given: Any) -> list[nn.Parameter]:
    values = weights()
    return stepped(values, make(values), **given)


def equal(mine: list[nn.Parameter], other: list[nn.Parameter]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(mine, other, strict=True))


def adamw(values: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(values, lr=RATE, weight_decay=DECAY)


def lion(values: list[nn.Parameter]) -> torch.optim.Optimizer:
    return Lion(values, lr=RATE, weight_decay=DECAY, betas=(0.9, 0.99))


def duo(mode: str, share: float = 0.5, **more: Any) -> Make:
    return lambda values: Duo(values, lr=RATE, weight_decay=DECAY, mode=mode, share=share, **more)  # type: ignore[arg-type]


def test_a_blend_with_adamw_alone_is_adamw_and_with_lion_alone_is_lion_bit_for_bit() -> None:
    assert equal(after(duo("blend", 1.0)), after(adamw))
    assert equal(after(duo("blend", 0.0)), after(lion))


def test_a_blend_is_the_convex_combination_of_two_updates_from_one_point_with_one_decay() -> None:
    """D27; the source added a second update to the first one, and decayed twice."""
    mixed = after(
        duo("blend", 0.25, lion_scale=0.5), steps=1
    )  # both step by the sign of the first gradient: half as far
    short = after(lambda v: Lion(v, lr=RATE / 2, weight_decay=2 * DECAY), steps=1)
    for value, by_adamw, by_lion in zip(mixed, after(adamw, steps=1), short, strict=True):
        torch.testing.assert_close(value, 0.25 * by_adamw + 0.75 * by_lion, rtol=1e-6, atol=1e-7)


def test_split_is_two_optimizers_bit_for_bit() -> None:
    """D02: AdamW for the encoder, Lion for the decoder."""
    encoder, decoder = weights(1), weights(2)
    groups = [{"params": encoder, "role": "encoder"}, {"params": decoder, "role": "decoder"}]
    stepped([*encoder, *decoder], Duo(groups, lr=RATE, weight_decay=DECAY, mode="split"))
    alone = weights(1), weights(2)
    two = adamw(alone[0]), lion(alone[1])
    for step in range(20):
        draw = torch.Generator().manual_seed(step)
        for value in (*alone[0], *alone[1]):
            value.grad = torch.randn(value.shape, generator=draw) * (1 + step)
        for optimizer in two:
            optimizer.step()
    assert equal(encoder, alone[0]) and equal(decoder, alone[1])


@pytest.mark.parametrize(
    ("mode", "shares"),
    [("split", (1, 0, 0)), ("amp", (1, 0, 0)), ("hybrid", (1, 0, 0.3)), ("blend", (0.3, 0.3, 0.3))],
)
def test_each_mode_gives_each_role_its_share_of_adamw(mode: str, shares: tuple[float, ...]) -> None:
    """D10."""
    made = duo(mode, 0.3)(weights())
    assert tuple(made.share_of(role) for role in ("encoder", "decoder", "shared")) == shares  # type: ignore[attr-defined]


def test_lion_takes_its_own_share_of_the_learning_rate() -> None:
    assert equal(
        after(duo("split", lion_scale=0.5), steps=1),
        after(lambda v: Lion(v, lr=RATE / 2, weight_decay=2 * DECAY), steps=1),
    )


def test_amp_leaves_everything_as_it_was_where_a_gradient_is_not_finite() -> None:
    values = weights()
    optimizer = Duo(values, lr=RATE, mode="amp")
    before = copy.deepcopy(values)
    for value in values:
        value.grad = torch.full_like(value, torch.inf)
    optimizer.step()
    assert equal(values, before) and optimizer.skipped == 1 and not optimizer.state


@pytest.mark.parametrize("mode", ["split", "blend", "amp"])
def test_it_works_with_a_schedule_and_a_scaler_of_anybody_s_loop_on_a_cpu(mode: str) -> None:
    """D06, D10: a step whose scaled gradient overflows is left out, as with any optimizer."""
    torch.manual_seed(0)
    models = {"encoder": nn.Linear(4, 2), "decoder": nn.Linear(4, 4)}
    groups = [{"params": model.parameters(), "role": role} for role, model in models.items()]
    optimizer = Duo(groups, lr=RATE, mode=mode)  # type: ignore[arg-type]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    scaler, rows, moved = torch.amp.GradScaler("cpu", init_scale=8.0), torch.randn(8, 4), []
    for step in range(4):
        before = [value.detach().clone() for model in models.values() for value in model.parameters()]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = sum((model(rows) * (torch.inf if step == 1 else 1)).square().mean() for model in models.values())
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        optimizer.zero_grad()
        after = [value for model in models.values() for value in model.parameters()]
        moved.append(not any(torch.equal(*values) for values in zip(before, after, strict=True)))
    assert moved == [True, False, True, True]
    assert [group["lr"] for group in optimizer.param_groups] == [RATE / 5] * 2


def test_it_goes_on_from_its_state_bit_for_bit() -> None:
    whole = after(duo("blend", 0.3))
    values = weights()
    first = duo("blend", 0.3)(values)
    stepped(values, first, steps=8)
    second = duo("blend", 0.3)(values)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert equal(stepped(values, second, steps=12, first=8), whole)


@pytest.mark.parametrize("wrong", [{"mode": "symbols"}, {"share": 1.5}, {"role": "teacher"}])
def test_what_means_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"is not one of|from 0 to 1"):
        Duo(weights(), **wrong)


def test_a_stream_chooses_it_by_name_with_its_settings() -> None:
    """D09; `symbolic` is the source's word for blend."""
    kind = kinds.optimizer("duo")
    made, arguments = kind.made_of(kind.settings(duo_mode="symbolic", duo_share=1.0))
    values = weights()
    assert equal(stepped(values, made(values, lr=RATE, weight_decay=DECAY, **arguments)), after(adamw))
    for role, expected in (("encoder", adamw), ("decoder", duo("split", lion_scale=0.2))):
        made, arguments = kind.made_of(kind.settings(duo_mode="split", duo_role=role, duo_lion_scale=0.2))
        values = weights()
        assert equal(stepped(values, made(values, lr=RATE, weight_decay=DECAY, **arguments)), after(expected)), role
