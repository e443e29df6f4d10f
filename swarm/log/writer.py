"""The one writer of the log: entries are durable when `append` returns, whatever is killed and whoever edits the file.

A group of entries goes to the write-ahead file with one write and one fdatasync, then to COLLABORATION.md with one
write; callers that arrive while a group is being synced form the next one.  The size of the Markdown file is compared before
each group, its bytes once a second; if somebody else changed the file, it is mended first and a `seal` entry records what was
done (`ledger.py`).

Whether an entry is admissible is decided before it comes here (`swarm/policy/admission.py`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from swarm.event import Event
from swarm.files import stat_or_none
from swarm.log.draft import Draft
from swarm.log.entry import Entry
from swarm.log.errors import LogBlocked, LogDamaged, LogError, LogFull
from swarm.log.ledger import Ledger
from swarm.log.lock import BRIEFLY, Lock, holder_of, is_held
from swarm.log.reader import WritersLog, log_time
from swarm.plainfiles import NO_SPACE, NotPlain, may_pass
from swarm.rundir import LogFiles

ROTATE_BYTES = 1 << 20
HEAD_EVERY = 256
"""Entries between signed heads."""


class Ticket:
    """One caller's entries on their way through a group commit."""

    def __init__(self, items: Sequence[tuple[str, Event]], via: str | None) -> None:
        self.items, self.via = items, via
        self.entries: list[Entry] = []
        self.error: BaseException | None = None
        self.settled = self.leads = False
        """Its entries are written, or refused; its caller is the one to write the next group."""
        self._woken = threading.Lock()
        self._woken.acquire()

    def wait(self) -> None:
        """Until it is settled or leads."""
        self._woken.acquire()

    def wake(self) -> None:
        """Harmless if it was woken before, as when an interrupt comes in the middle of it."""
        if self._woken.locked():
            self._woken.release()


