"""Which event may be the next entry: the rules that coordinator and command line check under the log's lock; pure.

`permit` checks whether a member's role allows an event of this kind, `admit` whether it fits the state.  What is about a lease stands in
`leases.py`, what a holder reports in `results.py`; what may be promoted in `promotion.py`, which knows the run's settings.
"""

from __future__ import annotations

from swarm import events as ev
from swarm.event import RESERVED, Event
from swarm.events import RESULT_OF, RESULTS
from swarm.policy.leases import admit_claim, admit_lease, stream_of
from swarm.policy.results import admit_artifact, admit_result
from swarm.state import Proposal, Refusal, State

COORDINATORS_OWN = frozenset(
    {
        "run",
        "stream",
        "fail",
        "end",
        "expire",
        "extend",
        "refuse",
        "back",
        "adapter",
        "compared",
        "conclude",
        "retrain",
        "canary",
        "look",
        "seal",
        "head",
    }
)
"""Kinds that nobody else may append."""

MAY_APPEND: dict[str, frozenset[str]] = {
    "viewer": frozenset(),
    "worker": RESULTS | {"post"},
    "agent": frozenset(ev.KINDS) - COORDINATORS_OWN - {"promote"},
    "admin": frozenset(ev.KINDS) - COORDINATORS_OWN,
}
"""Which kinds a member may append, by its role on the bus."""

BODY_BYTES = 64 << 10
FACT_BYTES = 8 << 10
"""Limits of an entry: people and models read the whole log, so a long text belongs in a file that an entry names."""


def permit(role: str, event: Event) -> None:
    """Raises Refusal unless a member with this role on the bus may append such an event."""
    if event.kind not in MAY_APPEND[role]:
        others = [name for name, kinds in MAY_APPEND.items() if event.kind in kinds]
        raise Refusal(f"role {role} may not append {event.kind!r}; {', '.join(others) or 'only the coordinator'} may")
    if isinstance(event, ev.Claim) and event.beats:
        raise Refusal(f"{event.ref}: only a worker process has heartbeats; claim with a ttl and `swarm renew`")


def stamped(role: str, event: Event) -> Event:
    """The event as it is recorded: whether a person gave an approval follows from the role, not from what the author states."""
    return event.model_copy(update={"person": role == "admin" or None}) if isinstance(event, ev.Approve) else event


def admit(state: State, author: str, event: Event, now: float) -> None:
    """Raises Refusal unless `event` by `author` may be the next entry."""
    _admit_size(event)
    of = event.of if isinstance(event, ev.Amend | ev.Approve | ev.Object | ev.Post) else None
    if of is not None and of > state.seq:
        raise Refusal(f"there is no entry {of}; the last one is {state.seq}")
    match event:
        case ev.Stream():
            _admit_stream(state, event)
        case ev.Add():
            _admit_added(state, author, event)
        case ev.Propose():
            _admit_proposed(state, event)
        case ev.Conclude():
            one = state.proposals.get(event.ref) or state.retrained.get(event.ref)
            if one is None or one.conclusion:
                raise Refusal(f"{event.ref}: is nothing that waits for a conclusion")
        case ev.Retrain():
            _admit_stream(state, event)
            stream_of(state, event.like)
        case ev.Canary() if (one := state.retrained.get(event.ref)) is None or one.canary or one.conclusion:
            raise Refusal(f"{event.ref}: is nothing that was trained anew and waits to be tried")
        case ev.Rate() if stream_of(state, event.ref).adapter is None:
            raise Refusal(f"{event.ref}: has no published adapter that could have answered")
        case ev.Task():
            _admit_task(state, event)
        case ev.Pause() | ev.Resume() | ev.Stop() | ev.Fail():
            _admit_steering(state, event)
        case ev.Yield():
            _admit_yield(state, event)
        case ev.Claim():
            admit_claim(state, author, event, now)
        case ev.Renew() | ev.Hand() | ev.Done() | ev.Drop() | ev.Expire():
            admit_lease(state, author, event, now)
        case ev.Prepared() | ev.Checkpoint() | ev.Trained() | ev.Verdict() | ev.Score() | ev.Sealed():
            admit_result(state, author, event, now)
        case ev.Adapter() | ev.Back() | ev.Promote():
            admit_artifact(state, event)
        case ev.Approve() | ev.Object():
            _admit_opinion(state, author, event)
        case ev.Post() | ev.Amend() if not event.body.strip():
            raise Refusal(f"an empty {event.kind} says nothing; write a text")
        case _:
            pass


def _admit_size(event: Event) -> None:
    if len(event.body.encode(errors="replace")) > BODY_BYTES:
        raise Refusal(f"the text is longer than {BODY_BYTES >> 10} KiB; put it into a file and name that")
    for key, value in event.facts().items():
        if isinstance(value, str) and len(value.encode(errors="replace")) > FACT_BYTES:
            raise Refusal(f"{key} is longer than {FACT_BYTES >> 10} KiB; write it into the body")


# ---- streams and tasks -----------------------------------------------------------------------------------------------


def _admit_stream(state: State, event: ev.Stream | ev.Add | ev.Propose | ev.Retrain) -> None:
    name = event.ref
    if name in {"run", "-"} or "/" in name or name in state.streams:
        raise Refusal(f"{name}: there is a stream of that name, or it can be none; take another name")
    if any(ref.partition("/")[0] == name for ref in state.tasks):
        raise Refusal(f"{name}: an agent's task bears that name; take another one")


