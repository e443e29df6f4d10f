"""The client end of the bus: send, request, receive and subscribe, from any thread. A thread of its own owns the sockets.

A worker that loses the hub goes on: its messages wait in the outbox (on disk with `spool`) and are delivered once when a hub is back
on the endpoint. Never use a peer in a forked child: 0MQ is not fork-safe (zguide ch. 2); spawn instead.
"""

import itertools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from bus.connection import ConnectionThread
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
        """`spool`: a file used by this peer alone; messages that an earlier process left in it are sent first. `heartbeat` runs on the
        bus thread and must be fast. `subscribe`: topics, "*" for all. Raises BusError if the spool cannot be used.
        """
        self.join = join
        self._mail = Mailbox(spool, telemetry, control)
        self._connection = ConnectionThread(join, self._mail, heartbeat, heartbeat_seconds, subscribe)
        self._mail.wake = self._connection.wake
        self._requests = itertools.count(1)
        self._process = os.getpid()

    def start(self) -> Self:
        """Connect in the background. Never blocks, and never fails because no hub is running."""
        self._connection.start()
        return self

    def close(self, *, flush_seconds: float = 2.0) -> bool:
        """Wait for acknowledgements, then disconnect. True: everything sent is durable at the hub. The rest stays in the spool."""
        if self._mail.is_closed:
            return not len(self._mail.outbox)
        done = self._mail.flush(flush_seconds) if self._connection.is_alive() else not len(self._mail.outbox)
        self._mail.is_closed = True
        self._connection.stop(flush_seconds + 5.0)
        self._mail.close()
        return done

    def send(self, type: str, body: str, *, control: bool = True) -> int:  # noqa: A002
        """Queue a message and return its number in its lane; never blocks.

        Control messages are never dropped. A full telemetry lane (`control=False`) drops and counts its oldest. Raises OutboxFull if
        the control lane is full, ProtocolError for a body over 1 MiB, BusError after `close`.
        """
        return self._post(Envelope(check_type(type), body, time_ms=_now_ms()), control=control)

    def request(self, type: str, body: str, *, timeout_seconds: float = 10.0, correlation: str = "") -> Envelope:  # noqa: A002
        """Send a request to the hub and wait for its answer; other messages go to their queues meanwhile.

        `correlation`: an id of the caller's own, by which it knows the request again; no two may wait with the same.

        Raises Refused if the hub refuses, NotAllowed if our key or role may not ask, TimeoutError without an answer: its text says
        whether the request was withdrawn or may still be carried out.
        """
        correlation = correlation or f"{self._mail.incarnation}:{next(self._requests)}"
        waiter = self._mail.waiters[correlation] = Waiter()
        try:
            seq = self._post(Envelope(check_type(type), body, time_ms=_now_ms(), correlation=correlation), control=True)
            if not waiter.done.wait(timeout_seconds):
                raise TimeoutError(self._describe_timeout(type, seq, timeout_seconds))
        finally:
            del self._mail.waiters[correlation]
        if isinstance(waiter.result, Envelope):
            return waiter.result
        raise waiter.result or BusError(f"{type}: no result")

    def receive(self, timeout_seconds: float | None = None) -> Envelope | None:
        """The next message from the hub to this member, in order; None after the timeout. Without a timeout it waits."""
        return self._mail.take(self._mail.commands, timeout_seconds)

    def published(self, timeout_seconds: float | None = None) -> Envelope | None:
        """The next message of a subscribed topic (in `type`). `seq` is contiguous per hub, `after` counts the topic's earlier messages:
        a jump in `after`, or another `incarnation`, means that messages were missed and a new snapshot is needed.
        """
        return self._mail.take(self._mail.published, timeout_seconds)

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until everything sent is acknowledged; False after the timeout."""
        return self._mail.flush(timeout_seconds)

    def wait_connected(self, timeout_seconds: float) -> bool:
        """Wait until a hub has accepted this connection; False after the timeout (`disconnect_reason` says why)."""
        with self._mail.changed:
            self._mail.changed.wait_for(
                lambda: self._connection.is_ready or self._mail.failure is not None, timeout_seconds
            )
            return self._connection.is_ready

    @property
    def connected(self) -> bool:
        """Whether a hub has accepted the present connection."""
        return self._connection.is_ready

    @property
    def disconnect_reason(self) -> str:
        """Why there is no connection; "" while there is one."""
        return self._mail.disconnect_reason

    @property
    def silent_seconds(self) -> float:
        """Seconds since the last message of the hub, which answers every heartbeat; since the start if there was none."""
        return time.monotonic() - self._connection.heard_seconds

    @property
    def hub(self) -> str:
        """Incarnation of the hub that accepted us last; "" before the first. A new one is a new process without our earlier state."""
        return "" if self._connection.hub_incarnation == "-" else self._connection.hub_incarnation

    @property
    def incarnation(self) -> str:
        """Identifies this process: the name of its control lane; its telemetry lane adds `.t`."""
        return self._mail.incarnation

    @property
    def counters(self) -> Counters:
        """Counters since this peer was made."""
        return self._mail.count()

    def _post(self, envelope: Envelope, *, control: bool) -> int:
        if os.getpid() != self._process:
            raise BusError("a peer cannot be used in a forked process; start a new one")
        return self._mail.post(envelope, control=control)

    def _describe_timeout(self, type_: str, seq: int, timeout_seconds: float) -> str:
        state = "it was withdrawn" if self._mail.withdraw(seq) else "the hub has it and may still carry it out"
        disconnect_reason = f" ({self.disconnect_reason})" if self.disconnect_reason else ""
        return f"{type_}: no answer within {timeout_seconds:g} s{disconnect_reason}; {state}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