class LogWriter:
    """Holds the log's lock from `open` to `close`; a context manager; `append` may be called from any thread."""

    def __init__(
        self, files: LogFiles, lock: Lock, secret: bytes | None, clock: Callable[[], float], head_every: int
    ) -> None:
        """Use `open`."""
        self.log = WritersLog(files.path)
        """All entries; its `refresh` also returns the seals and heads that the writer added by itself."""
        self.rotate_bytes = ROTATE_BYTES
        self._files, self._lock, self._secret, self._clock = files, lock, secret, clock
        self._head_every, self._head_seq, self._time = head_every, 0, 0.0
        self._ahead = 0.0
        """Seconds by which the log is ahead of a clock that was set back."""
        self._turn = threading.Lock()
        self._waiting: list[Ticket] = []
        self._busy = False
        self._broken: BaseException | None = None
        self._ledger = Ledger(files, self.log, secret, self.now)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        wait_seconds: float = 0.0,
        secret: bytes | None = None,
        clock: Callable[[], float] = time.time,
        rotate_bytes: int = ROTATE_BYTES,
        head_every: int = HEAD_EVERY,
        brief: bool = False,
    ) -> Self:
        """The writer of the log at `path`, which is mended first.  Raises LogHeld, LogFull and LogDamaged.

        `brief`: for one append; `run_is_alive` does not count such a writer as a coordinator.
        """
        files = LogFiles(path)
        with refusing(path), ExitStack() as undo:
            lock = Lock(path, files.lock, wait_seconds, brief=brief)
            undo.callback(lock.release)
            now, written = clock(), stat_or_none(files.wal)
            writer = cls(files, lock, secret, clock, head_every)
            undo.callback(writer._ledger.close)
            writer.rotate_bytes = rotate_bytes
            writer._ledger.recover()
            writer._ahead = log_time(now, writer.log.last_time, written) - now
            undo.pop_all()
        return writer

    def append(self, items: Sequence[tuple[str, Event]], via: str | None = None) -> list[Entry]:
        """Records (author, event) pairs, all or none, and returns their entries when they are durable.

        Without items it only checks and mends the Markdown file (call it regularly while nothing happens).  Raises LogFull when
        there is no space (append again later), LogError for what cannot be an entry, LogDamaged when the log's folder
        was removed.
        """
        ticket = Ticket(items, via)
        group: list[Ticket] = []
        try:
            with self._turn:
                self._waiting.append(ticket)
                if not self._busy:
                    ticket.leads = self._busy = True
            if not ticket.leads:
                ticket.wait()
            if not ticket.settled:
                with self._turn:
                    group, self._waiting = self._waiting, []
                self._commit(group)
        except BaseException:  # an interrupt concerns this thread only
            self._leave(ticket, group)
            raise
        if ticket.error:
            raise ticket.error
        return ticket.entries

    def _commit(self, group: list[Ticket]) -> None:
        """Writes the entries of all waiting callers, in the order of arrival; callers that arrive meanwhile form the next group."""
        refused: Exception | None = None
        try:
            with self._refusing():
                self._lock.check()
                self._ledger.look_after()
                self._rotate_when_full()
                self._write(group)
        except Exception as failed:
            refused = failed
        self._settle(group, refused)

    def _settle(self, group: list[Ticket], refused: Exception | None) -> None:
        with self._turn:
            for ticket in group:
                ticket.error = ticket.error or refused
                ticket.settled = True
                ticket.wake()
            self._waiting = [ticket for ticket in self._waiting if not ticket.settled]
            self._pass_on()

    def _pass_on(self) -> None:
        """The first of those that wait writes the next group; only this one is woken.  Call it with `_turn` held."""
        self._busy = bool(self._waiting)
        if self._waiting:
            self._waiting[0].leads = True
            self._waiting[0].wake()

    def _leave(self, ticket: Ticket, group: list[Ticket]) -> None:
        """For a caller that was interrupted: its waiting entries are withdrawn; the group that it was writing fails as a whole."""
        if group:
            self._settle(group, LogError(f"{self._files.path}: the writer was interrupted; open the log again"))
            return
        with self._turn:
            self._waiting = [other for other in self._waiting if other is not ticket]
            if ticket.leads and not ticket.settled:
                self._pass_on()

    def _write(self, tickets: list[Ticket]) -> None:
        draft = self._ledger.draft()
        for ticket in tickets:
            try:
                ticket.entries = draft.add_all(ticket.items, ticket.via, self._sign)
            except LogError as bad:
                ticket.error = bad
        self._sign(draft)
        if draft.entries:
            self._ledger.write(draft)

    def _sign(self, draft: Draft) -> None:
        """Adds a signed head when the last one is `head_every` entries back."""
        if self._secret and draft.place.seq - max(self._head_seq, draft.head_seq) >= self._head_every:
            self._head_seq = self.log.last_of("head")
            if draft.place.seq - max(self._head_seq, draft.head_seq) >= self._head_every:
                draft.head(self._secret)

    def _rotate_when_full(self) -> None:
        if self._ledger.size_bytes < self.rotate_bytes:
            return
        try:
            self._ledger.rotate()
        except OSError as full:
            if full.errno not in NO_SPACE:
                raise
            # a file above the limit can still be appended to; a rotation that was cut short is finished first, or refuses
            self._ledger.look_after()

    def now(self) -> float:
        """The log's time: the clock, never earlier than the last entry, and going on from there (see `Log.now`)."""
        self._time = max(self._clock() + self._ahead, self._time, self.log.last_time)
        return self._time

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """A full disk fails one group; after any other failure in the middle of writing this writer refuses everything."""
        if self._broken:
            raise LogDamaged(self._files.path, f"writing failed before; open the log again ({self._broken})")
        try:
            with refusing(self._files.path):
                yield
        except LogDamaged as damage:
            self._broken = damage
            raise
        except LogError:
            raise
        except OSError as failed:
            self._broken = failed
            raise LogError(f"{self._files.path}: cannot write: {failed}") from failed
        except BaseException as failed:
            self._broken = failed
            raise

    def close(self) -> None:
        """Releases the lock; everything that was acknowledged is on disk already."""
        try:
            self._ledger.close()
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Raises LogFull where the file system has no space, LogBlocked where a file of the log cannot be opened now."""
    try:
        yield
    except NotPlain as refused:
        raise LogBlocked(str(refused)) from refused
    except OSError as failed:
        if isinstance(failed, LogFull) or not may_pass(failed):
            raise
        if failed.errno in NO_SPACE:
            raise LogFull(path, failed) from failed
        fix = "end what holds so many, or raise the limit (`ulimit -n`)"
        raise LogBlocked(f"{path}: {failed.strerror}, nothing was written; {fix}") from failed


def run_is_alive(path: Path) -> bool:
    """True while somebody holds the log at `path` for more than one append: the test of whether a coordinator runs."""
    lock = LogFiles(path).lock
    return is_held(lock) and not holder_of(lock).startswith(BRIEFLY)
