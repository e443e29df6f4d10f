"""The sentences of the log: made from the event, for entries of the coordinator and of workers, and for nobody else's."""

from __future__ import annotations

import pytest

from swarm import diary
from swarm import events as ev
from swarm.event import Event
from swarm.state import State
from swarm.views.streamrows import why_of
from tests.swarm.story import Story

SHA = "5d098ce7" * 8
PLACE = "streams/lora-8/t18/checkpoint-120"


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        (ev.Run(ref="run", name="demo", config_sha256=SHA, streams=4), "the run begins with 4 streams"),
        (ev.Stream(ref="lora-8"), "lora-8 joins the run"),
        (ev.Claim(ref="lora-8/train", ttl=60, beats=True), "lora-8: training begins"),
        (
            ev.Prepared(ref="lora-8/prepare", tok=1, path="prepared/x", sha256=SHA, rows=1200, held_out=100, bad=2, tokens=126_428, supervised=48_410),
            "lora-8: 1,200 rows ready, 100 held out, 2 bad; 126,428 tokens, 38% supervised",
        ),
        (
            ev.Checkpoint(ref="lora-8/train", tok=18, step=60, path=PLACE, sha256=SHA, figures={"loss": 0.199216}),
            "lora-8 saved checkpoint-60: loss 0.199",
        ),
        (
            ev.Trained(ref="lora-8/train", tok=18, step=120, path=PLACE, sha256=SHA, trainable=1, why="max_steps", figures={"first_loss": 4.0237, "loss": 0.0557, "seconds": 65.8}),
            "lora-8 trained 120 steps: loss 4.024 -> 0.056, in 1m06; checkpoint-120 goes to the validator",
        ),
        (
            ev.Verdict(ref="lora-8/validate", tok=29, result="SUCCESS", path=PLACE, sha256=SHA, figures={"eval_loss": 0.065788, "base_eval_loss": 4.85673}),
            "[OK] lora-8: held-out 0.066, base 4.857 {checkpoint-120}",
        ),
        (
            ev.Verdict(ref="lora-8/validate", tok=29, result="FAIL", path=PLACE, sha256=SHA, why="weights are not finite"),
            "[FAIL] lora-8: weights are not finite {checkpoint-120}",
        ),
        (
            ev.Score(ref="lora-8/evaluate", tok=3, sha256=SHA, rows_sha256=SHA, rows=100, answers=20, figures={"eval_loss": 0.069, "base_eval_loss": 4.739, "exact_match": 0.85, "base_exact_match": 0}),
            "lora-8 on 100 rows: held-out 0.069, base 4.739; on 20 of them: exact match 85%, base 0%",
        ),
        (
            ev.Expire(ref="lora-8/train", tok=18, why="process 31 died of signal 9"),
            "[WARN] lora-8/train: the lease ended: process 31 died of signal 9",
        ),
        (ev.Fail(ref="lora-8", why="loss is NaN at step 40"), "[FAIL] lora-8: loss is NaN at step 40"),
        (ev.Stop(ref="run", why="the coordinator got SIGTERM"), "the run stops: the coordinator got SIGTERM"),
        (ev.End(ref="run", rc=0), "[OK] the run is finished"),
        (ev.End(ref="run", rc=130), "[WARN] the run was stopped"),
    ],
)  # fmt: skip
def test_a_sentence_says_who_what_and_the_figures_that_matter(event: Event, sentence: str) -> None:
    assert diary.sentence(event) == sentence


def test_what_a_screen_shows_beside_the_ref_is_the_sentence_without_its_subject() -> None:
    event = ev.Fail(ref="lora-8", why="loss is NaN")
    assert diary.shown(event) == "[FAIL] loss is NaN", "a log of an earlier version has no sentence"
    said = event.model_copy(update={"body": "[FAIL] lora-8: loss is NaN\nits last lines"})
    assert diary.shown(said) == "[FAIL] loss is NaN · its last lines"


def test_the_coordinators_entries_and_the_workers_get_a_sentence() -> None:
    story = Story("lora-8")
    claim = ev.Claim(ref="lora-8/prepare", ttl=60, beats=True)
    assert diary.with_sentence(story.state, "prep-1", claim).body == "lora-8: preparing the rows"
    tok = story.claim("lora-8/prepare", "prep-1")
    rows = ev.Prepared(
        ref="lora-8/prepare", tok=tok, path="prepared/x", sha256=SHA, rows=9, held_out=1, body="a.jsonl:7: no text"
    )
    assert (
        diary.with_sentence(story.state, "prep-1", rows).body == "lora-8: 9 rows ready, 1 held out\na.jsonl:7: no text"
    )
    failed = ev.Fail(ref="lora-8", why="no rows")
    assert diary.with_sentence(story.state, "coordinator", failed).body == "[FAIL] lora-8: no rows"


