"""Which event may be the next entry: the rules that coordinator and command line check under the log's lock; pure.

`permit` checks whether a member's role allows an event of this kind, `admit` whether it fits the state.  Every event that depends on
a lease carries its fencing token: what a former holder reports is refused.  What may be promoted stands in `promotion.py`, which knows
the run's settings.
"""

from __future__ import annotations

import math
import re

from swarm import events as ev
from swarm.event import RESERVED, Event, Role
from swarm.events import RESULT_OF, RESULTS
from swarm.state import Lease, Refusal, State, Stream, Task

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

ROLE_OF: dict[str, Role] = {"checkpoint": "train", **{kind: role for role, kind in RESULT_OF.items()}}
"""Only who holds that task may report such a result."""

JUDGES = frozenset({"validate", "evaluate", "sealed"})
"""Roles that an agent may not have for a stream which it trained (separation of duties)."""

LONGEST_LEASE_SECONDS = 7 * 86400.0
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
            _stream(state, event.like)
        case ev.Canary() if (one := state.retrained.get(event.ref)) is None or one.canary or one.conclusion:
            raise Refusal(f"{event.ref}: is nothing that was trained anew and waits to be tried")
        case ev.Rate() if _stream(state, event.ref).adapter is None:
            raise Refusal(f"{event.ref}: has no published adapter that could have answered")
        case ev.Task():
            _admit_task(state, event)
        case ev.Pause() | ev.Resume() | ev.Stop() | ev.Fail():
            _admit_steering(state, event)
        case ev.Yield():
            _admit_yield(state, event)
        case ev.Claim():
            _admit_claim(state, author, event, now)
        case ev.Renew() | ev.Hand() | ev.Done() | ev.Drop() | ev.Expire():
            _admit_lease(state, author, event, now)
        case ev.Prepared() | ev.Checkpoint() | ev.Trained() | ev.Verdict() | ev.Score() | ev.Sealed():
            _admit_result(state, author, event, now)
        case ev.Adapter() | ev.Back() | ev.Promote():
            _admit_artifact(state, event)
        case ev.Approve() | ev.Object():
            _admit_opinion(state, event)
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


def _stream(state: State, name: str) -> Stream:
    if name not in state.streams:
        raise Refusal(f"{name}: no such stream; there is {', '.join(state.streams) or 'none'}")
    return state.streams[name]


def _task(state: State, ref: str) -> Task:
    if ref not in state.tasks:
        raise Refusal(f"{ref}: no such task; `swarm status` lists them")
    return state.tasks[ref]


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
    if state.run is None or state.end or state.stopped:
        word = "has ended" if state.end else "is stopped" if state.run else "was not started"
        raise Refusal(
            f"{event.ref}: the run {word}, and streams join a running one; `swarm run` or `swarm resume` first"
        )
    source = _stream(state, event.like)
    if event.warm and not source.checkpoints:
        raise Refusal(f"{event.like}: has no checkpoint yet; wait for one, or `swarm add` starts a stream from step 0")


def _admit_proposed(state: State, event: ev.Propose) -> None:
    """Whether it lies in the space of the phase is checked by `policy.research`."""
    _admit_stream(state, event)
    if event.ref in state.proposals:
        raise Refusal(f"{event.ref}: there is a proposal of that name; take another one")
    if state.run is None or state.end or state.stopped:
        raise Refusal(f"{event.ref}: no run is running that could train it; `swarm research GOAL.md` starts one")
    _stream(state, event.like)
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
            raise Refusal("no run was started here yet; `swarm run CONFIG --in RUN` does")
        if isinstance(event, ev.Stop) and state.end:
            raise Refusal("the run has ended already; nothing is left to stop")
        return
    stream = _stream(state, event.ref)
    if isinstance(event, ev.Resume):
        if not stream.failed and stream.wish == "go":
            raise Refusal(f"{stream.name}: is neither paused, stopped nor failed")
    elif stream.failed:
        raise Refusal(f"{stream.name}: has failed ({stream.failed}); `swarm resume` tries it again")
    elif state.next_role(stream) is None and not isinstance(event, ev.Fail):
        raise Refusal(f"{stream.name}: is finished; nothing is left to stop or pause")


def _admit_yield(state: State, event: ev.Yield) -> None:
    """Whether the run has so many is checked by `policy.yielding`."""
    if event.ref != "run":
        raise Refusal(
            f"{event.ref}: a run yields devices, not a stream; `swarm pause {event.stream}` lets a stream wait"
        )
    if state.run is None or state.end or state.stopped:
        raise Refusal("run: is not running, so that its devices are free already")


# ---- leases ----------------------------------------------------------------------------------------------------------


def _admit_ttl(ttl: float) -> None:
    if not (math.isfinite(ttl) and 0 < ttl <= LONGEST_LEASE_SECONDS):
        raise Refusal(f"ttl {ttl:g}: a lease is longer than 0 and at most {LONGEST_LEASE_SECONDS:.0f} seconds")


