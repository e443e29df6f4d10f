"""Reading the log without a lock: any number of readers follow it while it is written, mended and rotated.

A reader never changes anything.  It believes the write-ahead file, which nobody edits; so whatever people type, save over
or delete, it reads what is recorded, and their text when a writer has recorded that.  Where there is no such file, in a
copy of the log alone, the Markdown file is read as far as its chain carries.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from swarm.events import Seal
from swarm.files import read_or_nothing, stat_or_none
from swarm.log.chain import Place, Raw, Walk, entry_at, holds_entries, walk
from swarm.log.entry import Entry
from swarm.log.errors import LogDamaged, LogError
from swarm.log.escaping import unescape
from swarm.log.older import Full, Opening, damaged, newest_text, scan, vouched
from swarm.log.wal import MARK_BYTES, frames_from, frames_of, is_torn
from swarm.rundir import LogFiles

TRIES = 5


class Log:
    """The entries of a run, oldest first, checked against the chain as they are read."""

    def __init__(self, path: Path) -> None:
        self.files = LogFiles(path)
        self.place = Place()
        """The end of what was read."""
        self._full: list[Full] = []
        """LogFiles before the newest whose entries nobody asked for yet."""
        self._records: list[Raw | Entry] = []
        """The entries after those."""
        self._wal_mark, self._wal_end = b"", 0
        """The write-ahead file that was read, by its first bytes, and where its frames ended."""
        self._read_to = 0
        """The offset in the log file up to which entries were read; those after it up to `place` were published to us."""
        self._seen: os.stat_result | None = None
        """The Markdown file that was read for want of one."""
        self._told = 0

    @property
    def last_seq(self) -> int:
        return self.place.seq

    def refresh(self) -> list[Entry]:
        """The entries that came since the last refresh.  Raises LogDamaged where a file contradicts its chain."""
        news = list(self.entries(self._told))
        self._told += len(news)
        return news

    def next_published(self, text: str) -> Entry | None:
        """The rendered entry, taken in, if it is the one that follows the last refresh; the files are not looked at.

        None: one before it is missing, or it is no next entry at all; `refresh` tells.
        """
        if self._told != self.last_seq or self._full:
            return None
        raw = entry_at(text.encode(), 0, self.place)
        if raw is None or raw.kind == b"seal":  # the bytes that a seal covers are not published
            return None
        self._take(Walk(self.place.after(raw), [raw]))
        entry = self._entry(self.last_seq - 1)
        self._told += 1
        return entry

    def entries(self, since: int = 0) -> Iterator[Entry]:
        """The entries after `since`, up to what the files hold now.  Raises LogDamaged, also for one of no known kind."""
        self.read()
        self._take_apart()
        for index in range(since, self.last_seq):
            yield self._entry(index)

    def _entry(self, index: int) -> Entry:
        record = self._records[index]
        if isinstance(record, Raw):
            record = self._records[index] = self._understand(record)
        return record

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
        for tries_left in reversed(range(TRIES)):
            before = self._wal_mark
            try:
                if not self._read_on():
                    self._read_again()
                return
            except LogDamaged:
                if not tries_left or self._wal_mark == before:
                    raise  # else a rotation came in between

    def _read_on(self) -> bool:
        """The usual case: the same write-ahead file has grown by whole frames.  False: look at all of it."""
        try:
            fd = os.open(self.files.wal, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return self._copy_rests()
        try:
            known, self._wal_mark = self._wal_mark, os.pread(fd, MARK_BYTES, 0)
            data = os.pread(fd, max(0, os.lseek(fd, 0, os.SEEK_END) - self._wal_end), self._wal_end)
        finally:
            os.close(fd)
        if self._wal_mark != known or not self._wal_end:
            return False
        frames, end = frames_from(data, self._wal_end)
        grown = b"".join(frames)
        known_bytes = self.place.offset - self._read_to  # published to us before we looked
        reached = walk(grown[known_bytes:], self.place)
        if reached.place.offset != self._read_to + len(grown):
            return False
        self._take(reached)
        self._wal_end, self._read_to = end, self.place.offset
        return True

    def _copy_rests(self) -> bool:
        """Whether a Markdown file without its folder is as it was at the last look."""
        self._wal_mark = b""
        now = stat_or_none(self.files.path)
        return now is None or (self._seen is not None and unchanged(now, self._seen))

    def _read_again(self) -> None:
        """At first, after a rotation, and where there is no write-ahead file: goes on where it stood, if that is still so."""
        wal, copy = read_or_nothing(self.files.wal), stat_or_none(self.files.path)
        self._wal_end = 0
        frames, end = frames_of(wal)
        self._follow(newest_text(self.files, b"".join(frames), torn=is_torn(wal, end)))
        self._wal_end, self._seen, self._read_to = end, copy, self.place.offset

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
