"""What may not come next: every hole through which an entry could say what is not so."""

from __future__ import annotations

import math
import random
import re
from pathlib import Path

import pytest

from swarm import events as ev
from swarm.event import NAME, ROLES, Event
from swarm.log import Log, LogWriter
from swarm.policy.admission import BODY_BYTES, admit, permit
from swarm.policy.repeats import repeat_of
from swarm.state import Refusal, State, fold
from tests.swarm.story import OTHER, SHA, START, Story, Told


def refused(story: Story, author: str, event: Event, words: str) -> None:
    with pytest.raises(Refusal, match=words):
        story.say(author, event)


@pytest.fixture
def training() -> tuple[Story, int]:
    """A stream in training under the token that is returned."""
    story = Story("wide", "narrow")
    story.prepared("wide")
    return story, story.claim("wide/train", "trainer-1")


def test_only_the_holder_of_a_role_hands_over_its_results(training: tuple[Story, int]) -> None:
    story, tok = training
    path = f"streams/wide/t{tok}/checkpoint-1"
    verdict = ev.Verdict(ref="wide/train", tok=tok, result="SUCCESS", path=path, sha256=SHA)
    refused(story, "trainer-1", verdict, "a verdict belongs to `wide/validate`")
    score = ev.Score(
        ref="wide/train", tok=tok, sha256=SHA, rows_sha256=SHA, rows=1, figures={"eval_loss": 0, "base_eval_loss": 9}
    )
    refused(story, "trainer-1", score, "belongs to `wide/evaluate`")


def test_a_result_for_an_agents_own_task_names_no_stream(training: tuple[Story, int]) -> None:
    story, _ = training
    story.say("ada", ev.Task(ref="review/rows"))
    tok = story.claim("review/rows", "ada")
    event = ev.Prepared(ref="review/rows", tok=tok, path="prepared/x", sha256=SHA, rows=1, held_out=1)
    refused(story, "ada", event, "belongs to `review/prepare`")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("streams/narrow/t9/checkpoint-1", "is no checkpoint of wide"),
        ("streams/wide/adapter", "is no checkpoint of wide"),
        ("promoted/x", "is no checkpoint of wide"),
        ("streams/wide/t99/checkpoint-1", "belongs to a newer token"),
    ],
)
def test_a_checkpoint_stands_in_its_own_streams_folder_under_no_newer_token(
    training: tuple[Story, int], path: str, words: str
) -> None:
    story, tok = training
    refused(story, "trainer-1", ev.Checkpoint(ref="wide/train", tok=tok, step=1, path=path, sha256=SHA), words)


def test_a_verdict_is_about_what_was_trained_and_a_score_about_what_was_validated() -> None:
    story = Story("wide")
    story.trained("wide", earlier=(OTHER,))
    tok = story.claim("wide/validate", "validator-1")
    first, last = (c.path for c in story.state.streams["wide"].checkpoints)

    def verdict(path: str, sha256: str, loss: float | None, base: float | None = 2.0) -> ev.Verdict:
        figures = {"eval_loss": loss, "base_eval_loss": base}
        facts = {"path": path, "sha256": sha256, "figures": {k: v for k, v in figures.items() if v is not None}}
        return ev.Verdict(ref="wide/validate", tok=tok, result="SUCCESS", **facts)  # type: ignore[arg-type]

    refused(story, "validator-1", verdict(first, OTHER, 0.5), "is not what is to be judged")
    refused(story, "validator-1", verdict(last, OTHER, 0.5), "the weights were reported as")
    for loss, base in ((math.nan, 2.0), (0.5, math.inf), (None, 2.0), (0.5, None)):
        refused(story, "validator-1", verdict(last, SHA, loss, base), "both finite; else say FAIL")
    story.say("validator-1", verdict(last, SHA, 0.5))
    refused(story, "coordinator", ev.Adapter(ref="wide", tok=tok, path="x", sha256=OTHER), "were not validated")
    tok = story.claim("wide/evaluate", "evaluator-1")
    for sha256, loss, words in ((OTHER, 0.5, "of other weights"), (SHA, math.inf, "finite")):
        score = ev.Score(
            ref="wide/evaluate",
            tok=tok,
            sha256=sha256,
            rows_sha256=SHA,
            rows=1,
            figures={"eval_loss": loss, "base_eval_loss": 9},
        )
        refused(story, "evaluator-1", score, words)


