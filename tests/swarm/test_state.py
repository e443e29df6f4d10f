"""The fold, and which event may come next."""

from __future__ import annotations

import pytest

from swarm import events as ev
from swarm.event import ROLES, Role
from swarm.policy.admission import admit
from swarm.state import Refusal, fold
from tests.swarm.story import SHA, Story, Told


def prepared(tok: int) -> ev.Prepared:
    return ev.Prepared(ref="wide/prepare", tok=tok, path="p", sha256=SHA, rows=1, held_out=1)


def test_a_stream_brings_its_four_tasks_and_the_first_is_ready() -> None:
    story = Story("wide", "narrow")
    assert [task.ref for task in story.state.ready()] == ["wide/prepare", "narrow/prepare"]
    assert len(story.state.tasks) == 8


def test_the_token_of_a_lease_is_the_seq_of_its_claim() -> None:
    story = Story("wide")
    tok = story.claim("wide/prepare", "prep-1")
    lease = story.state.tasks["wide/prepare"].lease
    assert lease is not None
    assert (lease.token, lease.by, tok) == (3, "prep-1", 3)


def test_a_held_task_is_refused_to_the_next_and_the_reason_names_the_holder() -> None:
    story = Story("wide")
    story.claim("wide/prepare", "ada")
    with pytest.raises(Refusal, match=r"held by ada \(token 3\) for (5\d|60) s"):
        story.claim("wide/prepare", "bob")


def test_a_task_whose_turn_has_not_come_is_refused() -> None:
    with pytest.raises(Refusal, match="turn has not come"):
        Story("wide").claim("wide/train", "ada")


def test_what_an_old_holder_reports_is_refused() -> None:
    story = Story("wide")
    old = story.claim("wide/prepare", "prep-1")
    story.say("coordinator", ev.Expire(ref="wide/prepare", tok=old, why="no heartbeat for 60 s"))
    new = story.claim("wide/prepare", "prep-2")
    with pytest.raises(Refusal, match=f"token {old} is stale, token {new} holds it"):
        story.say("prep-1", prepared(old))
    story.say("prep-2", prepared(new))
    assert story.state.next_role(story.state.streams["wide"]) == "train"


def test_nobody_reports_with_the_token_of_another() -> None:
    story = Story("wide")
    tok = story.claim("wide/prepare", "prep-1")
    with pytest.raises(Refusal, match="belongs to prep-1"):
        story.say("eve", prepared(tok))


def test_a_handed_lease_has_a_new_token_and_the_old_one_is_stale() -> None:
    story = Story("wide")
    old = story.claim("wide/prepare", "ada")
    new = story.say("ada", ev.Hand(ref="wide/prepare", tok=old, to="bob", ttl=60))
    with pytest.raises(Refusal, match="stale"):
        story.say("ada", prepared(old))
    story.say("bob", prepared(new))


@pytest.mark.parametrize("role", ROLES)
def test_a_result_finishes_its_task_and_ends_the_lease(role: Role) -> None:
    story = Story("wide")
    {"prepare": story.prepared, "train": story.trained, "validate": story.validated}.get(
        role, lambda name: story.scored(name, 0.5)
    )("wide")
    task = story.state.tasks[f"wide/{role}"]
    assert task.lease is None and task.done is not None and task.done.kind == ev.RESULT_OF[role]
    assert not any(entry.event.kind == "done" for entry in story.entries)


def test_a_done_after_the_result_says_it_again_unless_it_adds_something() -> None:
    story = Story("wide")
    tok = story.claim("wide/prepare", "ada")
    seq = story.say("ada", prepared(tok))
    again = ev.Done(ref="wide/prepare", tok=tok, path="p", sha256=SHA)
    assert story.repeat_of("ada", again) == seq
    assert story.repeat_of("bob", again) is None
    more = again.model_copy(update={"body": "look at row 3"})
    assert story.repeat_of("ada", more) is None
    with pytest.raises(Refusal, match=r"is done already \(prepared\); `swarm post` adds to it"):
        story.say("ada", more)


def test_a_log_with_a_result_and_then_done_is_folded_like_one_with_the_result_alone() -> None:
    story, before = Story("wide"), Story("wide")
    story.scored("wide", 0.5)
    before.entries = [entry for told in story.entries for entry in as_version_0_1_wrote_it(told)]
    now, then = story.state, before.state
    for role in ROLES:
        mine, theirs = now.tasks[f"wide/{role}"], then.tasks[f"wide/{role}"]
        assert (mine.lease, mine.done, mine.failures) == (theirs.lease, theirs.done, theirs.failures)
    assert (now.streams["wide"].score, now.ready()) == (then.streams["wide"].score, then.ready())


def as_version_0_1_wrote_it(told: Told) -> list[Told]:
    """There a `done` ended the lease, after the result."""
    if told.event.kind not in ev.RESULT_OF.values():
        return [told]
    done = ev.Done(ref=told.event.ref, tok=told.event.tok, cmd="python -m trainer")  # type: ignore[attr-defined]
    return [told, Told(told.seq, told.author, told.time, done)]


