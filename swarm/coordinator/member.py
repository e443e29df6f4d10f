"""One worker as the coordinator knows it now: its process, its link, and what it last reported of itself."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from bus.hub import Link
from bus.liveness import Signals, StopStep
from swarm.launch.child import Child
from swarm.launch.layout import WorkerSpec
from swarm.messages import Heartbeat, Held, Ready


@dataclass(slots=True)
class Ordered:
    """The newest order about one lease."""

    what: str
    first: float
    """Monotonic time at which it was first sent."""
    last: float


@dataclass(slots=True)
class Member:
    """One worker, across its restarts."""

    spec: WorkerSpec
    child: Child | None = None
    threads: int = 0
    """Of its process."""
    state: Literal["starting", "importing", "ready", "leaving", "gone", "parked"] = "gone"
    deaths: list[float] = field(default_factory=list)
    """Monotonic times."""
    start_at: float = 0.0
    since: float = 0.0
    """When its process was started or adopted; silence counts from there."""
    unreached_at: float = 0.0
    """When it was found without a connection; it gets no assignment until it has been heard after that."""
    why: str = ""
    link: Link | None = None
    beat: Heartbeat | None = None
    beat_text: str | None = None
    """The text of the newest heartbeat that was read, or tried to be; None after a hello, which says the same."""
    ready: Ready | None = None
    orders: dict[int, Ordered] = field(default_factory=dict)
    """By the token of the lease."""
    strays: list[Held] = field(default_factory=list)
    """Leases that its hello listed and that are over; its heartbeats say when it has ended them."""
    watermark: tuple[tuple[tuple[str, int | None], ...], float] = ((), 0.0)
    """The step of each task that it works on, and when one last moved."""
    heard: bool = True
    """Whether the process has sent its hello since it was started or adopted; until then earlier reports may still arrive."""
    leaving_since: float | None = None
    """When it was dismissed or said that it leaves."""
    stalled: bool = False
    """Whether it made no progress when it was last looked at."""
    stop_step: StopStep = "ask"
    """How far the stop has been escalated."""

    def silent_seconds(self, awake_since: float) -> float:
        """Since it was last heard; what passed before `awake_since` is nobody's fault."""
        heard = max(self.since, awake_since, self.link.last_heard if self.link else 0.0)
        return time.monotonic() - heard if self.child else 0.0

    @property
    def seen_as(self) -> Literal["starting", "importing", "ready", "gone", "parked"]:
        """The state as decisions see it: a process that died before its hello counts as starting, since the next one sends its reports."""
        if self.state == "gone" and not self.heard:
            return "starting"
        if self.state == "ready" and self.unreached_at:
            return "importing"
        return "gone" if self.state == "leaving" else self.state

    @property
    def holds(self) -> tuple[Held, ...]:
        return tuple(self.beat.holds) if self.beat else ()

    @property
    def stop_since(self) -> float | None:
        """When the oldest request to stop or leave that it has not followed was made."""
        asked = [order.first for order in self.orders.values() if order.what in {"stop", "revoke"}]
        return min([*asked, *([] if self.leaving_since is None else [self.leaving_since])], default=None)

    def signals(self, awake_since: float) -> Signals:
        """What `bus.liveness` judges: exit, link and progress."""
        now = time.monotonic()
        steps = any(held.state == "working" and held.step is not None for held in self.holds)
        return Signals(
            exit_code=None,
            age_seconds=now - self.since,
            silent_seconds=self.silent_seconds(awake_since)
            if self.link and self.link.last_heard > self.since
            else None,
            no_progress_seconds=now - max(self.watermark[1], awake_since) if steps else None,
        )
