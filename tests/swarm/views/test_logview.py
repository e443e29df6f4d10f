"""What an entry looks like to people and models."""

from __future__ import annotations

import unicodedata

import pytest

from swarm import events as e
from swarm.event import Event
from swarm.events import KINDS
from swarm.log import Entry
from swarm.views.logview import line

SHA = "9f3a" * 16
T = 1795238000.0
"""2026-11-21T05:13:20Z"""


def shown(event: Event, author: str = "ada", via: str | None = None) -> str:
    return line(Entry(17, author, T, event, "0" * 16, via))


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (e.Run(ref="run", name="demo", config_sha256=SHA, streams=4), "begins with 4 streams"),
        (e.Stream(ref="wide"), "joins the run"),
        (e.Add(ref="new", like="wide", changes="lora_r=4", why="smaller"), "joins like wide with lora_r=4: smaller"),
        (e.Add(ref="new", like="wide", warm=True, step=40), "joins as a clone of wide at step 40"),
        (e.Pause(ref="wide"), ""),
        (e.Resume(ref="wide"), ""),
        (e.Stop(ref="run", why="the user"), "stops: the user"),
        (e.Fail(ref="wide", why="loss is NaN at step 40"), "[FAIL] loss is NaN at step 40"),
        (e.End(ref="run", rc=0), "[OK] is finished"),
        (e.End(ref="run", rc=1), "[WARN] ended with exit status 1"),
        (e.Task(ref="wide/probe", title="look at step 40"), "look at step 40"),
        (e.Claim(ref="wide/train", ttl=60), "for 60 s"),
        (e.Claim(ref="wide/train", ttl=60, beats=True), "training begins"),
        (e.Renew(ref="wide/train", tok=17, ttl=60), "token 17 for 60 s"),
        (e.Hand(ref="wide/train", tok=17, to="bob", ttl=60), "to bob for 60 s"),
        (e.Done(ref="wide/train", tok=17, sha256=SHA, body="trained 120 steps, loss 0.09"), "{sha256 9f3a9f3a} · trained 120 steps, loss 0.09"),
        (e.Done(ref="wide/train", tok=17, rc=3), "exit status 3"),
        (e.Drop(ref="wide/train", tok=17, why="no step for 31 s", failed=True), "[WARN] failed: no step for 31 s"),
        (e.Extend(ref="run", seconds=20, why="the coordinator stood still"), "[WARN] every lease lasts 20s longer: the coordinator stood still"),
        (e.Expire(ref="wide/train", tok=17, why="SIGKILL", failed=False, held=3), "the lease ended: SIGKILL; 3 tasks were held together, so each is tried again alone"),
        (e.Expire(ref="wide/train", tok=17, why="process 31 died of signal 9"), "[WARN] the lease ended: process 31 died of signal 9"),
        (e.Refuse(ref="wide/train", tok=17, by="trainer-1", why="the token is stale"), "a report of trainer-1 under token 17 was refused: the token is stale"),
        (
            e.Prepared(ref="a/prepare", tok=1, path="prepared/x", sha256=SHA, rows=1200, held_out=60, tokens=61000, supervised=23180),
            "1,200 rows ready, 60 held out; 61,000 tokens, 38% supervised",
        ),
        (
            e.Checkpoint(ref="wide/train", tok=17, step=100, path="x", sha256=SHA, figures={"loss": 0.412, "eval_loss": 0.455}),
            "saved checkpoint-100: loss 0.412, held-out 0.455",
        ),
        (
            e.Trained(ref="a/train", tok=1, step=120, path="x", sha256=SHA, trainable=9, why="max_steps", figures={"first_loss": 2.31, "loss": 0.09, "tokens_per_second": 2811.3}),
            "trained 120 steps: loss 2.310 -> 0.090; checkpoint-120 goes to the validator",
        ),
        (
            e.Verdict(ref="a/validate", tok=1, result="SUCCESS", path="x", sha256=SHA, figures={"eval_loss": 0.11, "base_eval_loss": 2.04}),
            "[OK] held-out 0.110, base 2.040 {x}",
        ),
        (
            e.Score(ref="a/evaluate", tok=1, sha256=SHA, rows_sha256=SHA, rows=60, figures={"eval_loss": 0.11, "base_eval_loss": 2.04, "exact_match": 0.91, "base_exact_match": 0.03, "meteor": 31.5}),
            "on 60 rows: held-out 0.110, base 2.040; exact match 91%, base 3%; meteor 31.5",
        ),
        (e.Back(ref="a", tok=1, step=4, path="x", sha256=SHA, why="weights are not finite"), "[WARN] goes back to checkpoint-4: weights are not finite"),
        (e.Adapter(ref="a", tok=1, path="streams/a/adapter", sha256=SHA), "its adapter is published"),
        (e.Look(ref="a", sha256=SHA, number=1), "its weights are examined on the sealed rows: look 1 of this run at them"),
        (
            e.Sealed(ref="a/sealed", tok=1, sha256=SHA, result="FAIL", rows=30, overlap=0, why="no gain", figures={"sealed_loss": 0.5, "base_sealed_loss": 0.5}),
            "[FAIL] on 30 sealed rows, 0 of them trained on: sealed 0.500, base 0.500; no gain",
        ),
        (
            e.Compared(ref="run", metric="eval_loss", best="a", arm="a", chosen="a", beats_base=True, level=0.01, scores=SHA, why="lowest", body="- a against b"),
            "arms compared by eval_loss: difference (99% interval), smallest detectable one, p · - a against b",
        ),
        (e.Propose(ref="b", like="a", changes="lora_r=4", why="it is smaller", refute="a higher loss"), "like a with lora_r=4: it is smaller; refuted by: a higher loss"),
        (e.Conclude(ref="b", result="keep", why="0.2 better"), "[OK] is kept: 0.2 better"),
        (e.Conclude(ref="b", result="replica", why="another seed"), "is a replica: another seed"),
        (e.Yield(ref="run", what="gpus", count=1, seconds=3600, why="a game"), "leaves 1 GPU to others for 1h00: a game"),
        (e.Rate(ref="a", answer="chatcmpl-1", rating=2, better=True, why="it is rude"), "answer chatcmpl-1 is rated 2 of 5 with a better answer: it is rude"),
        (e.Retrain(ref="b", like="a", mean=2.4, ratings=50), "is to be trained with the answers that were rated: the last 50 ratings of a have the mean 2.4"),
        (e.Canary(ref="b", share=0.1), "gets 10% of the requests"),
        (e.Promote(ref="a", path="promoted", sha256=SHA, why="lowest held-out loss"), "[OK] promoted: lowest held-out loss {promoted}"),
        (e.Promote(ref="a", path="promoted", sha256=SHA, why="a tie by eval_loss: a 0.41, b 0.42 cannot be told apart; a is the cheapest"), "[OK] promoted: a tie by eval_loss {promoted}"),
        (e.Post(ref="run", body="look at s3\nplease"), "look at s3 please"),
        (e.Amend(ref="-", of=12, body="it was s4"), "of entry 12 · it was s4"),
        (e.Approve(ref="a", of=12), "of entry 12"),
        (e.Approve(ref="a"), ""),
        (e.Object(ref="a", of=12, why="overfits"), "to entry 12: overfits"),
        (e.Seal(ref="-", off=0, n=87, sha="00", why="torn"), "an entry of which only 87 bytes were written"),
        (e.Seal(ref="-", off=0, n=87, sha="00", why="old-copy", body="entries 3-5 stand again"), "the file was changed · entries 3-5 stand again"),
        (e.Head(ref="-", chain="9f3a1c2db7e1c09a", mac="-", file="collaboration/0001.md"), "chain 9f3a1c2db7e1c09a, after collaboration/0001.md"),
    ],
)  # fmt: skip
def test_every_kind_of_entry_has_a_line(event: Event, words: str) -> None:
    about = "" if event.ref == "-" else f" {event.ref}"
    assert shown(event) == f"17 05:13 {event.kind}{about} ada  {words}".rstrip()


