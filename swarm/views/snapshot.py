"""A run at one moment, as the dashboard, `status` and plain progress lines show it; only data.

`views.runview` makes it from the log, the metrics and the bus.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Points = tuple[tuple[int, float], ...]
"""(step, value), by step."""
STREAM_STATES = (
    "wait", "prepare", "train", "paused", "validate", "evaluate", "done", "promoted", "stopped", "failed", "STALLED",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class StreamRow:
    """One stream."""

    name: str
    state: str
    """One of `STREAM_STATES`."""
    settings: str = ""
    """One line: base, adapter, rank, optimizer, learning rate."""
    step: int = 0
    steps: int = 0
    """Planned optimizer steps; 0 while unknown."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What was measured of it, by the names of `swarm.figures`: what its roles stated, else the newest metric row.

    Losses are those of single steps, in training and after it.  Tokens per second are those of the last step, 0 where it is
    stalled, none where it does not train; once it is trained those of the whole training.
    """
    base: Mapping[str, float] = field(default_factory=dict)
    """The bare base's figures, under the same names."""
    mean_losses: tuple[float | None, float | None] = (None, None)
    """Over the first and the last twentieth of the logged steps, as the stream's `trained` entry states them."""
    curves: Mapping[str, Points] = field(default_factory=dict)
    """Figures over the steps, thinned to a few hundred points."""
    modes: tuple[str, ...] = ()
    """What the values of its `mode` are called, from 0 on."""
    trainable: int | None = None
    device: str = ""
    eta_seconds: float | None = None
    worker: str = ""
    """The holder of the current task."""
    token: int | None = None
    held_seconds: float | None = None
    """How long the current task has been held."""
    done: int | None = None
    """How much of the current task is done: rows of a preparation, forward passes of an examination, steps of a training."""
    lease_left_seconds: float | None = None
    wish: str = "go"
    """go, pause or stop: what was last asked for it; it may still be at the step before."""
    verdict: str = ""
    why: str = ""
    checkpoints: tuple[int, ...] = ()
    tail: tuple[str, ...] = ()
    """The newest entries about it, of the whole log, one line each, oldest first."""
    times: Points = ()
    """(step, seconds since the first one), of the same steps as its curves."""
    last_worker: str = ""
    """The worker process that has, or last had, one of its tasks."""

    def figure(self, name: str) -> float | None:
        return self.figures.get(name)

    def curve(self, name: str) -> Points:
        return self.curves.get(name, ())

    @property
    def memory_bytes(self) -> float | None:
        """Peak memory if it is known, else the present memory."""
        return self.figures.get("peak_bytes", self.figures.get("memory_bytes"))


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task that agents made, or a stream's that an agent holds."""

    task: str
    state: str
    """open, held or done"""
    by: str = ""
    token: int | None = None
    left_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One worker process."""

    name: str
    roles: tuple[str, ...]
    state: str
    """starting, importing, idle, working, paused, stalled, unreachable, leaving, left (it was dismissed), gone (it died), parked
    (it died too often); orphan: it works without a coordinator"""
    task: str = ""
    """The tasks that it holds, with spaces between."""
    device: str = ""
    pid: int = 0
    memory_bytes: int | None = None
    predicted_bytes: int | None = None
    """Of memory, at most, by the estimate that placed its streams."""
    own_bytes: int | None = None
    """What its streams take beside their base, once all of them are measured."""
    predicted_own_bytes: int | None = None
    """The same by the estimate."""
    silent_seconds: float = 0.0
    why: str = ""
    dropped: int = 0
    """Metrics that were dropped because its outbox was full."""
    gaps: int = 0
    """Missing message numbers, as the hub counts them."""
    replayed: int = 0
    """Messages sent again after a reconnect."""
    duplicates: int = 0
    """Messages that arrived twice and were applied once."""
    reconnects: int = 0
    paused: str = ""
    """Those of its tasks that are paused."""
    progress: str = ""
    """What is done of its tasks, in rows, passes or steps: `fast/evaluate=12`, with spaces between."""
    lines: tuple[str, ...] = ()
    """The last lines that it printed."""

    def done_of(self, task: str) -> int | None:
        counts = dict(each.rsplit("=", 1) for each in self.progress.split())
        return int(counts[task]) if task in counts else None

    @property
    def bus(self) -> str:
        """The events on its link in words; empty if there were none."""
        counted = {
            "dropped": self.dropped, "gaps": self.gaps, "sent again": self.replayed, "came twice": self.duplicates,
            "reconnects": self.reconnects,
        }  # fmt: skip
        return " · ".join(f"{count} {what}" for what, count in counted.items() if count)


@dataclass(frozen=True, slots=True)
class BusCounters:
    """Counters of the bus, as the watcher sees them."""

    messages_per_second: float = 0.0
    received: int = 0
    gaps: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """A stream's place on the leaderboard."""

    rank: int
    stream: str
    step: int
    steps: int
    """Planned; 0 while unknown."""
    value: float
    """Of the leaderboard's figure, as it was measured last."""
    seconds: float | None = None
    """Of training so far."""
    usd: float | None = None
    """What these seconds cost by the config's prices, if it has any."""
    state: str = ""
    """One of `STREAM_STATES`; `stopped at 20`, with the step of its newest checkpoint that has the figure; of a proposal that
    was judged kept, discarded or replica."""


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """The streams by the figure that the run promotes by, the best first; without places where fewer than two have it."""

    metric: str = ""
    goal: str = ""
    """min or max: which end is better."""
    places: tuple[Place, ...] = ()
    is_search: bool = False
    """Its streams are trials that compete."""

    @property
    def first(self) -> str:
        """The leader's name; empty where there are no places."""
        return self.places[0].stream if self.places else ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run at one moment."""

    run: str
    folder: str
    base: str = ""
    state: str = "starting"
    """not started (an open log without a run), starting, running, ended, no coordinator"""
    rc: int | None = None
    seq: int = 0
    """The seq of the last entry that was applied."""
    log_ok: bool = True
    devices: str = ""
    elapsed_seconds: float | None = None
    """Running time: without the time after the end and without the time for which the run was stopped."""
    eta_seconds: float | None = None
    """Time until the last stream is trained, by the pace of those that train; None where that is not known."""
    leader: str = ""
    """The stream with the best figure by which they are compared, so far."""
    leaderboard: Leaderboard = Leaderboard()
    budget: str = ""
    """What is used of the run's budget; empty where it has none."""
    feedback: str = ""
    """How many ratings there are and how many are needed; empty where none are waited for."""
    silent_seconds: float = 0.0
    """Time since the last entry."""
    now: float = 0.0
    """Log time."""
    streams: tuple[StreamRow, ...] = ()
    workers: tuple[WorkerRow, ...] = ()
    tasks: tuple[TaskRow, ...] = ()
    """Tasks that agents added or hold."""
    tail: tuple[str, ...] = field(default=())
    """The newest entries, one line each, oldest first."""
    bus: BusCounters = BusCounters()
    promoted: str = ""
    """The winner's name."""
    why: str = ""
    """Why the winner won, or why the run ended without one."""
    waits: str = ""
    """Whose approval a promotion waits for, with the command: `fast: waits for bob: swarm approve fast`."""
