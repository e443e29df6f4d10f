"""The digest: within its budget whatever the run, and still saying what matters most."""

from __future__ import annotations

import json
import random

import pytest

from swarm import events as ev
from swarm.state import fold
from swarm.views.digest import LEAST_TOKENS, Unread, digest, tokens_at_most
from tests.swarm.story import Story
from toon import decode
from toon.sizes import compact_json

SIXTEEN = [f"lora-{n}" for n in range(8, 40, 2)]


def busy_run(rng: random.Random, names: list[str]) -> Story:
    story = Story(*names)
    for name in names[:16]:
        match rng.randrange(5):
            case 0:
                story.prepared(name)
                story.claim(f"{name}/train", rng.choice(["trainer-1", "ada"]), ttl=9999)
            case 1:
                story.trained(name)
            case 2:
                story.scored(name, rng.random())
            case 3:
                story.say(
                    "coordinator", ev.Fail(ref=name, why=rng.choice(["out of memory", "é漢字🙂 " * 30, "x" * 2000]))
                )
            case _:
                story.claim(f"{name}/prepare", "bob")
    return story


@pytest.mark.parametrize("seed", range(10))
def test_no_digest_is_above_its_budget(seed: int) -> None:
    rng = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.-_"
    names = sorted({"a" + "".join(rng.choices(letters, k=rng.randrange(64))) for _ in range(rng.choice([1, 9, 150]))})
    story = busy_run(rng, names)
    unread = [Unread(n, "bob", rng.choice(names), "look @ada, " + "row " * rng.randrange(90)) for n in range(30)]
    for budget in (LEAST_TOKENS, 77, 300, 600, 3000):
        text = digest(story.state, story.now, budget, unread=unread)
        assert tokens_at_most(text) <= budget
        assert decode(text)["at"] == len(story.entries)  # type: ignore[index,call-overload]


def test_sixteen_streams_fit_600_tokens_a_line_each() -> None:
    for seed in range(5):
        story = busy_run(random.Random(seed), SIXTEEN)
        text = digest(story.state, story.now, 600)
        value = decode(text)
        assert isinstance(value, dict)
        assert [row["stream"] for row in value["streams"]] == SIXTEEN
        assert len(text.encode()) <= 600 * 3, "a token of such text is about three bytes"


@pytest.mark.parametrize("seed", range(5))
def test_the_form_that_is_printed_keeps_the_budget(seed: int) -> None:
    story = busy_run(random.Random(seed), SIXTEEN)
    for budget in (LEAST_TOKENS, 300, 600, 3000):
        text = digest(story.state, story.now, budget, write=compact_json)
        assert tokens_at_most(text) <= budget
        assert json.loads(text)["at"] == len(story.entries)
        assert budget < 600 or len(json.loads(text)["streams"]) >= 10
    assert json.loads(text) == decode(digest(story.state, story.now, 3000))


def test_tasks_that_nobody_holds_are_listed_where_there_is_room_and_counted_where_not() -> None:
    story = Story("wide")
    for ref in ("data/check", "data/look", "data/done", "data/held"):
        story.say("bob", ev.Task(ref=ref))
    story.claim("data/held", "ada")
    token = story.claim("data/done", "ada")
    story.say("ada", ev.Done(ref="data/done", tok=token))
    value = decode(digest(story.state, story.now, 600))
    assert isinstance(value, dict)
    assert value["open"] == [{"task": "data/check"}, {"task": "data/look"}]
    assert "more" not in value
    scarce = decode(digest(story.state, story.now, 100))
    assert isinstance(scarce, dict)
    assert [*scarce] == ["run", "at", "state", "streams", "claims", "more"], "the least urgent goes first"
    assert scarce["more"] == "2 open"
    assert decode(digest(story.state, story.now, 86))["more"] == "1 claim"  # type: ignore[index,call-overload]


def test_a_log_in_which_no_run_was_started_is_named_by_its_folder() -> None:
    state = fold(())
    value = decode(digest(state, 0.0, 300, name="plan-1124-2345-4d85"))
    assert value == {"run": "plan-1124-2345-4d85", "at": 0, "state": "not started"}
    assert decode(digest(Story("wide").state, 0.0, 300, name="other"))["run"] == "demo"  # type: ignore[index,call-overload]


def test_a_digest_says_who_holds_what_for_how_long_what_is_unread_and_what_was_decided() -> None:
    story = Story("wide", "narrow")
    story.prepared("wide")
    token = story.claim("wide/train", "ada", ttl=60)
    worked = story.claim("narrow/prepare", "prep-1")
    story.say("bob", ev.Object(ref="wide", why="look at row 3"))
    text = digest(story.state, story.now, 600, unread=[Unread(9, "bob", "wide", "@ada\nsee   row 3")])
    value = decode(text)
    assert isinstance(value, dict)
    assert value["claims"] == [
        {"task": "wide/train", "by": "ada", "token": token, "left_s": 57},
        {"task": "narrow/prepare", "by": "prep-1", "token": worked, "left_s": None},
    ]
    assert value["unread"] == [{"seq": 9, "by": "bob", "ref": "wide", "text": "@ada see row 3"}]
    assert value["decisions"][0]["why"] == "look at row 3"
    assert value["state"] == "running: 1 train, 1 prepare"
    assert "more" not in value


def test_in_training_the_figures_are_those_measured_last_and_after_it_what_was_stated() -> None:
    story = Story("wide", "narrow")
    story.trained("wide")
    story.prepared("narrow")
    token = story.claim("narrow/train", "trainer-1")
    story.checkpoint("narrow", token, 10)
    newest = {name: {"step": 14, "loss": 0.71234, "eval_loss": 0.81234} for name in ("wide", "narrow")}
    rows = decode(digest(story.state, story.now, 600, newest=newest))["streams"]  # type: ignore[index,call-overload]
    assert [(row["stream"], row["step"], row["loss"], row["eval_loss"]) for row in rows] == [
        ("wide", 9, None, None), ("narrow", 14, 0.712, 0.812),
    ]  # fmt: skip


def test_a_stream_that_was_asked_to_pause_is_paused_in_it() -> None:
    story = Story("wide", "narrow")
    story.prepared("wide")
    story.claim("wide/train", "trainer-1")
    story.say("ada", ev.Pause(ref="wide"))
    value = decode(digest(story.state, story.now, 600))
    assert isinstance(value, dict)
    assert value["state"] == "running: 1 paused, 1 wait"


def test_what_finds_no_room_is_counted_and_the_urgent_stays() -> None:
    names = [f"s{n}" for n in range(200)]
    story = Story(*names)
    story.say("coordinator", ev.Fail(ref="s150", why="out of memory"))
    value = decode(digest(story.state, story.now, 200))
    assert isinstance(value, dict)
    shown = [row["stream"] for row in value["streams"]]
    assert "s150" in shown
    assert value["more"].startswith(f"{200 - len(shown)} streams")
    assert value["state"] == "running: 1 failed, 199 wait"


def test_a_budget_that_holds_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least"):
        digest(Story("wide").state, 0.0, LEAST_TOKENS - 1)
