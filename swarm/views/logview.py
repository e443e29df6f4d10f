"""One entry of the log as one line for people and models; texts of authors are made safe for a terminal.

    17 05:12 claim wide/train trainer-2  training begins

`diary.py` says what happened.  A text of several lines is joined into one.  Characters that are not printable (terminal escapes,
direction marks) are shown as their codes, so that an entry cannot overwrite another line or imitate one.
"""

from __future__ import annotations

from datetime import UTC, datetime

from swarm import diary
from swarm import events as e
from swarm.event import Event
from swarm.log.entry import Entry
from swarm.printable import TEXT_CHARACTERS


def line(entry: Entry, text_characters: int = TEXT_CHARACTERS) -> str:
    """Seq, UTC hour and minute, kind, ref, author, and what happened in a few words."""
    event = entry.event
    about = "" if event.ref == "-" else f" {event.ref}"
    clock = datetime.fromtimestamp(entry.time, UTC).strftime("%H:%M")
    words = diary.joined(" · ", diary.shown(event, text_characters), "via local" if entry.via == "local" else "")
    return f"{entry.seq} {clock} {name_of(event)}{about} {entry.author}  {words}".rstrip()


def name_of(event: Event) -> str:
    """The kind; a seal over text that a person typed is called `note`."""
    match event:
        case e.Seal(why="note"):
            return "note"
        case _:
            return event.kind
