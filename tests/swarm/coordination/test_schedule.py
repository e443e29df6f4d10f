"""`decide`: what follows from state and workers."""

from __future__ import annotations

from swarm import events as ev
from swarm.schedule import Claim, Dismiss, Expire, Finish, GiveUp, Order, Promote, Publish, decide

from .story import OTHER, START, Story, settings, worker

CREW = (
    worker("prep-1", "prepare"),
    worker("trainer-1", "train"),
    worker("validator-1", "validate"),
    worker("evaluator-1", "evaluate"),
)


def test_an_idle_worker_takes_the_first_task_of_its_role() -> None:
    story = Story("wide", "narrow")
    assert decide(story.state, CREW, story.now, settings("wide", "narrow")) == [Claim("wide/prepare", "prep-1")]


def test_two_trainers_take_two_streams() -> None:
    story = Story("wide", "narrow")
    story.prepared("wide")
    story.prepared("narrow")
    crew = (worker("trainer-1", "train"), worker("trainer-2", "train"))
    assert decide(story.state, crew, story.now, settings("wide", "narrow")) == [
        Claim("wide/train", "trainer-1"),
        Claim("narrow/train", "trainer-2"),
    ]


def test_a_worker_takes_only_streams_that_fit_its_device() -> None:
    story = Story("big", "small")
    story.prepared("big")
    story.prepared("small")
    crew = (worker("trainer-1", "train", streams=("small",)), worker("trainer-2", "train"))
    assert decide(story.state, crew, story.now, settings("big", "small")) == [
        Claim("small/train", "trainer-1"),
        Claim("big/train", "trainer-2"),
    ]


def test_a_dead_worker_loses_its_lease_at_once_and_the_task_comes_back() -> None:
    story = Story("wide")
    tok = story.claim("wide/prepare", "prep-1")
    dead = worker("prep-1", "prepare", state="gone", why_gone="killed by SIGKILL")
    assert decide(story.state, [dead], story.now, settings("wide")) == [
        Expire("wide/prepare", tok, "killed by SIGKILL")
    ]
    story.say("coordinator", ev.Expire(ref="wide/prepare", tok=tok, why="killed by SIGKILL"))
    assert decide(story.state, [worker("prep-2", "prepare")], story.now, settings("wide")) == [
        Claim("wide/prepare", "prep-2")
    ]


def test_a_silent_worker_loses_its_lease_when_the_lease_time_is_over() -> None:
    story = Story("wide")
    tok = story.claim("wide/prepare", "prep-1")
    quiet = [worker("prep-1", "prepare", state="busy", silent_seconds=59.0)]
    silent = [worker("prep-1", "prepare", state="busy", silent_seconds=61.0)]
    assert decide(story.state, quiet, story.now, settings("wide")) == []
    assert decide(story.state, silent, story.now, settings("wide")) == [
        Expire("wide/prepare", tok, "no heartbeat for 61 s")
    ]


def test_a_worker_with_heartbeats_keeps_its_lease_for_ever() -> None:
    story = Story("wide")
    story.claim("wide/prepare", "prep-1")
    busy = [worker("prep-1", "prepare", state="busy")]
    assert decide(story.state, busy, story.now + 1e6, settings("wide")) == []


def test_an_agent_that_does_not_renew_loses_its_lease_by_log_time() -> None:
    story = Story("wide")
    tok = story.claim("wide/prepare", "ada", ttl=30)
    assert decide(story.state, [], START + 2 + 29, settings("wide")) == []
    assert decide(story.state, [], START + 2 + 31, settings("wide")) == [
        Expire("wide/prepare", tok, "the lease ran out")
    ]


def test_one_retry_then_only_that_stream_fails() -> None:
    story = Story("wide", "narrow")
    for _ in range(2):
        tok = story.claim("wide/prepare", "prep-1")
        story.say("prep-1", ev.Drop(ref="wide/prepare", tok=tok, why="row 7 is malformed", failed=True))
    assert decide(story.state, CREW, story.now, settings("wide", "narrow")) == [
        GiveUp("wide", "prepare: row 7 is malformed")
    ]
    story.say("coordinator", ev.Fail(ref="wide", why="prepare: row 7 is malformed"))
    assert decide(story.state, CREW, story.now, settings("wide", "narrow")) == [Claim("narrow/prepare", "prep-1")]


def test_a_role_whose_workers_are_parked_fails_its_streams_instead_of_waiting_for_ever() -> None:
    story = Story("wide")
    parked = [worker("prep-1", "prepare", state="parked", why_gone="died 5 times")]
    assert decide(story.state, parked, story.now, settings("wide")) == [GiveUp("wide", "prepare: died 5 times")]


def test_a_validated_checkpoint_is_published_before_it_is_evaluated() -> None:
    story = Story("wide")
    story.validated("wide")
    assert decide(story.state, CREW, story.now, settings("wide")) == [Publish("wide")]


