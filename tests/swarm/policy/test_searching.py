"""Searches that learn (issue 21): who joins when, what the sampler gets, what the budget holds."""

from __future__ import annotations

from swarm import events as ev
from swarm.policy.commands import StopStream, Suggest
from swarm.policy.schedule import decide
from swarm.policy.searching import more_to_come, request, suggestions
from swarm.policy.spending import no_room, over_budget, usage
from swarm.settings import Budget, RunSettings, Search, StreamSettings
from tests.swarm.story import SHA, Story, settings, worker

SEARCH = Search(space={"lora_r": [4, 8, 16]}, sampler="tpe", trials=3, at_once=2)


def run_of(story: Story, **more: object) -> RunSettings:
    run = settings("wide")
    one = run.streams["wide"].model_copy(update={"max_steps": 10})
    joined = {added.ref: one.model_copy(update={"lora_r": int(added.changes[-1])}) for added in story.state.added if added.changes}  # fmt: skip
    return run.model_copy(update={"streams": {"wide": one.model_copy(update={"search": SEARCH}), **joined}, **more})


def joins(story: Story, number: int, rank: int) -> None:
    story.say("coordinator", ev.Add(ref=f"wide.t{number}", like="wide", changes=f"lora_r={rank}", why="suggested by tpe"))  # fmt: skip


def reaches(story: Story, name: str, step: int, loss: float) -> int:
    story.prepared(name)
    tok = story.claim(f"{name}/train", "trainer-1")
    story.say("trainer-1", ev.Checkpoint(ref=f"{name}/train", tok=tok, step=step, sha256=SHA, path=f"streams/{name}/t{tok}/checkpoint-{step}", figures={"eval_loss": loss}))  # fmt: skip
    return tok


def test_a_trial_is_wanted_while_fewer_than_at_once_train_and_until_all_have_joined() -> None:
    story = Story("wide")
    assert suggestions(story.state, run_of(story), story.now) == [Suggest("wide", 2, 2)]
    joins(story, 2, 4)
    assert suggestions(story.state, run_of(story), story.now) == [], "two train at once"
    story.say("coordinator", ev.Stop(ref="wide.t2", why="halving"))
    assert suggestions(story.state, run_of(story), story.now) == [Suggest("wide", 3, 2)]
    joins(story, 3, 8)
    assert not more_to_come(story.state, run_of(story), story.now)


def test_where_the_stream_itself_has_failed_its_search_has_no_further_trials() -> None:
    story = Story("wide")
    story.say("coordinator", ev.Fail(ref="wide", why="the base cannot be read"))
    assert suggestions(story.state, run_of(story), story.now) == []
    assert not more_to_come(story.state, run_of(story), story.now)


def test_a_run_waits_for_the_trials_that_are_still_to_come() -> None:
    story = Story("wide")
    story.scored("wide", 0.5)
    commands = decide(story.state, [worker("trainer-1", "train")], story.now, run_of(story))
    assert commands == [Suggest("wide", 2, 2)], "neither an end nor a dismissal of the idle trainer"


def test_the_trials_that_a_sampler_gets_follow_from_the_log_alone() -> None:
    story = Story("wide")
    joins(story, 2, 4)
    reaches(story, "wide.t2", 5, 1.5)
    story.say("coordinator", ev.Stop(ref="wide.t2", why="halving"))
    asked = request(story.state, run_of(story), "wide")
    assert asked["trials"] == [
        {"values": {"lora_r": 8}, "losses": [], "state": "running"},
        {"values": {"lora_r": 4}, "losses": [(5, 1.5)], "state": "stopped"},
    ]
    assert request(story.state, run_of(story), "wide") == asked, "nothing is remembered between two questions"


def test_what_a_stopped_trial_leaves_of_the_budget_goes_to_the_next_one() -> None:
    story = Story("wide")
    run = run_of(story, budget=Budget(steps=15))
    reaches(story, "wide", 5, 1.0)
    assert no_room(story.state, run, story.now, run.streams["wide"]) == (
        "the budget is 15 steps: 10 are used and this needs 10"
    ), "a training that has begun counts whole"
    assert suggestions(story.state, run, story.now) == []
    assert more_to_come(story.state, run, story.now), "it may stop early"
    story.say("coordinator", ev.Stop(ref="wide", why="halving"))
    assert list(usage(story.state, run, story.now)) == ["5 of 15 steps"]
    assert suggestions(story.state, run, story.now) == [Suggest("wide", 2, 2)]


def test_a_stream_that_the_budget_does_not_hold_is_not_begun_and_ends_when_nobody_trains() -> None:
    story = Story("a", "b")
    one = StreamSettings.model_validate({"base_model": "x", "datasets": [{"path": "x.jsonl"}], "max_steps": 10})
    run = RunSettings(name="demo", streams={"a": one, "b": one}, budget=Budget(steps=15))
    story.prepared("b")
    assert set(over_budget(story.state, run, story.now)) == {"b"}, "the streams before it count first"
    token = reaches(story, "a", 5, 1.0)
    assert not any(isinstance(c, StopStream) for c in decide(story.state, [], story.now, run))
    path = f"streams/a/t{token}/checkpoint-10"
    story.say("trainer-1", ev.Trained(ref="a/train", tok=token, step=10, path=path, sha256=SHA, trainable=9))
    why = "the budget is 15 steps: 10 are used and this needs 10"
    assert decide(story.state, [], story.now, run)[0] == StopStream("b", why)


def test_minutes_are_the_runs_and_money_is_minutes_at_the_highest_price() -> None:
    story = Story("wide")
    run = run_of(story, budget=Budget(usd=2.0), prices={"cpu": 0.1, "H100": 3.0})
    story.pass_time(1800)
    assert not no_room(story.state, run, story.now, run.streams["wide"])
    story.pass_time(1800)
    assert "the budget is 2 usd" in no_room(story.state, run, story.now, run.streams["wide"])
