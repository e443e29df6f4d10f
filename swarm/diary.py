"""What an event says, in plain words: the one place for the log's sentences and for the lines that screens show; pure.

    sentence    [OK] lora-8: held-out 0.0658, base 4.857 {checkpoint-120}      the body of a worker's entry
    shown       [OK] held-out 0.0658, base 4.857 {checkpoint-120}              beside the ref, in a line

The coordinator fills a sentence into its own entries and the workers' (`with_sentence`); what agents and people write stays as
it is.  [OK], [WARN] and [FAIL] mark what somebody who looks in now and then wants to find, with the evidence in braces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from swarm import events as ev
from swarm import figures, units
from swarm.event import Event
from swarm.printable import TEXT_CHARACTERS, one_line
from swarm.state import State

COORDINATOR = "coordinator"
BEGINNINGS = {
    "prepare": "preparing the rows",
    "train": "training begins",
    "validate": "validation begins",
    "evaluate": "evaluation begins",
    "sealed": "the examination on sealed rows begins",
}
"""What it means that a worker got the task of a role."""
SAME_ROWS = "the same rows as"
PINGS: dict[str, Literal["OK", "WARN", "FAIL"]] = {"SUCCESS": "OK", "WARNING": "WARN", "FAIL": "FAIL"}


@dataclass(frozen=True, slots=True)
class Words:
    """What an event says about what it refers to."""

    text: str = ""
    ping: Literal["OK", "WARN", "FAIL", ""] = ""
    joint: str = ": "
    """Between the subject and `text` in a sentence."""


def sentence(event: Event) -> str:
    """The whole sentence; empty where the event's facts say nothing beyond its kind."""
    words = words_of(event)
    if not words.text:
        return ""
    subject = "the run" if event.ref == "run" else event.ref if isinstance(event, ABOUT_TASKS) else event.stream
    return joined(" ", words.ping and f"[{words.ping}]", f"{subject}{words.joint}{words.text}")


def shown(event: Event, characters: int = TEXT_CHARACTERS) -> str:
    """What a line of a screen says beside the ref: the facts in words, and what the author wrote himself."""
    words, own = words_of(event), own_words(event)
    if own.startswith(f"{event.stream}: {SAME_ROWS} "):
        own = own.removeprefix(f"{event.stream}: ")
    return joined(" · ", joined(" ", words.ping and f"[{words.ping}]", words.text), one_line(own, characters))


def own_words(event: Event) -> str:
    """What the author wrote, without the sentence that the event's facts make."""
    opening = sentence(event)
    return event.body[len(opening) :].lstrip(" ;\n") if opening and event.body.startswith(opening) else event.body


def with_sentence(state: State, author: str, event: Event) -> Event:
    """The event with its sentence as (the first line of) its body, if the coordinator or a worker process is its author."""
    opening = (_same_rows(state, event) or sentence(event)) if is_automatic(state, author, event) else ""
    if not opening:
        return event
    return event.model_copy(update={"body": joined("\n", opening + _again(state, event), event.body)})


def is_automatic(state: State, author: str, event: Event) -> bool:
    """Whether no agent or person wrote it."""
    if author == COORDINATOR or (isinstance(event, ev.Claim) and event.beats):
        return True
    task = state.tasks.get(event.ref)
    return task is not None and task.lease is not None and task.lease.worker == author


def _same_rows(state: State, event: Event) -> str:
    """For rows that another stream has prepared: their counts stand there."""
    if not isinstance(event, ev.Prepared):
        return ""
    others = (s.name for s in state.streams.values() if s.prepared and s.prepared.path == event.path)
    other = next((name for name in others if name != event.stream), None)
    return f"{event.stream}: {SAME_ROWS} {other}" if other else ""


def _again(state: State, event: Event) -> str:
    """For a task that is claimed again: how often it was before."""
    task = state.tasks.get(event.ref)
    return f"; attempt {task.attempts + 1}" if isinstance(event, ev.Claim) and task and task.attempts else ""


ABOUT_TASKS = ev.Renew | ev.Hand | ev.Drop | ev.Expire | ev.Refuse | ev.Done
"""Their sentences name the task and not only the stream."""