def test_in_a_log_of_before_a_task_whose_worker_died_between_result_and_done_is_what_its_next_attempt_made_it() -> None:
    story = Story("wide")
    tok = story.claim("wide/prepare", "prep-1")
    story.say("prep-1", prepared(tok))
    for author, event in (
        ("coordinator", ev.Expire(ref="wide/prepare", tok=tok, why="killed by SIGKILL")),
        ("prep-2", ev.Claim(ref="wide/prepare", ttl=60, beats=True)),
    ):
        assert story.state.tasks["wide/prepare"].failures == []
        story.entries.append(Told(len(story.entries) + 1, author, story.now, event))
    task = story.state.tasks["wide/prepare"]
    assert task.done is None and task.lease is not None and task.lease.by == "prep-2"
    story.say("prep-2", prepared(task.lease.token))
    assert story.state.next_role(story.state.streams["wide"]) == "train"


def test_a_streams_task_is_not_done_before_its_result_is_reported() -> None:
    story = Story("wide")
    tok = story.claim("wide/prepare", "ada")
    with pytest.raises(Refusal, match="no `prepared` was reported"):
        story.say("ada", ev.Done(ref="wide/prepare", tok=tok))


def test_an_agents_own_task_may_be_claimed_after_the_end_of_the_run() -> None:
    story = Story("wide")
    story.say("ada", ev.Task(ref="ask/model"))
    story.say("coordinator", ev.End(ref="run", rc=0))
    assert [task.ref for task in story.state.ready()] == ["ask/model"]


def test_a_question_is_open_until_a_post_answers_it() -> None:
    story = Story("wide")
    asked = story.say("ada", ev.Post(ref="wide", asks="bob", body="which rate?"))
    assert [(q.by, q.to) for q in story.state.questions.values()] == [("ada", ("bob",))]
    story.say("bob", ev.Post(ref="wide", of=asked, body="2e-3"))
    assert story.state.questions == {}
    with pytest.raises(Refusal, match="no entry 99"):
        story.say("bob", ev.Post(ref="wide", of=99))


def test_a_restart_of_the_coordinator_costs_no_attempt() -> None:
    story = Story("wide")
    tok = story.claim("wide/prepare", "prep-1")
    story.say("coordinator", ev.Expire(ref="wide/prepare", tok=tok, why="started again", failed=False))
    assert story.state.tasks["wide/prepare"].failures == []


def test_a_stopped_run_gives_nothing_out_until_it_is_resumed() -> None:
    story = Story("wide")
    story.say("ada", ev.Stop(ref="run"))
    assert story.state.ready() == []
    story.say("coordinator", ev.End(ref="run", rc=130))
    story.say("ada", ev.Resume(ref="run"))
    assert story.state.end is None
    assert [task.ref for task in story.state.ready()] == ["wide/prepare"]


def test_a_failed_stream_that_is_resumed_has_its_attempts_back() -> None:
    story = Story("wide")
    for _ in range(2):
        tok = story.claim("wide/prepare", "prep-1")
        story.say("prep-1", ev.Drop(ref="wide/prepare", tok=tok, why="x", failed=True))
    story.say("coordinator", ev.Fail(ref="wide", why="prepare: x"))
    assert story.state.ready() == []
    story.say("ada", ev.Resume(ref="wide"))
    assert [task.ref for task in story.state.ready()] == ["wide/prepare"]
    assert story.state.tasks["wide/prepare"].failures == []


def test_promotion_wants_a_published_adapter() -> None:
    story = Story("wide")
    with pytest.raises(Refusal, match="no validated adapter"):
        story.say("ada", ev.Promote(ref="wide", path="promoted", sha256=SHA, why="mine"))


def test_steering_an_unknown_stream_names_those_that_exist() -> None:
    story = Story("wide", "narrow")
    with pytest.raises(Refusal, match="there is wide, narrow"):
        admit(story.state, "ada", ev.Pause(ref="wid"), story.now)


def test_the_fold_of_a_prefix_is_the_state_at_that_moment() -> None:
    story = Story("wide")
    story.trained("wide")
    for cut in range(len(story.entries) + 1):
        assert fold(story.entries[:cut]).seq == cut
    assert fold(story.entries) == story.state


def test_bodies_are_never_folded() -> None:
    story = Story("wide")
    before = story.state
    story.say("ada", ev.Post(ref="wide", body="## 9 stop run @ada\nstop everything"))
    after = story.state
    assert (after.stopped, after.streams, after.tasks) == (before.stopped, before.streams, before.tasks)


def test_any_act_of_an_agent_makes_its_leases_last_on_and_one_that_is_over_stays_over() -> None:
    story = Story("wide")
    story.say("ada", ev.Task(ref="data/check"))
    story.say("ada", ev.Claim(ref="data/check", ttl=100))
    story.pass_time(90)
    story.say("ada", ev.Post(ref="run", body="half done"))
    lease = story.state.tasks["data/check"].lease
    assert lease is not None and lease.until == story.now - 1 + 100
    story.pass_time(90)
    assert not lease.overdue(story.now)
    story.pass_time(30)
    story.say("ada", ev.Post(ref="run", body="too late"))
    assert story.state.tasks["data/check"].lease.overdue(story.now)  # type: ignore[union-attr]
    story.say("bob", ev.Post(ref="run", body="another's act"))
    assert story.state.tasks["data/check"].lease.until == lease.until  # type: ignore[union-attr]


def test_the_reasons_of_approvals_are_kept() -> None:
    story = Story("wide")
    story.trained("wide")
    story.say("ada", ev.Object(ref="run", why="wait"))
    story.say("ada", ev.Approve(ref="run", why="measured again"))
    assert story.state.reasons("wide") == [("ada", "measured again")]
    assert story.state.decisions[-1].why == "measured again"
