"""A check of every byte of a log that ends in a list of faults, each with its place; nothing is changed.

Anyone finds accidental and partial changes with it.  With the run's secret, a history that was rewritten and chained
anew is found too, back from the last signed head; for what came after that head nobody has vouched.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from swarm.events import Head
from swarm.log.chain import (
    HEADER_LINE,
    Place,
    Raw,
    chained,
    entry_at,
    holds_entries,
    mac_of,
    walk,
)
from swarm.log.entry import HEADER, TRAILER_AT_END, Entry
from swarm.log.errors import LogError
from swarm.log.files import Files, read_or_nothing
from swarm.log.lock import is_held
from swarm.log.mend import first_difference, spans
from swarm.log.older import FIRST_HEAD, older_count
from swarm.log.wal import MAGIC, frames_of

HEAD_EVERY = 256
"""Entries between signed heads."""
UNSIGNED_SEALS = 8
"""More that may stand between them: a mend records what it did before the head that is due."""
LOOKS_AGAIN, LOOK_AGAIN_SECONDS = 5, 0.1


@dataclass(frozen=True, slots=True)
class Fault:
    """Something in a file that the writer did not write so."""

    offset: int
    line: int
    seq: int
    """The first entry that is concerned."""
    why: str
    file: str = "COLLABORATION.md"


def verify(path: Path, *, secret: bytes | None = None, head_every: int = HEAD_EVERY) -> list[Fault]:
    """Every fault of the log at `path`, in the order of its entries; none means that all bytes are as written.

    What a living writer is just about (a rotation, a mend) is looked at again.
    """
    faults = faults_of(Files(path), secret, head_every)
    for _ in range(LOOKS_AGAIN if faults and is_held(Files(path).lock) else 0):
        time.sleep(LOOK_AGAIN_SECONDS)
        if not (faults := faults_of(Files(path), secret, head_every)):
            break
    return faults


def faults_of(files: Files, secret: bytes | None, head_every: int) -> list[Fault]:
    """One look at all files."""
    expected = read_or_nothing(files.wal)
    newest = read_or_nothing(files.path)
    faults: list[Fault] = []
    place = Place()
    signed = Signatures(secret, head_every, faults)
    for number in range(1, older_count(files, newest) + 1):
        name = files.older_name(number)
        place = checked(FileCheck(name, read_or_nothing(files.older(number)), place, faults), signed)
    last = FileCheck(files.path.name, newest, place, faults)
    checked(last, signed)
    faults += faults_of_wal(files, expected, last)
    return faults


def checked(file: FileCheck, signed: Signatures) -> Place:
    """Checks one file and the meaning of its entries; the place where the next file begins."""
    if not file.data and file.name != "COLLABORATION.md":
        file.fault(0, file.place.seq + 1, "the file is missing or empty")
    file.run()
    for before, raw in file.records:
        signed.check(file, before, raw)
    return Place(file.place.seq, file.place.chain)


@dataclass(slots=True)
class FileCheck:
    """A walk along one file that goes on behind each fault."""

    name: str
    data: bytes
    place: Place
    faults: list[Fault]
    records: list[tuple[Place, Raw]] = field(default_factory=list)
    """Every sound entry and the place before it."""

    def fault(self, offset: int, seq: int, why: str) -> None:
        self.faults.append(Fault(offset, self.data.count(b"\n", 0, offset) + 1, seq, why, self.name))

    def run(self) -> None:
        while True:
            before = self.place
            reached = walk(self.data[before.offset :], before)
            for raw in reached.entries:
                self.records.append((before, raw))
                before = before.after(raw)
            self.place = reached.place
            if self.place.offset == len(self.data) or not self.step_over():
                return

    def step_over(self) -> bool:
        """Reports what stands at the place and goes on behind it; False if no sound entry follows."""
        at, seq = self.place.offset, self.place.seq + 1
        for resumed, why in self.ways_on():
            if entry_at(self.data, resumed.offset, resumed):
                self.fault(at, seq, why)
                self.place = resumed
                return True
        tail = self.data[at:]
        whole = holds_entries(tail, self.place) or tail.startswith(b"## ")
        why = (
            f"entry {seq} is changed or cut"
            if whole
            else f"{len(tail)} bytes after entry {seq - 1} are no entry and not sealed"
        )
        self.fault(at, seq, why)
        return False

    def ways_on(self) -> Iterator[tuple[Place, str]]:
        """Places behind the fault where an entry may be sound, and what the fault is if one is."""
        seq = self.place.seq + 1
        own = self.own_chain()
        for header in HEADER_LINE.finditer(self.data, self.place.offset):
            at, here = header.start(), int(header[1])
            if own and here == seq + 1:
                yield Place(seq, own, at), f"the end mark of entry {seq} is changed"
            if (stated := self.stated_before(at)) and at > self.place.offset:
                before = Place(stated[0], stated[1], at)
                lost = spans(range(seq, before.seq + 1)) or f"before {here}"
                yield before, f"entry {lost} (or text that it seals) is changed or missing"

    def own_chain(self) -> bytes | None:
        """The chain value that the entry at the place should end with, if its header can be read."""
        header = HEADER.match(self.data, self.place.offset)
        if header is None:
            return None
        text = self.data[header.start() : header.end() + int(header["len"])]
        return chained(self.place.chain, self.place.seq + 1, text)[-16:]

    def stated_before(self, at: int) -> tuple[int, bytes] | None:
        """Seq and chain value that the trailer right before `at` states; for a file's first head, it says so itself."""
        if at == 0 and (head := FIRST_HEAD.match(self.data)):
            return int(head["seq"]) - 1, head["chain"]
        found = TRAILER_AT_END.search(self.data[max(0, at - 64) : at])
        return (int(found[1]), found[2]) if found else None


