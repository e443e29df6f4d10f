"""What a controller with modes did, as files: `phi_log.csv`, `transition_log.json`, `phi_summary.json` and the picture `phi.svg` (U21).

Of a controller in a loop of your own, `write(folder, controller.phi_log())`; of a stream from the rows of its `train_log.csv`, which
the end of a training does: there is a row for every logged step, so that with `logging_steps` above 1 a short mode may be missing.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from swarm.files import write_whole
from trainer.moded import summary_of
from trainer.unified import MODES

CSV, TRANSITIONS, SUMMARY, PICTURE = "phi_log.csv", "transition_log.json", "phi_summary.json", "phi.svg"
Rows = Sequence[Mapping[str, Any]]
"""One a step: `step`, `loss`, `phi`, `mode`, and whatever else was measured."""


def write(
    folder: Path, rows: Rows, thetas: Sequence[float] = (), *, names: Sequence[str] = MODES, bounded: bool = True
) -> None:
    """Of the rows that have a phi and a loss.

    `thetas`: the thresholds of phi, drawn as lines.  `names`: of the modes.  `bounded`: phi lies within 0 and 1.
    """
    folder.mkdir(exist_ok=True)
    rows = [row for row in rows if {"phi", "loss"} <= row.keys()]
    columns = dict.fromkeys(name for row in rows for name in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(folder / CSV, text.getvalue())
    for name, found in ((TRANSITIONS, transitions_in(rows, names)), (SUMMARY, summary_of(rows, names))):
        write_whole(folder / name, json.dumps(found, indent=1) + "\n")
    write_whole(folder / PICTURE, drawn(rows, thetas, 1.0 if bounded else _top(rows, "phi")))


def transitions_in(rows: Rows, names: Sequence[str] = MODES) -> list[dict[str, Any]]:
    """Every change of mode between two rows."""
    return [
        {
            "step": after["step"], "from": names[int(before["mode"])], "to": names[int(after["mode"])], "phi": after["phi"],
            "loss": after["loss"],
        }
        for before, after in pairwise(rows)
        if before["mode"] != after["mode"]
    ]  # fmt: skip


# ---- the picture ----

WIDTH, PANEL, LEFT, GAP = 720, 150, 52, 26
SHADES = ("none", "#fff1cc", "#f9d5d5")
"""Behind the curves, by mode."""


def drawn(rows: Rows, thetas: Sequence[float] = (), highest: float = 1.0) -> str:
    """The loss above, phi below, over the steps; the ground is coloured by mode."""
    height = 2 * (PANEL + GAP) + 16
    parts = [*_panel(rows, "loss", _top(rows, "loss"), GAP), *_panel(rows, "phi", highest, 2 * GAP + PANEL, thetas)]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12">'
    return "\n".join([head, *parts, "</svg>", ""])


def _top(rows: Rows, name: str) -> float:
    return max((row[name] for row in rows if math.isfinite(row[name])), default=1.0) or 1.0


def _panel(rows: Rows, name: str, top: float, y: float, thetas: Sequence[float] = ()) -> Iterator[str]:
    """One curve, from 0 to `top`, whose plot begins `y` pixels below the upper edge."""
    first, last = (rows[0]["step"], rows[-1]["step"]) if rows else (0, 1)
    across = (WIDTH - LEFT - 8) / max(1, last - first)

    def at(step: float) -> float:
        return LEFT + (step - first) * across

    stays = _first_rows(rows)
    for start, end in zip(stays, [*stays[1:], *rows[-1:]], strict=True):
        left, right = at(start["step"]), at(end["step"])
        yield f'<rect x="{left:.1f}" y="{y}" width="{right - left:.1f}" height="{PANEL}" fill="{SHADES[int(start["mode"])]}"/>'
    for theta in thetas:
        level = y + PANEL * (1 - theta / top)
        yield f'<line x1="{LEFT}" x2="{WIDTH - 8}" y1="{level:.1f}" y2="{level:.1f}" stroke="#999" stroke-dasharray="4 3"/>'
        yield f'<text x="{LEFT - 6}" y="{level + 4:.1f}" text-anchor="end">{theta:g}</text>'
    points = (
        f"{at(row['step']):.1f},{y + PANEL * (1 - row[name] / top):.1f}" for row in rows if math.isfinite(row[name])
    )
    yield f'<polyline points="{" ".join(points)}" fill="none" stroke="#1f5fa8" stroke-width="1.4"/>'
    yield f'<text x="{LEFT}" y="{y - 6}">{name}</text>'
    yield f'<text x="{LEFT - 6}" y="{y + 10}" text-anchor="end">{top:.3g}</text>'
    yield f'<text x="{WIDTH - 8}" y="{y + PANEL + 14}" text-anchor="end">step {last}</text>'


def _first_rows(rows: Rows) -> list[Mapping[str, Any]]:
    """Of each stay in a mode."""
    return [*rows[:1], *(after for before, after in pairwise(rows) if before["mode"] != after["mode"])]
