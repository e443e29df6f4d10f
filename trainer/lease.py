"""A lease in the hands of a worker: the ref and token under which it reports, and the orders that it follows at its next boundary.

The listening thread writes orders, the working thread reads them; the coordinator refuses whatever comes under a token that is over,
so nothing here has to be faster than a step.  Figures leave by a third thread, since they come with every step.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Literal

from swarm.event import Event
from swarm.messages import Held, Message, MetricRow, Metrics, Order, Report, What
from trainer.errors import LeaseRevoked, LeaseStopped

Send = Callable[[Message, bool], None]
"""Give a message to the bus; the flag says whether it is a fact (kept and resent) or telemetry (may be dropped)."""

METRICS_SECONDS = 0.25
"""How often figures are sent; rows that come faster share one table."""
IDLE_SECONDS = 10.0
"""The thread that sends them ends after this long without a row, and starts again with the next one."""


class Lease:
    def __init__(self, ref: str, token: int, send: Send) -> None:
        self.ref, self.token = ref, token
        self.stream = ref.partition("/")[0]
        self.step: int | None = None
        self.state: Literal["waiting", "working", "paused", "over"] = "waiting"
        self.began: float | None = None
        """Monotonic time at which work on it began; a training sets it again when its first step begins."""
        self.paused_seconds = 0.0
        self.memory: tuple[int, int] | None = None
        """Bytes of a training beside what its group shares, kept from step to step and passing within one; None before they are measured."""
        self.is_to_be_measured = False
        """Somebody waits to know that: on a CPU measuring costs seconds."""
        self._paused_at: float | None = None
        self._send = send
        self._order: What = "resume"
        self.why = ""
        """Why it was stopped."""
        self._changed = threading.Condition()
        self._rows: deque[MetricRow] = deque()
        self._steps = 0
        self._sender: threading.Thread | None = None
        self._sending = threading.Lock()

    # ---- the worker's side ----

    def begin(self) -> bool:
        """Work on it begins; False if it is over already."""
        with self._changed:
            if self.state != "waiting":
                return False
            self.state, self.began = "working", time.monotonic()
            return True

    def withdraw(self) -> bool:
        """It is over before it was begun; False if somebody works on it."""
        with self._changed:
            waits = self.state == "waiting"
            self.state = "over" if waits else self.state
            return waits

    def put_back(self) -> None:
        """It waits again, for another way to do it."""
        self.state = "waiting"

    def take(self, order: Order) -> None:
        if order.what == "hand":
            self.token = max(self.token, order.token)  # an older order may arrive late
        elif order.what == "measure":
            self.is_to_be_measured = True
        else:
            self._set(order.what, "stopped")

    def stop(self, why: str) -> None:
        self._set("stop", why)

    def _set(self, what: What, why: str) -> None:
        with self._changed:
            if self._order == "revoke" or (self._order == "stop" and what != "revoke"):
                return  # neither is ever taken back
            self._order, self.why = what, why
            self._changed.notify_all()

    # ---- the holder's side ----

    @property
    def revoked(self) -> bool:
        return self._order == "revoke"

    @property
    def stopped(self) -> bool:
        return self._order == "stop"

    @property
    def paused(self) -> bool:
        return self._order == "pause"

    @property
    def order(self) -> What:
        """The newest that holds."""
        return self._order

    @property
    def worked_seconds(self) -> float:
        """Seconds of work on it, pauses left out."""
        if self.began is None:
            return 0.0
        until = self._paused_at if self._paused_at is not None else time.monotonic()
        return until - self.began - self.paused_seconds

    def check(self) -> None:
        """Raises when the lease is over; roles call it between rows and batches."""
        if self.revoked:
            raise LeaseRevoked(self.ref)
        if self.stopped:
            raise LeaseStopped(self.why)

    def progress(self) -> None:
        """A row or batch is done: the watermark moves.  Raises like `check`."""
        self.step = (self.step or 0) + 1
        self.check()

    def suspend(self) -> None:
        """Work on it rests, as it was ordered, until `go_on`."""
        self.flush_metrics()
        self.state, self._paused_at = "paused", time.monotonic()

    def go_on(self) -> None:
        assert self._paused_at is not None
        paused_at, self._paused_at, self.state = self._paused_at, None, "working"
        self.paused_seconds += time.monotonic() - paused_at

    def boundary(self, step: int) -> What:
        """Between two steps of a holder that has nothing else to do: note the watermark, wait while paused, say the order."""
        self.step = step
        if self._order == "pause":
            self.suspend()
            self.wait_while_paused()
            self.go_on()
        return self._order

    def wait_while_paused(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._order != "pause")

    def report(self, event: Event) -> None:
        """Report a fact under the token that holds now; under a lease that was revoked nothing is reported."""
        if not self.revoked:
            ours = {"tok": self.token, "worked": round(self.worked_seconds, 1)}
            fields = {name: value for name, value in ours.items() if name in type(event).model_fields}
            self._send(Report.of(event.model_copy(update=fields)), True)

    def figures(self, row: MetricRow, steps: int) -> None:
        """Keep a step's figures.  Another thread writes them out and sends them: the one that trains has no time for that."""
        self._steps = steps
        self._rows.append(row)
        if self._sender is None:
            self._sender = threading.Thread(target=self._send_figures, name="figures", daemon=True)
            self._sender.start()

    def _send_figures(self) -> None:
        idle_seconds = 0.0
        while idle_seconds < IDLE_SECONDS:
            time.sleep(METRICS_SECONDS)
            idle_seconds = 0.0 if self.flush_metrics() else idle_seconds + METRICS_SECONDS
        self._sender = None
        self.flush_metrics()  # a row that came just before that line

    def flush_metrics(self) -> bool:
        """Send the rows that are there now; returns when they are sent, whoever sends them.  False if there are none."""
        with self._sending:
            rows = [self._rows.popleft() for _ in range(len(self._rows))]
            if rows:
                self._send(Metrics.of(self.stream, self.token, self._steps, rows), False)
        return bool(rows)

    def held(self) -> Held:
        """What a heartbeat says of it."""
        state = self.state if self.state in {"working", "paused"} else "paused" if self.paused else "waiting"
        worked = round(self.worked_seconds, 1)
        kept, passing = self.memory or (None, None)
        return Held(
            ref=self.ref, token=self.token, state=state, step=self.step, worked=worked, kept_bytes=kept,
            passing_bytes=passing,
        )  # fmt: skip