@dataclass(slots=True)
class Signatures:
    """Checks that each entry can be read, and heads against the chain and the secret."""

    secret: bytes | None
    head_every: int
    faults: list[Fault]
    signed_seq: int = 0

    def check(self, file: FileCheck, before: Place, raw: Raw) -> None:
        try:
            entry = raw.entry()
        except LogError as bad:
            file.fault(before.offset, before.seq + 1, str(bad))
            return
        if why := self.wrong(entry, before):
            file.fault(before.offset, entry.seq, why)

    def wrong(self, entry: Entry, before: Place) -> str:
        match entry.event:
            case Head() as head if head.chain != before.chain.decode():
                return f"the head does not fit the chain, which stands at {before.chain.decode()}"
            case Head() as head if self.secret and head.mac != mac_of(self.secret, before.seq, before.chain):
                return "the head is not signed with this run's secret: the history up to it may be rewritten"
            case Head():
                self.signed_seq = entry.seq
            case _ if self.secret and entry.seq - self.signed_seq > self.head_every + UNSIGNED_SEALS:
                self.signed_seq = entry.seq
                return f"no signed head in the {self.head_every + UNSIGNED_SEALS} entries before"
        return ""


def faults_of_wal(files: Files, data: bytes, newest: FileCheck) -> Iterator[Fault]:
    """What the write-ahead file knows better, and what is wrong with itself."""
    if not data:
        return
    name = str(files.wal.relative_to(files.path.parent))
    frames, end = frames_of(data)
    if any(data[end:]) or not data.startswith(MAGIC):
        yield Fault(end, 0, newest.place.seq + 1, "the write-ahead file is changed or torn here", name)
    if is_held(files.lock):
        frames = frames[:-1]  # its group may just be on its way into the Markdown file
    should = b"".join(frames)
    differs = first_difference(newest.data, should)
    sound = not any(fault.file == newest.name for fault in newest.faults)
    if sound and differs < min(len(should), len(newest.data)):
        line = newest.data.count(b"\n", 0, differs) + 1
        why = "whole entries stand here, but not those that the write-ahead file holds"
        yield Fault(differs, line, seq_at(newest, differs), why, newest.name)
    missing = should[len(newest.data) :]
    if missing and newest.place.offset == len(newest.data):
        line = newest.data.count(b"\n") + 1
        yield Fault(
            len(newest.data), line, newest.place.seq + 1, f"the last {len(missing)} bytes are missing", newest.name
        )


def seq_at(file: FileCheck, offset: int) -> int:
    """The entry that stands at an offset."""
    return next(
        (before.seq + 1 for before, raw in file.records if offset < before.offset + len(raw.on_disk)), file.place.seq
    )
