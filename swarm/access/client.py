"""Appends events to a run's log under a name: through the coordinator while one runs, otherwise directly under the log's lock.

On the bus the key identifies the author: acting as `ada` means using ada's join file, which the run's owner may create.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from swarm.errors import Refused, UserError
from swarm.event import Event
from swarm.events import Add, Expire, Extend, Hand, Promote, Propose, Yield
from swarm.log import Log, LogError, LogHeld, LogWriter, run_is_alive
from swarm.log.clock import seconds_since_boot, set_forward_seconds
from swarm.log.draft import LOG as LOG_AUTHOR
from swarm.messages import Ask, Report
from swarm.policy.admission import admit, permit, stamped
from swarm.policy.repeats import repeat_of
from swarm.rundir import RunFolder, checked_name, user_name
from swarm.state import Refusal, State, fold


class Client:
    """Appends events under one name; a context manager that closes its connection."""

    def __init__(self, folder: RunFolder, name: str | None = None) -> None:
        """Raises UserError if the name is not valid."""
        self.folder = folder
        self.name = user_name() if name is None else checked_name(name)
        self._own_key = name
        self._boot_time: float | None = None
        """Log time at which this machine started, from the coordinator's last answer."""
        self._peer: Any = None
        self._peer_lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        with self._peer_lock:
            self._disconnect()

    def _disconnect(self) -> None:
        if self._peer:
            self._peer.close(flush_seconds=0.5)
            self._peer = None

    def append(self, event: Event, *, timeout_seconds: float = 10.0) -> int:
        """Append the event and return the entry's seq once it is durable; a coordinator may start or end meanwhile.

        Raises Refused with the reason, UserError without an answer.
        """
        where = f"{event.kind} {event.ref}"
        try:
            role = self._role()
        except Refused:
            self.close()  # an invitation after a revocation has a new key
            raise
        if role == "worker":
            raise Refused(self.name, "is the name of a worker of this run", "take another name")
        sent = Sent(stamped(role, event), secrets.token_hex(4))
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                if run_is_alive(self.folder.log):
                    return self._through_coordinator(sent, where, deadline)
                return self._under_lock(sent, where)
            except _NoAnswer as no_answer:
                if (seq := recorded(self.name, sent, Log(self.folder.log))) is not None:
                    return seq
                # after the coordinator has ended, an event that is not in the log will not be recorded any more
                if time.monotonic() >= deadline + (timeout_seconds if not run_is_alive(self.folder.log) else 0.0):
                    raise UserError(where, str(no_answer), "see `swarm status`, then try again") from no_answer
                time.sleep(0.05)

    def log_time(self) -> float | None:
        """The running coordinator's time now; None if it has not answered yet.

        An upper bound: the answer is dated to the moment of the request, so that a lease is never taken for longer than it is.
        """
        if self._boot_time is None or not run_is_alive(self.folder.log):
            return None
        return self._boot_time + seconds_since_boot()

    def ask(self, what: Literal["links", "workers", "bus"], *, timeout_seconds: float = 5.0) -> Any:
        """Ask the running coordinator for what it alone knows.  Raises UserError without an answer."""
        from toon import decode

        deadline = time.monotonic() + timeout_seconds
        try:
            return decode(self._request(Ask(what=what), what, deadline))
        except _NoAnswer as no_answer:
            raise UserError(self.folder.name, str(no_answer), "this needs a running coordinator") from no_answer

    def _through_coordinator(self, sent: Sent, where: str, deadline: float) -> int:
        from toon import decode

        self._connected(deadline)  # first, so that connecting does not count as time of the answer
        asked = seconds_since_boot()
        value = decode(self._request(Ask(what="append", report=Report.of(sent.event)), where, deadline, sent.nonce))
        assert isinstance(value, dict)
        if "time" in value:  # earlier versions do not send it
            self._boot_time = float(value["time"]) - asked
        return int(value["seq"])

    def _request(self, ask: Ask, where: str, deadline: float, nonce: str = "") -> str:
        from bus.errors import BusError, NotAllowed
        from bus.errors import Refused as BusRefused

        peer = self._connected(deadline)
        left = max(0.1, deadline - time.monotonic())
        try:
            return str(peer.request(Ask.type, ask.toon(), timeout_seconds=left, correlation=nonce).body)
        except NotAllowed as refused:
            self.close()  # an invitation after a revocation has a new key
            self._role()
            raise _refused(where, refused.reason) from refused
        except BusRefused as refused:
            raise _refused(where, refused.reason) from refused
        except (BusError, TimeoutError) as error:
            self.close()
            raise _NoAnswer(f"no answer from the coordinator ({error or 'timeout'})") from error

    def _connected(self, deadline: float) -> Any:
        """A peer that a hub has accepted, so that nothing is sent to a coordinator that has ended."""
        with self._peer_lock:
            while self._peer is None or not self._peer.wait_connected(0.5):
                keys = self.folder.keys / "members.json" if self._own_key else self.folder.connect
                were_there = keys.exists()
                try:
                    self._role()
                    self._peer = self._peer or connect(self.folder, self._own_key)
                except UserError as error:
                    self._disconnect()
                    if were_there:
                        raise  # we may not use the keys
                    raise _NoAnswer("the coordinator is starting or ending") from error
                if not run_is_alive(self.folder.log):
                    raise _NoAnswer("the coordinator has ended")
                if time.monotonic() >= deadline:
                    trouble = self._peer.disconnect_reason
                    self._disconnect()  # its key may be outdated
                    raise _NoAnswer(f"no answer from the coordinator ({trouble})")
            return self._peer

    def _role(self) -> str:
        """The role of this name.  Raises Refused if it was revoked."""
        if self._own_key is None:
            return "admin"
        if not (self.folder.keys / "members.json").exists():
            return "agent"
        from swarm.access.members import role_of  # imported here because it loads the bus

        return role_of(self.folder, self._own_key)

    def _under_lock(self, sent: Sent, where: str) -> int:
        """Append without a coordinator: this process checks the same rules under the same lock."""
        event = sent.event
        if isinstance(event, Yield | Add | Propose):
            what = "that could free devices" if isinstance(event, Yield) else "and streams join a running run"
            alone = f"no coordinator is at work, {what}; `swarm resume` first"
            raise _refused(event.ref, fold(Log(self.folder.log).entries()).at_rest or alone)
        try:
            secret = self.folder.log_secret()
            with LogWriter.open(self.folder.log, wait_seconds=2.0, secret=secret, brief=True) as writer:
                if (seq := recorded(self.name, sent, writer.log)) is not None:
                    return seq
                state = fold(writer.log.entries())
                for settling in settling_leases(self.folder.log, state, writer.now):  # nobody else is there to do it
                    for entry in writer.append([(LOG_AUTHOR, settling)], via="local"):
                        state.apply(entry)
                permit(self._role(), event)
                if (known := repeat_of(state, self.name, event, writer.now())) is not None:
                    return known
                admit(state, self.name, event, writer.now())
                if isinstance(event, Hand) and (self.folder.keys / "members.json").exists():
                    self._check_hand(event)
                with self._by_the_settings(state, event) as admitted:
                    return writer.append([(self.name, admitted)], via="local")[-1].seq
        except Refusal as refusal:
            raise _refused(where, str(refusal)) from refusal
        except LogHeld as error:
            raise _NoAnswer(split_reason(str(error))[0]) from error
        except LogError as error:
            raise UserError(where, *split_reason(str(error))) from error

    def _check_hand(self, event: Hand) -> None:
        from bus.errors import BusError
        from bus.keys import Members
        from swarm.access.members import check_hand

        with contextlib.suppress(BusError):  # we may not read the list
            check_hand(Members.open(self.folder.keys), event.to)

    @contextlib.contextmanager
    def _by_the_settings(self, state: State, event: Event) -> Iterator[Event]:
        """Checks the event against the settings; within the block of a promotion its files are in place.  Raises Refusal."""
        from swarm.policy.rules import CHECKED, admit_by

        if not isinstance(event, CHECKED):
            yield event
            return
        from swarm import config
        from swarm.artifacts import publish

        settings = config.of_run(self.folder, state.added)
        admit_by(settings, state, self.name, event)
        if not isinstance(event, Promote):
            yield event
            return
        if event.ref not in settings.streams:
            raise Refusal(f"{event.ref}: {self.folder.config.name} has no such stream any more; put it back")
        try:
            with publish.promotion(self.folder, state, event, settings, self.name) as promoted:
                yield promoted
        except LogError:
            raise
        except (publish.PublishError, OSError) as error:
            raise Refusal(f"promotion of {event.ref}: {error}") from error