def test_who_trained_does_not_judge_by_whatever_way() -> None:
    story = Story("wide")
    story.trained("wide", by="ada")
    with pytest.raises(Refusal, match="may not judge it"):
        story.claim("wide/validate", "ada")
    tok = story.claim("wide/validate", "bob")
    refused(story, "bob", ev.Hand(ref="wide/validate", tok=tok, to="ada", ttl=60), "ada trained it")
    story.say("bob", ev.Drop(ref="wide/validate", tok=tok))
    story.judged("wide")
    refused(story, "ada", ev.Claim(ref="wide/evaluate", ttl=60), "may not judge it")


def test_who_answered_for_a_workers_training_does_not_judge_it_either(training: tuple[Story, int]) -> None:
    story, old = training
    new = story.say("ada", ev.Hand(ref="wide/train", tok=old, to="bob", ttl=60))
    path = story.checkpoint("wide", new, 9)
    story.say("trainer-1", ev.Trained(ref="wide/train", tok=new, step=9, path=path, sha256=SHA, trainable=1))
    refused(story, "bob", ev.Claim(ref="wide/validate", ttl=60), "bob trained it")
    judging = story.claim("wide/validate", "validator-1")
    story.say("bob", ev.Hand(ref="wide/validate", tok=judging, to="ada", ttl=60))


def test_a_part_of_the_run_is_handed_nothing(training: tuple[Story, int]) -> None:
    story, tok = training
    refused(story, "ada", ev.Hand(ref="wide/train", tok=tok, to="coordinator", ttl=60), "is a part of every run")


def test_a_task_that_ended_with_an_exit_status_is_not_done() -> None:
    story = Story("wide")
    story.trained("wide")
    story.judged("wide")
    tok = story.claim("wide/evaluate", "ada")
    refused(story, "ada", ev.Done(ref="wide/evaluate", tok=tok, rc=3, cmd="./judge.sh"), "exit status 3 is not done")


@pytest.mark.parametrize("ttl", [0.0, -1.0, math.nan, math.inf, 1e9])
def test_no_lease_is_endless(training: tuple[Story, int], ttl: float) -> None:
    story, tok = training
    for event in (ev.Claim(ref="narrow/prepare", ttl=ttl), ev.Hand(ref="wide/train", tok=tok, to="ada", ttl=ttl)):
        refused(story, "ada", event, "a lease is longer than 0 and at most")


def test_names_of_tasks_and_streams_do_not_collide(training: tuple[Story, int]) -> None:
    story, _ = training
    for ref in ("run", "-", "wide", "other/train"):
        refused(story, "ada", ev.Task(ref=ref), "is no name for a task|bring their own")
    story.say("ada", ev.Task(ref="later/review"))
    refused(story, "coordinator", ev.Stream(ref="later"), "an agent's task bears that name")
    refused(story, "coordinator", ev.Stream(ref="wide"), "there is a stream of that name")


def test_a_run_is_not_paused_and_only_what_stands_still_is_resumed(training: tuple[Story, int]) -> None:
    story, _ = training
    refused(story, "ada", ev.Pause(ref="run"), "a run has no pause")
    refused(story, "ada", ev.Resume(ref="wide"), "neither paused, stopped nor failed")
    refused(story, "ada", ev.Stop(ref="wide/train"), "no such stream")


