"""`decide`: what follows from state and workers."""

from __future__ import annotations

from dataclasses import replace

from swarm import events as ev
from swarm.messages import Held
from swarm.policy.commands import (
    Dismiss,
    Ending,
    Finish,
    GiveUp,
    GoBack,
    Grant,
    PromoteWinner,
    Publish,
    Revoke,
    SendOrder,
)
from swarm.policy.schedule import MAX_ROLLBACKS, decide, roles_needed
from tests.swarm.story import OTHER, SHA, START, Story, settings, worker

CREW = (
    worker("prep-1", "prepare"),
    worker("trainer-1", "train"),
    worker("validator-1", "validate"),
    worker("evaluator-1", "evaluate"),
)


def test_an_idle_worker_takes_the_first_task_of_its_role() -> None:
    story = Story("wide", "narrow")
    assert decide(story.state, CREW, story.now, settings("wide", "narrow")) == [Grant(("wide/prepare",), "prep-1")]


def test_two_trainers_take_two_streams() -> None:
    story = Story("wide", "narrow")
    story.prepared("wide")
    story.prepared("narrow")
    crew = (worker("trainer-1", "train"), worker("trainer-2", "train"))
    assert decide(story.state, crew, story.now, settings("wide", "narrow")) == [
        Grant(("wide/train",), "trainer-1"),
        Grant(("narrow/train",), "trainer-2"),
    ]


def test_a_worker_takes_only_streams_that_fit_its_device() -> None:
    story = Story("big", "small")
    story.prepared("big")
    story.prepared("small")
    crew = (worker("trainer-1", "train", streams=("small",)), worker("trainer-2", "train"))
    assert decide(story.state, crew, story.now, settings("big", "small")) == [
        Grant(("small/train",), "trainer-1"),
        Grant(("big/train",), "trainer-2"),
    ]


def test_a_dead_worker_loses_its_lease_at_once_and_the_task_comes_back() -> None:
    story = Story("wide")
    tok = story.claim("wide/prepare", "prep-1")
    dead = worker("prep-1", "prepare", state="gone", why_gone="killed by SIGKILL")
    assert decide(story.state, [dead], story.now, settings("wide")) == [
        Revoke((Ending("wide/prepare", tok),), "killed by SIGKILL")
    ]
    story.say("coordinator", ev.Expire(ref="wide/prepare", tok=tok, why="killed by SIGKILL"))
    assert decide(story.state, [worker("prep-2", "prepare")], story.now, settings("wide")) == [
        Grant(("wide/prepare",), "prep-2")
    ]


def test_a_silent_worker_loses_its_lease_when_the_lease_time_is_over() -> None:
    story = Story("wide")
    tok = story.claim("wide/prepare", "prep-1")
    quiet = [worker("prep-1", "prepare", silent_seconds=59.0)]
    silent = [worker("prep-1", "prepare", silent_seconds=61.0)]
    assert decide(story.state, quiet, story.now, settings("wide")) == []
    assert decide(story.state, silent, story.now, settings("wide")) == [
        Revoke((Ending("wide/prepare", tok),), "no heartbeat for 61 s", kill="prep-1")
    ]


def test_a_silent_worker_gets_no_task() -> None:
    story = Story("wide")
    silent = [worker("prep-1", "prepare", silent_seconds=61.0)]
    assert decide(story.state, silent, story.now, settings("wide")) == []


def test_a_worker_that_has_not_greeted_the_new_coordinator_keeps_its_lease_until_the_lease_time_is_over() -> None:
    story = Story("wide")
    tok = story.claim("wide/prepare", "prep-1")
    awaited = worker("prep-1", "prepare", state="starting", silent_seconds=59.0)
    assert decide(story.state, [awaited], story.now, settings("wide")) == []
    assert decide(story.state, [replace(awaited, silent_seconds=61.0)], story.now, settings("wide")) == [
        Revoke((Ending("wide/prepare", tok),), "no heartbeat for 61 s", kill="prep-1")
    ]


