"""Prints results: columns, the table at a run's end, or JSON and TOON."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from swarm import figures, surroundings, units

if TYPE_CHECKING:
    from swarm.agents.inbox import Message
    from swarm.planning.starting import Plan
    from swarm.rundir import RunFolder
    from swarm.views.snapshot import Snapshot, StreamRow, WorkerRow


def print_detached(folder: RunFolder) -> None:
    """Print that the run goes on, and the commands to attach to it and to stop it."""
    name = folder.name
    print(f"swarm: detached; {name} goes on", file=sys.stderr)
    print(f"  swarm watch {name}   shows it again", file=sys.stderr)
    print(f"  swarm stop {name}    saves and stops it", file=sys.stderr)


def print_data(value: Any, form: bool | None, *, following: bool = False) -> None:
    """Print data as JSON (`form` True) or TOON; `following`: one of many documents, flushed, JSON on one line."""
    if form:
        text = json.dumps(value, indent=None if following else 2, ensure_ascii=False)
        print(as_shown(text), flush=following)
    else:
        from toon import encode

        print(as_shown(encode(value)), end="\n\n" if following else "\n", flush=following)


def tell(text: str) -> None:
    """Print text for people on stdout."""
    print(for_people(text))


def for_people(text: str) -> str:
    """The text without characters that control a terminal; in ASCII if the locale or the terminal has no more."""
    from swarm import asciitext
    from swarm.printable import printable

    safe = printable(text)
    return asciitext.plain(safe) if asciitext.needed(os.environ) else safe


def as_shown(data: str) -> str:
    """Data unchanged, except on a terminal: there without characters that control it."""
    from swarm.printable import printable

    return printable(data) if is_terminal() else data


def is_terminal() -> bool:
    return sys.stdout.isatty()


def room() -> int | None:
    """The width of the terminal in cells; None if stdout is no terminal."""
    return shutil.get_terminal_size().columns if is_terminal() else None


def columns(rows: Sequence[Sequence[str]], *, gap: int = 2, width: int | None = None, spare: Sequence[str] = ()) -> str:
    """Rows of cells; each column is as wide as its widest cell, the last one is not padded.

    If `width` is given and too small, columns with a heading in `spare` are left out in that order until the others fit; then
    the cells of the last column, which holds reasons, are shortened.
    """
    from swarm.views.reasons import short

    if not rows:
        return ""
    for heading in spare if width else ():
        if width and max(map(len, columns(rows, gap=gap).splitlines())) > width and heading in rows[0]:
            at = list(rows[0]).index(heading)
            rows = [[*row[:at], *row[at + 1 :]] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    if width and (left := width - sum(widths[:-1]) - gap * (len(widths) - 1)) < widths[-1]:
        rows = [[*row[:-1], short(row[-1], max(8, left))] for row in rows]
    return "\n".join(
        (" " * gap).join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def print_left(folder: RunFolder) -> None:
    """Print, after a person left the dashboard, how the run stands and the next command."""
    from swarm.log import Log, run_is_alive
    from swarm.state import fold

    if run_is_alive(folder.log):
        print_detached(folder)
    elif fold(Log(folder.log).entries()).run is None:
        print(f"swarm: `swarm run CONFIG --in {folder.name}` starts a run in this log", file=sys.stderr)
    else:
        print_orphaned(folder)


def announce(folder: RunFolder, made: Plan) -> None:
    bases = ", ".join(made.bases)
    devices = ", ".join(sorted({spec.device for spec in made.layout.workers if "train" in spec.roles}))
    where = f"{surroundings.cores()} cores" if devices == "cpu" else devices
    count = len(made.config.run.streams)
    line = f"swarm: run {folder.name} · {count} stream{'s' * (count != 1)} on base {bases} · {where} · log {folder.log}"
    for text in (line, *(note for note in made.notes() if note.startswith("warning"))):
        print(for_people(text), file=sys.stderr)


def has_ended(folder: RunFolder) -> bool:
    from swarm.log import Log
    from swarm.state import fold

    return fold(Log(folder.log).entries()).end is not None


def print_orphaned(folder: RunFolder) -> int:
    print(
        f"{folder.name}: its coordinator is gone; `swarm resume {folder.name}` goes on, see {folder.path}/coordinator.log",
        file=sys.stderr,
    )
    return 1


def print_result(folder: RunFolder, form: bool | None = None) -> int:
    """Print the result of the run and return its exit status."""
    from swarm.views.watch import Watcher

    with Watcher.attach(folder.path) as watcher:
        snapshot = watcher.snapshot()
    if form is None:
        tell(result_text(folder, snapshot))
    else:
        from swarm.views.report import session

        print_data(session(snapshot), form)
    return snapshot.rc if snapshot.rc is not None else 1


VERDICTS = {"": "not judged", "SUCCESS": "passed", "WARNING": "warning", "FAIL": "rejected"}


def result_text(folder: RunFolder, snapshot: Snapshot) -> str:
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


def status_text(snapshot: Snapshot) -> str:
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
    if snapshot.leaderboard:
        lines += ["", f"leaderboard by {snapshot.leaderboard}"]
    if snapshot.budget:
        lines += ["", f"budget: {snapshot.budget}"]
    if snapshot.feedback:
        lines += ["", f"feedback: {snapshot.feedback}"]
    if snapshot.promoted:
        lines += ["", f"promoted: {snapshot.promoted}, {snapshot.why}"]
    if snapshot.waits:
        lines += ["", f"to decide: {snapshot.waits}"]
    return "\n".join(lines)


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


def entry_line(message: Message, amended: Mapping[int, str]) -> str:
    """An entry as a line, marked if it is addressed to the reader or was amended."""
    from swarm.views import logview

    by = amended.get(message.entry.seq)
    marks = (by and f"amended: {by}", message.why)
    return "  ← ".join([logview.line(message.entry), *filter(None, marks)])


def entry_data(message: Message, amended: Mapping[int, str], *, marked: bool) -> dict[str, Any]:
    from datetime import UTC, datetime

    entry = message.entry
    return {
        "seq": entry.seq,
        "kind": entry.event.kind,
        "ref": entry.event.ref,
        "author": entry.author,
        "time": datetime.fromtimestamp(entry.time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "via": entry.via,
        "facts": entry.event.facts(),
        "body": entry.event.body,
        **({"amended": amended[entry.seq]} if entry.seq in amended else {}),
        **({"why": message.why or None} if marked else {}),
    }


def as_table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The entries with equal columns and the facts as text, so that TOON writes them as one table."""
    from swarm.views.export import facts_text

    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} | {"facts": facts_text(row["facts"])} for row in rows]


