"""An entry of the log as one line for people and models; no character of an author's text reaches a screen as it is.

    17 05:12 claim wide/train trainer-2  training begins

What happened is said by `diary.py`.  Authors' texts are folded into the line; what is not printable (terminal escapes, line
breaks, direction marks) is shown as a blank or a code, so that no entry can draw over another or pass for one.
"""

from __future__ import annotations

from datetime import UTC, datetime

from swarm import diary
from swarm import events as e
from swarm.log.entry import Entry
from swarm.printable import TEXT_CHARACTERS


def line(entry: Entry, text_characters: int = TEXT_CHARACTERS) -> str:
    """Seq, UTC hour and minute, kind, ref, author, and what happened in a few words."""
    event = entry.event
    about = "" if event.ref == "-" else f" {event.ref}"
    clock = datetime.fromtimestamp(entry.time, UTC).strftime("%H:%M")
    words = diary.joined(" · ", diary.shown(event, text_characters), entry.via and f"via {entry.via}")
    return f"{entry.seq} {clock} {name_of(event)}{about} {entry.author}  {words}".rstrip()


def name_of(event: e.Event) -> str:
    """The kind; a typed note is shown as what it is to readers."""
    match event:
        case e.Seal(why="note"):
            return "note"
        case _:
            return event.kind
