"""Makes the rows of streams and tasks that screens show from state, metrics and workers; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from swarm import figures, kinds
from swarm.diary import own_words
from swarm.policy import feedback
from swarm.policy.promotion import waiting, waits_for
from swarm.policy.research import proposals_waiting
from swarm.printable import one_line
from swarm.settings import RunSettings, StreamSettings
from swarm.state import State, Stream
from swarm.views.curves import Curves
from swarm.views.snapshot import StreamRow, TaskRow, WorkerRow

OF_A_STEP = frozenset({"learning_rate", "grad_norm", "epoch"})
"""Figures that are shown only while a stream is training."""


def stream_rows(
    state: State, settings: RunSettings, curves: Mapping[str, Curves], workers: Sequence[WorkerRow], now: float
) -> tuple[StreamRow, ...]:
    by_task = {task: worker for worker in workers for task in worker.task.split()}
    winner, _, waits = waits_of(state, settings).partition(": ")
    rows = (
        _row(state, stream, settings.streams.get(name), curves.get(name) or Curves(), by_task, now)
        for name, stream in state.streams.items()
    )
    return tuple(replace(row, why=waits) if row.name == winner else row for row in rows)


def why_of(state: State) -> str:
    """Why the winner won, or why the run ended without one; safe for a screen, since authors wrote parts of it."""
    return one_line(state.promoted.why if state.promoted else own_words(state.end) if state.end else "")


def waits_of(state: State, settings: RunSettings) -> str:
    """Whose approval a promotion or a proposal waits for, with the command; safe for a screen."""
    promotion = waiting(state, settings.promotion) or feedback.waits(state, settings)
    return one_line(promotion or proposals_waiting(state, settings))


def still_waits(state: State, settings: RunSettings, stream: str) -> str:
    """What the promotion of this stream waits for after an approval; empty: nothing, or there is no such stream."""
    return one_line(waits_for(state, settings.promotion, stream)) if stream in state.streams else ""


def task_rows(state: State, now: float) -> tuple[TaskRow, ...]:
    """The tasks that agents added or hold; tasks that workers hold are shown with their streams."""
    rows = []
    for task in state.tasks.values():
        lease = task.lease
        if task.role is None or (lease and not lease.worker):
            left = max(0.0, lease.until - now) if lease and not lease.worker else None
            what = "done" if task.done else "held" if lease else "open"
            rows.append(TaskRow(task.ref, what, lease.by if lease else "", lease.token if lease else None, left))
    return tuple(rows)


def _row(
    state: State,
    stream: Stream,
    settings: StreamSettings | None,
    curves: Curves,
    by_task: Mapping[str, WorkerRow],
    now: float,
) -> StreamRow:
    role = state.next_role(stream)
    task = state.tasks[f"{stream.name}/{role}"] if role else None
    worker = by_task.get(task.ref) if task else None
    last = curves.last
    name, why = state_of(state, stream, worker)
    training = name == "train"
    trained, verdict = stream.trained, stream.verdict
    measured = _of_curves(curves, is_training=training)
    own, base = figures.split({**measured, **stream.figures, **_losses(measured)})
    means = trained.figures if trained else {}
    return StreamRow(
        name=stream.name,
        state=name,
        settings=describe(settings) if settings else "",  # empty if the config of the run was removed
        step=last.step if last else (trained.step if trained else 0),
        steps=curves.steps or (settings.max_steps or 0 if settings else 0),
        figures=_at_this_pace(own, name, stream),
        base=base,
        mean_losses=(means.get("first_loss"), means.get("loss")),
        curves={figure: curve.thin() for figure, curve in curves.figures.items()},
        modes=_modes(settings) if settings else (),
        times=curves.times.thin(),
        trainable=trained.trainable if trained else None,
        device=worker.device if worker else "",
        eta_seconds=_eta(curves, max(stream.turn_since, task.lease.began), settings, measured)
        if training and task and task.lease
        else None,
        worker=task.lease.by if task and task.lease else "",
        token=task.lease.token if task and task.lease else None,
        held_seconds=max(0.0, now - task.lease.began) if task and task.lease else None,
        done=worker.done_of(task.ref) if worker and task else None,
        lease_left_seconds=max(0.0, task.lease.until - now)
        if task and task.lease and task.lease.worker is None
        else None,
        wish=stream.wish,
        verdict=verdict.result if verdict else "",
        why=one_line(why),
        checkpoints=tuple(sorted({checkpoint.step for checkpoint in stream.checkpoints})),
    )


def _modes(settings: StreamSettings) -> tuple[str, ...]:
    """Of its controller; none where two models have different ones."""
    named = {kinds.controller(part.controller).modes for part in settings.parts.values()} - {()}
    return named.pop() if len(named) == 1 else ()


def _of_curves(curves: Curves, *, is_training: bool) -> dict[str, float]:
    """The newest value of each figure in the metrics; those of `OF_A_STEP` only in training."""
    newest = {
        name: curve.points[-1][1]
        for name, curve in curves.figures.items()
        if curve.points and (is_training or name not in OF_A_STEP)
    }
    loss = curves.of("loss")
    best = {} if loss.lowest is None else {"first_loss": loss.points[0][1], "best_loss": loss.lowest}
    return {**newest, **best}


def state_of(state: State, stream: Stream, worker: WorkerRow | None) -> tuple[str, str]:
    """The state of a stream and the reason for it."""
    role = state.next_role(stream)
    if stream.failed:
        return "failed", stream.failed
    if role is None:
        word = "promoted" if state.promoted and state.promoted.ref == stream.name else "done"
        return word, (stream.verdict.why or "") if stream.verdict and stream.verdict.result != "SUCCESS" else ""
    task = state.tasks[f"{stream.name}/{role}"]
    if stream.wish == "stop" or (state.stopped and not task.lease):
        return "stopped", "`swarm resume` goes on" if state.stopped else ""
    if stream.wish == "pause" and (task.lease is None or worker is None or task.ref in worker.paused.split()):
        return "paused", ""
    if worker and worker.state in {"stalled", "unreachable"}:
        return "STALLED", worker.why
    if task.lease is None:
        return "wait", f"again: {task.failures[-1]}" if task.failures else f"for {role}"
    if stream.wish == "pause":
        return role, "pauses after this step" if role == "train" else f"pauses after it: {role} has no steps"
    return role, f"again: {task.failures[-1]}" if task.failures else ""


def as_measured(stream: Stream, newest: Mapping[str, float]) -> tuple[int | None, dict[str, float]]:
    """Step and figures of a stream: those measured last (`artifacts.metrics.newest`) while it trains, then what its roles stated."""
    saved = stream.checkpoints[-1] if stream.checkpoints else None
    if stream.trained:
        newest = {"step": stream.trained.step}
    step = newest.get("step", saved.step if saved else None)
    return None if step is None else int(step), {**(saved.figures if saved else {}), **newest, **stream.figures}


def _losses(measured: Mapping[str, float]) -> dict[str, float]:
    """Losses of single steps, which are shown after training too: `trained` entries state means under the same names."""
    return {name: measured[name] for name in ("loss", "first_loss", "best_loss") if name in measured}


def _at_this_pace(own: dict[str, float], state: str, stream: Stream) -> dict[str, float]:
    """The figures with tokens per second as the state has them.

    In training those of the last step, 0 for a stalled stream, none for a paused or waiting one; after training the mean that its
    `trained` entry states.
    """
    if state == "train" or stream.trained or "tokens_per_second" not in own:
        return own
    rest = {name: value for name, value in own.items() if name != "tokens_per_second"}
    return {**rest, "tokens_per_second": 0.0} if state == "STALLED" else rest


def run_eta(rows: Sequence[StreamRow]) -> float | None:
    """Seconds until the last stream is trained: those that train, and those that wait for their turn at the mean pace."""
    training = {row.name: row.eta_seconds for row in rows if row.state == "train" and row.eta_seconds is not None}
    waiting = [row for row in rows if row.state == "wait" or (row.state == "prepare" and not row.step)]
    paces = [row.eta_seconds / left for row in rows if row.eta_seconds and (left := row.steps - row.step) > 0]
    unknown = any(row.state in {"train", "STALLED"} and row.name not in training for row in rows)
    if not training or unknown or any(not row.steps for row in waiting):
        return None
    later = sum(row.steps for row in waiting) * sum(paces) / len(paces) if paces else 0.0
    return max(*training.values(), (sum(training.values()) + later) / len(training))


def _eta(curves: Curves, since: float, settings: StreamSettings | None, measured: Mapping[str, float]) -> float | None:
    """Seconds left, from the seconds per step since the stream was claimed or resumed, and no more than its stops leave."""
    pace = curves.seconds_per_step(since)
    if pace is None or not curves.steps or curves.last is None:
        return None
    stops = kinds.stops_armed(settings) if settings else []
    lefts = [left for stop in stops if (left := stop.seconds_left(settings, measured)) is not None]
    return min(max(0.0, pace * (curves.steps - curves.last.step)), *lefts, math.inf)


def describe(settings: StreamSettings) -> str:
    """A stream's adapter and optimizer in one line."""
    kind = kinds.adapter(settings.adapter)
    adapter = " ".join(filter(None, [kind.label(settings), kind.details(settings)]))
    return f"{adapter} · {settings.optimizer} {settings.learning_rate:g}"
