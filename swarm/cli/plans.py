"""`swarm plan` and the line with which a run begins."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from swarm import surroundings, units
from swarm.cli.screen import columns, for_people

if TYPE_CHECKING:
    from swarm.planning.starting import Plan
    from swarm.rundir import RunFolder


def announce(folder: RunFolder, made: Plan) -> None:
    bases = ", ".join(made.bases)
    devices = ", ".join(sorted({spec.device for spec in made.layout.workers if "train" in spec.roles}))
    where = f"{surroundings.cores()} cores" if devices == "cpu" else devices
    count = len(made.config.run.streams)
    line = f"swarm: run {folder.name} · {count} stream{'s' * (count != 1)} on base {bases} · {where} · log {folder.log}"
    for text in (line, *(note for note in made.notes() if note.startswith("warning"))):
        print(for_people(text), file=sys.stderr)


def data(made: Plan) -> dict[str, Any]:
    from dataclasses import asdict

    workers = [
        {"worker": w.name, "roles": " ".join(w.roles), "device": w.device, "threads": w.threads, "slots": w.slots}
        for w in made.layout.workers
    ]
    return {"streams": [asdict(row) for row in made.rows()], "workers": workers, "notes": made.notes()}


def text(made: Plan) -> str:
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
