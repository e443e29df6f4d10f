"""The table at a run's end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from swarm import figures, units
from swarm.cli.screen import columns, room

if TYPE_CHECKING:
    from swarm.rundir import RunFolder
    from swarm.views.snapshot import Snapshot, StreamRow

VERDICTS = {"": "not judged", "SUCCESS": "passed", "WARNING": "warning", "FAIL": "rejected"}


def text(folder: RunFolder, snapshot: Snapshot) -> str:
    """The table at a run's end, with a column for each figure by which streams are compared and that any stream has."""
    rows = snapshot.streams
    compared = [name for name in figures.with_goal() if any(name in row.figures for row in rows)] or ["eval_loss"]
    headings = (
        "stream",
        "trainable",
        "mean loss",
        *(figures.of(name).label for name in compared),
        "tok/s",
        "peak",
        "verdict",
    )
    table = [headings, *(_result_row(row, compared) for row in sorted(rows, key=_rank))]
    lines = [columns(table, width=room(), spare=("peak", "trainable", "tok/s", "mean loss"))]
    base = next((row.base for row in rows if row.base), {})
    base_figures = [
        f"{figures.of(name).label} {figures.of(name).text(base[name])}" for name in compared if name in base
    ]
    lines += [f"base: {', '.join(base_figures)}"] if base_figures else []
    lines += [line for row in sorted(rows, key=_rank) if (line := _retained(row))]
    if snapshot.promoted:
        word = "taken" if snapshot.why.startswith(figures.TIE) else "winner"
        lines.append(f"{word}: {snapshot.promoted}, {snapshot.why}")
        lines.append(f"promoted: {folder.promoted}  ({_use_of(folder)})")
        lines.append(
            "next: swarm ask 'your question' · swarm log · swarm export --format toon · README 'Use your own model and data'"
        )
    elif snapshot.rc == 130:
        lines.append(f"stopped: everything is saved; `swarm resume {folder.name}` goes on")
    else:
        lines.append(f"nothing was promoted: {snapshot.why or 'see `swarm log`'}")
    return "\n".join(lines)


def _use_of(folder: RunFolder) -> str:
    from swarm.weights import MODELS

    if all((folder.promoted / model).is_dir() for model in MODELS):
        return f"{' and '.join(MODELS)}, an adapter each; swarm serve takes both as one"
    return "loads with PeftModel.from_pretrained"


def _retained(row: StreamRow) -> str:
    """What a stream kept of what its base could do, gain and loss on one line; empty where it was not measured."""
    from swarm.diary import measured

    kept = {name: value for name, value in row.figures.items() if figures.of(name).of == "retention"}
    base = {name: value for name, value in row.base.items() if figures.of(name).of == "retention"}
    return f"kept by {row.name}: {measured(figures.with_base(kept, base))}" if kept else ""


def _rank(row: StreamRow) -> tuple[bool, bool, float]:
    loss = row.figure("eval_loss")
    return (row.state != "promoted", loss is None, loss or 0.0)


def _result_row(row: StreamRow, compared: Sequence[str]) -> tuple[str, ...]:
    verdict = VERDICTS.get(row.verdict, row.verdict) if row.state == "done" else row.state
    if row.state in {"failed", "STALLED"} or (row.state == "done" and row.why):
        verdict += f": {row.why}"
    return (
        row.name,
        units.count(row.trainable),
        _mean_losses(row),
        *(_against_base(row, name) for name in compared),
        units.count(row.figure("tokens_per_second")),
        units.size(row.memory_bytes),
        verdict,
    )


def _mean_losses(row: StreamRow) -> str:
    first, last = row.mean_losses
    return "-" if last is None else f"{units.loss(first)} → {units.loss(last)}"


def _against_base(row: StreamRow, name: str) -> str:
    """A loss with its difference to the base model's; any other figure as `base → adapter`."""
    about, value, base = figures.of(name), row.figure(name), row.base.get(name)
    if value is None or base is None:
        return about.text(value)
    if about.goal == "min":
        return f"{about.text(value)} ({units.signed(value - base)})"
    return f"{about.text(base)} → {about.text(value)}"