def test_what_stands_still_is_not_paused_or_stopped_once_more_and_the_answer_says_how_it_goes_on() -> None:
    story = Story("wide", "narrow")
    story.say("ada", ev.Pause(ref="wide"))
    refused(story, "bob", ev.Pause(ref="wide"), "wide: is paused already; `swarm resume wide` lets it go on")
    story.say("bob", ev.Stop(ref="wide"))
    for again in (ev.Stop(ref="wide"), ev.Pause(ref="wide")):
        refused(story, "ada", again, "wide: is stopped already; `swarm resume wide` lets it go on")
    story.say("ada", ev.Resume(ref="wide"))
    story.say("ada", ev.Pause(ref="wide"))


def test_a_run_that_is_resumed_leaves_who_gave_way_to_others_and_revives_who_was_stopped_by_name() -> None:
    story = Story("wide", "narrow", "fast")
    story.say("coordinator", ev.Stop(ref="wide", why="halving at step 10"))
    story.say("ada", ev.Stop(ref="narrow"))
    assert [name for name, stream in story.state.streams.items() if stream.gave_way] == ["wide"]
    story.say("ada", ev.Resume(ref="wide"))
    story.say("ada", ev.Stop(ref="wide"))
    assert not story.state.streams["wide"].gave_way, "a person stopped it last"


def test_what_is_to_join_a_finished_run_is_told_to_start_another_one() -> None:
    story = Story("wide")
    story.say("coordinator", ev.End(ref="run", rc=0))
    refused(
        story, "ada", ev.Add(ref="new", like="wide"), "new: the run has finished, .*; `swarm run CONFIG` starts another"
    )


def test_in_a_log_without_a_run_every_answer_names_the_command_that_starts_one() -> None:
    state = State()
    for event in (ev.Pause(ref="wide"), ev.Add(ref="new", like="wide"), ev.Stop(ref="run"), ev.Approve(ref="wide")):
        with pytest.raises(Refusal, match=r"no run was started here yet; `swarm run CONFIG --in RUN` does"):
            admit(state, "ada", event, 0.0)


def test_texts_are_bounded_and_answers_are_to_entries_that_there_are(training: tuple[Story, int]) -> None:
    story, _ = training
    refused(story, "ada", ev.Post(ref="-", body="x" * (BODY_BYTES + 1)), "put it into a file")
    refused(story, "ada", ev.Object(ref="wide", why="x" * 9000), "write it into the body")
    refused(story, "ada", ev.Amend(ref="-", of=999), "there is no entry 999")
    refused(story, "ada", ev.Object(ref="run", why=" "), "says why")


def test_only_worker_processes_have_heartbeats_and_only_coordinators_decide() -> None:
    with pytest.raises(Refusal, match="only a worker process has heartbeats"):
        permit("agent", ev.Claim(ref="wide/train", ttl=60, beats=True))
    for role in ("viewer", "worker", "agent", "admin"):
        with pytest.raises(Refusal, match="may not append 'back'"):
            permit(role, ev.Back(ref="wide", tok=1, step=1, path="p", sha256=SHA, why="mine"))


# ---- leases ----------------------------------------------------------------------------------------------------------


def test_an_agent_past_its_lease_is_refused_even_before_the_expiry_is_logged() -> None:
    story = Story("wide")
    tok = story.claim("wide/prepare", "ada", ttl=30)
    late = START + 2 + 30
    for event in (
        ev.Renew(ref="wide/prepare", tok=tok, ttl=30),
        ev.Prepared(ref="wide/prepare", tok=tok, path="prepared/x", sha256=SHA, rows=1, held_out=1),
        ev.Hand(ref="wide/prepare", tok=tok, to="bob", ttl=30),
    ):
        with pytest.raises(Refusal, match="ran out 0 s ago"):
            admit(story.state, "ada", event, late)


