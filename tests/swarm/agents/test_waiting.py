"""Waiting instead of polling: what ends it, what it tells, and what it costs to read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

import toon
from swarm import Agent
from swarm import events as ev
from swarm.agents import waiting
from swarm.agents.waiting import conditions
from swarm.artifacts.metrics import MetricsFile
from swarm.errors import UserError
from swarm.log import LogWriter
from swarm.messages import MetricRow, Metrics
from swarm.rundir import RunFolder
from swarm.views.digest import tokens_at_most
from tests.swarm.story import Story

Say = Callable[[Story], None]


def recorded(folder: RunFolder, story: Story, known: int = 0) -> None:
    """The story's entries after the first `known` go into the log."""
    with LogWriter.open(folder.log) as writer:
        writer.append([(entry.author, entry.event) for entry in story.entries[known:]])


@pytest.fixture
def story(folder: RunFolder) -> Story:
    """A run of two streams, of which `wide` is trained; the log holds one note of `swarm open` before it."""
    story = Story("wide", "narrow")
    story.trained("wide")
    recorded(folder, story)
    return story


def goes_on(folder: RunFolder, story: Story, tell: Say) -> threading.Thread:
    """What happens while somebody waits."""
    known = len(story.entries)

    def later() -> None:
        time.sleep(0.4)
        recorded(folder, story, known)

    tell(story)
    thread = threading.Thread(target=later)
    thread.start()
    return thread


def judges(result: str) -> Say:
    def tell(story: Story) -> None:
        tok = story.claim("wide/validate", "val-1")
        path = story.state.streams["wide"].candidate
        assert path
        figures = {} if result == "FAIL" else {"eval_loss": 0.5, "base_eval_loss": 2.0}
        story.say(
            "val-1", ev.Verdict(ref="wide/validate", tok=tok, result=result, path=path.path, sha256=path.sha256, figures=figures, why="seen")
        )  # fmt: skip

    return tell


def test_it_returns_when_a_condition_is_met_and_tells_what_changed(folder: RunFolder, story: Story) -> None:
    with Agent("ada", folder.path) as ada:
        first = ada.wait("done", timeout_seconds=0)
        assert (first.cause, first.status) == ("timeout", 6)
        thread = goes_on(folder, story, judges("SUCCESS"))
        woken = ada.wait("failed | verdict", timeout_seconds=20)
        thread.join()
        assert (woken.cause, woken.status) == ("verdict", 0)
        assert [row["stream"] for row in woken.changed["streams"]] == ["wide"]
        assert [line.split()[2:4] for line in woken.changed["entries"]] == [["verdict", "wide/validate"]]
        assert woken.next == ada.state.seq
        again = ada.wait("verdict", timeout_seconds=0)
        assert (again.cause, "entries" in again.changed) == ("timeout", False), "what was told once is not told again"
        assert ada.wait("verdict", timeout_seconds=0, since=first.next).cause == "verdict", "from a cursor of its own"


def test_of_a_training_it_tells_the_figures_measured_last(folder: RunFolder, story: Story) -> None:
    story.prepared("narrow")
    token = story.claim("narrow/train", "trainer-1")
    recorded(folder, story, known=len(story.entries) - 3)
    rows = [MetricRow(5, "train", 1.0, {"loss": 0.51}), MetricRow(4, "eval", 1.0, {"eval_loss": 0.612345})]
    MetricsFile(folder.metrics).insert([Metrics.of("narrow", token, 9, rows)])
    with Agent("ada", folder.path) as ada:
        [_, row] = ada.wait("verdict", timeout_seconds=0).changed["streams"]
    assert row == {"stream": "narrow", "state": "train", "step": 5, "loss": 0.612, "why": None}


def test_of_many_streams_those_that_need_attention_are_told_and_the_others_counted(folder: RunFolder) -> None:
    story = Story(*(f"arm-{n}" for n in range(64)))
    story.say("coordinator", ev.Fail(ref="arm-50", why="loss is NaN at step 40"))
    recorded(folder, story)
    with Agent("ada", folder.path) as ada:
        woken = ada.wait("failed", timeout_seconds=0)
    shown = [row["stream"] for row in woken.changed["streams"]]
    assert "arm-50" in shown and len(shown) + woken.changed["more_streams"] == 64
    assert toon.estimated_tokens(woken.text()) < 1.2 * waiting.BUDGET_TOKENS