def _admit_claim(state: State, author: str, event: ev.Claim, now: float) -> None:
    _admit_ttl(event.ttl)
    task = _task(state, event.ref)
    if task.done:
        raise Refusal(f"{event.ref}: is done already")
    if task.lease:
        left = "while its worker lives" if task.lease.worker else f"for {max(0.0, task.lease.until - now):.0f} s"
        held = f"held by {task.lease.by} (token {task.lease.token}) {left}"
        raise Refusal(f"{event.ref}: {held}; wait or ask with `swarm post`")
    if task not in state.ready():
        raise Refusal(
            f"{event.ref}: its turn has not come; an earlier task of the stream is open, or it is paused or stopped"
        )
    if task.role == "sealed" and not event.beats:
        raise Refusal(f"{event.ref}: the sealed rows are for the run's own validator; agents see what came of it")
    if not event.beats:
        _check_separation_of_duties(state, task, author)


def _check_separation_of_duties(state: State, task: Task, name: str) -> None:
    """An agent that trained a stream may not judge it; a worker process may, since it measures everything anew."""
    if task.role in JUDGES and state.streams[task.ref.partition("/")[0]].trained_by(name):
        raise Refusal(f"{task.ref}: {name} trained it and may not judge it; another agent or a worker does")


def _current(state: State, ref: str, token: int) -> Lease:
    """The lease of the task, if it is held under this token."""
    task = _task(state, ref)
    lease = task.lease
    if lease is None and task.done and task.done.tok == token:
        raise Refusal(f"{ref}: is done already ({task.done.kind}); `swarm post` adds to it")
    if lease is None or lease.token != token:
        current = f"token {lease.token} holds it" if lease else "nobody holds it"
        raise Refusal(f"{ref}: token {token} is stale, {current}; claim it anew before you report on it")
    return lease


def _admit_lease(
    state: State, author: str, event: ev.Renew | ev.Hand | ev.Done | ev.Drop | ev.Expire, now: float
) -> None:
    lease = _current(state, event.ref, event.tok)
    match event:
        case ev.Expire():
            pass
        case ev.Renew(ttl=ttl):
            _admit_ttl(ttl)
            _admit_author(lease, author, event.ref, now, who=lease.by)
        case ev.Hand(ttl=ttl):
            _admit_ttl(ttl)
            _admit_hand(state, lease, author, event, now)
        case ev.Done() | ev.Drop():
            _admit_author(lease, author, event.ref, now, who=lease.worker or lease.by)
            if isinstance(event, ev.Done):
                _admit_done(state, event)


def _admit_author(lease: Lease, author: str, ref: str, now: float, *, who: str) -> None:
    if author != who:
        raise Refusal(f"{ref}: token {lease.token} belongs to {who}")
    if lease.overdue(now):
        raise Refusal(f"{ref}: token {lease.token} ran out {now - lease.until:.0f} s ago; claim it anew")


def _admit_hand(state: State, lease: Lease, author: str, event: ev.Hand, now: float) -> None:
    """A worker cannot send `hand`: until an agent owns its lease, any author who states the current token may transfer it."""
    if state.tasks[event.ref].role == "sealed":
        raise Refusal(f"{event.ref}: the sealed rows are for the run's own validator; it is handed to nobody")
    if event.to == lease.by:
        raise Refusal(f"{event.ref}: {event.to} holds it already; `swarm renew` makes the lease longer")
    if event.to in RESERVED:
        raise Refusal(f"{event.ref}: {event.to} is a part of every run and does no tasks; hand it to an agent")
    if lease.worker is None:
        _check_separation_of_duties(state, state.tasks[event.ref], event.to)
    no_owner = lease.worker is not None and (lease.by == lease.worker or now >= lease.until)
    if not no_owner:
        _admit_author(lease, author, event.ref, now, who=lease.by)


def _admit_done(state: State, event: ev.Done) -> None:
    """A stream's task is finished by its result; an evaluation without a score only takes no part in the choice."""
    role = state.tasks[event.ref].role
    if role is None:
        return
    if event.rc != 0:
        raise Refusal(f"{event.ref}: exit status {event.rc} is not done; `swarm drop` gives it back with a reason")
    if role != "evaluate":
        fix = "`swarm done --verdict` does" if role == "validate" else f"report a `{RESULT_OF[role]}`"
        raise Refusal(f"{event.ref}: no `{RESULT_OF[role]}` was reported under token {event.tok}; that ends it: {fix}")


# ---- results ---------------------------------------------------------------------------------------------------------


Result = ev.Prepared | ev.Checkpoint | ev.Trained | ev.Verdict | ev.Score | ev.Sealed


