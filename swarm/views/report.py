"""The result of a run as data, for the table at its end, `status` and the session export; no layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from swarm import figures
from swarm.figures import BASE, FIGURES
from swarm.views.snapshot import Snapshot, StreamRow, TaskRow, WorkerRow


def session(snapshot: Snapshot) -> dict[str, Any]:
    """One document with the state of the run; the streams are a uniform table, which TOON writes with one header."""
    return {
        "run": snapshot.run,
        "state": snapshot.state,
        "rc": snapshot.rc,
        "base": snapshot.base,
        "at": snapshot.seq,
        "promoted": snapshot.promoted or None,
        "why": snapshot.why or None,
        "waits": snapshot.waits or None,
        "leaderboard": asdict(snapshot.leaderboard) if snapshot.leaderboard.places else None,
        "streams": streams(snapshot.streams),
        "workers": [worker_of(row) for row in snapshot.workers],
        "tasks": [task(row) for row in snapshot.tasks],
    }


def streams(rows: Sequence[StreamRow]) -> list[dict[str, Any]]:
    """One row per stream; every row has a column for each figure that any stream has."""
    measured = [figures.with_base(row.figures, row.base) for row in rows]
    names = [name for name in in_order(measured) if name not in OF_A_STEP]
    return [
        stream(row, {name: _rounded(found.get(name)) for name in names})
        for row, found in zip(rows, measured, strict=True)
    ]


OF_A_STEP = frozenset({"learning_rate", "grad_norm", "epoch", "tokens", "best_loss", "memory_bytes"})
"""Figures of a single step, which are exported with the metrics."""


def in_order(measured: Iterable[Mapping[str, float]]) -> list[str]:
    """The names of the figures: those of `FIGURES` first and in its order, each followed by the base model's."""
    found = dict.fromkeys(name for figures_of_one in measured for name in figures_of_one)
    known = [name for plain in FIGURES for name in (plain, f"{BASE}{plain}") if name in found]
    return [*known, *(name for name in found if name not in known)]


def stream(row: StreamRow, measured: Mapping[str, float | None]) -> dict[str, Any]:
    return {
        "stream": row.name,
        "state": row.state,
        "step": row.step,
        "of": row.steps,
        "trainable": row.trainable,
        **measured,
        "mean_loss": _rounded(row.mean_losses[1]),
        "verdict": row.verdict or None,
        "why": row.why or None,
    }


def task(row: TaskRow) -> dict[str, Any]:
    left = None if row.left_seconds is None else round(row.left_seconds)
    return {"task": row.task, "state": row.state, "by": row.by or None, "token": row.token, "left_s": left}


def worker_of(row: WorkerRow) -> dict[str, Any]:
    return {
        "worker": row.name,
        "state": row.state,
        "task": row.task or None,
        "device": row.device,
        "pid": row.pid,
        "memory_bytes": row.memory_bytes,
        "predicted_bytes": row.predicted_bytes,
        "own_bytes": row.own_bytes,
        "predicted_own_bytes": row.predicted_own_bytes,
        "dropped": row.dropped,
        "gaps": row.gaps,
        "replayed": row.replayed,
        "duplicates": row.duplicates,
        "reconnects": row.reconnects,
        "why": row.why or None,
    }


def _rounded(value: float | None) -> float | None:
    return value if value is None or isinstance(value, int) else round(value, 4)