def test_a_worker_goes_on_under_the_token_of_a_hand_over_and_its_old_one_is_stale(training: tuple[Story, int]) -> None:
    story, old = training
    new = story.say("ada", ev.Hand(ref="wide/train", tok=old, to="bob", ttl=60))
    lease = story.state.tasks["wide/train"].lease
    assert lease is not None
    assert (lease.token, lease.by, lease.worker, lease.first) == (new, "bob", "trainer-1", old)
    stale = ev.Checkpoint(ref="wide/train", tok=old, step=1, path=f"streams/wide/t{old}/checkpoint-1", sha256=SHA)
    refused(story, "trainer-1", stale, f"token {old} is stale, token {new} holds it")
    story.say("trainer-1", stale.model_copy(update={"tok": new}))  # saved across the hand-over
    story.checkpoint("wide", new, 2)
    refused(story, "bob", ev.Done(ref="wide/train", tok=new), "belongs to trainer-1")
    refused(story, "eve", ev.Hand(ref="wide/train", tok=new, to="eve", ttl=60), "belongs to bob")
    story.say("bob", ev.Renew(ref="wide/train", tok=new, ttl=60))
    assert story.say("bob", ev.Hand(ref="wide/train", tok=new, to="trainer-1", ttl=60)) > new


def test_who_answers_for_a_worker_and_falls_silent_does_not_keep_others_out(training: tuple[Story, int]) -> None:
    story, old = training
    new = story.say("ada", ev.Hand(ref="wide/train", tok=old, to="bob", ttl=5))
    with pytest.raises(Refusal, match="belongs to bob"):
        admit(story.state, "ada", ev.Hand(ref="wide/train", tok=new, to="ada", ttl=60), story.now)
    admit(story.state, "ada", ev.Hand(ref="wide/train", tok=new, to="ada", ttl=60), story.now + 5)


def test_retries_are_the_first_entry_and_a_key_stands_for_one_thing() -> None:
    story = Story("wide")
    tok = story.say("ada", ev.Claim(ref="wide/prepare", ttl=60, idem="k1"))
    assert story.repeat_of("ada", ev.Claim(ref="wide/prepare", ttl=60)) == tok
    assert story.repeat_of("ada", ev.Claim(ref="wide/prepare", ttl=60, idem="k1")) == tok
    assert story.repeat_of("bob", ev.Claim(ref="wide/prepare", ttl=60, idem="k1")) is None
    assert repeat_of(story.state, "ada", ev.Claim(ref="wide/prepare", ttl=60), story.now + 61) is None, "it is over"
    with pytest.raises(Refusal, match="the key k1 stands for claim wide/prepare"):
        story.repeat_of("ada", ev.Post(ref="-", body="x", idem="k1"))
    hand = ev.Hand(ref="wide/prepare", tok=tok, to="bob", ttl=60)
    new = story.say("ada", hand)
    assert story.repeat_of("ada", hand) == new
    assert story.repeat_of("eve", hand) is None, "who never held it has handed nothing over"


def test_a_result_that_comes_again_word_for_word_is_the_entry_that_stands(tmp_path: Path) -> None:
    story = Story("wide")
    story.prepared("wide")
    tok = story.claim("wide/train", "trainer-1")
    path = f"streams/wide/t{tok}/checkpoint-2"
    first = ev.Checkpoint(ref="wide/train", tok=tok, step=2, path=path, sha256=SHA, figures={"loss": 0.1 + 0.2})
    seq = story.say("trainer-1", first)
    story.say("trainer-1", first.model_copy(update={"step": 4}))
    dropped = ev.Drop(ref="wide/train", tok=tok, why="the worker was asked to leave", failed=False)
    last = story.say("trainer-1", dropped)
    with LogWriter.open(tmp_path / "COLLABORATION.md") as writer:  # as the next coordinator reads it
        writer.append([(entry.author, entry.event) for entry in story.entries])
    state = fold(Log(tmp_path / "COLLABORATION.md").entries())
    assert repeat_of(state, "trainer-1", first, 0.0) == seq
    assert repeat_of(state, "trainer-1", dropped, 0.0) == last
    assert repeat_of(state, "trainer-2", first, 0.0) is None, "another's word"
    assert repeat_of(state, "trainer-1", first.model_copy(update={"sha256": OTHER}), 0.0) is None, "other words"
    assert repeat_of(state, "trainer-1", first.model_copy(update={"step": 6}), 0.0) is None


