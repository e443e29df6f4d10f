r"""One entry of the log as text and as a value: `written` and `understood` are pure and undo each other.

    ##### 22 checkpoint lora-8/train trainer-3 2026-11-25 23:39:56
    lora-8 saved checkpoint-60: loss 0.1992
    <!-- tok=18 step=60 path=streams/lora-8/t18/checkpoint-60 sha256=b560... loss=0.199216 LUc+CoiCEuQ -->

The heading is for people, the body for readers, the comment holds every fact that is folded and the chain value.  A value with
white space, `=`, `"`, control characters or nothing in it stands as a JSON string, others bare.

In a file an entry may lean on those before it: a heading without a day or without a time has that of the entry before; `k=~17` is the value that
entry 17 gives to k; a comment that begins with `~17` says what entry 17 says, but for what it states itself, and `k=~` that it
states no k (`same.py`).  A fact that follows from the others, as its class says (`Event.implied`), need not be stated.  `understood` also reads the form of earlier versions (`forms.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Protocol

from pydantic import ValidationError

from swarm.event import Event
from swarm.events import KINDS
from swarm.log.errors import LogError
from swarm.log.escaping import escape, unescape
from swarm.log.forms import COMMENT, DIARY, DIARY_CHAIN, FIRST, VALUE, Form
from swarm.log.same import UNSET

BARE = re.compile(r'[^\s"=~\x00-\x1f][^\s"=\x00-\x1f]*')
FACT = re.compile(rf" ([a-z_][a-z0-9_]*)=({VALUE})")
BASE = re.compile(r" ~([1-9]\d{0,17})(?= |\Z)")
SAME = re.compile(r"~([1-9]\d{0,17})")
ENDS_COMMENT = re.compile(r"--!?>")
"""It would end the comment for whoever renders it (HTML, 13.1.6)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An event as it stands in the log: numbered, signed with a name, and chained to the one before."""

    seq: int
    author: str
    time: float
    """UTC seconds; whole ones, as on disk."""
    event: Event
    chain: str
    """The hash chain's value over the entry before and this one."""
    via: str | None = None
    """How it came in, where that is worth saying: `local` is without a coordinator."""
    bytes_on_disk: bytes = field(default=b"", compare=False, repr=False)
    """As the writer wrote it; empty where it was read."""

    @property
    def text(self) -> str:
        """As it stands in the file, for those to whom the writer publishes it."""
        return self.bytes_on_disk.decode()


class Earlier(Protocol):
    """The entries of the same file that stand before one; what it leans on."""

    def facts(self, seq: int) -> Mapping[str, Any]:
        """Those of entry `seq`.  Raises LogError if it is not there."""
        ...

    def time(self, seq: int) -> float:
        """When the last entry before `seq` was written, UTC seconds.  Raises LogError if there is none."""
        ...


class Nothing:
    """For an entry that stands alone."""

    def facts(self, seq: int) -> Mapping[str, Any]:
        raise LogError(f"refers to entry {seq}, which is not there")

    def time(self, seq: int) -> float:
        raise LogError(f"entry {seq} does not state day and time, and nothing stands before it")


def written(seq: int, author: str, when: str, event: Event, facts: str, via: str | None = None) -> bytes:
    """An entry as it stands in a file, up to its chain value; `when` is what is to be stated of day and time.

    Raises LogError if there is no such entry.
    """
    body = escape(event.body.encode("utf-8", "backslashreplace"))
    try:
        route = "" if via is None else f" via={value_text(via)}"
        heading = f"##### {seq} {event.kind} {event.ref} {author}{when and ' '}{when}\n".encode()
        comment = f"<!--{facts}{route} ".encode()
    except ValueError as bad:  # half a surrogate pair, a number of a million digits
        raise LogError(f"not an entry: {event.kind} {event.ref}: {bad}") from bad
    if not DIARY.header.fullmatch(heading):
        raise LogError(
            f"not an entry: {heading[:200].decode(errors='replace').strip()!r}: author, ref or time is no valid name"
        )
    return b"%s%s%s%s" % (heading, body, b"\n" if body else b"", comment)


def texts_of(event: Event) -> dict[str, str]:
    """The event's facts as they stand in a comment, with those that follow from others.  Raises LogError."""
    try:
        return {key: value_text(value) for key, value in event.facts().items()}
    except ValueError as bad:
        raise LogError(f"not an entry: {event.kind} {event.ref}: {bad}") from bad


def implied_facts(kind: type[Event], stream: str, facts: Mapping[str, Any]) -> dict[str, str]:
    """Those that follow from `facts`, as far as these are enough."""
    found: dict[str, str] = {}
    for key, template in kind.implied.items():
        with suppress(KeyError):
            found[key] = template.format_map({**found, **facts, "stream": stream})
    return found


def understood(data: bytes, form: Form, earlier: Earlier) -> Entry:
    """The entry whose bytes, up to and with its chain value, are `data`.  Raises LogError."""
    header, body, comment = parts_of(data, form)
    seq, chain = int(header["seq"]), data[-form.chain_size :].decode()
    kind, ref = header["kind"].decode(), header["ref"].decode()
    facts = facts_in(comment, seq, kind, ref, earlier) if form is DIARY else facts_first(comment)
    via = facts.pop("via", None)
    event = event_of(kind, {**facts, "ref": ref, "body": unescape(body, form).decode("utf-8", "replace")})
    return Entry(seq, header["author"].decode(), _time_of(header, seq, earlier), event, chain, via)


