"""The full (rotated) files of a log, and how they are checked: by the head of the file after each, or by walking their chains.

A rotated file is never written again.  The head that opens the next file states its hash and is itself part of the chain; so
opening a log hashes each full file once, and their entries are parsed only when they are asked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from swarm.files import read_or_nothing
from swarm.log.chain import Place, Raw, Walk, entry_at, head_at, holds_entries, walk
from swarm.log.errors import LogDamaged
from swarm.rundir import LogFiles

HOLDS = rb"[^\n]* holds (?P<size>\d{1,12}) bytes, BLAKE2b-128 (?P<digest>[0-9a-f]{32})\n"
HEADS = (
    re.compile(
        rb"##### (?P<seq>[1-9]\d{0,17}) head - \S+ \S+ \S+\n"
        + HOLDS
        + rb"<!-- chain=(?P<chain>[0-9A-Za-z+/]{11,16}) mac=\S+ file=collaboration/(?P<number>\d{4,9})\.md "
    ),
    re.compile(
        rb"## (?P<seq>[1-9]\d{0,17}) head - @\S+ \S+ chain=(?P<chain>[0-9a-f]{16}) mac=\S+ "
        rb"file=collaboration/(?P<number>\d{4,9})\.md len=\d+\n" + HOLDS
    ),
)
"""The head that opens a file behind a full one, in both forms of entries."""
BEGINNINGS = (b"##### 1 ", b"## 1 ")
"""What the first entry of a log begins with, in both forms."""


def first_head(data: bytes) -> re.Match[bytes] | None:
    """The head with which a file begins that follows a full one; None for the first file of a log."""
    at = len(head_at(data, 0))
    return next((found for head in HEADS if (found := head.match(data, at))), None)


class Full(NamedTuple):
    """A full file whose bytes were checked."""

    data: bytes
    before: Place

    def entries(self) -> list[Raw]:
        return walk(self.data, self.before).entries


@dataclass(frozen=True, slots=True)
class Opening:
    """What the head that opens a file states about the file before."""

    before: Place
    number: int
    size: int
    """Bytes; anything behind them was typed into the full file."""
    digest: bytes

    @classmethod
    def of(cls, data: bytes) -> Opening | None:
        """None for the first file, and for one whose head is not sound."""
        head = first_head(data)
        if head is None:
            return None
        before = Place(int(head["seq"]) - 1, head["chain"])
        stated = int(head["number"]), int(head["size"]), head["digest"]
        return cls(before, *stated) if entry_at(data, 0, before) else None


def statement(name: str, data: bytes) -> str:
    """The body of the head that follows a full file."""
    return f"{name} holds {len(data)} bytes, BLAKE2b-128 {digest_of(data).decode()}"


def digest_of(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).hexdigest().encode()


def vouched(files: LogFiles, newest: bytes) -> list[Full] | None:
    """The full files before `newest` if each has the hash that the head after it states; None if they must be walked."""
    full: list[Full] = []
    opening = Opening.of(newest)
    while opening:
        data = read_or_nothing(files.older(opening.number))[: opening.size]
        if digest_of(data) != opening.digest:
            return None
        following, opening = opening, Opening.of(data)
        if following.number != (opening.number + 1 if opening else 1):
            return None
        full.insert(0, Full(data, opening.before if opening else Place()))
    return full if full or not older_count(files, newest) else None


def scan(files: LogFiles, newest: bytes) -> Walk:
    """Walks the full files and `newest`.  Raises LogDamaged if a full one is changed or missing."""
    count = older_count(files, newest)
    texts = [*(read_or_nothing(files.older(number)) for number in range(1, count + 1)), newest]
    reached = Walk(Place())
    for number, (text, following) in enumerate(pairwise(texts), 1):
        path = files.older(number)
        if not text:
            raise LogDamaged(path, f"the file is missing; entries from {reached.place.seq + 1} on stood there")
        stated = first_head(following)
        data = text[: int(stated["size"])] if stated else text
        step = walk(data, reached.place)
        if holds_entries(data[step.place.offset :], step.place):
            raise damaged(path, data, step.place)
        reached = Walk(Place(step.place.seq, step.place.chain), reached.entries + step.entries)
    last = walk(newest, reached.place)
    return Walk(last.place, reached.entries + last.entries)


def newest_text(files: LogFiles, should: bytes, *, torn: bool) -> bytes:
    """What the newest file should hold: the write-ahead file's payload; if that is new, lost or torn, also the whole entries
    that follow in the Markdown file.

    Raises LogDamaged where there are entries behind a damaged one.
    """
    if should and not torn:
        return should
    found = read_or_nothing(files.path)
    if found.endswith(b" -->"):
        found += b"\n"  # an editor or a crash took the last newline only
    goes_on = found.startswith(should)
    reached = scan(files, found if goes_on else should)
    if holds_entries(found[reached.place.offset if goes_on else 0 :], reached.place):
        raise damaged(files.path, found, reached.place)
    if not should and not reached.entries and files.older(1).exists():
        raise LogDamaged(files.path, f"the newest entries and {files.wal} are gone, older files are there")
    return found[: reached.place.offset] if goes_on else should


def older_count(files: LogFiles, newest: bytes) -> int:
    """How many full files come before `newest`: its first head states it, or else the folder's files are counted.

    A rotation that was cut short leaves a full file with which `newest` begins; it does not count.
    """
    if head := first_head(newest):
        return int(head["number"])
    if not newest or newest.startswith(BEGINNINGS, len(head_at(newest, 0))):
        return 0
    count = 0
    while (older := files.older(count + 1)).exists() and not newest.startswith(read_or_nothing(older)):
        count += 1
    return count


def damaged(path: Path, data: bytes, place: Place) -> LogDamaged:
    line = data.count(b"\n", 0, place.offset) + 1
    why = f"entry {place.seq + 1} is changed or missing; `swarm log verify` lists what is"
    return LogDamaged(path, why, seq=place.seq + 1, line=line)