def test_a_fail_verdict_fails_the_stream() -> None:
    story = Story("wide")
    story.validated("wide", result="FAIL")
    assert decide(story.state, CREW, story.now, settings("wide")) == [GiveUp("wide", "validation: FAIL")]


def test_the_lowest_held_out_loss_is_promoted_and_the_reason_names_the_next() -> None:
    story = Story("wide", "narrow")
    story.scored("wide", 0.5)
    story.scored("narrow", 0.4)
    [command] = decide(story.state, CREW, story.now, settings("wide", "narrow"))
    assert isinstance(command, Promote)
    assert command.choice.winner == "narrow"
    assert command.choice.why == "lowest eval_loss 0.4, next wide 0.5, base 2"


def test_a_winner_that_does_not_beat_the_base_is_not_promoted() -> None:
    story = Story("wide")
    story.scored("wide", 2.5, base=2.0)
    [command] = decide(story.state, CREW, story.now, settings("wide"))
    assert command == Finish(0, "the best, wide (eval_loss 2.5), does not beat the base (2)")


def test_scores_on_different_rows_are_not_compared() -> None:
    story = Story("wide", "narrow")
    story.scored("wide", 0.5)
    story.scored("narrow", 0.4, rows=OTHER)
    [command] = decide(story.state, CREW, story.now, settings("wide", "narrow"))
    assert isinstance(command, Finish)
    assert "different held-out rows" in command.why


def test_exact_match_is_maximised() -> None:
    story = Story("wide", "narrow")
    story.scored("wide", 0.5, exact=0.9)
    story.scored("narrow", 0.4, exact=0.8)
    [command] = decide(story.state, CREW, story.now, settings("wide", "narrow", metric="exact_match"))
    assert isinstance(command, Promote)
    assert command.choice.winner == "wide"


def test_promotion_waits_for_approvals_and_for_objections_to_be_settled() -> None:
    story = Story("wide")
    story.scored("wide", 0.5)
    gate = settings("wide", approvals=1)
    assert decide(story.state, CREW, story.now, gate) == []
    story.say("ada", ev.Object(ref="wide", why="look at row 3"))
    story.say("bob", ev.Approve(ref="wide"))
    assert decide(story.state, CREW, story.now, gate) == []
    story.say("ada", ev.Approve(ref="wide"))
    assert [type(command) for command in decide(story.state, CREW, story.now, gate)] == [Promote]


def test_the_run_ends_with_1_when_a_stream_failed() -> None:
    story = Story("wide", "narrow")
    story.scored("narrow", 0.4)
    story.say("coordinator", ev.Fail(ref="wide", why="broken"))
    story.say("coordinator", ev.Promote(ref="narrow", path="promoted", sha256="a" * 64, why="best"))
    assert decide(story.state, CREW, story.now, settings("wide", "narrow")) == [Finish(1, "failed: wide")]


def test_a_stop_is_ordered_from_every_holder_and_the_run_ends_when_they_have_let_go() -> None:
    story = Story("wide")
    tok = story.claim("wide/prepare", "prep-1")
    story.say("ada", ev.Stop(ref="run"))
    busy = [worker("prep-1", "prepare", state="busy")]
    assert decide(story.state, busy, story.now, settings("wide")) == [Order("wide/prepare", tok, "prep-1", "stop")]
    story.say("prep-1", ev.Drop(ref="wide/prepare", tok=tok, why="stopped"))
    assert decide(story.state, [worker("prep-1", "prepare")], story.now, settings("wide")) == [
        Finish(130, "stopped; `swarm resume` goes on")
    ]


def test_a_pause_is_ordered_until_the_worker_says_it_waits_and_then_lifted() -> None:
    story = Story("wide")
    tok = story.claim("wide/prepare", "prep-1")
    story.say("ada", ev.Pause(ref="wide"))
    working = [worker("prep-1", "prepare", state="busy")]
    paused = [worker("prep-1", "prepare", state="busy", told="paused")]
    assert decide(story.state, working, story.now, settings("wide")) == [Order("wide/prepare", tok, "prep-1", "pause")]
    assert decide(story.state, paused, story.now, settings("wide")) == []
    story.say("ada", ev.Resume(ref="wide"))
    assert decide(story.state, paused, story.now, settings("wide")) == [Order("wide/prepare", tok, "prep-1", "resume")]


def test_workers_leave_when_no_work_for_their_roles_can_come() -> None:
    story = Story("wide")
    story.prepared("wide")
    story.claim("wide/train", "trainer-1")
    crew = (worker("prep-1", "prepare"), worker("trainer-1", "train", state="busy"), worker("validator-1", "validate"))
    assert decide(story.state, crew, story.now, settings("wide")) == [Dismiss("prep-1")]


def test_nothing_is_decided_after_the_end() -> None:
    story = Story("wide")
    story.say("coordinator", ev.End(ref="run", rc=0))
    assert decide(story.state, CREW, story.now, settings("wide")) == []