def _time_of(header: re.Match[bytes], seq: int, earlier: Earlier) -> float:
    if header["time"] is None:
        return earlier.time(seq)
    return seconds_of(header["day"] or day_of(earlier.time(seq)), header["time"])


def parts_of(data: bytes, form: Form) -> tuple[re.Match[bytes], bytes, bytes]:
    """Heading, body and facts of an entry's bytes.  Raises LogError."""
    header = form.header.match(data)
    if header is None:
        raise LogError(f"not an entry: {data[:80]!r}")
    if form is FIRST:
        return header, data[header.end() : header.end() + int(header["len"])], header["facts"]
    comment = data.find(COMMENT, header.end() - 1)
    return header, data[header.end() : max(comment, header.end())], data[comment + len(COMMENT) - 1 : -DIARY_CHAIN - 1]


def facts_in(comment: bytes, seq: int, kind: str, ref: str, earlier: Earlier) -> dict[str, Any]:
    """The facts of entry `seq`: stated, taken from earlier ones, and implied; also `via`.  Raises LogError."""
    cls = KINDS.get(kind, Event)
    try:
        facts = resolved(comment.decode(), seq, cls.implied.keys(), earlier)
    except ValueError as bad:  # also a JSON string that is none
        raise LogError(f"not an entry: {seq}: {comment[:80]!r}: {bad}") from bad
    return implied_facts(cls, ref.partition("/")[0], facts) | facts


def facts_first(header: bytes) -> dict[str, Any]:
    """The facts of an entry in the first form, which refers to nothing.  Raises LogError."""
    try:
        return {key: value_of(value) for key, value in FACT.findall(header.decode())}
    except ValueError as bad:
        raise LogError(f"not an entry: {header[:80]!r}: {bad}") from bad


def value_of(text: str) -> str:
    """A value as it stands, without the quotes of a JSON string.  Raises ValueError for one that is none."""
    return json.loads(text) if text.startswith('"') else text


def resolved(text: str, seq: int, implied: Collection[str], earlier: Earlier) -> dict[str, Any]:
    """The facts that a comment states, with those that it takes from entries before `seq`; what is `implied` is not taken as a whole."""
    facts: dict[str, Any] = {}
    own = text
    if base := BASE.match(text):
        there = earlier_facts(int(base[1]), seq, earlier)
        facts, own = {key: there[key] for key in there if key not in implied}, text[base.end() :]
    left = len(own)
    for key, value in FACT.findall(own):
        left -= len(key) + len(value) + 2
        if value == UNSET:
            facts.pop(key, None)
        elif value.startswith("~") and (same := SAME.fullmatch(value)):
            there = earlier_facts(int(same[1]), seq, earlier)
            if key not in there:
                raise LogError(f"entry {seq}: entry {same[1]} states no {key}")
            facts[key] = there[key]
        else:
            facts[key] = value_of(value)
    if left:
        raise LogError(f"entry {seq}: its comment holds more than facts: {text[:80]!r}")
    return facts


def earlier_facts(seq: int, before: int, earlier: Earlier) -> Mapping[str, Any]:
    if seq >= before:
        raise LogError(f"entry {before} refers to entry {seq}, which comes later")
    return earlier.facts(seq)


def event_of(kind: str, fields: dict[str, Any]) -> Event:
    """The event of a kind with these fields (texts are read as the class says).  Raises LogError."""
    if (cls := KINDS.get(kind)) is None:
        raise LogError(f"unknown kind of entry: {kind} (written by a newer version?)")
    try:
        return cls.model_validate(fields)
    except ValidationError as bad:
        first = bad.errors()[0]
        raise LogError(f"{kind}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from bad


def value_text(value: Any) -> str:
    """A fact's value: floats in the shortest form that reads back equal, booleans true/false, texts bare or as JSON."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return repr(value)
        case float():
            return repr(value).removesuffix(".0")
        case str() if BARE.fullmatch(value) and value.isprintable() and not ENDS_COMMENT.search(value):
            return value
        case str():
            text = json.dumps(value, ensure_ascii=not value.isprintable())
            return ENDS_COMMENT.sub(lambda found: found[0].replace(">", r"\u003e"), text)
        case _:
            raise LogError(f"a fact is a text, a number or a boolean, not {type(value).__name__}")


def day_of(seconds: float) -> bytes:
    return day_text(int(seconds) // 86_400)


@lru_cache(maxsize=16)
def day_text(day: int) -> bytes:
    return datetime.fromtimestamp(day * 86_400, UTC).strftime("%Y-%m-%d").encode()


@lru_cache(maxsize=256)
def time_text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M:%S")


@lru_cache(maxsize=256)
def seconds_of(day: bytes, time: bytes) -> float:
    """UTC seconds of a heading's day and time.  Raises LogError for a day that no calendar has."""
    text = f"{day.decode()}T{time.decode()}+00:00"
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as bad:
        raise LogError(f"no such time: {text}") from bad
