"""Of a run: its streams, where they run, which one wins."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SerializeAsAny, StringConstraints

from swarm import figures
from swarm.event import NAME, Name, Role
from swarm.figures import Goal
from swarm.keys import OneOf, Positive, Reads, Settings
from swarm.settings.alerts import Alert
from swarm.settings.feedback import Feedback
from swarm.settings.pruner import Pruner
from swarm.settings.research import Research
from swarm.settings.search import Budget, Halving
from swarm.settings.stream import StreamSettings


def _can_be_reached(address: str) -> str:
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    if host in {"0.0.0.0", "[::]"} or int(port) > 65534:  # noqa: S104  refused, not bound
        raise ValueError("not an address to connect to")
    return address


def _with_goal(metric: str) -> str:
    if metric not in figures.with_goal():
        raise ValueError("not a figure by which streams are compared")
    return metric


Doer = Annotated[str, StringConstraints(pattern=rf"^(?:worker|agent:{NAME})$"), Reads("worker or agent:NAME")]
Listen = Annotated[
    str,
    StringConstraints(pattern=r"^tcp://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):[1-9][0-9]{1,4}$"),
    AfterValidator(_can_be_reached),
    Reads("tcp://ADDRESS:PORT (an address that others can connect to, a port up to 65534)"),
]


class Placement(Settings):
    """Where streams run."""

    gpus: Literal["all", "none"] | list[Annotated[int, Field(ge=0)]] = "all"
    """GPU indices; `all` on a machine without any means the CPU."""
    streams_per_gpu: Literal["auto"] | Positive = "auto"
    """auto: as many as a memory estimate says will fit; the rest waits."""
    cpu_streams: Literal["auto"] | Positive = "auto"
    """Streams that train at once on a CPU; the cores are divided among their processes."""


class Promotion(Settings):
    """Which stream wins, and what it must beat."""

    metric: Annotated[str, AfterValidator(_with_goal), OneOf(figures.with_goal)] = "eval_loss"
    """The figure by which streams are compared, e.g. eval_loss: held-out loss, exact_match: share of answers that are exactly right."""
    goal: Goal | None = None
    """Unset: the figure's own, min for eval_loss and max for exact_match."""
    must_beat: Literal["base", "nothing"] = "base"
    """base: only who is better than the bare base by that metric, and not by chance, is promoted."""
    test_level: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """How often a difference that is chance may be taken for more, over all comparisons of a promotion together (Holm)."""
    tie_break: Literal["cheaper", "best"] = "cheaper"
    """Of streams that cannot be told apart: the one with fewer trainable parameters, then fewer seconds; or the best figure all the same."""
    seed_spread: Annotated[float, Field(gt=0)] | None = None
    """Standard deviation of the metric over seeds, where it is known from elsewhere; `seeds` of a stream measures it."""
    approvals: Annotated[int, Field(ge=0)] = 0
    """`approve` entries wanted before the winner is promoted (of different authors)."""
    approvers: list[Name] = []
    """Whose `approve` entries count; empty: everybody's.  Without `approvals` all of them are wanted."""

    @property
    def direction(self) -> Goal:
        """Which end wins.  The config is refused where neither it nor the table of figures says so."""
        chosen = self.goal or figures.of(self.metric).goal
        assert chosen, f"promotion by {self.metric}, which has no goal"
        return chosen


class RunSettings(Settings):
    """A whole config after reading: defaults laid into the streams."""

    name: Name
    """Of the run; its folder begins with it."""
    streams: dict[Name, SerializeAsAny[StreamSettings]]
    """The fine-tunes by name, each with the settings of a stream; a name alone takes all from `defaults`."""
    placement: Placement = Placement()
    """Where streams run: the settings below."""
    promotion: Promotion = Promotion()
    """Which stream wins: the settings below."""
    halving: Halving | None = None
    """Early exit: the settings below; unset: every stream is trained to its end."""
    pruner: Pruner | None = None
    """Early exit by one of Optuna's pruners, in place of `halving`: the settings below."""
    research: Research | None = None
    """Proposals of agents, kept or discarded: the settings below; unset: none are taken.  `swarm research GOAL.md` writes it."""
    feedback: Feedback | None = None
    """What ratings of the promoted adapter's answers lead to: the settings below; unset: the run ends with its promotion."""
    budget: Budget | None = None
    """What all trials together may use: the settings below; unset: nothing limits them."""
    prices: dict[str, Annotated[float, Field(ge=0)]] = {}
    """USD per hour by device: `cpu`, `gpu`, or a part of a GPU's name."""
    alerts: list[Alert] = []
    """Who is told what happens: the settings of an alert below."""
    lease_seconds: Annotated[float, Field(ge=10)] = 60.0
    """A worker that is silent this long loses its task (>= 10 heartbeats)."""
    stall_seconds: Annotated[float, Field(gt=0)] = 60.0
    """A task that makes no progress this long (no step, no row) is shown as stalled, although its worker sends heartbeats."""
    stop_seconds: Annotated[float, Field(gt=0)] = 60.0
    """How long a worker may take to save once it is told to stop; then SIGTERM, 15 s later SIGKILL of its group."""
    retries: Annotated[int, Field(ge=0)] = 1
    """Further attempts at a task after a failure."""
    roles: dict[Role, Annotated[list[Doer], Field(min_length=1)]] = {}
    """Who does a role's tasks, `{validate: ["agent:ada", worker]}`: they wait for the agents named; unset: workers."""
    roles_wait_seconds: Annotated[float, Field(ge=0)] = 600.0
    """How long a task waits for its agents; then a worker takes it where `worker` is listed, else its stream fails."""
    validation_minutes: Annotated[float, Field(gt=0)] = 30.0
    """Time limit of a validation; no answer by then counts as FAIL."""
    listen: Listen | None = None
    """`tcp://ADDRESS:PORT`: members on other machines may join there and at PORT + 1, by key; unset: a socket on this machine."""
    runs_dir: str = "runs"
    """Where run folders are made; relative to the folder in which `swarm run` is typed."""

    def dumped(self) -> dict[str, Any]:
        return self.model_dump(mode="json")
