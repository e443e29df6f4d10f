"""A run's figures as TOON, JSON or CSV text, line by line; no screen and no sockets."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

from swarm.errors import UserError
from swarm.metrics import MetricsFile
from swarm.report import session
from swarm.rundir import RunFolder

FORMATS = ("toon", "json", "csv")


def lines(folder: RunFolder, *, what: str, form: str, stream: str | None = None) -> Iterator[str]:
    """The lines of the export.

    Raises UserError for a word that is not known.
    """
    if form not in FORMATS:
        raise UserError("--format", f"{form!r} is not known", f"take one of {', '.join(FORMATS)}")
    match what:
        case "metrics":
            return _table(metric_rows(folder, stream), form, "metrics")
        case "session":
            return _session(folder, form, stream)
        case _:
            raise UserError("--what", f"{what!r} is not known", "take metrics or session")


def metric_rows(folder: RunFolder, stream: str | None) -> list[dict[str, Any]]:
    if not folder.metrics.exists():
        return []
    metrics = MetricsFile(folder.metrics, readonly=True)
    try:
        return list(metrics.read(stream))
    finally:
        metrics.close()


def _session(folder: RunFolder, form: str, stream: str | None) -> Iterator[str]:
    from swarm.watch import Watcher

    with Watcher.attach(folder.path) as watcher:
        value = session(watcher.snapshot())
    value["streams"] = [row for row in value["streams"] if stream in (None, row["stream"])]
    if form == "csv":
        return _table(value["streams"], form, "streams")
    return iter([_text(value, form)])


def _table(rows: Sequence[dict[str, Any]], form: str, name: str) -> Iterator[str]:
    if form == "csv":
        return _csv(rows)
    return iter([_text({name: list(rows)}, form)])


def _text(value: Any, form: str) -> str:
    if form == "json":
        return json.dumps(value, indent=2, ensure_ascii=False)
    from toon import encode

    return encode(value)


def _csv(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    if not rows:
        return
    for cells in [list(rows[0]), *(list(row.values()) for row in rows)]:
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(cells)
        yield line.getvalue()
