"""Reading the log without a lock: any number of readers follow the file while it is written, mended and rotated.

A reader never changes anything.  Bytes at the end that are no entry (yet) are left alone: an entry being written, a
torn one, a person's text that no writer has sealed.  A file that holds less than what was read before is an old copy
that somebody saved; the reader keeps what it knows and waits for the writer to put the entries back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from swarm.events import Seal
from swarm.log.chain import Place, Raw, Walk, holds_entries, walk
from swarm.log.entry import Entry, unescape
from swarm.log.errors import LogDamaged, LogError
from swarm.log.files import Files, read_or_nothing, stat_or_none
from swarm.log.older import Full, Opening, damaged, scan, vouched
from swarm.log.wal import frames_of


class Log:
    """The entries of a run, oldest first, checked against the chain as they are read."""

    def __init__(self, path: Path) -> None:
        self.files = Files(path)
        self.place = Place()
        """The end of what was read."""
        self._full: list[Full] = []
        """Files before the newest whose entries nobody asked for yet."""
        self._records: list[Raw | Entry] = []
        """The entries after those."""
        self._seen: os.stat_result | None = None
        self._told = 0

    @property
    def last_seq(self) -> int:
        return self.place.seq

    def refresh(self) -> list[Entry]:
        """The entries that came since the last refresh.  Raises LogDamaged where a file contradicts its chain."""
        news = list(self.entries(self._told))
        self._told += len(news)
        return news

    def entries(self, since: int = 0) -> Iterator[Entry]:
        """The entries after `since`, up to what the files hold now.  Raises LogDamaged, also for one of no known kind."""
        self.read()
        self._take_apart()
        for index in range(since, self.last_seq):
            record = self._records[index]
            if isinstance(record, Raw):
                record = self._records[index] = self._understand(record)
            yield record

    def last_of(self, kind: str) -> int:
        """The seq of the newest entry of a kind in the newest file, 0 if there is none (a rotated one begins with a head)."""
        wanted = kind.encode()
        for back, record in enumerate(reversed(self._records)):
            if (record.kind == wanted) if isinstance(record, Raw) else (record.event.kind == kind):
                return self.last_seq - back
        return 0

    @property
    def last_time(self) -> float:
        """That of the last entry, 0 if there is none."""
        last = self._records[-1] if self._records else None
        return last.entry().time if isinstance(last, Raw) else last.time if last else 0.0

    def now(self, clock: Callable[[], float] = time.time) -> float:
        """The log's time, as leases count it; see `log_time`."""
        return log_time(clock(), self.last_time, stat_or_none(self.files.wal))

    def read(self) -> None:
        """Takes in what the files hold now: `refresh` without making entries of it."""
        try:
            if self._seen and unchanged(self.files.path.stat(), self._seen):
                return
            with self.files.path.open("rb") as file:
                now = os.fstat(file.fileno())
                if not self._read_on(file.fileno(), now):
                    self._read_again(os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0))
        except FileNotFoundError:
            return
        self._seen = now

    def _read_on(self, fd: int, now: os.stat_result) -> bool:
        """The usual case: the same file has grown by whole entries.  False: look at all of it."""
        same = self._seen and self._seen.st_ino == now.st_ino and now.st_size >= self.place.offset
        if not same:
            return False
        data = os.pread(fd, now.st_size - self.place.offset, self.place.offset)
        reached = walk(data, self.place)
        self._take(reached)
        return self.place.offset == now.st_size

    def _read_again(self, data: bytes) -> None:
        """At first, and after a rotation, an editor's save or a mend: goes on where it stood, if that is still so.

        A file that cannot be followed is somebody's edit that no writer has mended yet: the write-ahead file knows better.
        """
        try:
            self._follow(data)
        except LogDamaged:
            should = b"".join(frames_of(read_or_nothing(self.files.wal))[0])
            if not should or should == data:
                raise
            self._follow(should)

    def _follow(self, data: bytes) -> None:
        if not self.last_seq and self._begin(data):
            return
        self._take_apart()
        reached = scan(self.files, data)
        known, found = len(self._records), len(reached.entries)
        both = min(known, found)
        if both and chain_at(self._records[both - 1]) != chain_at(reached.entries[both - 1]):
            raise LogDamaged(self.files.path, f"the history up to entry {both} was rewritten", seq=both)
        if found < known:
            return
        if holds_entries(data[reached.place.offset :], reached.place):
            raise damaged(self.files.path, data, reached.place)
        self._take(Walk(reached.place, reached.entries[known:]))

    def _begin(self, data: bytes) -> bool:
        """The quick way where nothing is known yet; False if something is wrong that `scan` can name."""
        full = vouched(self.files, data)
        opening = Opening.of(data)
        reached = walk(data, opening.before if opening else Place())
        if full is None or holds_entries(data[reached.place.offset :], reached.place):
            return False
        self._full = full
        self._take(reached)
        return True

    def _take_apart(self) -> None:
        if self._full:
            self._records[:0] = [raw for full in self._full for raw in full.entries()]
            self._full = []

    def _take(self, reached: Walk) -> None:
        self._records += reached.entries
        self.place = reached.place

    def _understand(self, raw: Raw) -> Entry:
        try:
            return with_sealed_text(raw.entry(), raw.gap)
        except LogError as bad:
            raise LogDamaged(self.files.path, str(bad)) from bad


class WritersLog(Log):
    """The reading side of the process that writes: it is told what was written and never looks."""

    def load(self, data: bytes) -> None:
        """The older files, and `data` as the newest.  Raises LogDamaged."""
        self._follow(data)

    def add(self, entries: list[Entry], place: Place) -> None:
        self._records += entries
        self.place = place

    def read(self) -> None:
        """Nothing to do: see `add`."""


def with_sealed_text(entry: Entry, gap: bytes) -> Entry:
    """A note's seal with the text that it covers as its body: readers see what the person typed."""
    match entry.event:
        case Seal(why="note") as seal:
            typed = seal.model_copy(update={"body": unescape(gap).decode("utf-8", "replace").strip("\n")})
            return Entry(entry.seq, entry.author, entry.time, typed, entry.chain, entry.via)
        case _:
            return entry


def log_time(now: float, last: float, wal: os.stat_result | None) -> float:
    """The clock; but where it was set back behind the last entry, that entry's time and what went by since it was written.

    So a dead holder's lease ends when its seconds are over, not when the clock has come back to where it was.
    """
    return now if last <= now else last + max(0.0, now - wal.st_mtime if wal else 0.0)


def chain_at(record: Raw | Entry) -> str:
    return record.chain.decode() if isinstance(record, Raw) else record.chain


def unchanged(now: os.stat_result, before: os.stat_result) -> bool:
    return (now.st_ino, now.st_size, now.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
