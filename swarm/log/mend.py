"""Compares a log file with what it should hold and decides, from the bytes alone, what happened to it; pure.

The file should hold exactly the payload of the write-ahead file.  A person may have typed at its end, an editor may have saved
an old copy over it, a crash may have cut it, a disk may have changed a byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from swarm.events import KINDS
from swarm.log.chain import Raw, head_at
from swarm.log.escaping import escape, unescape
from swarm.log.forms import CLOSING, FORMS, HEAD, HEADER_LINE, Form

BLANK = b"\0 \t\r\n"
"""A power cut leaves zeros where a page was never written."""


@dataclass(frozen=True, slots=True)
class Lacks:
    """The file is cut short: `rest` is missing at its end."""

    rest: bytes


@dataclass(frozen=True, slots=True)
class Typed:
    """The file is whole and `tail` was added behind it; it can be sealed in place."""

    tail: bytes
    torn: bool


@dataclass(frozen=True, slots=True)
class Replaced:
    """The file differs elsewhere: it must be written again, and what it held is kept."""


Finding = Lacks | Typed | Replaced | None


def compare(found: bytes, should: bytes, next_seq: int) -> Finding:
    """What happened to a file that holds `found` and should hold `should`; None if nothing did."""
    if found == should:
        return None
    if should.startswith(found):
        return Lacks(should[len(found) :])
    tail = found[len(should) :]
    if not found.startswith(should) or b"\0" in tail:
        return Replaced()
    torn = is_torn(tail, next_seq)
    return Typed(tail, torn) if torn or escape(tail) == tail else Replaced()


def is_torn(tail: bytes, next_seq: int) -> bool:
    """True for the beginning of the next entry, which is all that a crash leaves without a write-ahead file.

    A heading that a person numbered alike is none: its line is no heading of an entry, nor the beginning of one.
    """
    if next_seq == 1 and HEAD.startswith(tail):
        return True
    entry = tail[len(head_at(tail, 0)) :] if next_seq == 1 else tail
    return (
        not HEADER_LINE.search(entry, 1)
        and not CLOSING.search(entry)
        and any(begins(entry, next_seq, form) for form in FORMS)
    )


def begins(tail: bytes, seq: int, form: Form) -> bool:
    """Whether `tail` is the beginning of an entry of this form and number."""
    begin = form.begin + b"%d " % seq
    if not tail.startswith(begin):
        return begin.startswith(tail)
    line, newline, _ = tail.partition(b"\n")
    kind, blank, _ = line[len(begin) :].partition(b" ")
    known = {name.encode() for name in KINDS}
    if newline:
        return form.header.match(tail) is not None
    return kind in known if blank else any(name.startswith(kind) for name in known)


def typed_in(found: bytes, entries: Mapping[int, bytes], gaps: Sequence[bytes]) -> bytes:
    """The text in `found` that is neither an entry of the log nor was sealed before; empty if only blanks."""
    found = as_unix(found.removeprefix(b"\xef\xbb\xbf"))
    typed: list[bytes] = []
    left = sorted(map(as_unix, gaps), key=len, reverse=True)
    at = 0
    while at < len(found):
        known = known_at(found, at, entries, left)
        end = at + known if known else (found.find(b"\n", at) + 1 or len(found))
        if not known:
            typed.append(found[at:end])
        at = end
    text = b"".join(typed)
    return text if text.strip(BLANK) else b""


def as_unix(text: bytes) -> bytes:
    """The text with Unix line ends; an editor may have changed them when it loaded or saved."""
    return text.replace(b"\r\n", b"\n")


def known_at(found: bytes, at: int, entries: Mapping[int, bytes], left: list[bytes]) -> int:
    """The length of the log's own text that begins at `at`, 0 if there is none.

    A sealed text counts once: it is removed from `left`, so that a second one like it counts as typed.
    """
    header = HEADER_LINE.match(found, at)
    entry = as_unix(entries.get(int(header[1]), b"")) if header else b""
    if entry and stands_at(found, at, entry):
        return len(entry)
    for gap in left:
        for text in (gap, unescape(gap)):
            if stands_at(found, at, text):
                left.remove(gap)
                return len(text)
    return 0


def stands_at(found: bytes, at: int, text: bytes) -> bool:
    """Whether `text` stands at `at`; an editor may have dropped the last newline."""
    return found.startswith(text, at) or (len(found) - at == len(text) - 1 and found.endswith(text[:-1]))


def whole_texts(entries: Sequence[Raw], first: int = 1) -> dict[int, bytes]:
    """The entries as they stand in a file, by seq."""
    return {seq: raw.whole for seq, raw in enumerate(entries, first)}


def missing_in(found: bytes, entries: Mapping[int, bytes]) -> list[int]:
    """The entries that are not in `found` as they were written."""
    headers = ((int(header[1]), header.start()) for header in HEADER_LINE.finditer(found))
    there = {seq for seq, at in headers if seq in entries and stands_at(found, at, entries[seq])}
    return [seq for seq in entries if seq not in there]


def first_difference(found: bytes, should: bytes) -> int:
    """The first offset at which they differ, by bisection: comparing slices is fast, a loop over bytes is not."""
    same, end = 0, min(len(found), len(should))
    while same < end:
        middle = (same + end + 1) // 2
        if found[same:middle] == should[same:middle]:
            same = middle
        else:
            end = middle - 1
    return same


def spans(seqs: Sequence[int]) -> str:
    """Seqs as text: `18-20, 25`."""
    parts: list[list[int]] = []
    for seq in seqs:
        if parts and parts[-1][-1] == seq - 1:
            parts[-1][1:] = [seq]
        else:
            parts.append([seq])
    return ", ".join("-".join(map(str, part)) for part in parts)