def words_of(event: Event) -> Words:
    """The facts in words; figures are those that a reader asks for first."""
    match event:
        case ev.Run():
            return Words(f"begins with {counted(event.streams, 'stream')}", joint=" ")
        case ev.Stream():
            return Words("joins the run", joint=" ")
        case ev.Add():
            return _add(event)
        case ev.Propose() | ev.Conclude():
            return _research(event)
        case ev.Rate() | ev.Retrain() | ev.Canary():
            return _feedback(event)
        case ev.Fail():
            return Words(one_line(event.why), "FAIL")
        case ev.Stop():
            return Words(joined(": ", "stops", one_line(event.why)), joint=" ")
        case ev.Yield():
            return _yield(event)
        case ev.End():
            return _end(event)
        case ev.Extend():
            longer = f"every lease lasts {units.duration(event.seconds)} longer"
            return Words(f"{longer}: {one_line(event.why)}", "WARN")
        case ev.Task():
            return Words(one_line(event.title))
        case ev.Post():
            return Words(joined(", ", event.asks and f"asks {event.asks}", event.of and f"answers {event.of}"))
        case ev.Amend():
            return Words(f"of entry {event.of}")
        case ev.Approve():
            return Words(joined(": ", event.of and f"of entry {event.of}", one_line(event.why)))
        case ev.Object():
            return Words(joined(": ", event.of and f"to entry {event.of}", one_line(event.why)))
        case ev.Seal() | ev.Head():
            return _of_the_log(event)
        case ev.Claim() | ev.Renew() | ev.Hand() | ev.Drop() | ev.Expire() | ev.Refuse() | ev.Done():
            return _lease(event)
        case ev.Look():
            return Words(f"its weights are examined on the sealed rows: look {event.number} of this run at them")
        case ev.Compared():
            columns = f"difference ({100 * (1 - event.level):g}% interval), smallest detectable one, p"
            return Words(f"arms compared by {one_line(event.metric)}: {columns}")
        case ev.Back() | ev.Adapter() | ev.Promote():
            return _weights(event)
        case _:
            return _result(event)


def _add(event: ev.Add) -> Words:
    origin = f"joins as a clone of {event.like} at step {event.step or 0}" if event.warm else f"joins like {event.like}"
    return Words(joined(": ", joined(" with ", origin, one_line(event.changes)), one_line(event.why)), joint=" ")


def _research(event: ev.Propose | ev.Conclude) -> Words:
    match event:
        case ev.Propose():
            refuted = event.refute and f"refuted by: {one_line(event.refute)}"
            words = joined(": ", f"like {event.like} with {one_line(event.changes)}", one_line(event.why))
            return Words(joined("; ", words, refuted))
        case ev.Conclude():
            word = {"keep": "is kept", "discard": "is discarded", "replica": "is a replica"}[event.result]
            return Words(f"{word}: {one_line(event.why)}", "OK" if event.result == "keep" else "", joint=" ")


def _feedback(event: ev.Rate | ev.Retrain | ev.Canary) -> Words:
    match event:
        case ev.Rate():
            better = event.better and "with a better answer"
            words = joined(" ", f"answer {event.answer} is rated {event.rating:g} of 5", better)
            return Words(joined(": ", words, one_line(event.why)))
        case ev.Retrain():
            mean = f"the last {counted(event.ratings, 'rating')} of {event.like} have the mean {event.mean:g}"
            return Words(f"is to be trained with the answers that were rated: {mean}", joint=" ")
        case ev.Canary():
            return Words(f"gets {event.share:.0%} of the requests", joint=" ")


def _end(event: ev.End) -> Words:
    if event.rc == 0:
        return Words("is finished", "OK", " ")
    return Words("was stopped" if event.rc == 130 else f"ended with exit status {event.rc}", "WARN", " ")


def _lease(event: ev.Claim | ev.Renew | ev.Hand | ev.Drop | ev.Expire | ev.Refuse | ev.Done) -> Words:
    match event:
        case ev.Claim(beats=True) if event.ref.partition("/")[2] in BEGINNINGS:
            return Words(BEGINNINGS[event.ref.partition("/")[2]])
        case ev.Claim():
            return Words(f"for {event.ttl:g} s")
        case ev.Renew():
            return Words(f"token {event.tok} for {event.ttl:g} s")
        case ev.Hand():
            return Words(f"to {event.to} for {event.ttl:g} s")
        case ev.Drop():
            text = joined(": ", "failed" if event.failed else "given back", one_line(event.why))
            return Words(text, "WARN" if event.failed else "")
        case ev.Expire():
            together = event.held and f"{event.held} tasks were held together, so each is tried again alone"
            text = joined("; ", f"the lease ended: {one_line(event.why)}", together)
            return Words(text, "WARN" if event.failed else "")
        case ev.Refuse():
            token = event.tok and f"under token {event.tok}"
            return Words(joined(" ", f"a report of {event.by}", token, f"was refused: {one_line(event.why)}"))
        case ev.Done():
            proof = joined(", ", one_line(event.path), hash_of(event.sha256))
            return Words(joined(" ", event.rc and f"exit status {event.rc}", proof and f"{{{proof}}}"))


