"""Sealed rows before a promotion: one look, counted; a validator's alone; what fails is not promoted, by nobody without force."""

from __future__ import annotations

import pytest

from swarm import events as ev
from swarm.policy.commands import Finish, Grant, LookAtSealed, PromoteWinner
from swarm.policy.rules import admit_by
from swarm.policy.schedule import decide, roles_needed
from swarm.settings import Dataset, RunSettings
from swarm.state import Refusal
from tests.swarm.story import SHA, Story, settings, worker

CREW = [worker("validator-1", "validate"), worker("trainer-1", "train")]


def sealed_settings(**promotion: object) -> RunSettings:
    made = settings("wide", "narrow", **promotion)
    with_rows = {
        name: one.model_copy(update={"sealed_datasets": [Dataset(path="sealed.jsonl")]})
        for name, one in made.streams.items()
    }
    return made.model_copy(update={"streams": with_rows})


@pytest.fixture
def scored() -> Story:
    story = Story("wide", "narrow", sealed=True)
    story.scored("wide", 0.4)
    story.scored("narrow", 0.5)
    return story


def examined(story: Story, result: str, why: str = "because") -> None:
    tok = story.claim("wide/sealed", "validator-1")
    story.say(
        "validator-1",
        ev.Sealed.model_validate(
            {"ref": "wide/sealed", "tok": tok, "sha256": SHA, "result": result, "rows": 30, "overlap": 0, "why": why}
        ),
    )


def test_the_winner_alone_is_examined_once_by_a_validator_and_then_promoted(scored: Story) -> None:
    chosen = sealed_settings()
    assert decide(scored.state, CREW, scored.now, chosen) == [LookAtSealed("wide")]
    scored.say("coordinator", ev.Look(ref="wide", sha256=SHA, number=1))
    assert scored.state.looks == 1
    assert decide(scored.state, CREW, scored.now, chosen) == [Grant(("wide/sealed",), "validator-1")]
    examined(scored, "SUCCESS")
    [command] = decide(scored.state, CREW, scored.now, chosen)
    assert isinstance(command, PromoteWinner)


def test_what_fails_on_the_sealed_rows_is_not_promoted_and_nothing_else_is_looked_at(scored: Story) -> None:
    scored.say("coordinator", ev.Look(ref="wide", sha256=SHA, number=1))
    examined(scored, "FAIL", "not better than the base by more than chance")
    [command] = decide(scored.state, CREW, scored.now, sealed_settings())
    assert command == Finish(
        0, "wide is not promoted: it failed on the sealed rows: not better than the base by more than chance"
    )
    promote = ev.Promote(ref="wide", path="streams/wide/adapter", sha256=SHA, why="I like it")
    with pytest.raises(Refusal, match="it failed on the sealed rows"):
        admit_by(sealed_settings(), scored.state, "ada", promote)
    with pytest.raises(Refusal, match="not examined on the sealed rows"):
        admit_by(sealed_settings(), scored.state, "ada", promote.model_copy(update={"ref": "narrow"}))
    admit_by(sealed_settings(), scored.state, "ada", promote.model_copy(update={"force": True}))


def test_rows_that_cannot_be_judged_end_the_run_after_the_retries(scored: Story) -> None:
    scored.say("coordinator", ev.Look(ref="wide", sha256=SHA, number=1))
    for _ in range(2):
        tok = scored.claim("wide/sealed", "validator-1")
        scored.say("validator-1", ev.Drop(ref="wide/sealed", tok=tok, why="cannot be judged", failed=True))
    [command] = decide(scored.state, CREW, scored.now, sealed_settings())
    assert command == Finish(1, "wide is not promoted: the sealed rows cannot be judged: cannot be judged")


def test_no_agent_gets_at_the_examination(scored: Story) -> None:
    scored.say("coordinator", ev.Look(ref="wide", sha256=SHA, number=1))
    with pytest.raises(Refusal, match="the sealed rows are for the run's own validator"):
        scored.claim("wide/sealed", "ada")
    tok = scored.claim("wide/sealed", "validator-1")
    with pytest.raises(Refusal, match="it is handed to nobody"):
        scored.say("ada", ev.Hand(ref="wide/sealed", tok=tok, to="bob", ttl=60))
    with pytest.raises(Refusal, match="take another name"):
        scored.say("ada", ev.Task(ref="narrow/sealed"))


def test_validators_stay_until_the_promotion(scored: Story) -> None:
    assert roles_needed(scored.state) == {"validate"}
    without = Story("wide")
    without.scored("wide", 0.4)
    assert roles_needed(without.state) == frozenset()
