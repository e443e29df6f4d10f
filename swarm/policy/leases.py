"""Who may claim, keep, hand over and end a lease; pure.  Every event that depends on one carries its fencing token."""

from __future__ import annotations

import math

from swarm import events as ev
from swarm.event import JUDGING, RESERVED
from swarm.events import RESULT_OF
from swarm.state import Lease, Refusal, State, Stream, Task

JUDGES = frozenset({*JUDGING, "sealed"})
"""Roles that an agent may not have for a stream which it trained (separation of duties)."""

LONGEST_LEASE_SECONDS = 7 * 86400.0


def stream_of(state: State, name: str) -> Stream:
    if state.run is None and not state.streams:
        raise Refusal(f"{name}: {state.at_rest}")
    if name not in state.streams:
        raise Refusal(f"{name}: no such stream; there is {', '.join(state.streams) or 'none'}")
    return state.streams[name]


def task_of(state: State, ref: str) -> Task:
    if ref not in state.tasks:
        raise Refusal(f"{ref}: no such task; `swarm status` lists them")
    return state.tasks[ref]


def _admit_ttl(ttl: float) -> None:
    if not (math.isfinite(ttl) and 0 < ttl <= LONGEST_LEASE_SECONDS):
        raise Refusal(f"ttl {ttl:g}: a lease is longer than 0 and at most {LONGEST_LEASE_SECONDS:.0f} seconds")


def admit_claim(state: State, author: str, event: ev.Claim, now: float) -> None:
    _admit_ttl(event.ttl)
    task = task_of(state, event.ref)
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


def current(state: State, ref: str, token: int) -> Lease:
    """The lease of the task, if it is held under this token."""
    task = task_of(state, ref)
    lease = task.lease
    if lease is None and task.done and task.done.tok == token:
        raise Refusal(f"{ref}: is done already ({task.done.kind}); `swarm post` adds to it")
    if lease is None or lease.token != token:
        current = f"token {lease.token} holds it" if lease else "nobody holds it"
        raise Refusal(f"{ref}: token {token} is stale, {current}; claim it anew before you report on it")
    return lease


def admit_lease(
    state: State, author: str, event: ev.Renew | ev.Hand | ev.Done | ev.Drop | ev.Expire, now: float
) -> None:
    lease = current(state, event.ref, event.tok)
    match event:
        case ev.Expire():
            pass
        case ev.Renew(ttl=ttl):
            _admit_ttl(ttl)
            admit_author(lease, author, event.ref, now, who=lease.by)
        case ev.Hand(ttl=ttl):
            _admit_ttl(ttl)
            _admit_hand(state, lease, author, event, now)
        case ev.Done() | ev.Drop():
            admit_author(lease, author, event.ref, now, who=lease.worker or lease.by)
            if isinstance(event, ev.Done):
                _admit_done(state, event)


def admit_author(lease: Lease, author: str, ref: str, now: float, *, who: str) -> None:
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
        admit_author(lease, author, event.ref, now, who=lease.by)


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
