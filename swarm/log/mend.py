"""What became of a log file that is not as it should be, decided from its bytes alone; pure.

The file should be exactly what the write-ahead file says.  A person may have typed at its end, an editor may have saved
an old copy over it, a crash may have cut it, a disk may have changed a byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from swarm.events import KINDS
from swarm.log.chain import HEADER_LINE, TRAILER, Raw
from swarm.log.entry import HEADER
from swarm.log.escaping import escape, unescape

BLANK = b"\0 \t\r\n"
"""Zeros are what a power cut leaves where a page was never written."""


@dataclass(frozen=True, slots=True)
class Lacks:
    """The file is cut: `rest` belongs behind it."""

    rest: bytes


@dataclass(frozen=True, slots=True)
class Typed:
    """The file is whole and `tail` stands behind it, which can be sealed where it stands."""

    tail: bytes
    torn: bool


@dataclass(frozen=True, slots=True)
class Replaced:
    """The file is something else: it must be written again, and what only it holds be kept."""


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

    A heading that a person numbered alike is none: its line is no header, nor the beginning of one.
    """
    begins = b"## %d " % next_seq
    if HEADER_LINE.search(tail, 1) or TRAILER.search(tail) or not (tail.startswith(begins) or begins.startswith(tail)):
        return False
    line, newline, _ = tail.partition(b"\n")
    kind, blank, _ = line[len(begins) :].partition(b" ")
    known = {name.encode() for name in KINDS}
    return (
        HEADER.match(tail) is not None
        if newline
        else kind in known
        if blank
        else any(k.startswith(kind) for k in known)
    )


def typed_in(found: bytes, entries: Mapping[int, bytes], gaps: Sequence[bytes]) -> bytes:
    """What `found` holds beside the log's own entries and the text that was sealed before; empty if only blanks."""
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
    """Line ends as an editor may have changed them, in what it saved and in what it loaded."""
    return text.replace(b"\r\n", b"\n")


def known_at(found: bytes, at: int, entries: Mapping[int, bytes], left: list[bytes]) -> int:
    """The length of the log's own text that stands at `at`, 0 if none does.

    A text that was sealed is the log's once: it is taken from `left`, and a second one like it has been typed.
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
    """Whether it does; an editor may drop the last newline."""
    return found.startswith(text, at) or (len(found) - at == len(text) - 1 and found.endswith(text[:-1]))


def whole_texts(entries: Sequence[Raw], first: int = 1) -> dict[int, bytes]:
    """The entries as they stand in a file, by seq."""
    return {seq: raw.whole for seq, raw in enumerate(entries, first)}


def missing_in(found: bytes, entries: Mapping[int, bytes]) -> list[int]:
    """The entries that do not stand in `found` as they were written."""
    headers = ((int(header[1]), header.start()) for header in HEADER_LINE.finditer(found))
    there = {seq for seq, at in headers if seq in entries and stands_at(found, at, entries[seq])}
    return [seq for seq in entries if seq not in there]


def first_difference(found: bytes, should: bytes) -> int:
    """Where they part, by halving: comparing is fast, looking at each byte is not."""
    same, end = 0, min(len(found), len(should))
    while same < end:
        middle = (same + end + 1) // 2
        if found[same:middle] == should[same:middle]:
            same = middle
        else:
            end = middle - 1
    return same


def spans(seqs: Sequence[int]) -> str:
    """Seqs for people: `18-20, 25`."""
    parts: list[list[int]] = []
    for seq in seqs:
        if parts and parts[-1][-1] == seq - 1:
            parts[-1][1:] = [seq]
        else:
            parts.append([seq])
    return ", ".join("-".join(map(str, part)) for part in parts)
