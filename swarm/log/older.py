"""The full files of a log, and how they are believed: by the head of the file after each, or by walking their chains.

A rotated file is never written again.  The head that opens the next file states its hash, and is itself in the chain; so
who opens a log hashes each full file once and takes its entries apart only when somebody asks for them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from swarm.files import read_or_nothing
from swarm.log.chain import Place, Raw, Walk, entry_at, holds_entries, walk
from swarm.log.errors import LogDamaged
from swarm.rundir import LogFiles

FIRST_HEAD = re.compile(
    rb"^## (?P<seq>[1-9]\d{0,17}) head - @\S+ \S+ chain=(?P<chain>[0-9a-f]{16}) mac=\S+ "
    rb"file=collaboration/(?P<number>\d{4,9})\.md len=\d+\n"
    rb"[^\n]* holds (?P<size>\d{1,12}) bytes, BLAKE2b-128 (?P<digest>[0-9a-f]{32})\n"
)
FIRST_ENTRY = b"## 1 "


class Full(NamedTuple):
    """A full file that is as it should be."""

    data: bytes
    before: Place

    def entries(self) -> list[Raw]:
        return walk(self.data, self.before).entries


@dataclass(frozen=True, slots=True)
class Opening:
    """What the head that opens a file says of the one before."""

    before: Place
    number: int
    size: int
    """Bytes; what stands behind them somebody has typed into the full file."""
    digest: bytes

    @classmethod
    def of(cls, data: bytes) -> Opening | None:
        """None for the first file, and for one whose head cannot be believed."""
        head = FIRST_HEAD.match(data)
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
    """The full files before `newest` if each is as the head after it says; None where they must be walked."""
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
        stated = FIRST_HEAD.match(following)
        data = text[: int(stated["size"])] if stated else text
        step = walk(data, reached.place)
        if holds_entries(data[step.place.offset :], step.place):
            raise damaged(path, data, step.place)
        reached = Walk(Place(step.place.seq, step.place.chain), reached.entries + step.entries)
    last = walk(newest, reached.place)
    return Walk(last.place, reached.entries + last.entries)


def newest_text(files: LogFiles, should: bytes, *, torn: bool) -> bytes:
    """What the newest file should hold: what the write-ahead file says; where that is new, lost or torn, also whole entries
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
    """How many full files stand before `newest`: its first head says so, or else the folder.

    A rotation that was cut short leaves a last one that `newest` begins with; it does not count.
    """
    if head := FIRST_HEAD.match(newest):
        return int(head["number"])
    if not newest or newest.startswith(FIRST_ENTRY):
        return 0
    count = 0
    while (older := files.older(count + 1)).exists() and not newest.startswith(older.read_bytes()):
        count += 1
    return count


def damaged(path: Path, data: bytes, place: Place) -> LogDamaged:
    line = data.count(b"\n", 0, place.offset) + 1
    why = f"entry {place.seq + 1} is changed or missing; `swarm log verify` lists what is"
    return LogDamaged(path, why, seq=place.seq + 1, line=line)
