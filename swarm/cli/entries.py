"""Entries of the log as lines and as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swarm.agents.inbox import Message


def line(message: Message, amended: Mapping[int, str]) -> str:
    """An entry as a line, marked if it is addressed to the reader or was amended."""
    from swarm.views import logview

    by = amended.get(message.entry.seq)
    marks = (by and f"amended: {by}", message.why)
    return "  ← ".join([logview.line(message.entry), *filter(None, marks)])


def data(message: Message, amended: Mapping[int, str], *, marked: bool) -> dict[str, Any]:
    from datetime import UTC, datetime

    entry = message.entry
    return {
        "seq": entry.seq,
        "kind": entry.event.kind,
        "ref": entry.event.ref,
        "author": entry.author,
        "time": datetime.fromtimestamp(entry.time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "via": entry.via,
        "facts": entry.event.facts(),
        "body": entry.event.body,
        **({"amended": amended[entry.seq]} if entry.seq in amended else {}),
        **({"why": message.why or None} if marked else {}),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The entries with equal columns and the facts as text, so that TOON writes them as one table."""
    from swarm.views.export import facts_text

    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} | {"facts": facts_text(row["facts"])} for row in rows]