def test_nobody_is_to_blame_where_the_run_has_no_such_worker_any_more() -> None:
    story = Story("wide")
    tok = story.claim("wide/prepare", "prep-1")
    assert decide(story.state, [worker("prep-2", "prepare")], story.now, settings("wide")) == [
        Revoke((Ending("wide/prepare", tok),), "the run has no such worker any more", failed=False)
    ]


def test_a_worker_with_heartbeats_keeps_its_lease_for_ever() -> None:
    story = Story("wide")
    story.claim("wide/prepare", "prep-1")
    busy = [worker("prep-1", "prepare")]
    assert decide(story.state, busy, story.now + 1e6, settings("wide")) == []


def test_an_agent_that_does_not_renew_loses_its_lease_by_log_time() -> None:
    story = Story("wide")
    tok = story.claim("wide/prepare", "ada", ttl=30)
    assert decide(story.state, [], START + 2 + 29, settings("wide")) == []
    assert decide(story.state, [], START + 2 + 31, settings("wide")) == [
        Revoke((Ending("wide/prepare", tok),), "the lease ran out")
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
    assert decide(story.state, CREW, story.now, settings("wide", "narrow")) == [Grant(("narrow/prepare",), "prep-1")]


def test_a_failure_that_is_sure_to_come_again_is_not_tried_again_until_somebody_resumes_the_stream() -> None:
    story = Story("wide")
    tok = story.claim("wide/prepare", "prep-1")
    story.say(
        "prep-1", ev.Drop(ref="wide/prepare", tok=tok, why="rows.jsonl:7: no JSON; mend it", failed=True, retry=False)
    )
    assert decide(story.state, CREW, story.now, settings("wide")) == [
        GiveUp("wide", "prepare: rows.jsonl:7: no JSON; mend it")
    ]
    story.say("coordinator", ev.Fail(ref="wide", why="prepare: rows.jsonl:7: no JSON; mend it"))
    story.say("ada", ev.Resume(ref="wide"))
    assert decide(story.state, CREW, story.now, settings("wide")) == [Grant(("wide/prepare",), "prep-1")]


def test_a_role_whose_workers_are_parked_fails_its_streams_instead_of_waiting_for_ever() -> None:
    story = Story("wide")
    parked = [worker("prep-1", "prepare", state="parked", why_gone="died 5 times")]
    assert decide(story.state, parked, story.now, settings("wide")) == [GiveUp("wide", "prepare: died 5 times")]


def test_a_validated_checkpoint_is_published_before_it_is_evaluated() -> None:
    story = Story("wide")
    story.validated("wide")
    assert decide(story.state, CREW, story.now, settings("wide")) == [Publish("wide")]


def test_a_fail_verdict_fails_the_stream_when_there_is_nothing_to_go_back_to() -> None:
    story = Story("wide")
    story.validated("wide", result="FAIL")
    assert decide(story.state, CREW, story.now, settings("wide")) == [
        GiveUp("wide", "validation: FAIL: no reason given")
    ]


def test_a_fail_verdict_goes_back_to_the_newest_earlier_checkpoint_which_is_judged_next() -> None:
    story = Story("wide")
    story.trained("wide", earlier=("c" * 64, "d" * 64))
    story.judged("wide", "FAIL")
    assert decide(story.state, CREW, story.now, settings("wide")) == [GoBack("wide", "FAIL: no reason given")]
    story.back("wide")
    stream = story.state.streams["wide"]
    assert stream.candidate is not None
    assert (stream.candidate.step, stream.candidate.sha256, stream.verdict) == (2, "d" * 64, None)
    assert decide(story.state, CREW, story.now, settings("wide")) == [Grant(("wide/validate",), "validator-1")]
    story.judged("wide")
    assert decide(story.state, CREW, story.now, settings("wide")) == [Publish("wide")]


def test_going_back_is_bounded() -> None:
    story = Story("wide")
    story.trained("wide", earlier=tuple(f"{n:064x}" for n in range(8)))
    for _ in range(MAX_ROLLBACKS):
        story.judged("wide", "FAIL")
        story.back("wide")
    story.judged("wide", "FAIL")
    [command] = decide(story.state, CREW, story.now, settings("wide"))
    assert isinstance(command, GiveUp)


def test_equal_weights_are_not_judged_twice() -> None:
    story = Story("wide")
    story.trained("wide", earlier=(SHA,))
    story.judged("wide", "FAIL")
    [command] = decide(story.state, CREW, story.now, settings("wide"))
    assert isinstance(command, GiveUp)


def test_no_answer_of_a_validator_in_time_is_a_fail() -> None:
    story = Story("wide")
    story.trained("wide", earlier=("c" * 64,))
    tok = story.claim("wide/validate", "validator-1")
    alive = [worker("validator-1", "validate")]
    why = "no answer within 30 minutes"
    assert decide(story.state, alive, story.now + 1790, settings("wide")) == []
    assert decide(story.state, alive, story.now + 1801, settings("wide")) == [
        Revoke((Ending("wide/validate", tok),), why, kill="validator-1")
    ]
    story.pass_time(1801)
    story.say("coordinator", ev.Expire(ref="wide/validate", tok=tok, why=why))
    assert decide(story.state, CREW, story.now, settings("wide")) == [GoBack("wide", f"FAIL: {why}")]


def test_who_gives_a_validation_back_wins_no_time_and_who_was_cut_off_loses_none() -> None:
    story = Story("wide")
    story.trained("wide", earlier=("c" * 64,))
    tok = story.claim("wide/validate", "ada", ttl=3600)
    story.pass_time(1700)
    story.say("ada", ev.Drop(ref="wide/validate", tok=tok))
    tok = story.claim("wide/validate", "ada", ttl=3600)
    why = "no answer within 30 minutes"
    assert decide(story.state, [], story.now + 110, settings("wide")) == [Revoke((Ending("wide/validate", tok),), why)]
    story = Story("wide")
    story.trained("wide")
    tok = story.claim("wide/validate", "validator-1")
    story.pass_time(9000)
    cut_off = Revoke((Ending("wide/validate", tok),), "the run has no such worker any more", failed=False)
    assert decide(story.state, [], story.now, settings("wide")) == [cut_off]
    story.say("coordinator", ev.Expire(ref="wide/validate", tok=tok, why=cut_off.why, failed=False))
    assert decide(story.state, CREW, story.now, settings("wide")) == [Grant(("wide/validate",), "validator-1")]


def test_a_resumed_stream_that_had_failed_validation_is_judged_anew() -> None:
    story = Story("wide")
    story.validated("wide", result="FAIL")
    story.say("coordinator", ev.Fail(ref="wide", why="validation: FAIL"))
    story.say("ada", ev.Resume(ref="wide"))
    assert decide(story.state, CREW, story.now, settings("wide")) == [Grant(("wide/validate",), "validator-1")]


def test_the_lowest_held_out_loss_is_promoted_and_the_reason_names_the_next() -> None:
    story = Story("wide", "narrow")
    story.scored("wide", 0.5)
    story.scored("narrow", 0.4)
    [command] = decide(story.state, CREW, story.now, settings("wide", "narrow"))
    assert isinstance(command, PromoteWinner)
    assert command.choice.winner == "narrow"
    assert (
        command.choice.why == "lowest eval_loss 0.4, next wide 0.5, base 2; chance was not judged: no scores row by row"
    )


def test_a_winner_that_does_not_beat_the_base_is_not_promoted() -> None:
    story = Story("wide")
    story.scored("wide", 2.5, base=2.0)
    [command] = decide(story.state, CREW, story.now, settings("wide"))
    assert command == Finish(0, "the best, wide: eval_loss 2.5 does not beat the base (2)")


def test_scores_on_different_rows_are_not_compared() -> None:
    story = Story("wide", "narrow")
    story.scored("wide", 0.5)
    story.scored("narrow", 0.4, rows=OTHER)
    [command] = decide(story.state, CREW, story.now, settings("wide", "narrow"))
    assert isinstance(command, Finish)
    assert "different held-out rows" in command.why


def test_exact_match_is_maximised() -> None:
    story = Story("wide", "narrow")
    story.scored("wide", 0.5, exact_match=0.9)
    story.scored("narrow", 0.4, exact_match=0.8)
    [command] = decide(story.state, CREW, story.now, settings("wide", "narrow", metric="exact_match"))
    assert isinstance(command, PromoteWinner)
    assert command.choice.winner == "wide"


def test_promotion_waits_for_approvals_and_for_objections_to_be_settled_and_the_workers_may_go() -> None:
    story = Story("wide")
    story.scored("wide", 0.5)
    gate = settings("wide", approvals=1)
    gone = [Dismiss(one.name) for one in CREW]
    assert decide(story.state, CREW, story.now, gate) == gone
    story.say("ada", ev.Object(ref="wide", why="look at row 3"))
    story.say("bob", ev.Approve(ref="wide"))
    assert decide(story.state, CREW, story.now, gate) == gone
    story.say("ada", ev.Approve(ref="wide"))
    assert [type(command) for command in decide(story.state, CREW, story.now, gate)] == [PromoteWinner]


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
    busy = [worker("prep-1", "prepare")]
    assert decide(story.state, busy, story.now, settings("wide")) == [SendOrder("wide/prepare", tok, "prep-1", "stop")]
    story.say("prep-1", ev.Drop(ref="wide/prepare", tok=tok, why="stopped"))
    assert decide(story.state, [worker("prep-1", "prepare")], story.now, settings("wide")) == [
        Finish(130, "stopped; `swarm resume` goes on")
    ]


def test_a_pause_is_ordered_until_the_worker_says_it_waits_and_then_lifted() -> None:
    story = Story("wide")
    tok = story.claim("wide/prepare", "prep-1")
    story.say("ada", ev.Pause(ref="wide"))
    working = [worker("prep-1", "prepare")]
    paused = [worker("prep-1", "prepare", holds=(Held(ref="wide/prepare", token=tok, state="paused"),))]
    assert decide(story.state, working, story.now, settings("wide")) == [
        SendOrder("wide/prepare", tok, "prep-1", "pause")
    ]
    assert decide(story.state, paused, story.now, settings("wide")) == []
    story.say("ada", ev.Resume(ref="wide"))
    assert decide(story.state, paused, story.now, settings("wide")) == [
        SendOrder("wide/prepare", tok, "prep-1", "resume")
    ]


def test_the_new_token_of_a_handed_lease_is_sent_to_its_worker_before_anything_else_and_heartbeats_keep_it() -> None:
    story = Story("wide")
    story.prepared("wide")
    old = story.claim("wide/train", "trainer-1")
    new = story.say("ada", ev.Hand(ref="wide/train", tok=old, to="ada", ttl=30))
    story.say("ada", ev.Pause(ref="wide"))
    unaware = [worker("trainer-1", "train", holds=(Held(ref="wide/train", token=old),))]
    aware = [worker("trainer-1", "train", holds=(Held(ref="wide/train", token=new),))]
    later = story.now + 1e6
    assert decide(story.state, unaware, later, settings("wide")) == [SendOrder("wide/train", new, "trainer-1", "hand")]
    assert decide(story.state, aware, later, settings("wide")) == [SendOrder("wide/train", new, "trainer-1", "pause")]


# ---- several leases a worker -----------------------------------------------------------------------------------------


def ready_to_train(*names: str) -> Story:
    story = Story(*names)
    for name in names:
        story.prepared(name)
    return story


def holding(story: Story, *streams: str, by: str = "trainer-1") -> list[int]:
    return [story.claim(f"{stream}/train", by) for stream in streams]


def test_streams_on_the_same_base_are_given_to_one_worker_together_up_to_its_slots() -> None:
    story = ready_to_train("a", "b", "c", "d")
    roomy = [worker("trainer-1", "train", slots=3)]
    assert decide(story.state, roomy, story.now, settings("a", "b", "c", "d")) == [
        Grant(("a/train", "b/train", "c/train"), "trainer-1")
    ]
    holding(story, "a", "b")
    assert decide(story.state, roomy, story.now, settings("a", "b", "c", "d")) == [Grant(("c/train",), "trainer-1")]
    holding(story, "c")
    assert decide(story.state, roomy, story.now, settings("a", "b", "c", "d")) == []


def test_streams_that_cannot_share_a_base_in_memory_are_not_given_together() -> None:
    story = ready_to_train("a", "b", "c")
    made = settings("a", "b", "c")
    other = made.streams["b"].model_copy(update={"adapter": "qlora"})
    made = made.model_copy(update={"streams": {**made.streams, "b": other}})
    assert decide(story.state, [worker("trainer-1", "train", slots=3)], story.now, made) == [
        Grant(("a/train", "c/train"), "trainer-1")
    ]


def test_several_workers_with_room_share_what_is_ready() -> None:
    story = ready_to_train("a", "b", "c")
    crew = [worker("trainer-1", "train", slots=3), worker("trainer-2", "train", slots=3)]
    assert decide(story.state, crew, story.now, settings("a", "b", "c")) == [
        Grant(("a/train", "c/train"), "trainer-1"),
        Grant(("b/train",), "trainer-2"),
    ]


def test_only_tasks_of_one_role_are_held_together_and_preparing_is_done_by_itself() -> None:
    story = Story("a", "b", "c")
    made, everything = settings("a", "b", "c"), [worker("one", "prepare", "train", "validate", slots=3)]
    assert decide(story.state, everything, story.now, made) == [Grant(("a/prepare",), "one")]
    story.prepared("a")
    holding(story, "a", by="one")
    story.trained("c")
    assert decide(story.state, everything, story.now, made) == []


def test_what_was_trained_on_one_base_is_judged_by_one_worker_together() -> None:
    story = Story("a", "b", "c", "d")
    for name in "abcd":
        story.trained(name)
    made, clerk = settings("a", "b", "c", "d"), [worker("clerk", "validate", "evaluate")]
    other = made.streams["b"].model_copy(update={"adapter": "qlora"})
    made = made.model_copy(update={"streams": {**made.streams, "b": other}})
    assert decide(story.state, clerk, story.now, made) == [Grant(("a/validate", "c/validate", "d/validate"), "clerk")]
    held = {name: story.claim(f"{name}/validate", "clerk") for name in "acd"}
    passed(story, "a", held["a"])
    assert decide(story.state, clerk, story.now, made) == [], "an evaluation waits until all are validated"
    passed(story, "c", held["c"])
    passed(story, "d", held["d"])
    assert decide(story.state, clerk, story.now, made) == [Grant(("a/evaluate", "c/evaluate", "d/evaluate"), "clerk")]
    two = [*clerk, worker("judge", "evaluate")]
    assert decide(story.state, two, story.now, made) == [
        Grant(("a/evaluate", "d/evaluate"), "clerk"),
        Grant(("c/evaluate",), "judge"),
    ]


def passed(story: Story, name: str, tok: int) -> None:
    """Its validation, and that its adapter is published."""
    trained = story.state.streams[name].candidate
    assert trained
    facts = {"path": trained.path, "sha256": SHA, "figures": {"eval_loss": 0.5, "base_eval_loss": 2.0}}
    story.say("clerk", ev.Verdict(ref=f"{name}/validate", tok=tok, result="SUCCESS", **facts))  # type: ignore[arg-type]
    story.say("coordinator", ev.Adapter(ref=name, tok=trained.tok, path=f"streams/{name}/adapter", sha256=SHA))


def test_the_time_of_a_validation_begins_when_it_is_worked_on_and_who_was_beside_a_late_one_is_not_blamed() -> None:
    story = Story("a", "b")
    for name in "ab":
        story.trained(name)
    first, second = (story.claim(f"{name}/validate", "clerk") for name in "ab")
    says = (
        Held(ref="a/validate", token=first, state="working", worked=1790.0),
        Held(ref="b/validate", token=second, state="waiting"),
    )
    story.pass_time(5000)
    clerk = worker("clerk", "validate", holds=says)
    assert decide(story.state, [clerk], story.now, settings("a", "b")) == []
    late = replace(clerk, holds=(says[0].model_copy(update={"worked": 1801.0}), says[1]))
    assert decide(story.state, [late], story.now, settings("a", "b")) == [
        Revoke((Ending("a/validate", first, 1801.0),), "no answer within 30 minutes", kill="clerk"),
        Revoke((Ending("b/validate", second, 0.0),), "beside a/validate: no answer within 30 minutes", failed=False),
    ]


def test_of_several_tasks_that_a_dead_worker_held_none_is_blamed_and_each_is_tried_again_alone() -> None:
    story = ready_to_train("a", "b", "c")
    made, roomy = settings("a", "b", "c"), worker("trainer-1", "train", slots=3)
    first, second, third = holding(story, "a", "b", "c")
    story.checkpoint("a", first, 9)
    path = f"streams/a/t{first}/checkpoint-9"
    story.say("trainer-1", ev.Trained(ref="a/train", tok=first, step=9, path=path, sha256=SHA, trainable=1))
    says = (Held(ref="b/train", token=second, step=4, worked=7.5), Held(ref="c/train", token=third, state="waiting"))
    dead = replace(roomy, state="gone", why_gone="killed by SIGKILL", holds=says)
    [lost] = decide(story.state, [dead], story.now, made)
    endings = (Ending("b/train", second, 7.5), Ending("c/train", third, 0.0))
    assert lost == Revoke(endings, "killed by SIGKILL", failed=False, held=2)
    for one in endings:
        facts = {"ref": one.ref, "tok": one.token, "worked": one.worked}
        story.say("coordinator", ev.Expire(why="killed by SIGKILL", failed=False, held=2, **facts))  # type: ignore[arg-type]
    tasks = story.state.tasks
    assert [tasks[f"{name}/train"].failures for name in "bc"] == [[], []]
    assert (tasks["b/train"].seconds, tasks["c/train"].seconds) == (7.5, 0.0)

    assert decide(story.state, [roomy], story.now, made) == [Grant(("b/train",), "trainer-1")], "alone"
    again = story.claim("b/train", "trainer-1")
    assert decide(story.state, [roomy], story.now, made) == [], "and nothing joins it"
    dead = replace(dead, holds=(Held(ref="b/train", token=again, step=1, worked=2.0),))
    [blamed] = decide(story.state, [dead], story.now, made)
    assert blamed == Revoke((Ending("b/train", again, 2.0),), "killed by SIGKILL", failed=True)


def test_a_stream_that_is_resumed_may_be_trained_with_others_again() -> None:
    story = ready_to_train("a", "b")
    for tok, name in zip(holding(story, "a", "b"), "ab", strict=True):
        story.say("coordinator", ev.Expire(ref=f"{name}/train", tok=tok, why="x", failed=False, held=2))
    assert story.state.tasks["a/train"].alone
    story.say("ada", ev.Stop(ref="a"))
    story.say("ada", ev.Resume(ref="a"))
    assert not story.state.tasks["a/train"].alone


def test_orders_are_for_one_of_the_tasks_that_a_worker_holds() -> None:
    story = ready_to_train("a", "b", "c")
    first, second, third = holding(story, "a", "b", "c")
    new = story.say("ada", ev.Hand(ref="a/train", tok=first, to="ada", ttl=30))
    story.say("ada", ev.Pause(ref="b"))
    story.say("ada", ev.Stop(ref="c"))
    held = tuple(Held(ref=f"{name}/train", token=tok) for name, tok in zip("abc", (first, second, third), strict=True))
    crew = [worker("trainer-1", "train", slots=3, holds=held)]
    assert decide(story.state, crew, story.now, settings("a", "b", "c")) == [
        SendOrder("a/train", new, "trainer-1", "hand"),
        SendOrder("b/train", second, "trainer-1", "pause"),
        SendOrder("c/train", third, "trainer-1", "stop"),
    ]


def test_what_trains_on_the_shared_engine_is_measured_while_another_waits_for_a_place() -> None:
    story = ready_to_train("a", "b")
    [tok] = holding(story, "a")
    run = settings("a", "b")
    unknown = Held(ref="a/train", token=tok)
    known = unknown.model_copy(update={"kept_bytes": 1, "passing_bytes": 2})

    def orders(held: Held, slots: int) -> list[object]:
        crew = [worker("trainer-1", "train", slots=slots, holds=(held,))]
        return [one for one in decide(story.state, crew, story.now, run) if isinstance(one, SendOrder)]

    assert orders(unknown, slots=1) == [SendOrder("a/train", tok, "trainer-1", "measure")]
    assert orders(known, slots=1) == []
    assert orders(unknown, slots=2) == [], "b is given a place"
    paused = unknown.model_copy(update={"state": "paused"})
    assert [one.what for one in orders(paused, slots=1)] == ["resume"]  # type: ignore[attr-defined]
    story.say("ada", ev.Stop(ref="a"))
    assert [one.what for one in orders(unknown, slots=1)] == ["stop"]  # type: ignore[attr-defined]
    [plain] = {id(one): one for one in run.streams.values()}.values()
    by_trl = run.model_copy(update={"streams": dict.fromkeys("ab", plain.model_copy(update={"engine": "trl"}))})
    story = ready_to_train("a", "b")
    held = Held(ref="a/train", token=holding(story, "a")[0])
    assert decide(story.state, [worker("trainer-1", "train", holds=(held,))], story.now, by_trl) == []


def test_a_lease_that_is_over_is_revoked_from_whoever_still_works_on_it_and_it_gets_nothing_new_until_then() -> None:
    story = ready_to_train("a", "b")
    stray = Held(ref="a/train", token=2)
    crew = [worker("trainer-1", "train", holds=(stray,), strays=(stray,))]
    assert decide(story.state, crew, story.now, settings("a", "b")) == [SendOrder("a/train", 2, "trainer-1", "revoke")]


def test_workers_leave_when_no_work_for_their_roles_can_come() -> None:
    story = Story("wide")
    story.prepared("wide")
    story.claim("wide/train", "trainer-1")
    crew = (worker("prep-1", "prepare"), worker("trainer-1", "train"), worker("validator-1", "validate"))
    assert decide(story.state, crew, story.now, settings("wide")) == [Dismiss("prep-1")]


def test_a_worker_that_starts_at_once_does_not_wait_in_memory_for_what_comes_after_a_training() -> None:
    story = Story("wide")
    clerk = worker("clerk", "prepare", "validate", "evaluate")
    crew = (replace(clerk, starts_at_once=True), worker("trainer-1", "train"))
    assert Dismiss("clerk") not in decide(story.state, crew, story.now, settings("wide"))
    story.prepared("wide")
    story.claim("wide/train", "trainer-1")
    assert decide(story.state, crew, story.now, settings("wide")) == [Dismiss("clerk")]
    assert decide(story.state, (clerk, crew[1]), story.now, settings("wide")) == []
    story = Story("wide", "narrow")
    story.prepared("wide")
    story.claim("wide/train", "trainer-1")
    assert roles_needed(story.state, at_once=True) == {"prepare", "train"}
    story.trained("narrow")
    assert roles_needed(story.state, at_once=True) == {"train", "validate", "evaluate"}


def test_nothing_is_decided_after_the_end() -> None:
    story = Story("wide")
    story.say("coordinator", ev.End(ref="run", rc=0))
    assert decide(story.state, CREW, story.now, settings("wide")) == []


def test_what_agents_do_beside_the_streams_delays_neither_promotion_nor_end() -> None:
    story = Story("wide")
    story.scored("wide", 0.5)
    story.say("ada", ev.Task(ref="qa/look"))
    story.claim("qa/look", "ada", ttl=604800)
    [command] = decide(story.state, CREW, story.now, settings("wide"))
    assert isinstance(command, PromoteWinner)
    story.say("coordinator", ev.Promote(ref="wide", path="promoted", sha256="a" * 64, why="best"))
    assert decide(story.state, CREW, story.now, settings("wide")) == [Finish(0, "")]


def test_a_stop_does_not_wait_for_an_agent_that_holds_a_streams_task() -> None:
    story = Story("wide")
    story.trained("wide")
    story.claim("wide/validate", "ada", ttl=604800)
    assert decide(story.state, CREW, story.now, settings("wide")) == [
        Dismiss(one.name) for one in CREW if one.roles in {("prepare",), ("train",)}
    ]
    story.say("ada", ev.Stop(ref="run"))
    assert decide(story.state, CREW, story.now, settings("wide")) == [Finish(130, "stopped; `swarm resume` goes on")]
