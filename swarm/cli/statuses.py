"""`swarm status` for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarm import units
from swarm.cli.screen import columns, room
from swarm.views import leaderboard

if TYPE_CHECKING:
    from swarm.views.snapshot import Leaderboard, Snapshot, StreamRow, WorkerRow


PLACES = 8
"""Of the leaderboard; `--json` has all."""


def text(snapshot: Snapshot) -> str:
    """`swarm status` for people."""
    head = (
        f"{snapshot.run} · {snapshot.state}"
        + (f" rc {snapshot.rc}" if snapshot.rc is not None else "")
        + f" · log {snapshot.seq}"
    )
    lines = [head + ("" if snapshot.log_ok else " DAMAGED: `swarm log verify`"), ""]
    streams = [("stream", "state", "step/of", "loss", "held-out", "tok/s", "eta", "held by", "why")]
    rows = [*streams, *(_status_row(row) for row in snapshot.streams)]
    lines.append(columns(rows, width=room(), spare=("tok/s", "held by", "held-out")))
    if snapshot.workers:
        workers = [("worker", "state", "task", "device", "memory", "pid", "bus", "why")]
        workers += [
            (
                w.name,
                w.state,
                w.task or "-",
                w.device,
                _memory(w),
                str(w.pid or "-"),
                w.bus or "ok",
                w.why,
            )
            for w in snapshot.workers
        ]
        lines += ["", columns(workers, width=room(), spare=("memory", "pid", "bus", "device"))]
    if snapshot.tasks:
        tasks = [("agents' task", "state", "held by", "left")]
        tasks += [
            (t.task, t.state, f"{t.by} token {t.token}" if t.by else "-", units.duration(t.left_seconds))
            for t in snapshot.tasks
        ]
        lines += ["", columns(tasks)]
    if snapshot.leaderboard.places:
        lines += ["", *_leaderboard(snapshot.leaderboard)]
    if snapshot.budget:
        lines += ["", f"budget: {snapshot.budget}"]
    if snapshot.feedback:
        lines += ["", f"feedback: {snapshot.feedback}"]
    if snapshot.promoted:
        lines += ["", f"promoted: {snapshot.promoted}, {snapshot.why}"]
    if snapshot.waits:
        lines += ["", f"to decide: {snapshot.waits}"]
    return "\n".join(lines)


def _leaderboard(board: Leaderboard) -> list[str]:
    first = [leaderboard.words(one, board.metric) for one in board.places[:PLACES]]
    more = len(board.places) - len(first)
    return [
        f"leaderboard: {leaderboard.title(board)}",
        columns([leaderboard.HEADINGS, *first]),
        *([f"and {more} more: `swarm status --json`"] if more else []),
    ]


def _status_row(row: StreamRow) -> tuple[str, ...]:
    from swarm.views.reasons import work

    return (
        row.name,
        row.state,
        f"{row.step}/{row.steps or '?'}",
        units.loss(row.figure("loss")),
        units.loss(row.figure("eval_loss")),
        units.count(row.figure("tokens_per_second")),
        units.duration(row.eta_seconds),
        f"{row.worker} token {row.token}" if row.worker else "-",
        row.why or work(row),
    )


def _memory(row: WorkerRow) -> str:
    """Measured, beside what was predicted at most; of the process, and of its streams beside their base."""
    whole, own = _beside(row.memory_bytes, row.predicted_bytes), _beside(row.own_bytes, row.predicted_own_bytes)
    return whole if row.own_bytes is None else f"{whole}, streams {own}"


def _beside(measured: int | None, predicted: int | None) -> str:
    return units.size(measured) if predicted is None else f"{units.size(measured)} of {units.size(predicted)}"
