"""Roles that are open to agents: the task waits for them, with a deadline and a stated fallback."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm import config
from swarm import events as ev
from swarm.errors import UserErrors
from swarm.policy.commands import Dismiss, GiveUp, Grant
from swarm.policy.schedule import decide
from swarm.settings import RunSettings
from tests.runs import swarm_process as sp
from tests.swarm.story import SHA, Story, settings, worker

WAIT_SECONDS = 90.0
PREPARER = (worker("prep-1", "prepare"),)


def kept_for(*doers: str) -> RunSettings:
    return settings("wide").model_copy(update={"roles": {"prepare": list(doers)}, "roles_wait_seconds": WAIT_SECONDS})


def test_a_task_that_is_kept_for_an_agent_is_given_to_no_worker_until_the_agents_time_is_over() -> None:
    story = Story("wide")
    kept = kept_for("agent:ada", "worker")
    assert decide(story.state, PREPARER, story.now, kept) == []
    assert decide(story.state, PREPARER, story.now + WAIT_SECONDS, kept) == [Grant(("wide/prepare",), "prep-1")]


def test_what_an_agent_took_in_time_is_its_own() -> None:
    story = Story("wide")
    kept = kept_for("agent:ada", "worker")
    tok = story.claim("wide/prepare", "ada", ttl=1000)
    assert decide(story.state, PREPARER, story.now + WAIT_SECONDS, kept) == []
    story.say("ada", ev.Prepared(ref="wide/prepare", tok=tok, path="prepared/x", sha256=SHA, rows=9, held_out=1))
    crew = (*PREPARER, worker("trainer-1", "train"))
    assert decide(story.state, crew, story.now, kept) == [Grant(("wide/train",), "trainer-1")]


def test_after_an_agent_that_died_a_worker_takes_over_at_the_same_deadline() -> None:
    story = Story("wide")
    kept = kept_for("agent:ada", "worker")
    tok = story.claim("wide/prepare", "ada", ttl=5)
    story.say("coordinator", ev.Expire(ref="wide/prepare", tok=tok, why="the lease ran out"))
    assert decide(story.state, PREPARER, story.now, kept) == []
    assert decide(story.state, PREPARER, story.now + WAIT_SECONDS, kept) == [Grant(("wide/prepare",), "prep-1")]


def test_where_no_worker_may_do_it_the_stream_fails_at_the_deadline_and_says_for_whom_it_waited() -> None:
    story = Story("wide")
    kept = kept_for("agent:ada", "agent:bob")
    assert decide(story.state, PREPARER, story.now, kept) == []
    [command] = decide(story.state, PREPARER, story.now + WAIT_SECONDS, kept)
    assert command == GiveUp("wide", "prepare: waited 90 s for agent:ada, agent:bob, and no worker may do it")


def test_a_stream_that_is_resumed_gives_its_agents_their_time_again() -> None:
    story = Story("wide")
    kept = kept_for("agent:ada")
    story.say("coordinator", ev.Fail(ref="wide", why="prepare: waited"))
    for _ in range(100):
        story.say("ada", ev.Post(ref="wide", body="time goes by"))
    story.say("ada", ev.Resume(ref="wide"))
    assert decide(story.state, PREPARER, story.now, kept) == []


def test_a_role_that_nobody_named_is_the_workers() -> None:
    story = Story("wide")
    assert decide(story.state, PREPARER, story.now, settings("wide")) == [Grant(("wide/prepare",), "prep-1")]
    assert Dismiss("prep-1") not in decide(story.state, PREPARER, story.now, kept_for("agent:ada"))


def test_a_config_says_who_does_what(tmp_path: Path) -> None:
    path = sp.write_config(tmp_path, streams="  wide: {}")
    path.write_text(
        path.read_text() + 'roles: {validate: [worker, "agent:ada"], evaluate: ["agent:bob"]}\nroles_wait_seconds: 30\n'
    )
    read = config.load(path, cwd=tmp_path).run
    assert read.roles == {"validate": ["worker", "agent:ada"], "evaluate": ["agent:bob"]}
    again = tmp_path / "again.yaml"
    again.write_text(config.load(path, cwd=tmp_path).dump())
    assert config.load(again, cwd=tmp_path).run.roles == read.roles


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("roles: {valdate: [worker]}", "valdate"),
        ("roles: {validate: [ada]}", "ada"),
        ("roles: {validate: []}", "roles.validate"),
        ("roles: {validate: worker}", "roles.validate"),
        ("roles_wait_seconds: -1", "roles_wait_seconds"),
    ],
)
def test_a_role_or_a_doer_that_is_none_is_reported_with_its_line(tmp_path: Path, line: str, words: str) -> None:
    path = sp.write_config(tmp_path, streams="  wide: {}")
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(UserErrors) as told:
        config.load(path, cwd=tmp_path)
    assert words in str(told.value)
    assert f"run.yaml:{len(path.read_text().splitlines())}" in str(told.value)
