"""What the hub knows of each member: its connections, what it took from it, what waits to go to it. No sockets, no clocks of its own."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from bus.budget import Budget, Rate
from bus.intake import Intake
from bus.outbox import Lane, LaneLimits

KEPT_LANES = 512
"""Lanes remembered per member, newest use first; older ones are known from `seen` if they ever come back."""
KEPT_PROCESSES = 16


@dataclass(frozen=True)
class Limits:
    """What the hub grants. Peers keep to the window by themselves; the budget is for those that do not."""

    connections: int = 512
    rate: Rate = field(default_factory=Rate)
    open_count: int = 16_384
    """Messages of one lane taken and not yet acknowledged by the caller."""
    outgoing: LaneLimits = field(default_factory=lambda: LaneLimits(waiting_count=4096, waiting_bytes=8 << 20))
    """Messages to one process that it has not confirmed."""
    inbox_count: int = 100_000
    """Messages that wait for `Hub.receive`; beyond, peers are asked to send again later."""
    inbox_bytes: int = 256 << 20
    topics: int = 1024


@dataclass(frozen=True)
class Link:
    """One member's link as it stands now, for screens and verdicts."""

    name: str
    role: str
    incarnation: str
    connected: bool
    last_heard: float
    """On the clock of `time.monotonic`."""
    heartbeat: str
    """The newest heartbeat's text."""
    received: int
    duplicates: int
    gaps: int
    """Numbers that the sender declared dropped, as the hub counted them."""
    dropped: int
    """Telemetry that the sender says it dropped."""
    replayed: int
    reconnects: int
    refused: int
    """Messages refused: type not allowed, malformed, over budget."""


@dataclass
class Process:
    """One incarnation of a member: a process that said hello."""

    incarnation: str
    outgoing: Lane
    routing_id: bytes = b""
    """Its connection; empty while there is none."""
    heartbeat: str = ""
    dropped: int = 0
    replayed: int = 0
    reconnects: int = 0
    waking: set[str] = field(default_factory=set)
    """Lanes with an acknowledgement to send."""


class Party:
    """One member at the hub: all its processes and lanes."""

    def __init__(self, name: str, role: str, limits: Limits, now_seconds: float) -> None:
        self.name, self.role = name, role
        self.last_heard = now_seconds
        self.refused = 0
        self.budget = Budget(limits.rate, now_seconds)
        self.processes: OrderedDict[str, Process] = OrderedDict()
        self.lanes: OrderedDict[str, Intake] = OrderedDict()
        self.carriers: dict[str, Process] = {}
        """Which process brings a lane now: a restarted one brings what its forerunner left."""
        self._past = Intake()
        self._limits = limits

    def greet(self, incarnation: str, hub_incarnation: str, routing_id: bytes) -> Process:
        """The process of this incarnation, now on this connection, and the newest of its member."""
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
        """What was taken from this lane, by this hub or (`seen`) by one before it."""
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
        """The figures, summed over processes and lanes."""
        processes, lanes = self.processes.values(), (self._past, *self.lanes.values())
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
        self.carriers.pop(lane, None)
        self._past.received += intake.received
        self._past.duplicates += intake.duplicates
        self._past.gaps += intake.gaps
