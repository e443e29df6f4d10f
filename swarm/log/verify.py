"""Checks every byte of a log and returns a list of faults, each with its place; nothing is changed.

Without the run's secret it finds accidental and partial changes.  With the secret it also finds a history that was rewritten and
chained anew, up to the last signed head; entries after that head are not covered by a signature.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swarm.events import Head, Seal
from swarm.files import read_or_nothing
from swarm.log.chain import Place, Raw, chained, entry_at, head_at, holds_entries, mac_of, sha_of, walk
from swarm.log.entry import Entry, Nothing
from swarm.log.errors import LogError
from swarm.log.forms import FORMS, HEADER_LINE
from swarm.log.lock import is_held
from swarm.log.mend import first_difference, spans
from swarm.log.older import first_head, older_count
from swarm.log.wal import frames_of, is_torn
from swarm.log.writer import HEAD_EVERY
from swarm.rundir import LogFiles

UNSIGNED_SEALS = 8
"""Additional entries allowed between heads: mending records its seals before the head that is due."""
LOOKS, LOOK_AGAIN_SECONDS = 6, 0.1
CHAIN_AT_END = re.compile(rb" ([0-9a-f]{16}|[A-Za-z0-9+/]{11}) -->\n\Z")


@dataclass(frozen=True, slots=True)
class Fault:
    """Something in a file that is not as the writer wrote it."""

    offset: int
    line: int
    seq: int
    """The first entry concerned."""
    why: str
    file: str = "COLLABORATION.md"


def verify(path: Path, *, secret: bytes | None = None, head_every: int = HEAD_EVERY) -> list[Fault]:
    """Every fault of the log at `path`, in the order of its entries; none means that all bytes are as written.

    While a writer is at work (a rotation, a mend), the files are read again.
    """
    files = LogFiles(path)
    for looks_left in reversed(range(LOOKS)):
        seen = read_or_nothing(files.wal), read_or_nothing(path)
        faults = faults_of(files, secret, head_every)
        rests = not is_held(files.lock) and seen == (read_or_nothing(files.wal), read_or_nothing(path))
        if not faults or rests or not looks_left:
            return faults
        time.sleep(LOOK_AGAIN_SECONDS)
    raise AssertionError("unreachable")


def faults_of(files: LogFiles, secret: bytes | None, head_every: int) -> list[Fault]:
    """One look at all files."""
    before = read_or_nothing(files.wal)
    newest = read_or_nothing(files.path)
    after = read_or_nothing(files.wal)
    faults: list[Fault] = []
    place = Place()
    signed = Signatures(secret, head_every, faults)
    full = sum(1 for _ in files.folder.glob("[0-9]*.md"))
    for number in range(1, min(older_count(files, newest), full + 1) + 1):
        name = files.older_name(number)
        place = checked(FileCheck(name, read_or_nothing(files.older(number)), place, faults), signed)
    last = FileCheck(files.path.name, newest, place, faults)
    checked(last, signed)
    faults += faults_of_wal(files, before, after, last)
    faults += faults_of_saved(files, signed.saved)
    return faults


def checked(file: FileCheck, signed: Signatures) -> Place:
    """Checks one file and its entries; returns the place where the next file begins."""
    if not file.data and file.name != "COLLABORATION.md":
        file.fault(0, file.place.seq + 1, "the file is missing or empty")
    file.run()
    for before, raw in file.records:
        signed.check(file, before, raw)
    return Place(file.place.seq, file.place.chain)


@dataclass(slots=True)
class FileCheck:
    """A walk through one file that goes on behind each fault."""

    name: str
    data: bytes
    place: Place
    faults: list[Fault]
    records: list[tuple[Place, Raw]] = field(default_factory=list)
    """Every sound entry and the place before it."""
    understood: dict[int, Entry] = field(default_factory=dict)
    """Those that could be read, by seq."""
    last: Entry | None = None
    """The last of them."""

    def fault(self, offset: int, seq: int, why: str) -> None:
        self.faults.append(Fault(offset, self.data.count(b"\n", 0, offset) + 1, seq, why, self.name))

    def at(self, offset: int, why: str) -> Fault:
        """A fault inside an entry whose chain value is right, or behind all entries."""
        entry = (before.seq + 1 for before, raw in self.records if offset < before.offset + len(raw.on_disk))
        line = self.data.count(b"\n", 0, offset) + 1
        return Fault(offset, line, next(entry, self.place.seq + 1), why, self.name)

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
        """Reports the fault at the current place and goes on behind it; False if no sound entry follows."""
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
        """Places behind the fault where the next sound entry may begin, each with what the fault then is."""
        seq = self.place.seq + 1
        own = self.own_chain()
        for header in HEADER_LINE.finditer(self.data, self.place.offset):
            at, here = header.start(), int(header[1])
            if own and here == seq + 1:
                yield Place(seq, own, at), f"the end mark of entry {seq} is changed"
            if (stated := self.stated_before(at)) and at > self.place.offset:
                lost = spans(range(seq, here)) or f"before {here}"
                yield Place(here - 1, stated, at), f"entry {lost} (or text that it seals) is changed or missing"

    def own_chain(self) -> bytes | None:
        """The chain value that the entry at the place should end with, if its heading can be read."""
        at = self.place.offset
        at += len(head_at(self.data, at)) if at == 0 else 0
        for form in FORMS:
            header = form.header.match(self.data, at)
            if header and (end := form.end(self.data, header)) >= 0:
                return chained(self.place.chain, self.data[at:end], form)[-form.chain_size :]
        return None

    def stated_before(self, at: int) -> bytes | None:
        """The chain value that the line right before `at` states; for a file's first head, it says so itself."""
        head = first_head(self.data)
        if head and at == head.start():
            return head["chain"]
        found = CHAIN_AT_END.search(self.data[max(0, at - 24) : at])
        return found[1] if found else None

    # ---- what an entry refers to (`entry.Earlier`) -------------------------------------------------------------------

    def facts(self, seq: int) -> Mapping[str, Any]:
        """What entry `seq` states.  Raises LogError."""
        entry = self.understood.get(seq)
        return entry.event.facts() if entry else Nothing().facts(seq)

    def time(self, seq: int) -> float:
        """When the last sound entry before `seq` was written; 0 if those that state it are faults already.  Raises LogError."""
        if self.last is None and self.faults:
            return 0.0
        return self.last.time if self.last else Nothing().time(seq)