def _refused(where: str, reason: str) -> Refused:
    """A Refused from the text of a refusal."""
    return Refused(where.partition(" ")[0], *split_reason(reason))


def split_reason(reason: str) -> tuple[str, str]:
    """The problem and the fix of a text `problem; fix`."""
    what, _, fix = reason.partition("; ")
    return what, fix or "see `swarm log`"


@dataclass(frozen=True, slots=True)
class Sent:
    """An event that is sent until it is known to be recorded."""

    event: Event
    nonce: str
    """Stands in the entry that a coordinator makes of it (`via`), so that nobody takes another's equal entry for it."""


def recorded(author: str, sent: Sent, log: Log) -> int | None:
    """The seq of the event if a coordinator recorded it and only its answer was lost."""
    found = (entry.seq for entry in log.entries() if (entry.author, entry.via) == (author, sent.nonce))
    return next(found, None)


class _NoAnswer(Exception):
    """The event was not recorded; the caller may try the other way."""


def settling_leases(log: Path, state: State, clock: Callable[[], float]) -> Iterator[Expire | Extend]:
    """What no coordinator is there to write: that the clock was set, and the ends of leases that ran out by log time."""
    if seconds := set_forward_seconds(log, clock()):
        yield clock_was_set(seconds)
    for task in state.held():
        if task.lease and task.lease.overdue(clock()):
            yield Expire(ref=task.ref, tok=task.lease.token, why="the lease ran out", failed=False)


def clock_was_set(seconds: float) -> Extend:
    return Extend(ref="run", seconds=round(seconds, 1), why="the clock of this machine was set forward")


def connect(folder: RunFolder, name: str | None, subscribe: tuple[str, ...] = ()) -> Any:
    """A started `bus.Peer` with the key of this name; without a name, the owner's key.

    Raises UserError if the keys cannot be used.
    """
    from bus.errors import BusError
    from bus.keys import Join
    from bus.peer import Peer
    from swarm.access.members import join_file

    try:
        return Peer(Join.load(join_file(folder, name)), subscribe=subscribe).start()
    except BusError as error:
        raise UserError(
            folder.name, str(error), "only the run's owner and holders of a join file can act in it"
        ) from error