def test_each_name_has_its_own_cursor(folder: RunFolder, story: Story) -> None:
    goes_on(folder, story, judges("FAIL")).join()
    with Agent("ada", folder.path) as ada, Agent("bob", folder.path) as bob:
        assert ada.wait("verdict", timeout_seconds=0).cause == "verdict"
        assert bob.wait("verdict", timeout_seconds=0).cause == "verdict"
        assert bob.inbox().at == ada.state.seq, "the inbox has another one"


def test_a_stream_that_is_given_up_and_a_question_wake_up(folder: RunFolder, story: Story) -> None:
    with Agent("ada", folder.path) as ada, Agent("bob", folder.path) as bob:
        ada.wait("done", timeout_seconds=0)
        seq = bob.ask("ada", "shall narrow go on?", "narrow")[0]
        woken = ada.wait("failed | question", timeout_seconds=5)
        assert woken.cause == "question" and woken.changed["entries"][0].startswith(f"{seq} ")
        assert ada.wait("question", timeout_seconds=0).cause == "timeout"
        story.say("coordinator", ev.Fail(ref="narrow", why="loss is NaN at step 40"))
        recorded(folder, story, len(story.entries) - 1)
        woken = ada.wait("failed | question", timeout_seconds=5)
    assert woken.cause == "failed"
    assert {
        "stream": "narrow",
        "state": "failed",
        "step": None,
        "loss": None,
        "why": "loss is NaN at step 40",
    } in woken.changed["streams"]


@pytest.mark.parametrize(
    ("rc", "until", "cause", "status"), [(0, "done", "done", 0), (1, "done", "ended", 1), (0, "verdict", "ended", 1)]
)
def test_the_end_of_the_run_ends_every_wait(
    folder: RunFolder, story: Story, rc: int, until: str, cause: str, status: int
) -> None:
    story.say("coordinator", ev.End(ref="run", rc=rc))
    recorded(folder, story, len(story.entries) - 1)
    with Agent("ada", folder.path) as ada:
        woken = ada.wait(until, timeout_seconds=20)
    assert (woken.cause, woken.status, woken.changed["run"]) == (cause, status, "ended")


def test_a_run_that_has_lost_its_coordinator_stands_still(
    folder: RunFolder, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "SILENT_SECONDS", 0.3)
    with Agent("ada", folder.path) as ada:
        assert ada.wait("stalled", timeout_seconds=20).cause == "stalled"


def test_what_it_tells_keeps_its_budget(folder: RunFolder, story: Story) -> None:
    with Agent("bob", folder.path) as bob:
        for number in range(60):
            bob.post(f"@ada note {number}: the loss of wide is falling slowly, narrow is flat since step 400")
    with Agent("ada", folder.path) as ada:
        woken = ada.wait("done", timeout_seconds=0)
    assert toon.estimated_tokens(woken.text()) < 1.2 * waiting.BUDGET_TOKENS
    assert woken.changed["more"] > 40 and "note 59" in woken.changed["entries"][-1]


def test_supervising_eight_streams_to_their_end_costs_no_more_than_2000_tokens(folder: RunFolder) -> None:
    names = [f"lora-{n}" for n in range(1, 9)]
    story = Story(*names)
    for name in names:
        story.trained(name, earlier=tuple(f"{n:x}" * 64 for n in range(10)))
    recorded(folder, story)
    told: list[str] = []
    with Agent("ada", folder.path) as ada:
        for at, name in enumerate(names):
            known = len(story.entries)
            story.judged(name, loss=0.5 + at / 100)
            recorded(folder, story, known)
            told.append(ada.wait("done | failed | verdict | waits | question", timeout_seconds=0).text())
        known = len(story.entries)
        story.say("coordinator", ev.End(ref="run", rc=0))
        recorded(folder, story, known)
        last = ada.wait("done | failed | verdict | waits | question", timeout_seconds=0)
    assert (last.cause, len(told)) == ("done", 8)
    assert sum(map(tokens_at_most, [*told, last.text()])) <= 2000


def test_another_condition_is_refused_with_those_that_there_are() -> None:
    assert conditions("done|failed, verdict") == ("done", "failed", "verdict")
    for words in ("finished", "", "done | never"):
        with pytest.raises(UserError, match=r"is no condition; take some of done \| failed"):
            conditions(words)


