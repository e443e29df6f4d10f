"""What a run's own settings allow: whose a role is, when a SUCCESS is none, what beats the base."""

from __future__ import annotations

import pytest

from swarm import events as ev
from swarm.policy.rules import admit_by
from swarm.settings import RunSettings
from swarm.state import Refusal
from tests.swarm.story import SHA, Story, settings


def with_roles(**roles: list[str]) -> RunSettings:
    return settings("wide").model_copy(update={"roles": roles})


def claim(ref: str) -> ev.Claim:
    return ev.Claim(ref=ref, ttl=60)


def test_a_role_that_the_config_gives_to_agents_is_theirs_and_any_other_is_open() -> None:
    story = Story("wide")
    story.trained("wide")
    named = with_roles(validate=["agent:ada", "worker"])
    admit_by(named, story.state, "ada", claim("wide/validate"))
    with pytest.raises(Refusal, match="names ada for this and not eve"):
        admit_by(named, story.state, "eve", claim("wide/validate"))
    admit_by(named, story.state, "validator-1", claim("wide/validate").model_copy(update={"beats": True}))
    for open_to_all in (settings("wide"), with_roles(validate=["worker"]), with_roles(evaluate=["agent:ada"])):
        admit_by(open_to_all, story.state, "eve", claim("wide/validate"))


def test_a_role_is_not_handed_to_who_may_not_do_it_but_a_workers_work_may_be_answered_for() -> None:
    story = Story("wide")
    story.trained("wide")
    named = with_roles(validate=["agent:ada"])
    tok = story.claim("wide/validate", "ada")
    hand = ev.Hand(ref="wide/validate", tok=tok, to="eve", ttl=60)
    with pytest.raises(Refusal, match="not eve"):
        admit_by(named, story.state, "ada", hand)
    story.say("ada", ev.Drop(ref="wide/validate", tok=tok))
    tok = story.claim("wide/validate", "validator-1")
    admit_by(named, story.state, "ada", hand.model_copy(update={"tok": tok}))


def test_an_agents_own_task_is_nobodys_by_config() -> None:
    story = Story("wide")
    story.say("ada", ev.Task(ref="review/rows"))
    admit_by(with_roles(validate=["agent:ada"]), story.state, "eve", claim("review/rows"))


def test_a_success_above_the_limit_is_a_warning() -> None:
    story = Story("wide")
    story.trained("wide")
    facts = {"ref": "wide/validate", "tok": 1, "path": "x", "sha256": SHA}
    verdict = ev.Verdict.model_validate(
        {**facts, "result": "SUCCESS", "figures": {"eval_loss": 2.5, "base_eval_loss": 2.0}}
    )
    with pytest.raises(Refusal, match=r"2\.5 is 1\.25 x the base's 2, above max_heldout_ratio 1; that is a WARNING"):
        admit_by(settings("wide"), story.state, "ada", verdict)
    admit_by(settings("wide"), story.state, "ada", verdict.model_copy(update={"result": "WARNING"}))
    admit_by(
        settings("wide"),
        story.state,
        "ada",
        verdict.model_copy(update={"figures": {"eval_loss": 1.9, "base_eval_loss": 2.0}}),
    )


def test_by_hand_too_only_what_beats_the_base_is_promoted_unless_it_is_forced() -> None:
    story = Story("wide", "narrow")
    story.scored("wide", 2.5, base=2.0)
    story.scored("narrow", 1.5, base=2.0)

    def promote(ref: str, force: bool | None = None) -> ev.Promote:
        return ev.Promote(ref=ref, path="promoted", sha256=SHA, why="I like it", force=force)

    run = settings("wide", "narrow")
    with pytest.raises(Refusal, match=r"eval_loss 2\.5 does not beat the base \(2\); or .*--force"):
        admit_by(run, story.state, "ada", promote("wide"))
    admit_by(run, story.state, "ada", promote("wide", force=True))
    admit_by(run, story.state, "ada", promote("narrow"))
    admit_by(settings("wide", must_beat="nothing"), story.state, "ada", promote("wide"))
    with pytest.raises(Refusal, match="it cannot be compared with the base"):
        admit_by(settings("narrow", metric="exact_match"), story.state, "ada", promote("narrow"))


def test_what_an_agent_wrote_after_its_lease_is_not_gone_on_from() -> None:
    story = Story("wide")
    story.prepared("wide")
    old = story.claim("wide/train", "ada")
    known = story.checkpoint("wide", old, 3, by="ada")
    story.say("log", ev.Expire(ref="wide/train", tok=old, why="the lease ran out"))
    worker = story.claim("wide/train", "trainer-1")
    stream = story.state.streams["wide"]
    assert stream.may_go_on_from(old, known)
    assert not stream.may_go_on_from(old, f"streams/wide/t{old}/checkpoint-9")
    assert stream.may_go_on_from(worker, f"streams/wide/t{worker}/checkpoint-9"), "it could not report it"
