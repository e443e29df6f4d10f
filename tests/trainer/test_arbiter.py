"""Row D21: an arbiter between models goes by what they do, and is repeatable."""

from __future__ import annotations

import math

import pytest

from trainer.arbiter import Arbiter

NAMES = ("encoder", "decoder")


def driven(policy: str, *, steps: int = 20, **more: float) -> Arbiter:
    arbiter = Arbiter(policy, NAMES, rows={"encoder": 30, "decoder": 10}, **more)
    for step in range(steps):
        arbiter.update({"encoder": (4 * 0.9**step, 1.0), "decoder": (4.0, 3.0)})
    return arbiter


def test_the_model_whose_loss_falls_faster_is_updated_further() -> None:
    found = driven("loss_slope", temperature=0.1).factors()
    assert found["encoder"] > 1 > found["decoder"]
    assert sum(found.values()) == pytest.approx(2)


def test_long_gradients_are_slowed_and_many_rows_weigh_more() -> None:
    slowed = driven("grad_norm").factors()
    assert slowed["encoder"] / slowed["decoder"] == pytest.approx(3)
    assert driven("proportional").factors() == {"encoder": 1.5, "decoder": 0.5}


def test_factors_stay_within_their_bounds() -> None:
    found = driven("loss_slope", temperature=1e-3, low=0.5, high=1.25).factors()
    assert found == {"encoder": 1.25, "decoder": 0.5}


def test_turns_go_by_the_step_alone() -> None:
    turns = [list(Arbiter("alternate:2", NAMES).whose_turn(step)) for step in range(5)]
    assert turns == [["encoder"], ["encoder"], ["decoder"], ["decoder"], ["encoder"]]
    assert [Arbiter("round_robin", NAMES).whose_turn(step)[0] for step in range(3)] == ["encoder", "decoder", "encoder"]
    assert list(Arbiter("none", NAMES).whose_turn(7)) == list(NAMES)


def test_it_goes_on_from_its_state_exactly() -> None:
    arbiter = driven("loss_slope", steps=7)
    other = Arbiter("loss_slope", NAMES)
    other.load_state_dict(arbiter.state_dict())
    measured = {"encoder": (1.0, 2.0), "decoder": (math.pi, 1.0)}
    assert other.update(measured) == arbiter.update(measured)


def test_nobody_is_slowed_before_both_were_measured() -> None:
    arbiter = Arbiter("grad_norm", NAMES)
    assert arbiter.update({"encoder": (1.0, 9.0)}) == {"encoder": 1.0, "decoder": 1.0}
