"""What the hub stores for each member: its processes and connections, received lanes and outgoing messages. No sockets, no clock."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from bus.budget import Budget, Rate
from bus.intake import Intake
from bus.outbox import Lane, LaneLimits

KEPT_LANES = 512
"""Lanes kept per member, least recently used first out. `seen` still knows an older one if it comes back."""
KEPT_PROCESSES = 16


@dataclass(frozen=True)
class Limits:
    """Limits that the hub enforces. A correct peer stays within the window by itself; the rate stops the others."""

    connections: int = 512
    rate: Rate = field(default_factory=Rate)
    rates: Mapping[str, Rate] = field(default_factory=dict)
    """By role; the members of other roles have `rate`."""
    body_bytes: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """The longest body by role and message type; others may use the whole of a message."""
    heartbeat_bytes: int = 64 << 10
    """The longest text of a heartbeat; it is kept until the next one."""
    open_count: int = 16_384
    """Messages of one lane that the caller has not acknowledged yet."""
    outgoing: LaneLimits = field(default_factory=lambda: LaneLimits(waiting_count=4096, waiting_bytes=8 << 20))
    """Messages to one process that it has not acknowledged."""
    inbox_count: int = 100_000
    """Messages that wait for `Hub.receive`. Above this, peers are asked to send again later."""
    inbox_bytes: int = 256 << 20
    member_inbox_bytes: int = 64 << 20
    """The same for one member, so that none can fill the inbox."""
    topics: int = 1024

    def rate_of(self, role: str) -> Rate:
        return self.rates.get(role, self.rate)


@dataclass(frozen=True)
class Link:
    """The present figures of one member's connection, for displays and liveness checks."""

    name: str
    role: str
    incarnation: str
    connected: bool
    last_heard: float
    """On the clock of `time.monotonic`."""
    heartbeat: str
    """Text of the newest heartbeat."""
    received: int
    duplicates: int
    gaps: int
    """Numbers that the sender declared dropped, counted by the hub."""
    dropped: int
    """Telemetry messages that the sender reports as dropped."""
    replayed: int
    reconnects: int
    refused: int
    """Messages refused: type not allowed, malformed, over the rate."""


@dataclass
class Process:
    """One process of a member, known since its hello."""

    incarnation: str
    outgoing: Lane
    routing_id: bytes = b""
    """Identifies its connection; empty while it has none."""
    heartbeat: str = ""
    dropped: int = 0
    replayed: int = 0
    reconnects: int = 0
    acks_due: set[str] = field(default_factory=set)
    """Lanes whose acknowledgement must be sent."""


class MemberState:
    """All processes and lanes of one member."""

    def __init__(self, name: str, role: str, limits: Limits, now_seconds: float) -> None:
        self.name, self.role = name, role
        self.last_heard = now_seconds
        self.refused = 0
        self.budget = Budget(limits.rate_of(role), now_seconds)
        self.processes: OrderedDict[str, Process] = OrderedDict()
        self.lanes: OrderedDict[str, Intake] = OrderedDict()
        self.sender_of_lane: dict[str, Process] = {}
        """Which process sends a lane now: a restarted process also sends what the one before it left."""
        self._forgotten = Intake()
        self._limits = limits

    def connect(self, incarnation: str, hub_incarnation: str, routing_id: bytes) -> Process:
        """Register this connection as the one of that incarnation, which becomes the member's newest process."""
        process = self.processes.get(incarnation)
        if process is None:
            process = Process(incarnation, Lane(hub_incarnation, drops=False, limits=self._limits.outgoing))
            self.processes[incarnation] = process
        self.processes.move_to_end(incarnation)
        process.routing_id = routing_id
        while len(self.processes) > KEPT_PROCESSES:
            gone = next((p for p in self.processes.values() if not p.routing_id), next(iter(self.processes.values())))
            del self.processes[gone.incarnation]
        return process

    def intake(self, lane: str, seen: Mapping[tuple[str, str], int]) -> Intake:
        """The receiving side of this lane. `seen` has the numbers that an earlier hub made durable."""
        intake = self.lanes.get(lane)
        if intake is None:
            number = seen.get((self.name, lane), 0)
            intake = self.lanes[lane] = Intake(last=number, settled=number)
            while len(self.lanes) > KEPT_LANES:
                self._forget_oldest()
        self.lanes.move_to_end(lane)
        return intake

    def newest(self) -> Process | None:
        """The connected process that said hello last."""
        return next((process for process in reversed(self.processes.values()) if process.routing_id), None)

    def process_of(self, lane: str) -> Process | None:
        """The process that owns a lane."""
        return self.processes.get(lane.partition(".")[0])

    def link(self) -> Link:
        """The counters, summed over processes and lanes."""
        processes, lanes = self.processes.values(), (self._forgotten, *self.lanes.values())
        newest = self.newest() or next(reversed(processes), None)
        return Link(
            self.name, self.role, newest.incarnation if newest else "", any(p.routing_id for p in processes),
            self.last_heard, newest.heartbeat if newest else "",
            sum(lane.received for lane in lanes), sum(lane.duplicates for lane in lanes), sum(lane.gaps for lane in lanes),
            sum(p.dropped for p in processes), sum(p.replayed for p in processes), sum(p.reconnects for p in processes),
            self.refused,
        )  # fmt: skip

    def _forget_oldest(self) -> None:
        lane, intake = self.lanes.popitem(last=False)
        self.sender_of_lane.pop(lane, None)
        self._forgotten.received += intake.received
        self._forgotten.duplicates += intake.duplicates
        self._forgotten.gaps += intake.gaps
