"""What the streams of a run use of its budget, and which of them it does not hold any more; pure.

Steps and tokens are known before a training: a stream that has begun counts whole until it has ended, and with what it did from
there.  Minutes and money are counted as they pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from swarm import events as ev
from swarm.settings import RunSettings, StreamSettings
from swarm.state import State, Stream


def used(state: State, settings: RunSettings, now: float) -> dict[str, float]:
    """By the names of the budget, what the streams that have begun use or will have used."""
    begun = [stream for stream in state.streams.values() if _has_begun(stream) and stream.name in settings.streams]
    costs = [_cost(state, stream, settings.streams[stream.name]) for stream in begun]
    minutes = max(0.0, now - state.started) / 60 if state.started else 0.0
    return {
        "steps": sum(steps for steps, _ in costs),
        "tokens": sum(tokens for _, tokens in costs),
        "minutes": minutes,
        "usd": usd(minutes, settings),
    }


def usd(minutes: float, settings: RunSettings) -> float:
    """At the highest of the prices: which device trains what is not known beforehand."""
    return minutes / 60 * max(settings.prices.values(), default=0.0)


def over_budget(state: State, settings: RunSettings, now: float) -> dict[str, str]:
    """The streams that have not begun to train and that the budget does not hold beside those before them, each with the reason."""
    if settings.budget is None:
        return {}
    so_far, found = used(state, settings, now), {}
    for stream in state.streams.values():
        if not _has_begun(stream) and not stream.over and stream.name in settings.streams:
            steps, tokens = _whole(settings.streams[stream.name], stream.prepared)
            if why := _exceeded(settings, so_far, steps, tokens):
                found[stream.name] = why
            else:
                so_far["steps"] += steps
                so_far["tokens"] += tokens
    return found


def no_room(state: State, settings: RunSettings, now: float, wanted: StreamSettings) -> str:
    """Why the budget does not hold one more such stream; empty: it does."""
    if settings.budget is None:
        return ""
    so_far = used(state, settings, now)
    waiting = [s for s in state.streams.values() if not _has_begun(s) and not s.over and s.name in settings.streams]
    for stream in waiting:
        steps, tokens = _whole(settings.streams[stream.name], stream.prepared)
        so_far["steps"] += steps
        so_far["tokens"] += tokens
    prepared = next((stream.prepared for stream in state.streams.values() if stream.prepared), None)
    return _exceeded(settings, so_far, *_whole(wanted, prepared))


def training_seconds(state: State, name: str, now: float | None = None) -> float | None:
    """How long a stream was trained: as its training states it, else the sum of its leases, with the present one until `now`."""
    if trained := state.streams[name].trained:
        return trained.figures.get("seconds")
    task = state.tasks[f"{name}/train"]
    present = max(0.0, now - task.lease.began) if task.lease and now is not None else 0.0
    return task.seconds + present or None


def trains(stream: Stream) -> bool:
    """Whether it is to be trained and is not at its end."""
    return stream.trained is None and not stream.over


def _has_begun(stream: Stream) -> bool:
    return bool(stream.train_leases)


def _exceeded(settings: RunSettings, so_far: dict[str, float], steps: float, tokens: float) -> str:
    assert settings.budget
    more = {"steps": steps, "tokens": tokens}
    for name, limit in settings.budget:
        if limit is not None and (so_far[name] >= limit or so_far[name] + more.get(name, 0.0) > limit):
            needed = f" and this needs {more[name]:.0f}" if name in more else ""
            return f"the budget is {limit:g} {name}: {so_far[name]:.4g} are used{needed}"
    return ""


def _cost(state: State, stream: Stream, settings: StreamSettings) -> tuple[float, float]:
    """Steps and tokens of a stream that has begun."""
    steps, tokens = _whole(settings, stream.prepared)
    if trains(stream) or not steps:
        return steps, tokens
    done = stream.trained.step if stream.trained else max((saved.step for saved in stream.checkpoints), default=0)
    return done, tokens * done / steps


def _whole(settings: StreamSettings, prepared: ev.Prepared | None) -> tuple[float, float]:
    """Steps and tokens of the whole training; where the number of rows is not known yet, only `max_steps` says it."""
    per_step = settings.micro_batch_size * settings.gradient_accumulation_steps
    rows = prepared.rows if prepared else 0
    steps = settings.max_steps or math.ceil(rows * settings.num_epochs / per_step)
    return steps, steps * per_step * (prepared.tokens / rows if prepared and rows else 0.0)


def usage(state: State, settings: RunSettings, now: float) -> Iterator[str]:
    """`320 of 400 steps`, for each limit."""
    so_far = used(state, settings, now)
    for name, limit in settings.budget or ():
        if limit is not None:
            yield f"{so_far[name]:.4g} of {limit:g} {name}"
