"""Everyone's end of the bus but the coordinator's: send, request, receive, subscribe, from any thread. Owns no socket itself.

A worker that loses its hub works on: what it sends waits in the outbox (on disk with `spool`) and goes out, once, when a hub is back
on the endpoint. Never use a peer in a forked child: 0MQ is not fork-safe (zguide ch. 2); spawn instead.
"""

import itertools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from bus.courier import Courier
from bus.envelope import Envelope, check_type
from bus.errors import BusError
from bus.keys import Join
from bus.mailbox import Counters, Mailbox, Waiter
from bus.outbox import LaneLimits


class Peer:
    """See the module."""

    def __init__(
        self, join: Join, *, spool: Path | None = None, heartbeat: Callable[[], str] = lambda: "", heartbeat_seconds: float = 1.0,
        subscribe: Sequence[str] = (), telemetry: LaneLimits | None = None, control: LaneLimits | None = None,
    ) -> None:  # fmt: skip
        """`spool`: a file of this peer alone; messages that an earlier process left in it are sent first. `heartbeat` runs on the
        bus thread and must be quick. `subscribe`: topics, "*" for all. Raises BusError if the spool cannot be used.
        """
        self.join = join
        self._mail = Mailbox(spool, telemetry, control)
        self._courier = Courier(join, self._mail, heartbeat, heartbeat_seconds, subscribe)
        self._mail.wake = self._courier.wake
        self._requests = itertools.count(1)
        self._process = os.getpid()

    def start(self) -> Self:
        """Connect in the background; never blocks and never fails for want of a hub."""
        self._courier.start()
        return self

    def close(self, *, flush_seconds: float = 2.0) -> bool:
        """Wait for acknowledgements, then part. True: everything sent is durable at the hub. What is not stays in the spool."""
        if self._mail.is_closed:
            return not len(self._mail.outbox)
        done = self._mail.flush(flush_seconds) if self._courier.is_alive() else not len(self._mail.outbox)
        self._mail.is_closed = True
        self._courier.stop(flush_seconds + 5.0)
        self._mail.close()
        return done

    def send(self, type: str, body: str, *, control: bool = True) -> int:  # noqa: A002
        """Queue a message and return its number in its lane; never blocks.

        Control is never dropped; telemetry (`control=False`) drops its oldest when its lane is full, and counts it. Raises
        OutboxFull if control messages cannot be held any more, ProtocolError for a body over 1 MiB, BusError after `close`.
        """
        return self._post(Envelope(check_type(type), body, time_ms=_now_ms()), control=control)

    def request(self, type: str, body: str, *, timeout_seconds: float = 10.0) -> Envelope:  # noqa: A002
        """Ask the hub and wait for its answer; other messages go to their queues meanwhile.

        Raises Refused if the hub says no, NotAllowed if it does not admit or allow us, TimeoutError without an answer: its text says
        whether the request was taken back or may still be carried out.
        """
        correlation = f"{self._mail.incarnation}:{next(self._requests)}"
        waiter = self._mail.waiters[correlation] = Waiter()
        try:
            seq = self._post(Envelope(check_type(type), body, time_ms=_now_ms(), correlation=correlation), control=True)
            if not waiter.done.wait(timeout_seconds):
                raise TimeoutError(self._timeout_words(type, seq, timeout_seconds))
        finally:
            del self._mail.waiters[correlation]
        if isinstance(waiter.result, Envelope):
            return waiter.result
        raise waiter.result or BusError(f"{type}: no result")

    def receive(self, timeout_seconds: float | None = None) -> Envelope | None:
        """The next message that the hub sent to this member, in order; None after the time. Without a time it waits for one."""
        return self._mail.take(self._mail.commands, timeout_seconds)

    def published(self, timeout_seconds: float | None = None) -> Envelope | None:
        """The next message of a subscribed topic (in `type`). `seq` is contiguous per hub, `after` counts the topic's earlier ones:
        a jump in `after`, or another `incarnation`, means that something was missed and a snapshot is due.
        """
        return self._mail.take(self._mail.published, timeout_seconds)

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until everything sent is acknowledged; False if it is not in time."""
        return self._mail.flush(timeout_seconds)

    def wait_connected(self, timeout_seconds: float) -> bool:
        """Wait until a hub has welcomed us; False if none has in time (`trouble` says why)."""
        with self._mail.changed:
            self._mail.changed.wait_for(
                lambda: self._courier.is_ready or self._mail.failure is not None, timeout_seconds
            )
            return self._courier.is_ready

    @property
    def connected(self) -> bool:
        """Whether a hub has welcomed the present connection."""
        return self._courier.is_ready

    @property
    def trouble(self) -> str:
        """Why there is no connection, in words; "" while there is one."""
        return self._mail.trouble

    @property
    def silent_seconds(self) -> float:
        """Since the hub was last heard; it answers every heartbeat. Counts from the start if it was never heard."""
        return time.monotonic() - self._courier.heard_seconds

    @property
    def hub(self) -> str:
        """The incarnation of the hub that welcomed us last; "" before the first. Another one is another process, which knows nothing."""
        return "" if self._courier.hub_incarnation == "-" else self._courier.hub_incarnation

    @property
    def incarnation(self) -> str:
        """Of this process: its control messages carry it, its telemetry this with `.t`."""
        return self._mail.incarnation

    @property
    def counters(self) -> Counters:
        """What has happened so far."""
        return self._mail.count()

    def _post(self, envelope: Envelope, *, control: bool) -> int:
        if os.getpid() != self._process:
            raise BusError("a peer cannot be used in a forked process; start a new one")
        return self._mail.post(envelope, control=control)

    def _timeout_words(self, type_: str, seq: int, timeout_seconds: float) -> str:
        state = "it was taken back" if self._mail.withdraw(seq) else "the hub has it and may still carry it out"
        trouble = f" ({self.trouble})" if self.trouble else ""
        return f"{type_}: no answer within {timeout_seconds:g} s{trouble}; {state}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