def saves(step: int, loss: float) -> Say:
    def tell(story: Story) -> None:
        lease = story.state.tasks["narrow/train"].lease
        if lease is None:
            story.prepared("narrow")
        tok = lease.token if lease else story.claim("narrow/train", "trainer-1")
        path = f"streams/narrow/t{tok}/checkpoint-{step}"
        story.say("trainer-1", ev.Checkpoint(ref="narrow/train", tok=tok, step=step, path=path, sha256="c" * 64, figures={"eval_loss": loss}))  # fmt: skip

    return tell


def test_a_new_best_counts_from_the_difference_on_that_was_asked_for(folder: RunFolder, story: Story) -> None:
    goes_on(folder, story, saves(1, 1.0)).join()
    with Agent("ada", folder.path) as ada:
        assert ada.wait("new_best > 0.2", timeout_seconds=0).cause == "new_best>0.2", "the first measurement is one"
        goes_on(folder, story, saves(2, 0.9)).join()
        assert ada.wait("new_best>0.2", timeout_seconds=0).cause == "timeout"
        thread = goes_on(folder, story, saves(3, 0.6))
        assert ada.wait("new_best>0.2", timeout_seconds=20).cause == "new_best>0.2"
        thread.join()
    with pytest.raises(UserError, match="is no condition"):
        conditions("new_best>much")


def test_a_plateau_is_eight_measurements_without_a_better_one(folder: RunFolder, story: Story) -> None:
    with Agent("ada", folder.path) as ada:
        for step in range(1, 9):
            goes_on(folder, story, saves(step, 1.0)).join()
        assert ada.wait("plateau", timeout_seconds=0).cause == "timeout"
        goes_on(folder, story, saves(9, 0.999)).join()
        assert ada.wait("plateau", timeout_seconds=0).cause == "plateau"


def test_what_may_be_claimed_wakes_those_who_may_claim_it(folder: RunFolder, story: Story) -> None:
    def adds(story: Story) -> None:
        story.say("bob", ev.Task(ref="data/check"))

    with Agent("ada", folder.path) as ada:
        assert ada.wait("claimable", timeout_seconds=0).cause == "timeout", "what workers do is not for agents"
        goes_on(folder, story, adds).join()
        assert ada.wait("claimable", timeout_seconds=0).cause == "claimable"
        assert ada.wait("claimable", timeout_seconds=0).cause == "timeout", "it was there when she looked last"
        goes_on(folder, story, lambda story: story.claim("data/check", "bob", ttl=1.0)).join()
        goes_on(folder, story, lambda story: story.say("coordinator", ev.Expire(ref="data/check", tok=len(story.entries), why="the lease ran out"))).join()  # fmt: skip
        assert ada.wait("claimable", timeout_seconds=0).status == 6, "it is as she saw it; bob's lease came and went"


def test_the_conclusion_of_a_proposal_wakes_and_is_told_with_what_was_proposed(folder: RunFolder, story: Story) -> None:
    def proposes(story: Story) -> None:
        story.say("bob", ev.Propose(ref="new", like="wide", changes="lora_r=4", why="it is smaller"))

    with Agent("ada", folder.path) as ada:
        ada.wait("concluded", timeout_seconds=0)
        goes_on(folder, story, proposes).join()
        assert ada.wait("concluded", timeout_seconds=0).status == 6
        goes_on(folder, story, lambda story: story.say("coordinator", ev.Conclude(ref="new", result="discard", why="no better"))).join()  # fmt: skip
        woken = ada.wait("concluded", timeout_seconds=0, since=len(story.entries) - 1)
    assert woken.cause == "concluded"
    assert [line.split()[2] for line in woken.changed["entries"]] == ["propose", "conclude"]


def test_what_happens_soon_after_is_told_with_it(folder: RunFolder, story: Story) -> None:
    with Agent("ada", folder.path) as ada:
        ada.wait("verdict", timeout_seconds=0)
        goes_on(folder, story, judges("SUCCESS")).join()
        thread = goes_on(folder, story, lambda story: story.say("coordinator", ev.Stop(ref="narrow", why="halving")))
        woken = ada.wait("verdict", timeout_seconds=0, coalesce_seconds=2)
        thread.join()
    assert [line.split()[2] for line in woken.changed["entries"]] == ["verdict", "stop"]
