"""A stream's training history on disk: `train_log.csv`, which grows with every checkpoint, and `train_log.json` made from it at the end.

No checkpoint holds a copy: it records its step, and a resumed training keeps the rows up to that step.  The file is then replaced,
so that a process of an earlier attempt that still has the old file open cannot write into the new one.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from swarm.figures import number
from swarm.files import write_whole
from swarm.messages import ROW, MetricRow
from swarm.plainfiles import opener, read_text

CSV, JSON = "train_log.csv", "train_log.json"
HISTORY_BYTES = 1 << 30
"""More than a training of ten million logged steps writes."""


class TrainLog:
    """The history of one training in the stream's folder; rows are held until `write`, which another thread than `add` may call."""

    def __init__(self, folder: Path, kept: Iterable[MetricRow] = ()) -> None:
        """`kept`: the rows before the step at which the training begins."""
        self.path = folder / CSV
        self._waiting: deque[MetricRow] = deque()
        self._begin(kept)

    def _begin(self, rows: Iterable[MetricRow]) -> None:
        flat = [_flat(row) for row in rows]
        self._names = dict.fromkeys([*ROW, *(name for row in flat for name in row)])
        write_whole(self.path, _lines(flat, self._names, header=True))
        self._file: TextIO = open(self.path, "a", encoding="utf-8", newline="", opener=opener)  # noqa: SIM115  closed by `close`

    def add(self, row: MetricRow) -> None:
        self._waiting.append(row)

    def write(self) -> None:
        """Write the rows added since the last call; durable when it returns.  A new figure gets a column."""
        added = [self._waiting.popleft() for _ in range(len(self._waiting))]
        flat = [_flat(row) for row in added]
        if any(row.keys() - self._names.keys() for row in flat):
            self.close()
            self._begin([*rows_in(self.path), *added])
        else:
            self._file.write(_lines(flat, self._names))
            self._file.flush()
            os.fsync(self._file.fileno())

    def finish(self) -> list[MetricRow]:
        """Write what is left, and the same rows as JSON; returns them all."""
        self.write()
        self.close()
        rows = list(rows_in(self.path))
        write_whole(self.path.with_name(JSON), json.dumps([_flat(row) for row in rows], indent=1) + "\n")
        return rows

    def close(self) -> None:
        self._file.close()


def rows_in(path: Path, last_step: int | None = None) -> Iterator[MetricRow]:
    """The rows of a `train_log.csv` up to `last_step`, without a last line that was cut short; none where there is no file."""
    try:
        whole, newline, _ = read_text(path, HISTORY_BYTES).rpartition("\n")
    except FileNotFoundError:
        return
    for row in csv.DictReader(io.StringIO(whole + newline)):
        step = int(row["step"])
        if last_step is None or step <= last_step:
            figures = {name: number(cell) for name, cell in row.items() if name not in ROW and cell}
            yield MetricRow(step, "eval" if row["kind"] == "eval" else "train", float(row["time"]), figures)


def rows_of_older(kept: Iterable[dict[str, Any]]) -> Iterator[MetricRow]:
    """The rows that a checkpoint of the version before holds; it called a held-out loss `loss` too."""
    for row in kept:
        figures = {name: value for name, value in row.items() if name not in ROW and value is not None}
        if row["kind"] == "eval" and "loss" in figures:
            figures["eval_loss"] = figures.pop("loss")
        yield MetricRow(row["step"], row["kind"], row["time"], figures)


def _flat(row: MetricRow) -> dict[str, Any]:
    return {"step": row.step, "kind": row.kind, "time": row.time, **row.figures}


def _lines(flat: Iterable[dict[str, Any]], names: Iterable[str], *, header: bool = False) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()