def test_a_stream_joins_only_a_running_run_under_a_free_name_and_a_clone_needs_a_checkpoint() -> None:
    story = Story("wide")
    add = ev.Add(ref="new", like="wide")
    for refused, why in (
        (add.model_copy(update={"ref": "wide"}), "there is a stream of that name"),
        (add.model_copy(update={"like": "wdie"}), "no such stream; there is wide"),
        (add.model_copy(update={"warm": True}), "wide: has no checkpoint yet"),
    ):
        with pytest.raises(Refusal, match=why):
            admit(story.state, "ada", refused, 0.0)
    permit("agent", add)
    story.say("ada", add)
    assert story.state.next_role(story.state.streams["new"]) == "prepare" and story.state.added == [add]
    story.say("ada", ev.Stop(ref="run"))
    with pytest.raises(Refusal, match="new2: the run is stopped, and streams join a running one"):
        admit(story.state, "ada", ev.Add(ref="new2", like="wide"), 0.0)


# ---- anything at all -------------------------------------------------------------------------------------------------

NAMES = ("wide", "narrow", "coordinator", "ada", "bob", "trainer-1", "validator-1", "run", "review")
REFS = ("-", "run", "wide", "narrow", "review", "review/x", "gone", "gone/train", *(
    f"{name}/{role}" for name in ("wide", "narrow") for role in ROLES
))  # fmt: skip


NEXT: dict[str, list[type[Event]]] = {
    "prepare": [ev.Prepared], "train": [ev.Checkpoint, ev.Checkpoint, ev.Trained], "validate": [ev.Verdict], "evaluate": [ev.Score],
    "sealed": [ev.Sealed],
}  # fmt: skip