def _admit_result(state: State, author: str, event: Result, now: float) -> None:
    lease = _current(state, event.ref, event.tok)
    _admit_author(lease, author, event.ref, now, who=lease.worker or lease.by)
    role = state.tasks[event.ref].role
    if role != ROLE_OF[event.kind]:
        raise Refusal(f"{event.ref}: a {event.kind} belongs to `{event.stream}/{ROLE_OF[event.kind]}`")
    stream = state.streams[event.stream]
    match event:
        case ev.Checkpoint(path=path) | ev.Trained(path=path):
            if token_in(stream.name, path) > event.tok:
                raise Refusal(f"{event.ref}: {path} belongs to a newer token than {event.tok}")
        case ev.Verdict():
            _admit_verdict(stream, event)
        case ev.Score():
            _admit_score(stream, event)
        case ev.Sealed() if stream.adapter is None or event.sha256 != stream.adapter.sha256:
            raise Refusal(f"{event.ref}: other weights were examined than those that are published")
        case ev.Prepared() | ev.Sealed():
            pass  # rows may stand anywhere in the run


def token_in(stream: str, path: str) -> int:
    """The fencing token that a checkpoint's folder carries.  Raises Refusal for a path that is none of the stream's."""
    found = re.fullmatch(rf"streams/{re.escape(stream)}/t([1-9]\d{{0,17}})/[^/]+", path)
    if found is None:
        raise Refusal(f"{path}: is no checkpoint of {stream}; they stand in streams/{stream}/t<token>/")
    return int(found[1])


def _admit_verdict(stream: Stream, event: ev.Verdict) -> None:
    candidate = stream.candidate
    if candidate is None or event.path != candidate.path:
        raise Refusal(f"{event.ref}: {event.path} is not what is to be judged ({candidate and candidate.path})")
    if event.result == "FAIL":
        return
    if event.sha256 != candidate.sha256:
        raise Refusal(
            f"{event.ref}: the weights were reported as {candidate.sha256[:12]}, these are {event.sha256[:12]}"
        )
    if not _states_both_losses(event):
        raise Refusal(f"{event.ref}: {event.result} states eval_loss and base_eval_loss, both finite; else say FAIL")


def _admit_score(stream: Stream, event: ev.Score) -> None:
    if stream.verdict is None or event.sha256 != stream.verdict.sha256:
        raise Refusal(f"{event.ref}: the score is of other weights than those that were validated")
    if not _states_both_losses(event):
        raise Refusal(f"{event.ref}: a score states eval_loss and base_eval_loss, and all its figures are finite")


def _states_both_losses(event: ev.Verdict | ev.Score) -> bool:
    return {"eval_loss", "base_eval_loss"} <= event.figures.keys() and all(map(math.isfinite, event.figures.values()))


def _admit_artifact(state: State, event: ev.Adapter | ev.Back | ev.Promote) -> None:
    stream = _stream(state, event.ref)
    match event:
        case ev.Adapter():
            if stream.verdict is None or stream.verdict.result == "FAIL" or stream.verdict.sha256 != event.sha256:
                raise Refusal(f"{event.ref}: these weights were not validated")
            if stream.adapter and event.tok < stream.adapter.tok:
                raise Refusal(f"{event.ref}: token {event.tok} is older than {stream.adapter.tok} of what is published")
        case ev.Back():
            if event.path not in {c.path for c in stream.earlier()}:
                raise Refusal(f"{event.ref}: {event.path} is no earlier checkpoint that may still be judged")
        case ev.Promote():
            if stream.adapter is None:
                raise Refusal(f"{event.ref}: has no validated adapter to promote")
            if event.sha256 != stream.adapter.sha256 or (event.tok or stream.adapter.tok) != stream.adapter.tok:
                published = f"token {stream.adapter.tok}, sha256 {stream.adapter.sha256[:12]}"
                raise Refusal(f"{event.ref}: is published under {published}; look at that before you promote it")


def _admit_opinion(state: State, event: ev.Approve | ev.Object) -> None:
    """An objection may come at any time; an approval needs a validated adapter, or an objection of one's own to take back."""
    if isinstance(event, ev.Object) and not event.why.strip():
        raise Refusal("an objection says why; write it behind what it is about")
    if event.stream == "run" or event.of or event.ref in state.proposals:
        return
    if event.ref == "-":
        raise Refusal(f"`-` is nothing that one could {event.kind} to; name `run`, a stream, or an entry with --of")
    if event.ref in state.tasks and event.stream not in state.streams:
        raise Refusal(f"{event.ref}: belongs to no stream, so nothing is promoted of it; name the entry with --of")
    stream = _stream(state, event.stream)
    if isinstance(event, ev.Approve) and not state.objections(stream.name) and stream.adapter is None:
        raise Refusal(f"{stream.name}: has no validated adapter yet, so there is nothing to approve")
