"""On which entries of the log somebody is told, and what; pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from swarm import events as ev
from swarm.policy.bests import best
from swarm.settings.alerts import Occasion
from swarm.state import Entry, State

NOT_FINITE = "not finite"
"""In the reason of a training that met a NaN."""
Message = dict[str, Any]


def messages(state: State, entries: Iterable[Entry]) -> Iterator[Message]:
    """Of entries that are folded into `state` one by one."""
    for entry in entries:
        before = best(state)
        state.apply(entry)
        if found := _of(entry.event, before, best(state)):
            occasion, text = found
            yield message(state, occasion, entry.event.stream, text, entry.seq)


def stalled(state: State, worker: str, refs: Iterable[str]) -> Message:
    """Of a worker that makes no progress, which is no entry."""
    about = ", ".join(refs) or "nothing"
    found = message(state, "stalled", about.partition("/")[0], f"{worker} makes no progress on {about}", state.seq)
    return {**found, "id": f"{found['id']}-{worker}"}  # several may stall between two entries


def message(state: State, occasion: Occasion | str, stream: str, text: str, seq: int) -> Message:
    """`id` is the same when it is sent again."""
    run = state.run.name if state.run else ""
    return {
        "id": f"{run}-{seq}-{occasion}",
        "run": run,
        "occasion": occasion,
        "stream": stream,
        "text": text,
        "seq": seq,
    }


def _of(event: object, before: float, now: float) -> tuple[Occasion, str] | None:
    match event:
        case ev.Fail(why=why):
            return "nan" if NOT_FINITE in why else "failed", f"{event.ref} is given up: {why}"
        case ev.Drop(failed=True, why=str(why)) if NOT_FINITE in why:
            return "nan", f"{event.ref}: {why}"
        case ev.End(rc=rc):
            return "end", f"the run is over with exit status {rc}" + (f": {event.body}" if event.body else "")
        case ev.Checkpoint() | ev.Trained() | ev.Verdict() if now < before and math.isfinite(now):
            beaten = f", {before:.4g} before" if math.isfinite(before) else ""
            return "new_best", f"{event.stream} has held-out loss {now:.4g}{beaten}"
        case _:
            return None