def test_no_kind_was_forgotten() -> None:
    [mark] = test_every_kind_of_entry_has_a_line.pytestmark
    assert {event.kind for event, _ in mark.args[1]} == set(KINDS)


def test_a_typed_note_reads_as_a_note_of_nobody() -> None:
    seal = e.Seal(ref="-", off=0, n=9, sha="00", why="note", body="s3 diverged")
    assert shown(seal, author="unknown") == "17 05:13 note unknown  s3 diverged"


def test_an_entry_without_a_coordinator_says_so() -> None:
    assert shown(e.Pause(ref="wide"), via="local") == "17 05:13 pause wide ada  via local"


@pytest.mark.parametrize(
    "text", ["\x1b[2J\x1b]0;owned\x07", "a\rb\x08c\x00", "a\u202eb\u2066", "\u2028x\x85y", "## 18 claim\n<!-- /17 -->"]
)
def test_no_control_character_reaches_the_screen_and_no_line_ends_early(text: str) -> None:
    for event in (
        e.Post(ref="run", body=text),
        e.Fail(ref="run", why=text),
        e.Task(ref="a/b", title=text),
    ):
        told = shown(event)
        assert not any(unicodedata.category(c).startswith("C") or c in "\u2028\u2029" for c in told)
        assert len(told.splitlines()) == 1


def test_a_long_text_is_cut_and_a_huge_one_costs_nothing() -> None:
    told = shown(e.Post(ref="run", body="word " * 2_000_000))
    assert len(told) < 450 and told.endswith("…")


def test_an_entry_costs_few_bytes_over_its_text_when_read() -> None:
    """12 tokens of o200k at most (tests/benchmarks/bench_log.py counts them); in CI bytes stand for tokens."""
    text = "loss is flat since step 400 on both wide streams; halve the learning rate"
    over = len(line(Entry(1842, "trainer-2", T, e.Post(ref="s3", body=text), "0" * 16))) - len(text)
    assert over <= 36
