"""The state that a peer's caller and its thread share: outbox and spool, received messages, open requests, counters. No sockets."""

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bus.envelope import Envelope
from bus.errors import BusError
from bus.outbox import Lane, LaneLimits, Outbox
from bus.spool import Spool

ARRIVED_COUNT = 20_000
"""Published messages kept for a caller that does not read; the oldest is dropped first, and `after` shows the gap."""


@dataclass
class Counters:
    """Counters since this peer was made."""

    sent: int = 0
    """Messages accepted by `send` and `request`."""
    acknowledged: int = 0
    dropped: int = 0
    """Telemetry messages dropped because the outbox was full."""
    replayed: int = 0
    """Messages sent again after a reconnection."""
    reconnects: int = 0
    missed: int = 0
    """Published messages that did not arrive, or were dropped before they were read."""
    refused: int = 0
    """Messages that the hub refused because of our role."""
    spool_failures: int = 0
    """Messages that could not be written to disk and are in memory only."""


@dataclass
class Waiter:
    """One open request."""

    done: threading.Event = field(default_factory=threading.Event)
    result: Envelope | BusError | None = None


class Mailbox:
    """See the module; every method may be called from any thread."""

    def __init__(self, spool_path: Path | None, telemetry: LaneLimits | None, control: LaneLimits | None) -> None:
        self.incarnation = secrets.token_hex(8)
        self.counters = Counters()
        self.changed = threading.Condition()
        """Notified on every arrival, acknowledgement and failure; its lock is the mailbox's."""
        self.failure: BaseException | None = None
        """The exception that ended the thread, if any."""
        self.disconnect_reason = "not connected yet"
        """Why there is no connection now; "" while there is one."""
        self.is_closed = False
        self.wake: Callable[[], None] = lambda: None
        self.commands: deque[Envelope] = deque()
        self.published: deque[Envelope] = deque()
        self.waiters: dict[str, Waiter] = {}
        self.outbox = Outbox(self.incarnation, control=control or LaneLimits(), telemetry=telemetry or LaneLimits())
        self._spool = Spool(spool_path) if spool_path is not None else None
        self._rewritten_seconds = 0.0
        if self._spool is not None:
            acknowledged, left = self._spool.load()
            for data in left:
                self.outbox.inherit(data, acknowledged)

    def post(self, envelope: Envelope, *, control: bool) -> int:
        """Number, queue and spool a message; returns the number. Raises OutboxFull, ProtocolError, or BusError if the thread has ended."""
        lane = self.outbox.control if control else self.outbox.telemetry
        with self.changed:
            self.check()
            seq, data = lane.add(envelope)
            self.counters.sent += 1
            if self._spool is not None:
                self._spool.append(data)
            self.wake()
        return seq

    def check(self) -> None:
        """Raise BusError if the peer is closed or its thread has ended: nothing would be sent any more."""
        if self.is_closed:
            raise BusError("the peer is closed")
        if self.failure is not None:
            raise BusError(f"the bus thread has ended: {self.failure!r}") from self.failure

    def acknowledge(self, incarnation: str, seq: int) -> None:
        """The hub acknowledged this lane up to `seq`."""
        with self.changed:
            before = len(self.outbox)
            self.outbox.acknowledge(incarnation, seq)
            self.counters.acknowledged += before - len(self.outbox)
            if self._spool is not None and len(self.outbox) < before:
                self._spool.acknowledge(incarnation, seq, left=len(self.outbox))
                if self.outbox.lane(incarnation) is None:
                    self._spool.forget(incarnation)
            self.changed.notify_all()

    def resume(self, incarnation: str, settled: int, taken: int) -> None:
        """After a reconnection: the hub has settled this lane up to `settled` and received it up to `taken`."""
        self.acknowledge(incarnation, settled)
        with self.changed:
            lane = self.outbox.lane(incarnation)
            if lane is not None:
                lane.rewind(taken)
                lane.skip_to(taken)

    def rewind(self, incarnation: str, taken: int) -> None:
        """The hub asks to send everything after `taken` again."""
        with self.changed:
            lane = self.outbox.lane(incarnation)
            if lane is not None:
                lane.rewind(taken)

    def send_with(self, send: Callable[[bytes], bool], count: int) -> bool:
        """Pass messages to `send` under the lock; `send` must not block."""
        with self.changed:
            return self.outbox.send_with(send, count)

    def withdraw(self, seq: int) -> bool:
        """Remove a control message that the hub cannot have; False if the hub may have it."""
        with self.changed:
            if not self.outbox.control.withdraw(seq):
                return False
            if self._spool is not None:
                self._spool.rewrite(self._pending())
            self.changed.notify_all()
            return True

    def tidy(self) -> None:
        """Rewrite the spool if it is damaged or mostly acknowledged, at most once a second."""
        if self._spool is None or time.monotonic() - self._rewritten_seconds < 1.0:
            return
        with self.changed:
            if self._spool.wants_rewrite(self.outbox.size_bytes):
                self._rewritten_seconds = time.monotonic()
                self._spool.rewrite(self._pending())

    def lanes(self) -> list[Lane]:
        """The lanes, oldest first."""
        with self.changed:
            return self.outbox.lanes()

    def count(self) -> Counters:
        """The counters, including those of the lanes."""
        with self.changed:
            lanes = self.outbox.lanes()
            self.counters.dropped = sum(lane.dropped for lane in lanes)
            self.counters.replayed = sum(lane.replayed for lane in lanes)
            self.counters.spool_failures = self._spool.failures if self._spool is not None else 0
            return self.counters

    def arrive(self, queue: deque[Envelope], envelope: Envelope) -> None:
        """Put a received message into its queue."""
        with self.changed:
            if queue is self.published and len(queue) >= ARRIVED_COUNT:
                queue.popleft()
                self.counters.missed += 1
            queue.append(envelope)
            self.changed.notify_all()

    def take(self, queue: deque[Envelope], timeout_seconds: float | None) -> Envelope | None:
        """The oldest message of a queue, or None after the timeout; waits without one. Raises BusError if the thread has ended."""
        with self.changed:
            self.changed.wait_for(lambda: queue or self.failure is not None or self.is_closed, timeout_seconds)
            if queue:
                return queue.popleft()
            self.check()
            return None

    def settle(self, correlation: str, result: Envelope | BusError) -> bool:
        """Give a request its result; False if no caller waits for it (any more)."""
        waiter = self.waiters.get(correlation)
        if waiter is None:
            return False
        waiter.result = result
        waiter.done.set()
        return True

    def fail_all(self, error: BusError) -> None:
        """End every open request with this error."""
        for correlation in list(self.waiters):
            self.settle(correlation, error)

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until everything is acknowledged."""
        with self.changed:
            self.changed.wait_for(lambda: not len(self.outbox) or self.failure is not None, timeout_seconds)
            return not len(self.outbox)

    def close(self) -> None:
        """Close the spool and end every call that waits."""
        self.fail_all(BusError("the peer is closed"))
        with self.changed:
            self.changed.notify_all()
            if self._spool is not None:
                self._spool.close()
                self._spool = None

    def _pending(self) -> list[bytes]:
        return [data for lane in self.outbox.lanes() for data in lane.pending()]
