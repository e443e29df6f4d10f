"""From state, metrics and workers to the rows that people see: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from swarm import figures, kinds
from swarm.policy.promotion import waiting
from swarm.printable import one_line
from swarm.settings import RunSettings, StreamSettings
from swarm.state import State, Stream
from swarm.views.curves import Curves
from swarm.views.snapshot import StreamRow, TaskRow, WorkerRow

OF_A_STEP = frozenset({"learning_rate", "grad_norm", "epoch"})
"""Figures that say nothing any more once the training is over."""


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
    """Why the winner won, or why a run ended without one; authors' words among it, made fit for a screen."""
    return one_line(state.promoted.why if state.promoted else state.end.body if state.end else "")


def waits_of(state: State, settings: RunSettings) -> str:
    """For whom the run waits before it promotes a stream, with the command; made fit for a screen."""
    return one_line(waiting(state, settings.promotion))


def task_rows(state: State, now: float) -> tuple[TaskRow, ...]:
    """What agents made or hold; what workers do stands with the streams."""
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
        settings=describe(settings) if settings else "",  # a folder whose config is gone
        step=last.step if last else (trained.step if trained else 0),
        steps=curves.steps or (settings.max_steps or 0 if settings else 0),
        figures=_at_this_pace(own, name, stream),
        base=base,
        mean_losses=(means.get("first_loss"), means.get("loss")),
        curves={figure: curve.thin() for figure, curve in curves.figures.items()},
        trainable=trained.trainable if trained else None,
        device=worker.device if worker else "",
        eta_seconds=_eta(curves, max(stream.turn_since, task.lease.began))
        if training and task and task.lease
        else None,
        worker=task.lease.by if task and task.lease else "",
        token=task.lease.token if task and task.lease else None,
        held_seconds=max(0.0, now - task.lease.began) if task and task.lease else None,
        lease_left_seconds=max(0.0, task.lease.until - now)
        if task and task.lease and task.lease.worker is None
        else None,
        verdict=verdict.result if verdict else "",
        why=one_line(why),
        checkpoints=tuple(sorted({checkpoint.step for checkpoint in stream.checkpoints})),
    )


def _of_curves(curves: Curves, *, is_training: bool) -> dict[str, float]:
    """Figures as the metrics tell them: the newest of each; those of the last step alone only while there is a next one."""
    newest = {
        name: curve.points[-1][1]
        for name, curve in curves.figures.items()
        if curve.points and (is_training or name not in OF_A_STEP)
    }
    loss = curves.of("loss")
    best = {} if loss.lowest is None else {"first_loss": loss.points[0][1], "best_loss": loss.lowest}
    return {**newest, **best}


def state_of(state: State, stream: Stream, worker: WorkerRow | None) -> tuple[str, str]:
    """The word for how a stream stands, and why."""
    role = state.next_role(stream)
    if stream.failed:
        return "failed", stream.failed
    if role is None:
        if state.promoted and state.promoted.ref == stream.name:
            return "promoted", state.promoted.why
        return "done", (stream.verdict.why or "") if stream.verdict and stream.verdict.result != "SUCCESS" else ""
    task = state.tasks[f"{stream.name}/{role}"]
    if stream.wish == "stop" or (state.stopped and not task.lease):
        return "stopped", "`swarm resume` goes on" if state.stopped else ""
    if stream.wish == "pause" and (task.lease is None or (worker and task.ref in worker.paused.split())):
        return "paused", ""
    if worker and worker.state in {"stalled", "unreachable"}:
        return "STALLED", worker.why
    if task.lease is None:
        return "wait", f"again: {task.failures[-1]}" if task.failures else f"for {role}"
    return role, f"again: {task.failures[-1]}" if task.failures else ""


def _losses(measured: Mapping[str, float]) -> dict[str, float]:
    """Those of single steps, also once the stream has stated its means: a column holds one thing."""
    return {name: measured[name] for name in ("loss", "first_loss", "best_loss") if name in measured}


def _at_this_pace(own: dict[str, float], state: str, stream: Stream) -> dict[str, float]:
    """Tokens per second: of the last step in training, 0 where it is stalled, none where it does not train.

    Once it is trained: those of the whole training, as it stated them.
    """
    if state == "train" or stream.trained or "tokens_per_second" not in own:
        return own
    rest = {name: value for name, value in own.items() if name != "tokens_per_second"}
    return {**rest, "tokens_per_second": 0.0} if state == "STALLED" else rest


def _eta(curves: Curves, since: float) -> float | None:
    """From the pace of the last steps since the stream was claimed or let go on."""
    pace = curves.seconds_per_step(since)
    if pace is None or not curves.steps or curves.last is None:
        return None
    return max(0.0, pace * (curves.steps - curves.last.step))


def describe(settings: StreamSettings) -> str:
    """A stream's adapter and optimizer in one line."""
    kind = kinds.adapter(settings.adapter)
    adapter = " ".join(filter(None, [kind.label(settings), kind.details(settings)]))
    return f"{adapter} · {settings.optimizer} {settings.learning_rate:g}"
