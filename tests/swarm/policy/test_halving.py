"""Early exit (issue 21): who stops at a rung, and who does not."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from swarm import events as ev
from swarm.policy.commands import StopStream
from swarm.policy.halving import losers, rungs
from swarm.policy.schedule import decide
from swarm.settings import Halving, RunSettings
from tests.swarm.story import SHA, Story, settings, worker

RULE = Halving(first_step=10, reduction=2)


def run_of(*streams: str, reduction: int = 2) -> RunSettings:
    return settings(*streams).model_copy(update={"halving": RULE.model_copy(update={"reduction": reduction})})


class Race(Story):
    """Streams that train together under leases of one worker."""

    def __init__(self, *streams: str) -> None:
        super().__init__(*streams)
        self.tokens: dict[str, int] = {}
        for name in streams:
            self.start(name)

    def start(self, name: str) -> None:
        self.prepared(name)
        self.tokens[name] = self.claim(f"{name}/train", "trainer-1")

    def reaches(self, name: str, step: int, loss: float) -> None:
        tok = self.tokens[name]
        path, figures = f"streams/{name}/t{tok}/checkpoint-{step}", {"eval_loss": loss}
        self.say(
            "trainer-1", ev.Checkpoint(ref=f"{name}/train", tok=tok, step=step, path=path, sha256=SHA, figures=figures)
        )

    def stops(self, run: RunSettings) -> list[str]:
        found = losers(self.state, run)
        for name, why in found:
            self.say("coordinator", ev.Stop(ref=name, why=why))
            self.say("trainer-1", ev.Drop(ref=f"{name}/train", tok=self.tokens[name], why="stop"))
        return [name for name, _ in found]


def test_rungs_grow_by_the_reduction() -> None:
    steps = rungs(Halving(first_step=5))
    assert [next(steps) for _ in range(4)] == [5, 15, 45, 135]


def test_at_a_rung_the_better_half_goes_on_and_the_reason_names_rung_figure_and_bound() -> None:
    race, run = Race("a", "b", "c", "d"), run_of("a", "b", "c", "d")
    for name, loss in (("a", 0.4), ("b", 0.1), ("c", 0.3), ("d", 0.2)):
        assert not losers(race.state, run), "others are still on the way to the rung"
        race.reaches(name, 10, loss)
    why = "halving at step 10: held-out loss {}; the best 2 of 4 have 0.2 at most"
    assert losers(race.state, run) == [("a", why.format("0.4")), ("c", why.format("0.3"))]
    assert decide(race.state, [worker("trainer-1", "train")], race.now, run)[0] == StopStream("a", why.format("0.4"))


def test_without_the_setting_nobody_stops() -> None:
    race = Race("a", "b")
    race.reaches("a", 10, 0.1)
    race.reaches("b", 10, 9.0)
    assert losers(race.state, settings("a", "b")) == []


def test_fewer_streams_than_the_reduction_are_not_judged() -> None:
    race = Race("a", "b")
    race.reaches("a", 10, 0.1)
    race.reaches("b", 10, math.nan)
    assert losers(race.state, run_of("a", "b", reduction=3)) == []


def test_a_later_rung_does_not_wait_for_a_stream_that_has_not_passed_the_one_before() -> None:
    race, run = Race("a", "b", "c"), run_of("a", "b", "c")
    for name, loss in (("a", 0.4), ("b", 0.1)):
        race.reaches(name, 10, loss)
    assert race.stops(run) == [], "c is on the way to the first rung"
    for name, loss in (("a", 0.3), ("b", 0.1)):
        race.reaches(name, 20, loss)
    assert race.stops(run) == ["a"]


def test_a_stream_that_comes_later_is_compared_with_all_that_were_there_and_those_ahead_are_left_alone() -> None:
    race, run = Race("a", "b"), run_of("a", "b", "c")
    race.reaches("a", 10, 0.2)
    race.reaches("b", 10, 0.3)
    assert race.stops(run) == ["b"]
    race.reaches("a", 20, 0.15)
    race.say("coordinator", ev.Stream(ref="c"))
    race.start("c")
    race.reaches("c", 10, 0.1)
    assert race.stops(run) == [], "c is the best one of three; a has passed that rung and is judged at its next"
    race.reaches("c", 20, 0.12)
    assert race.stops(run) == ["a"]


def test_a_paused_stream_is_not_waited_for_and_one_with_a_loss_that_is_no_number_is_the_worst() -> None:
    race, run = Race("a", "b", "c"), run_of("a", "b", "c")
    race.say("ada", ev.Pause(ref="c"))
    race.reaches("a", 10, float("nan"))
    race.reaches("b", 10, 7.0)
    assert race.stops(run) == ["a"]


def test_who_was_revived_is_not_stopped_again() -> None:
    race, run = Race("a", "b"), run_of("a", "b")
    race.reaches("a", 10, 0.2)
    race.reaches("b", 10, 0.3)
    assert race.stops(run) == ["b"]
    race.say("ada", ev.Resume(ref="b"))
    race.tokens["b"] = race.claim("b/train", "trainer-1")
    assert race.stops(run) == []


@given(st.lists(st.floats(0.01, 10), min_size=2, max_size=12, unique=True), st.integers(2, 4), st.randoms())
def test_the_best_stream_is_never_stopped_and_never_more_go_on_than_one_in_the_reduction(
    losses, reduction, order
) -> None:
    names = [f"s{number}" for number in range(len(losses))]
    race, run = Race(*names), run_of(*names, reduction=reduction)
    arrivals = list(zip(names, losses, strict=True))
    order.shuffle(arrivals)
    for name, loss in arrivals:
        race.reaches(name, 10, loss)
    stopped = race.stops(run)
    assert names[losses.index(min(losses))] not in stopped
    if len(names) >= reduction:
        assert len(names) - len(stopped) == len(names) // reduction
        left = [loss for name, loss in arrivals if name not in stopped]
        assert max(left) < min((loss for name, loss in arrivals if name in stopped), default=99)
