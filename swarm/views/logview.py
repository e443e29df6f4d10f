"""An entry of the log as one line for people and models; no character of an author's text reaches a screen as it is.

    17 05:12 claim wide/train trainer-2  60 s

Authors' texts are folded into the line; what is not printable (terminal escapes, line breaks, direction marks) is shown
as a blank or a code, so that no entry can draw over another or pass for one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from swarm import events as e
from swarm import figures
from swarm.log.entry import Entry
from swarm.printable import TEXT_CHARACTERS, one_line


def line(entry: Entry, text_characters: int = TEXT_CHARACTERS) -> str:
    """Seq, UTC hour and minute, kind, ref, author, and what happened in a few words."""
    event = entry.event
    about = "" if event.ref == "-" else f" {event.ref}"
    clock = datetime.fromtimestamp(entry.time, UTC).strftime("%H:%M")
    words = joined(told(event), one_line(event.body, text_characters), entry.via and f"via {entry.via}")
    return f"{entry.seq} {clock} {name_of(event)}{about} {entry.author}  {words}".rstrip()


def name_of(event: e.Event) -> str:
    """The kind; a typed note is shown as what it is to readers."""
    match event:
        case e.Seal(why="note"):
            return "note"
        case _:
            return event.kind


def told(event: e.Event) -> str:
    """What the event's facts say in words; its body comes after that."""
    match event:
        case e.Run():
            return joined(event.name, counted(event.streams, "stream"))
        case e.Stream():
            return joined(event.of and f"cloned from {event.of}", one_line(event.settings))
        case e.Stop() | e.Fail() | e.Expire() | e.Object() | e.Refuse() | e.Promote() | e.Back():
            return told_with_reason(event)
        case e.End():
            return "finished" if event.rc == 0 else f"exit status {event.rc}"
        case e.Task():
            return one_line(event.title)
        case e.Post():
            return joined(event.asks and f"asks {event.asks}", event.of and f"answers {event.of}")
        case e.Claim():
            return f"{event.ttl:g} s"
        case e.Renew():
            return f"token {event.tok} · {event.ttl:g} s"
        case e.Hand():
            return f"to {event.to} · {event.ttl:g} s"
        case e.Done():
            return joined(event.rc and f"exit status {event.rc}", one_line(event.path), hash_of(event.sha256))
        case e.Drop():
            return joined("failed" if event.failed else "given back", one_line(event.why))
        case e.Amend() | e.Approve():
            return f"of entry {event.of}" if event.of else ""
        case e.Seal():
            return told_of_seal(event)
        case e.Head():
            return joined(f"chain {event.chain}", event.file and f"after {event.file}")
        case _:
            return told_of_work(event)


def told_with_reason(event: e.Stop | e.Fail | e.Expire | e.Object | e.Refuse | e.Promote | e.Back) -> str:
    why = one_line(event.why)
    match event:
        case e.Object():
            return joined(event.of and f"to entry {event.of}", why)
        case e.Refuse():
            return joined(event.by, event.tok and f"token {event.tok}", why)
        case e.Promote():
            return joined(event.force and "forced", why, one_line(event.path), hash_of(event.sha256))
        case e.Back():
            return joined(f"to step {event.step}", why, hash_of(event.sha256))
        case _:
            return why


def told_of_work(event: e.Event) -> str:
    """The figures that the roles hand over."""
    match event:
        case e.Prepared():
            share = event.tokens and f"{event.tokens:,} tokens, {event.supervised / event.tokens:.0%} supervised"
            cut = event.cut and f"{event.cut:,} cut"
            return joined(counted(event.rows, "row"), f"{event.held_out:,} held out", f"{event.bad:,} bad", cut, share)
        case e.Checkpoint():
            return joined(f"step {event.step}", *measured(event.figures))
        case e.Trained():
            return joined(counted(event.step, "step"), *measured(event.figures), one_line(event.why))
        case e.Verdict():
            return joined(event.result, *measured(event.figures), one_line(event.why))
        case e.Score():
            return joined(*measured(event.figures), counted(event.rows, "row"))
        case e.Adapter():
            return joined(one_line(event.path), hash_of(event.sha256))
        case _:
            return ""


def told_of_seal(event: e.Seal) -> str:
    match event.why:
        case "note":
            return ""
        case "torn":
            return f"an entry of which only {counted(event.n, 'byte')} were written"
        case "old-copy":
            return "the file was changed"


def measured(named: Mapping[str, float]) -> Iterator[str]:
    """Figures that tell how good it is, each behind what it was before: at the start, or of the bare base."""
    own, base = figures.split(named)
    before = {**base, **({"loss": own["first_loss"]} if "first_loss" in own else {})}
    for name, value in own.items():
        if name not in UNTOLD:
            about = figures.of(name)
            yield (
                f"{about.label} {about.text(before[name])} → {about.text(value)}"
                if name in before
                else (f"{about.label} {about.text(value)}")
            )


UNTOLD = frozenset({"first_loss", "seconds", "peak_bytes"})


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def hash_of(sha256: str | None) -> str:
    return f"sha256 {sha256[:8]}…" if sha256 else ""


def joined(*parts: str | float | None) -> str:
    """The parts that say something (0 and nothing say nothing)."""
    return " · ".join(str(part) for part in parts if part)