def _weights(event: ev.Back | ev.Adapter | ev.Promote) -> Words:
    """What became of a stream's adapter."""
    match event:
        case ev.Back():
            return Words(f"goes back to checkpoint-{event.step}: {one_line(event.why)}", "WARN", " ")
        case ev.Adapter():
            return Words("its adapter is published")
        case ev.Promote():
            verb = "promoted by force" if event.force else "promoted"
            mark = ":" if event.why.startswith(figures.TIE) else ";"  # what follows stands in the comparison
            reason = one_line(event.why).partition(mark)[0]
            return Words(f"{verb}: {reason} {{{one_line(event.path)}}}", "OK")


def _yield(event: ev.Yield) -> Words:
    if not event.count:
        return Words(joined(": ", f"takes its {event.what} back", one_line(event.why)), joint=" ")
    devices = counted(event.count, "GPU" if event.what == "gpus" else "core")
    duration = event.seconds and f"for {units.duration(event.seconds)}"
    return Words(joined(": ", joined(" ", f"leaves {devices} to others", duration), one_line(event.why)), joint=" ")


def _result(event: Event) -> Words:
    """What the roles hand over."""
    match event:
        case ev.Prepared():
            aside = joined(", ", event.bad and f"{event.bad:,} bad", event.cut and f"{event.cut:,} cut")
            share = event.tokens and f"{event.tokens:,} tokens, {event.supervised / event.tokens:.0%} supervised"
            rows = joined(", ", f"{counted(event.rows, 'row')} ready", f"{event.held_out:,} held out", aside)
            return Words(joined("; ", rows, share))
        case ev.Checkpoint():
            return Words(joined(": ", f"saved checkpoint-{event.step}", measured(event.figures)), joint=" ")
        case ev.Trained():
            return Words(_trained(event), joint=" ")
        case ev.Verdict():
            why = event.result != "SUCCESS" and one_line(event.why)
            evidence = f"{{{event.path.rpartition('/')[2]}}}"
            return Words(joined(" ", joined("; ", measured(event.figures), why), evidence), PINGS[event.result])
        case ev.Sealed():
            counts = joined(", ", counted(event.rows, "sealed row"), f"{event.overlap} of them trained on")
            return Words(
                joined("; ", f"on {counts}: {measured(event.figures)}", one_line(event.why)), PINGS[event.result]
            )
        case ev.Score():
            return Words(_scored(event), joint=" ")
        case _:
            return Words()


def _scored(event: ev.Score) -> str:
    """Losses are of all rows; figures of answers name the rows that were answered, where these are fewer."""
    if event.answers is None:
        return f"on {counted(event.rows, 'row')}: {measured(event.figures)}"
    answered = {name for name in event.figures if figures.of(name.removeprefix(figures.BASE)).of == "answers"}
    of_rows, of_answers = (
        measured({name: value for name, value in event.figures.items() if (name in answered) is wanted})
        for wanted in (False, True)
    )
    return f"on {counted(event.rows, 'row')}: {of_rows}; on {event.answers:,} of them: {of_answers}"


def _trained(event: ev.Trained) -> str:
    seconds = event.figures.get("seconds")
    ended = None if event.why in {None, "max_steps", "num_epochs"} else f"ended by {event.why}"
    duration = None if seconds is None else f"in {units.duration(seconds)}"
    found = joined(", ", measured(event.figures), duration, one_line(ended))
    text = joined(": ", f"trained {counted(event.step, 'step')}", found)
    return f"{text}; checkpoint-{event.step} goes to the validator"


def _of_the_log(event: ev.Seal | ev.Head) -> Words:
    match event:
        case ev.Seal(why="torn"):
            return Words(f"an entry of which only {counted(event.n, 'byte')} were written")
        case ev.Seal(why="old-copy"):
            return Words("the file was changed")
        case ev.Seal():
            return Words()
        case ev.Head():
            return Words(joined(", ", f"chain {event.chain}", event.file and f"after {event.file}"))


def measured(named: Mapping[str, float]) -> str:
    """The figures that tell how good something is, a loss beside its first value, the others beside the bare base's."""
    own, base = figures.split(named)
    return joined("; " if base else ", ", *(_figure(name, own, base) for name in own if name not in LEFT_OUT))


def _figure(name: str, own: Mapping[str, float], base: Mapping[str, float]) -> str:
    about = figures.of(name)
    first = f"{about.text(own['first_loss'])} -> " if name == "loss" and "first_loss" in own else ""
    beside = f", base {about.text(base[name])}" if name in base else ""
    return f"{about.label} {first}{about.text(own[name])}{beside}"


LEFT_OUT = frozenset({"first_loss", "seconds", "tokens_per_second", "peak_bytes", "ended"})
"""Figures that a sentence says elsewhere, or that only tables need."""


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def hash_of(sha256: str | None) -> str:
    return f"sha256 {sha256[:8]}" if sha256 else ""


def joined(between: str, *parts: str | float | None) -> str:
    """The parts that say something (0 and nothing say nothing)."""
    return between.join(str(part) for part in parts if part)
