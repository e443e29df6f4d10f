"""Early exit by one of Optuna's pruners (issue 21): what it is asked, and what follows from its answer; Optuna itself is not needed."""

from __future__ import annotations

import math

from swarm import events as ev
from swarm.policy.commands import AskPruner
from swarm.policy.pruning import questions, request, stops
from swarm.policy.schedule import decide
from swarm.settings import Pruner, RunSettings
from tests.swarm.policy.test_halving import Race
from tests.swarm.story import SHA, settings, worker


def run_of(*streams: str) -> RunSettings:
    return settings(*streams).model_copy(update={"pruner": Pruner(type="median")})


def ends(race: Race, name: str, step: int, loss: float) -> None:
    tok = race.tokens[name]
    path, figures = f"streams/{name}/t{tok}/checkpoint-{step}", {"eval_loss": loss}
    race.say("trainer-1", ev.Trained(ref=f"{name}/train", tok=tok, step=step, path=path, sha256=SHA, trainable=9, figures=figures))  # fmt: skip


def test_it_is_asked_while_somebody_trains_who_was_measured_and_not_without_the_setting() -> None:
    race, run = Race("a", "b"), run_of("a", "b")
    assert questions(race.state, run) == [], "nothing was measured yet"
    race.reaches("a", 10, 0.4)
    assert questions(race.state, run) == [AskPruner(1)] and questions(race.state, settings("a", "b")) == []
    assert AskPruner(1) in decide(race.state, [worker("trainer-1", "train")], race.now, run)
    race.say("ada", ev.Pause(ref="a"))
    assert questions(race.state, run) == [], "who is paused is asked about when it trains again"
    race.say("ada", ev.Resume(ref="a"))
    race.say("ada", ev.Stop(ref="run"))
    assert questions(race.state, run) == [], "all stop"


def test_it_is_given_every_measurement_in_the_order_of_the_log_and_what_was_trained_to_its_end() -> None:
    race, run = Race("a", "b"), run_of("a", "b")
    race.reaches("b", 10, 0.5)
    race.reaches("a", 10, 0.4)
    ends(race, "b", 20, 0.3)
    asked = request(race.state, run)
    assert asked["pruner"]["type"] == "median"
    assert asked["course"] == [
        {"trial": "b", "step": 10, "loss": 0.5, "ended": False},
        {"trial": "a", "step": 10, "loss": 0.4, "ended": False},
        {"trial": "b", "step": 20, "loss": 0.3, "ended": True},
    ]


def test_the_reason_names_pruner_step_and_loss_and_what_came_later_does_not_change_it() -> None:
    race, run = Race("a", "b"), run_of("a", "b")
    race.reaches("b", 10, 0.5)
    race.reaches("a", 10, 0.75)
    why = "pruner median at step 10: held-out loss 0.75; the lowest there so far is 0.5"
    assert list(stops(race.state, run, {"a": 1})) == [("a", why)]
    race.reaches("a", 20, 0.1)
    race.reaches("b", 10, 0.2)
    assert list(stops(race.state, run, {"a": 1})) == [("a", why)]


def test_who_has_ended_or_was_revived_is_not_stopped_by_an_answer_and_a_loss_may_be_no_number() -> None:
    race, run = Race("a", "b", "c"), run_of("a", "b", "c")
    for name in ("a", "b", "c"):
        race.reaches(name, 10, math.nan)
    ends(race, "a", 20, 0.3)
    assert [name for name, _ in stops(race.state, run, {"a": 0, "b": 1, "gone": 0})] == ["b"]
    race.say("coordinator", ev.Stop(ref="c", why="pruner"))
    race.say("trainer-1", ev.Drop(ref="c/train", tok=race.tokens["c"], why="stop"))
    race.say("ada", ev.Resume(ref="c"))
    race.tokens["c"] = race.claim("c/train", "trainer-1")
    assert list(stops(race.state, run, {"c": 2})) == []