def _memory(row: WorkerRow) -> str:
    """Measured, beside what was predicted at most; of the process, and of its streams beside their base."""
    whole, own = _beside(row.memory_bytes, row.predicted_bytes), _beside(row.own_bytes, row.predicted_own_bytes)
    return whole if row.own_bytes is None else f"{whole}, streams {own}"


def _beside(measured: int | None, predicted: int | None) -> str:
    return units.size(measured) if predicted is None else f"{units.size(measured)} of {units.size(predicted)}"


def plan_data(made: Plan) -> dict[str, Any]:
    from dataclasses import asdict

    workers = [
        {"worker": w.name, "roles": " ".join(w.roles), "device": w.device, "threads": w.threads, "slots": w.slots}
        for w in made.layout.workers
    ]
    return {"streams": [asdict(row) for row in made.rows()], "workers": workers, "notes": made.notes()}


def plan_text(made: Plan) -> str:
    """`swarm plan` for people."""
    rows = [
        (
            "stream",
            "adapter",
            "trainable",
            "weights",
            "+grad+moments",
            "activations",
            "sum",
            "engine",
            "device",
            "rows",
            "steps",
            "batch",
            "tokens/step",
        ),
    ]
    rows += [
        (
            row.stream, row.adapter, units.count(row.trainable), units.size(row.weights_bytes),
            units.size(row.adapter_gradients_moments_bytes), units.size(row.activations_bytes), units.size(row.total_bytes),
            row.engine, row.device, str(row.rows or "?"), str(row.steps or "?"),
            str(row.batch_rows), f"≤{units.count(row.step_tokens)}",
        )
        for row in made.rows()
    ]  # fmt: skip
    workers = [("worker", "roles", "device", "threads", "at once")]
    workers += [(w.name, "+".join(w.roles), w.device, str(w.threads), str(w.slots)) for w in made.layout.workers]
    notes = "\n".join(made.notes())
    closing = "nothing was started; `swarm run` does, `swarm plan --explain` says where every setting comes from"
    return f"{columns(rows)}\n\n{columns(workers)}\n\n{notes}\n{closing}"
