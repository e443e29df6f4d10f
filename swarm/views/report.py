"""What a run came to, as data: the table at its end, `status` and the session export; no layout."""

from __future__ import annotations

from typing import Any

from swarm.views.snapshot import Snapshot, StreamRow, TaskRow, WorkerRow


def session(snapshot: Snapshot) -> dict[str, Any]:
    """One document that says how the run stands: streams as a uniform table, so that TOON is small."""
    return {
        "run": snapshot.run,
        "state": snapshot.state,
        "rc": snapshot.rc,
        "base": snapshot.base,
        "at": snapshot.seq,
        "promoted": snapshot.promoted or None,
        "why": snapshot.why or None,
        "streams": [stream(row) for row in snapshot.streams],
        "workers": [worker_of(row) for row in snapshot.workers],
        "tasks": [task(row) for row in snapshot.tasks],
    }


def stream(row: StreamRow) -> dict[str, Any]:
    return {
        "stream": row.name,
        "state": row.state,
        "step": row.step,
        "of": row.steps,
        "trainable": row.trainable,
        "loss_first": _rounded(row.first_loss),
        "loss": _rounded(row.loss),
        "heldout": _rounded(row.heldout),
        "base_heldout": _rounded(row.base_heldout),
        "exact": _rounded(row.exact),
        "base_exact": _rounded(row.base_exact),
        "tokens_per_second": round(row.tokens_per_second) if row.tokens_per_second is not None else None,
        "peak_bytes": row.memory_bytes,
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
        "dropped": row.dropped,
        "gaps": row.gaps,
        "replayed": row.replayed,
        "duplicates": row.duplicates,
        "reconnects": row.reconnects,
        "why": row.why or None,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