def _admit_added(state: State, author: str, event: ev.Add) -> None:
    """Its settings are the coordinator's to check: they need the config and the bases."""
    _admit_stream(state, event)
    if event.ref in {*state.proposals, *state.retrained} and author not in RESERVED:
        raise Refusal(f"{event.ref}: is a proposal, and joins when it is admitted; take another name")
    if state.at_rest:
        raise Refusal(f"{event.ref}: {state.at_rest}")
    source = stream_of(state, event.like)
    if event.warm and not source.checkpoints:
        raise Refusal(f"{event.like}: has no checkpoint yet; wait for one, or `swarm add` starts a stream from step 0")


def _admit_proposed(state: State, event: ev.Propose) -> None:
    """Whether it lies in the space of the phase is checked by `policy.research`."""
    _admit_stream(state, event)
    if event.ref in state.proposals:
        raise Refusal(f"{event.ref}: there is a proposal of that name; take another one")
    if state.at_rest:
        raise Refusal(f"{event.ref}: {state.at_rest}")
    stream_of(state, event.like)
    if not event.why.strip():
        raise Refusal(f"{event.ref}: a proposal says why; add --because")


def _admit_task(state: State, event: ev.Task) -> None:
    ref = event.ref
    if ref in {"run", "-"} or ref in state.streams:
        raise Refusal(f"{ref}: is no name for a task; take one like `review` or `STREAM/review`")
    if ref in state.tasks:
        raise Refusal(f"{ref}: there is a task of that name; take another name")
    if ref.partition("/")[2] in RESULT_OF:
        raise Refusal(f"{ref}: streams bring their own {', '.join(RESULT_OF)}; take another name")


def _admit_steering(state: State, event: ev.Pause | ev.Resume | ev.Stop | ev.Fail) -> None:
    if event.ref == "run":
        if isinstance(event, ev.Pause | ev.Fail):
            raise Refusal(f"a run has no {event.kind}; name one of its streams, or `swarm stop` it")
        if isinstance(event, ev.Stop) and not state.run:
            raise Refusal(state.at_rest)
        if isinstance(event, ev.Stop) and state.end:
            raise Refusal("the run has ended already; nothing is left to stop")
        return
    stream = stream_of(state, event.ref)
    go_on = f"`swarm resume {stream.name}` lets it go on"
    match event:
        case ev.Resume():
            if not stream.failed and stream.wish == "go":
                raise Refusal(f"{stream.name}: is neither paused, stopped nor failed")
        case _ if stream.failed:
            raise Refusal(f"{stream.name}: has failed ({stream.failed}); `swarm resume {stream.name}` tries it again")
        case ev.Fail():
            pass
        case _ if state.next_role(stream) is None:
            raise Refusal(f"{stream.name}: is finished; nothing is left to stop or pause")
        case _ if stream.wish == "stop":
            raise Refusal(f"{stream.name}: is stopped already; {go_on}")
        case ev.Pause() if stream.wish == "pause":
            raise Refusal(f"{stream.name}: is paused already; {go_on}")
        case _:
            pass


def _admit_yield(state: State, event: ev.Yield) -> None:
    """Whether the run has so many is checked by `policy.yielding`."""
    if event.ref != "run":
        raise Refusal(
            f"{event.ref}: a run yields devices, not a stream; `swarm pause {event.stream}` lets a stream wait"
        )
    if state.run is None or state.end or state.stopped:
        raise Refusal("run: is not running, so that its devices are free already")


# ---- opinions ---------------------------------------------------------------------------------------------------------


def _admit_opinion(state: State, author: str, event: ev.Approve | ev.Object) -> None:
    """An objection may come at any time; an approval needs something that waits for it, or an objection of one's own to take back."""
    if isinstance(event, ev.Object) and not event.why.strip():
        raise Refusal("an objection says why; write it behind what it is about")
    if event.stream == "run" or event.of:
        return
    if (one := state.proposals.get(event.ref)) and event.ref not in state.streams:
        _admit_on_proposal(state, author, event, one)
        return
    if event.ref == "-":
        raise Refusal(f"`-` is nothing that one could {event.kind} to; name `run`, a stream, or an entry with --of")
    if event.ref in state.tasks and event.stream not in state.streams:
        raise Refusal(f"{event.ref}: belongs to no stream, so nothing is promoted of it; name the entry with --of")
    stream = stream_of(state, event.stream)
    if isinstance(event, ev.Approve) and not state.objections(stream.name) and stream.adapter is None:
        has_joined = "has joined already, and " if stream.name in state.proposals else ""
        raise Refusal(
            f"{stream.name}: {has_joined}has no validated adapter yet, so there is nothing to approve; `swarm wait --until waits`"
        )


def _admit_on_proposal(state: State, author: str, event: ev.Approve | ev.Object, one: Proposal) -> None:
    """Of a proposal that has not joined."""
    if one.conclusion:
        raise Refusal(f"{event.ref}: is concluded ({one.conclusion.why}); `swarm propose` makes another one")
    takes_back = any(by == author for by, _ in state.objections_to(event.ref))
    if isinstance(event, ev.Approve) and author == one.by and not takes_back:
        raise Refusal(f"{event.ref}: {author} proposed it, and the approvals of others count; `swarm ledger` shows it")