def any_event(rng: random.Random, state: State) -> Event:
    """One of any kind, of fields that often fit what stands."""
    tokens = [task.lease.token for task in state.held() if task.lease] or [1]
    likely = [task.ref for task in (*state.held(), *state.ready()) if re.fullmatch(rf"{NAME}(/{NAME})?", task.ref)]
    ref = rng.choice([*REFS, *likely * 4])
    tok = rng.choice([*tokens, *tokens, 1, 10**17])
    lease = state.tasks[ref].lease if ref in state.tasks else None
    if lease and rng.random() < 0.8:
        tok = lease.token
    stream = ref.partition("/")[0]
    mine = state.streams.get(stream)
    known = [
        c.path
        for c in [*([mine.candidate] * 4 if mine and mine.candidate else []), *(mine.earlier() if mine else [])]
        if c
    ]
    path = rng.choice([f"streams/{stream}/t{tok}/checkpoint-{rng.randrange(9)}", "prepared/x", *known])
    values = {
        "ref": ref, "tok": tok, "path": path, "sha256": rng.choice([SHA, SHA, OTHER]), "why": rng.choice(["", "because"]),
        "ttl": rng.choice([60.0, 60.0, 60.0, 1e-9, math.nan]), "to": rng.choice(NAMES), "of": rng.choice([None, 1, 10**17]),
        "rows": 3, "held_out": 1, "step": rng.randrange(9), "trainable": 1, "rows_sha256": SHA,
        "result": rng.choice(["SUCCESS", "WARNING", "FAIL"]), "rc": rng.choice([0, 0, 0, 1]),
        "name": "demo", "config_sha256": SHA, "streams": 2, "seconds": 5.0, "failed": rng.random() < 0.5, "by": "ada", "chain": "0" * 16,
        "mac": "-", "off": 1, "n": 1, "sha": "0", "idem": rng.choice([*[None] * 9, "a", "b"]), "force": rng.choice([None, True]),
        "like": "wide", "warm": rng.choice([None, True]), "body": "x", "asks": rng.choice([None, "bob"]), "beats": rng.choice([None, True]),
        "answer": rng.choice(["a", "b"]), "rating": 2.0, "better": rng.choice([None, True]), "mean": 2.0, "ratings": 9, "share": 0.1,
        "number": 1, "what": "cores", "count": 1, "overlap": 0, "metric": "eval_loss", "best": "wide", "arm": "wide", "chosen": "wide", "beats_base": True, "level": 0.01, "scores": SHA,
        "figures": rng.choice([{"eval_loss": math.nan}, *[{"eval_loss": 0.5, "base_eval_loss": 1.0}] * 3]),
    }  # fmt: skip
    role = state.tasks[ref].role if ref in state.tasks else None
    fitting: list[type[Event]] = [*NEXT[role], ev.Done] if role and lease else [ev.Claim] if ref in state.tasks else []
    fitting += [ev.Conclude] if any(one.conclusion is None for one in state.proposals.values()) else []
    while True:
        cls = rng.choice([*ev.KINDS.values(), *(3 * [*fitting, ev.Adapter, ev.Back, ev.Promote, ev.Look])])
        if cls in {ev.End, ev.Fail, ev.Stop, ev.Drop, ev.Expire} and rng.random() < 0.9:
            continue  # a run that soon stands still shows little
        fields = {key: value for key, value in values.items() if key in cls.model_fields and value is not None}
        if cls is ev.Seal:
            fields["why"] = "note"
        if cls in {ev.Propose, ev.Conclude}:
            fields |= {"ref": rng.choice(["new", "newer"]), "why": "because"}
            fields |= {"result": "discard"} if cls is ev.Conclude else {"changes": "lora_r=4"}
        if cls in {ev.Retrain, ev.Canary}:
            fields["ref"] = "anew"
        try:
            return cls.model_validate(fields)
        except ValueError:
            continue


def test_whatever_is_admitted_can_be_folded_and_asked_about() -> None:
    admitted = set().union(*(kinds_of_a_random_run(random.Random(seed), seed % 3) for seed in range(36)))
    assert admitted >= set(ev.KINDS) - {"run", "fail", "refuse"}


def kinds_of_a_random_run(rng: random.Random, begun: int) -> set[str]:
    story = Story("wide", "narrow")
    if begun == 1:
        story.trained("wide", earlier=(OTHER,))
        story.judged("wide")
    elif begun == 2:
        story.scored("wide", 0.5)
    state, admitted = story.state, set()
    for seq in range(len(story.entries) + 1, 700):
        event = any_event(rng, state)
        holder = state.tasks[event.ref].lease if event.ref in state.tasks else None
        author = (holder.worker or holder.by) if holder and rng.random() < 0.8 else rng.choice(NAMES)
        now = START + seq
        try:
            if repeat_of(state, author, event, 0.0) is not None:
                continue
            admit(state, author, event, now)
        except Refusal:
            continue
        story.entries.append(Told(seq, author, now, event))
        state.apply(story.entries[-1])
        admitted.add(event.kind)
        state.ready(), state.open_streams(), [s.earlier() for s in state.streams.values()]
        assert all(task.done is None for task in state.held())
    assert fold(story.entries) == state
    return admitted


@pytest.mark.parametrize("seed", range(4))
def test_the_fold_takes_any_entry_that_can_be_read_also_from_a_log_that_nobody_guarded(seed: int) -> None:
    rng = random.Random(seed)
    state = Story("wide", "narrow").state
    for seq in range(10, 600):
        state.apply(Told(seq, rng.choice(NAMES), START + seq, any_event(rng, state)))
    state.ready()
