"""Recognises an event that repeats a recorded one, so that a sender whose acknowledgement was lost may send it again; pure."""

from __future__ import annotations

from swarm import events as ev
from swarm.event import Event
from swarm.state import Refusal, State, Task, result_key


def repeat_of(state: State, author: str, event: Event, now: float) -> int | None:
    """The seq of the entry that this event only repeats; None: it is new.

    A repeat is the same idempotency key, a claim of what the author holds, a hand-over that has happened, or a result with
    equal facts.  Raises Refusal for a key that was used for another event.
    """
    task = state.tasks.get(event.ref)
    if event.idem and (known := state.idems.get((author, event.idem))):
        return _repeated_key(task, author, event, known, now)
    lease = task.lease if task else None
    match event:
        case ev.Claim() if lease and lease.by == author and not lease.overdue(now):
            return lease.token
        case ev.Hand(tok=tok, to=to) if lease and (lease.handed_by, lease.was, lease.by) == (author, tok, to):
            return lease.token
        case _ if known_result := state.results.get(result_key(author, event)):
            facts, seq = known_result
            return seq if facts == event.facts() else None
        case ev.Done() if task and task.role and task.done:
            return _repeated_by_done(state, author, event, task.done)
        case _:
            return None


def _repeated_key(task: Task | None, author: str, event: Event, known: tuple[int, Event], now: float) -> int:
    """The seq of the first event with this key; for a claim, the token of the lease as long as it lasts."""
    seq, first = known
    if not is_same(first, event):
        raise Refusal(f"the key {event.idem} stands for {first.kind} {first.ref} (entry {seq}); take a new one")
    if not isinstance(first, ev.Claim):
        return seq
    lease = task.lease if task else None
    if lease and lease.by == author and lease.first <= seq <= lease.token and not lease.overdue(now):
        return lease.token
    raise Refusal(f"{event.ref}: the claim of the key {event.idem} (token {seq}) is over; claim with a new key")


def is_same(first: Event, event: Event) -> bool:
    """Whether the second event repeats the first, which may have facts beside that were added when it was admitted."""
    if (first.kind, first.ref, first.body.strip()) != (event.kind, event.ref, event.body.strip()):
        return False
    facts = first.facts()
    may_differ = {"ttl", "person", "path", "sha256", *(("why", "tok") if isinstance(first, ev.Promote) else ())}
    return all(facts.get(key) == value for key, value in event.facts().items() if key not in may_differ)


def _repeated_by_done(state: State, author: str, done: ev.Done, result: Event) -> int | None:
    """A `done` after a result of the same token that states nothing new repeats the result."""
    facts = result.facts()
    stated = {name: value for name, value in done.facts().items() if name in {"tok", "path", "sha256", "cmd"}}
    adds = done.body.strip() or done.rc != 0 or any(facts.get(name) != value for name, value in stated.items())
    key = (author, result.kind, done.ref, done.tok, getattr(result, "step", None))
    return None if adds or key not in state.results else state.results[key][1]
