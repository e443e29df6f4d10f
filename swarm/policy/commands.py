"""The commands that `decide` returns and the coordinator carries out; values only."""

from __future__ import annotations

from dataclasses import dataclass

from swarm.messages import What
from swarm.policy.promotion import Choice


@dataclass(frozen=True, slots=True)
class Grant:
    """Claim these tasks on the worker's behalf, then assign them."""

    refs: tuple[str, ...]
    worker: str


@dataclass(frozen=True, slots=True)
class Ending:
    """One lease that is to end."""

    ref: str
    token: int
    worked: float | None = None
    """Seconds of work on the task, by its worker's last heartbeat."""


@dataclass(frozen=True, slots=True)
class Revoke:
    """End leases, all for one reason: their holder died, sent no heartbeats or took too long."""

    endings: tuple[Ending, ...]
    why: str
    failed: bool = True
    """False where the tasks are not to blame."""
    held: int = 1
    """How many tasks a worker held that was lost; of several none is blamed, and each is tried again alone."""
    kill: str = ""
    """The worker whose process is to be ended too."""


@dataclass(frozen=True, slots=True)
class SendOrder:
    """Send the worker an order: pause, resume, stop or measure a task, report under the token of a hand-over, or end the work on a revoked lease."""

    ref: str
    token: int
    worker: str
    what: What


@dataclass(frozen=True, slots=True)
class Publish:
    """Make a validated checkpoint the stream's adapter."""

    stream: str


@dataclass(frozen=True, slots=True)
class GoBack:
    """A checkpoint failed validation: go back to the newest earlier one that is whole, or give up."""

    stream: str
    why: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Record that a stream has failed."""

    stream: str
    why: str


@dataclass(frozen=True, slots=True)
class StopStream:
    """Stop a stream at its next boundary; its checkpoint stays, and `swarm resume` revives it."""

    stream: str
    why: str


@dataclass(frozen=True, slots=True)
class Suggest:
    """Have the sampler of a search suggest its next trial, and let that join."""

    root: str
    """The stream with the search."""
    number: int
    """Of the trial."""
    at_once: int
    """So many trials may be trained at the same time."""


@dataclass(frozen=True, slots=True)
class AskPruner:
    """Ask the pruner which streams are to stop, unless it has answered that already."""

    known: int
    """Entries of the state's course that it is to know."""


@dataclass(frozen=True, slots=True)
class OpenTask:
    """Record a task that agents may claim."""

    ref: str
    title: str


@dataclass(frozen=True, slots=True)
class JoinProposal:
    """Let a proposal join as a stream."""

    name: str


@dataclass(frozen=True, slots=True)
class JudgeProposal:
    """Compare a proposal with the best stream so far, row by row, and keep or discard it."""

    name: str
    against: str
    is_replica: bool


@dataclass(frozen=True, slots=True)
class DiscardProposal:
    """Record why a proposal, or a stream that is trained anew, comes to nothing."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class BeginRetraining:
    """Record that a stream is to be trained anew, since the ratings of another one are low."""

    name: str
    like: str
    mean: float
    ratings: int


@dataclass(frozen=True, slots=True)
class JoinRetrained:
    """Write the rated answers as its rows and let it join as a stream."""

    name: str


@dataclass(frozen=True, slots=True)
class BeginCanary:
    """Give the stream a share of the requests."""

    name: str
    share: float


@dataclass(frozen=True, slots=True)
class JudgeCanary:
    """Compare its ratings with those of what is promoted, and keep or discard it."""

    name: str


@dataclass(frozen=True, slots=True)
class Compare:
    """Compare the streams that may win, row by row."""

    streams: tuple[str, ...]
    key: str
    """Names their scores."""


@dataclass(frozen=True, slots=True)
class LookAtSealed:
    """Have the validator examine the published weights of a stream on the sealed rows."""

    stream: str


@dataclass(frozen=True, slots=True)
class PromoteWinner:
    """Promote the winner's adapter: make it the run's."""

    choice: Choice


@dataclass(frozen=True, slots=True)
class Finish:
    """Record the end of the run."""

    rc: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class Dismiss:
    """Ask a worker that holds no task to exit and free its memory."""

    worker: str
    why: str = "no work is left for your roles"


Command = (
    Grant
    | Revoke
    | SendOrder
    | Publish
    | GoBack
    | GiveUp
    | StopStream
    | Suggest
    | AskPruner
    | OpenTask
    | JoinProposal
    | JudgeProposal
    | DiscardProposal
    | BeginRetraining
    | JoinRetrained
    | BeginCanary
    | JudgeCanary
    | Compare
    | LookAtSealed
    | PromoteWinner
    | Finish
    | Dismiss
)
