"""Reading the log without a lock: any number of readers follow it while it is written, mended and rotated.

A reader never changes anything.  It reads the write-ahead file, which nobody edits; so whatever people type, overwrite or
delete in the Markdown file, it returns what is recorded, and their text once a writer has recorded it.  Where there is no
write-ahead file, in a copy of the log alone, the Markdown file is read as far as its chain is intact.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from swarm import plainfiles
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
        """Full files whose entries nobody asked for yet."""
        self._records: list[Raw | Entry] = []
        """The entries after those."""
        self._wal_mark, self._wal_end = b"", 0
        """The write-ahead file that was read, by its first bytes, and where its frames ended."""
        self._read_to = 0
        """The offset in the log file up to which entries were read; those after it up to `place` were published to us."""
        self._seen: os.stat_result | None = None
        """The Markdown file that was read, if there was no write-ahead file."""
        self._returned = 0

    @property
    def last_seq(self) -> int:
        return self.place.seq

    def refresh(self) -> list[Entry]:
        """The entries that came since the last refresh.  Raises LogDamaged where a file contradicts its chain."""
        news = list(self.entries(self._returned))
        self._returned += len(news)
        return news

    def next_published(self, text: str) -> Entry | None:
        """A published entry (`Entry.text`), taken in, if it is the one that follows the last refresh; the files are not looked at.

        None: one before it is missing, or it is no next entry at all; `refresh` tells.
        """
        if self._returned != self.last_seq or self._full:
            return None
        raw = entry_at(text.encode(), 0, self.place)
        if raw is None or raw.kind == b"seal":  # the bytes that a seal covers are not published
            return None
        self._take(Walk(self.place.after(raw), [raw]))
        entry = self._entry(self.last_seq - 1)
        self._returned += 1
        return entry

    def entries(self, since: int = 0) -> Iterator[Entry]:
        """The entries after `since`, up to what the files hold now.  Raises LogDamaged, also for an entry of an unknown kind."""
        self.read()
        self._take_apart()
        for index in range(since, self.last_seq):
            yield self._entry(index)

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
        return self._entry(len(self._records) - 1).time if self._records else 0.0

    def now(self, clock: Callable[[], float] = time.time) -> float:
        """The log's time, as leases count it; see `log_time`."""
        return log_time(clock(), self.last_time, stat_or_none(self.files.wal))

    def read(self) -> None:
        """Reads what the files hold now; `refresh` also parses it.  Raises LogError where one of them is none to be opened."""
        for tries_left in reversed(range(TRIES)):
            before = self._wal_mark
            try:
                if not self._read_on():
                    self._read_again()
                return
            except plainfiles.NotPlain as refused:
                raise LogError(str(refused)) from refused
            except LogDamaged:
                if not tries_left or self._wal_mark == before:
                    raise  # else a rotation came in between

    def _read_on(self) -> bool:
        """The usual case: the same write-ahead file has grown by whole frames.  False: read all of it again."""
        try:
            fd = plainfiles.open_file(self.files.wal)
        except (FileNotFoundError, NotADirectoryError):
            return self._copy_rests()
        try:
            known, self._wal_mark = self._wal_mark, os.pread(fd, MARK_BYTES, 0)
            data = os.pread(
                fd, max(0, min(os.lseek(fd, 0, os.SEEK_END), plainfiles.LOG_BYTES) - self._wal_end), self._wal_end
            )
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
        """Whether a Markdown file without its folder is unchanged since it was last read."""
        self._wal_mark = b""
        now = stat_or_none(self.files.path)
        return now is None or (self._seen is not None and unchanged(now, self._seen))

    def _read_again(self) -> None:
        """The first time, after a rotation, and without a write-ahead file: reads everything and goes on behind the last known entry."""
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
        """The fast way if nothing was read before; False if something is wrong, which `scan` reports."""
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

    def _entry(self, index: int) -> Entry:
        """The record at `index` as an entry; raw ones are understood once."""
        record = self._records[index]
        if isinstance(record, Raw):
            try:
                record = self._records[index] = with_sealed_text(record.entry(self), record)
            except LogError as bad:
                raise LogDamaged(self.files.path, str(bad)) from bad
        return record

    # ---- what an entry refers to (`entry.Earlier`) -------------------------------------------------------------------

    def facts(self, seq: int) -> Mapping[str, Any]:
        """What entry `seq` states.  Raises LogError."""
        index = self._index(seq)
        if index < 0:
            raise LogError(f"refers to entry {seq}, which is not in this file")
        return self._entry(index).event.facts()

    def time(self, seq: int) -> float:
        """When the last entry before `seq` was written.  Raises LogError where the file begins with an entry that does not say it."""
        before = self._index(seq) - 1
        known = before
        while known >= 0 and isinstance(record := self._records[known], Raw) and not record.states_day:
            known -= 1
        if known < 0:
            raise LogError(f"entry {seq} does not state day and time, and none before it does")
        for index in range(known, before):  # each leans on the one before: not by recursion, which has a limit
            self._entry(index)
        return self._entry(before).time

    def _index(self, seq: int) -> int:
        """Where entry `seq` stands among the records; below 0 if it was not read."""
        return seq - 1 - self.last_seq + len(self._records)


class WritersLog(Log):
    """The log as the writing process knows it: the writer adds what it wrote, and the files are not read again."""

    def load(self, data: bytes) -> None:
        """The older files, and `data` as the newest.  Raises LogDamaged."""
        self._follow(data)

    def add(self, entries: list[Entry], place: Place) -> None:
        self._records += entries
        self.place = place

    def read(self) -> None:
        """Does nothing: the writer calls `add`."""


def with_sealed_text(entry: Entry, raw: Raw) -> Entry:
    """A note's seal gets the text that it covers as its body: what the person typed."""
    match entry.event:
        case Seal(why="note") as seal:
            typed = seal.model_copy(update={"body": unescape(raw.gap, raw.form).decode("utf-8", "replace").strip("\n")})
            return Entry(entry.seq, entry.author, entry.time, typed, entry.chain, entry.via)
        case _:
            return entry


def log_time(now: float, last: float, wal: os.stat_result | None) -> float:
    """The clock; if it was set back behind the last entry, that entry's time plus the time since it was written.

    So a dead holder's lease ends after its seconds, not when the clock has caught up again.
    """
    return now if last <= now else last + max(0.0, now - wal.st_mtime if wal else 0.0)


def chain_at(record: Raw | Entry) -> str:
    return record.chain.decode() if isinstance(record, Raw) else record.chain


def unchanged(now: os.stat_result, before: os.stat_result) -> bool:
    return (now.st_ino, now.st_size, now.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