@dataclass(slots=True)
class Signatures:
    """Checks that each entry can be parsed, and heads against the chain and the secret."""

    secret: bytes | None
    head_every: int
    faults: list[Fault]
    signed_seq: int = 0
    saved: list[tuple[int, Seal]] = field(default_factory=list)
    """Seals that name a kept file."""

    def check(self, file: FileCheck, before: Place, raw: Raw) -> None:
        try:
            entry = file.last = file.understood[before.seq + 1] = raw.entry(file)
        except LogError as bad:
            file.fault(before.offset, before.seq + 1, str(bad))
            return
        if why := self.wrong(entry, before):
            file.fault(before.offset, entry.seq, why)

    def wrong(self, entry: Entry, before: Place) -> str:
        match entry.event:
            case Seal(why="old-copy", file=str()) as seal:
                self.saved.append((entry.seq, seal))
            case _:
                pass
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


def faults_of_wal(files: LogFiles, before: bytes, after: bytes, newest: FileCheck) -> Iterator[Fault]:
    """Differences between the Markdown file and the write-ahead file, and faults of the latter.

    A writer records an entry there first: what was read `before` should be in the Markdown file, and what is in the
    Markdown file should be in what was read `after`.
    """
    if not files.wal.exists():
        return
    name = str(files.wal.relative_to(files.path.parent))
    frames, end = frames_of(before)
    if torn := is_torn(before, end):
        yield Fault(end, 0, newest.place.seq + 1, "the write-ahead file is changed or torn here", name)
    if is_held(files.lock):
        frames = frames[:-1]  # its group may not have been written to the Markdown file yet
    if any(fault.file == newest.name for fault in newest.faults):
        return
    should, more = b"".join(frames), b"".join(frames_of(after)[0])
    differs = first_difference(newest.data, should)
    if differs < min(len(should), len(newest.data)):
        yield newest.at(differs, "whole entries stand here, but not those that the write-ahead file holds")
    elif len(newest.data) < len(should):
        yield newest.at(differs, f"the last {len(should) - len(newest.data)} bytes are missing")
    elif len(newest.data) > len(more) and not torn:
        yield newest.at(len(more), "whole entries stand here that the write-ahead file does not hold")


def faults_of_saved(files: LogFiles, saved: Iterable[tuple[int, Seal]]) -> Iterator[Fault]:
    """A kept file should begin with the bytes that were kept; what was added later has a note of its own."""
    for seq, seal in saved:
        data = read_or_nothing(files.path.parent / str(seal.file))
        if sha_of(data[: seal.n]) != seal.sha:
            yield Fault(0, 1, seq, "what was kept here is changed or missing", str(seal.file))
