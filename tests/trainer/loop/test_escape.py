"""Rows D17, D20: at a plateau of the training loss a stream's schedule or loss changes, at exactly the step of its patience, and back again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.loop.recipes import FIVE, Kept, loop_of, same
from trainer.loop import folder
from trainer.loop.escape import Action, Escape
from trainer.loop.loop import Loop
from trainer.loop.losses import Likelihood, Weighted
from trainer.loop.schedules import NamedSchedule
from trainer.loop.stream import Stream
from trainer.stops.patience import Patience

RATE, STEPS = 1e-3, 12
LINEAR = [RATE * (1 - step / STEPS) for step in range(STEPS)]


def small(action: Action, times: int = 1, *, rate: float = RATE, loss: Any = None) -> tuple[Loop, Kept, Stream]:
    """Nothing is better by so much: the first loss is the best, and three more are a plateau."""

    def escape() -> list[Escape]:
        return [Escape(lambda: Patience("loss", 3, 100.0, "plateau"), action, times, factor=3.0)]

    recipe = replace(
        FIVE["small"], steps=STEPS, schedule=NamedSchedule("linear", steps=STEPS), controllers=escape, loss=loss or Likelihood(),
        optimizer=lambda values: torch.optim.AdamW(values, lr=rate),
    )  # fmt: skip
    loop, kept, streams = loop_of({"small": recipe})
    return loop, kept, streams["small"]


def rates(kept: Kept) -> list[float]:
    return [step.figures["learning_rate"] for step in kept.steps["small"]]


def events(kept: Kept) -> dict[int, str]:
    return {step.step: "; ".join(step.events) for step in kept.steps["small"] if step.events}


def test_after_so_many_steps_without_progress_the_rate_starts_again_along_a_cosine_once() -> None:
    loop, kept, _ = small("cosine")
    loop.run()
    cosine = [RATE * 0.5 * (1 + math.cos(math.pi * step / 8)) for step in range(8)]
    assert rates(kept) == pytest.approx([*LINEAR[:4], *cosine])
    assert list(events(kept)) == [4]
    assert events(kept)[4].startswith("plateau: 3 times in a row no better than ")
    assert events(kept)[4].endswith(": the learning rate starts again along a cosine")


def test_a_rate_is_multiplied_at_each_plateau_and_the_count_begins_anew() -> None:
    loop, kept, _ = small("bump", times=2)
    loop.run()
    expected = [rate * factor for rate, factor in zip(LINEAR, [1] * 4 + [3] * 4 + [9] * 4, strict=True)]
    assert rates(kept) == pytest.approx(expected)
    assert list(events(kept)) == [4, 8]


def test_tokens_are_weighted_by_their_probability_from_then_on() -> None:
    """At a rate of zero, so that the same model is asked throughout."""
    loop, kept, _ = small("reweight", rate=0.0)
    loop.run()
    other, plain, _ = small("cosine", rate=0.0)
    other.run()
    third, weighted, _ = small("cosine", rate=0.0, loss=Weighted())
    third.run()
    assert kept.losses("small") == pytest.approx([*plain.losses("small")[:4], *weighted.losses("small")[4:]], rel=1e-5)
    assert weighted.losses("small")[0] < plain.losses("small")[0] / 2
    assert ["ce" in step.figures for step in kept.steps["small"]] == [False] * 4 + [True] * 8


def judged(losses: dict[int, float]) -> Callable[[Stream, Any], None]:
    return lambda stream, step: stream.judged(losses[step.step]) if step.step in losses else None


@pytest.mark.parametrize("action", ["cosine", "bump", "reweight"])
def test_what_made_the_held_out_loss_worse_is_taken_back(action: Action) -> None:
    loop, kept, stream = small(action)
    schedule, loss = stream.schedule, stream.loss
    kept.at = judged({2: 2.0, 6: 1.5, 8: 2.5})
    loop.run()
    assert stream.schedule is schedule and stream.loss is loss
    if action != "reweight":
        assert rates(kept)[6] != pytest.approx(LINEAR[6])
    assert rates(kept)[8:] == pytest.approx(LINEAR[8:])
    assert events(kept)[9] == f"the held-out loss rose from 2 to 2.5: {action} of step 4 is taken back"


def test_what_made_it_no_worse_stays_and_what_was_never_judged_before_too() -> None:
    for losses in ({2: 2.0, 6: 2.0}, {6: 2.0, 8: 3.0}):
        loop, kept, _ = small("bump")
        kept.at = judged(losses)
        loop.run()
        assert list(events(kept)) == [4]
        assert rates(kept)[-1] == pytest.approx(3 * LINEAR[-1])


@pytest.mark.parametrize("action", ["cosine", "bump", "reweight"])
@pytest.mark.parametrize("saved", [3, 5, 8])
def test_it_goes_on_bit_for_bit_from_before_the_plateau_from_after_it_and_from_where_it_was_taken_back(
    tmp_path: Path, action: Action, saved: int
) -> None:
    see = judged({2: 2.0, 8: 2.5})

    def at(stream: Stream, step: Any) -> None:
        see(stream, step)
        if step.step == saved:
            folder.write(stream, tmp_path)

    loop, kept, through = small(action)
    kept.at = at
    loop.run()
    again, after, resumed = small(action)
    folder.read(resumed, tmp_path)
    after.at = see
    again.run()
    assert same(resumed, through)
    assert rates(after) == rates(kept)[saved:]
    assert events(after) == {step: text for step, text in events(kept).items() if step > saved}
