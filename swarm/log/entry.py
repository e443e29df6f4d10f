r"""One entry of the log as text and as a value: `render` and `parse` are pure and undo each other.

    ## <seq> <kind> <ref> @<author> <time> k=v ... [via=<way>] len=<bytes>
    <body, exactly len bytes>
    <!-- /<seq> <chain> -->

A value with white space, `=`, `"`, control characters or nothing in it stands as a JSON string, others bare.  What is done
to bodies stands in `escaping.py`, the chain value is `chain.py`'s; nothing here reads or writes files.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from swarm.events import KINDS, NAME, Event
from swarm.log.errors import LogError
from swarm.log.escaping import escape, unescape

VALUE = r'(?:"(?:[^"\\\x00-\x1f]|\\.)*"|[^\s"=\x00-\x1f]+)'
BARE = re.compile(r'[^\s"=\x00-\x1f]+')
HEADER = re.compile(
    rb"## (?P<seq>[1-9]\d{0,17}) (?P<kind>[a-z]{1,32}) (?P<ref>[^\s@]+) @(?P<author>%s) "
    rb"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)(?P<facts>(?: [a-z_][a-z0-9_]*=%s)*?) len=(?P<len>\d{1,12})\n"
    % (NAME.encode(), VALUE.encode())
)
"""A whole header line; `[1-9]` and the bounds keep `int()` cheap whatever the text says."""

FACT = re.compile(rf" ([a-z_][a-z0-9_]*)=({VALUE})")
CUT = b"\n<!-- /"
TRAILER_AT_END = re.compile(rb"\n<!-- /(\d{1,18}) ([0-9a-f]{16}) -->\n\Z")


@dataclass(frozen=True, slots=True)
class Entry:
    """An event as it stands in the log: numbered, signed with a name, and chained to the one before."""

    seq: int
    author: str
    time: float
    """UTC seconds; whole ones, as on disk."""
    event: Event
    chain: str
    """16 hex digits over the entry before and this one."""
    via: str | None = None
    """How it came in, where that is worth saying: `local` is without a coordinator."""


def render(entry: Entry) -> str:
    """The entry as it stands on disk, with its trailer.  Raises LogError for what cannot be an entry."""
    text = written(entry.seq, entry.author, entry.time, entry.event, entry.via)
    return (text + trailer(entry.seq, entry.chain)).decode()


def parse(text: str) -> Entry:
    """The entry that `render` gave as `text`; its chain value is taken as it is.  Raises LogError."""
    data = text.encode("utf-8", "backslashreplace")
    end = TRAILER_AT_END.search(data)
    if end is None or (entry := understood(data[: end.start()], end[2].decode())).seq != int(end[1]):
        raise LogError(f"not an entry: {text[:80]!r} ... {text[-40:]!r}")
    return entry


def written(seq: int, author: str, time: float, event: Event, via: str | None = None) -> bytes:
    """Header line and body as they stand on disk, without the trailer.  Raises LogError if no header can say it."""
    body = escape(event.body.encode("utf-8", "backslashreplace"))
    try:
        facts = "".join(f" {key}={value_text(value)}" for key, value in event.facts().items())
        route = "" if via is None else f" via={value_text(via)}"
        head = f"## {seq} {event.kind} {event.ref} @{author} {time_text(time)}{facts}{route} len={len(body)}\n"
        header = head.encode()
    except ValueError as bad:  # half a surrogate pair, a number of a million digits
        raise LogError(f"not an entry: {event.kind} {event.ref}: {bad}") from bad
    if not HEADER.fullmatch(header):
        raise LogError(
            f"not an entry: {header[:200].decode(errors='replace').strip()!r}: author, ref or time is no valid name"
        )
    return header + body


def understood(text: bytes, chain: str) -> Entry:
    """The entry of a header and body (as `written` gave them) whose chain value is `chain`.  Raises LogError."""
    header = HEADER.match(text)
    if header is None or len(text) - header.end() != int(header["len"]):
        raise LogError(f"not an entry: {text[:80]!r}")
    facts = facts_of(header)
    via = facts.pop("via", None)
    body = unescape(text[header.end() :]).decode("utf-8", "replace")
    event = event_of(header["kind"].decode(), {**facts, "ref": header["ref"].decode(), "body": body})
    return Entry(int(header["seq"]), header["author"].decode(), seconds_of(header["time"]), event, chain, via)


def event_of(kind: str, fields: dict[str, Any]) -> Event:
    """The event of a kind with these fields (texts are read as the class says).  Raises LogError."""
    if (cls := KINDS.get(kind)) is None:
        raise LogError(f"unknown kind of entry: {kind} (written by a newer version?)")
    try:
        return cls.model_validate(fields)
    except ValidationError as bad:
        first = bad.errors()[0]
        raise LogError(f"{kind}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from bad


def facts_of(header: re.Match[bytes]) -> dict[str, str]:
    """The k=v of a matched header, as texts.  Raises LogError for a JSON string that is none."""
    try:
        pairs = FACT.findall(header["facts"].decode())
        return {key: json.loads(value) if value.startswith('"') else value for key, value in pairs}
    except ValueError as bad:
        raise LogError(f"not an entry: {header[0][:80]!r}: {bad}") from bad


def value_text(value: Any) -> str:
    """A header value: floats in the shortest form that reads back equal, booleans true/false, texts bare or as JSON."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return repr(value)
        case float():
            return repr(value).removesuffix(".0")
        case str() if BARE.fullmatch(value) and value.isprintable():
            return value
        case str():
            return json.dumps(value, ensure_ascii=not value.isprintable())
        case _:
            raise LogError(f"a header holds texts, numbers and booleans, not {type(value).__name__}")


def trailer(seq: int, chain: str) -> bytes:
    return CUT + b"%d %s -->\n" % (seq, chain.encode())


def time_text(seconds: float) -> str:
    return second_text(int(seconds))


@lru_cache(maxsize=256)
def second_text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@lru_cache(maxsize=256)
def seconds_of(text: bytes) -> float:
    """UTC seconds of a header's time.  Raises LogError for a day that no calendar has."""
    try:
        return datetime.fromisoformat(text.decode()).timestamp()
    except ValueError as bad:
        raise LogError(f"no such time: {text.decode()}") from bad