def test_rows_that_another_stream_has_prepared_are_not_counted_again() -> None:
    story = Story("lora-8", "lora-32")
    first, second = story.claim("lora-8/prepare", "prep-1"), story.claim("lora-32/prepare", "prep-1")
    rows = ev.Prepared(ref="lora-8/prepare", tok=first, path="prepared/x", sha256=SHA, rows=9, held_out=1)
    story.say("prep-1", rows)
    same = diary.with_sentence(story.state, "prep-1", rows.model_copy(update={"ref": "lora-32/prepare", "tok": second}))
    assert same.body == "lora-32: the same rows as lora-8"
    assert diary.shown(same) == "9 rows ready, 1 held out · the same rows as lora-8"


def test_a_task_that_is_tried_again_says_for_how_manyth_time() -> None:
    story = Story("lora-8")
    tok = story.claim("lora-8/prepare", "prep-1")
    story.say("coordinator", ev.Expire(ref="lora-8/prepare", tok=tok, why="died"))
    claim = diary.with_sentence(story.state, "prep-2", ev.Claim(ref="lora-8/prepare", ttl=60, beats=True))
    assert claim.body == "lora-8: preparing the rows; attempt 2"
    assert diary.shown(claim) == "preparing the rows · attempt 2"


def test_what_an_agent_or_a_person_writes_stays_as_it_is() -> None:
    story = Story("lora-8")
    tok = story.claim("lora-8/prepare", "ada")
    for event in (
        ev.Claim(ref="lora-8/train", ttl=600),
        ev.Prepared(ref="lora-8/prepare", tok=tok, path="prepared/x", sha256=SHA, rows=9, held_out=1),
        ev.Stop(ref="lora-8", why="enough"),
        ev.Post(ref="run", body="look at lora-8"),
    ):
        assert diary.with_sentence(story.state, "ada", event) is event
    note = ev.Post(ref="run", body="trainer-1 came back")
    assert diary.with_sentence(story.state, "coordinator", note) is note, "its own words are a sentence already"


def test_a_report_of_the_worker_after_a_hand_over_is_still_the_workers() -> None:
    story = Story("lora-8")
    story.prepared("lora-8")
    tok = story.claim("lora-8/train", "trainer-1")
    tok = story.say("owner", ev.Hand(ref="lora-8/train", tok=tok, to="ada", ttl=600))
    saved = ev.Checkpoint(ref="lora-8/train", tok=tok, step=60, path=PLACE, sha256=SHA)
    assert diary.with_sentence(story.state, "trainer-1", saved).body == "lora-8 saved checkpoint-60"


def test_every_kind_of_entry_has_a_sentence_or_a_reason_for_none() -> None:
    silent = {kind for kind, cls in ev.KINDS.items() if not diary.words_of(_bare(cls)).text}
    assert silent == {"pause", "resume", "task", "post", "approve", "done"}
    assert diary.is_automatic(State(), "coordinator", ev.Pause(ref="lora-8"))


def _bare(cls: type[Event]) -> Event:
    """An event of the class with what it must have, and nothing else."""
    values = {
        "ref": "lora-8/train", "name": "demo", "config_sha256": SHA, "streams": 1, "why": "because", "rc": 1, "seconds": 3.5, "ttl": 60.0, "tok": 1,
        "to": "bob", "by": "bob", "path": "x", "sha256": SHA, "rows": 1, "held_out": 1, "step": 1, "trainable": 1, "result": "FAIL",
        "rows_sha256": SHA, "of": 1, "off": 0, "n": 1, "sha": "00", "chain": "x", "mac": "-", "like": "lora-8", "number": 1, "overlap": 0,
        "metric": "eval_loss", "best": "lora-8", "arm": "lora-8", "chosen": "lora-8", "beats_base": True, "level": 0.01, "scores": SHA, "changes": "lora_r=4",
        "what": "cores", "count": 1, "answer": "chatcmpl-1", "rating": 2, "mean": 2.5, "ratings": 10, "share": 0.1,
    }  # fmt: skip
    needed = {name: values[name] for name, field in cls.model_fields.items() if field.is_required()}
    chosen = {ev.Seal: {"why": "torn"}, ev.Conclude: {"result": "discard"}}
    return cls.model_validate({**needed, **chosen.get(cls, {})})


def test_why_a_run_ended_without_a_winner_is_what_the_coordinator_added_to_the_sentence() -> None:
    story = Story("wide")
    why = "wide is not better than the bare base by more than chance"
    ended = diary.with_sentence(story.state, "coordinator", ev.End(ref="run", rc=0, body=why))
    assert ended.body.startswith("[OK] the run is finished")
    story.say("coordinator", ended)
    assert why_of(story.state) == why
