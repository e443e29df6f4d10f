"""Exports of a run's metrics and entries as TOON, JSON or CSV, produced line by line while they are read.

    metrics  a row per step        events  a row per entry of the log
    bus      a row per member      session one document that says how the run stands

A table is written row by row, so that memory does not grow with its length; `json` is one document, `jsonl` one per row.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from swarm import config
from swarm.artifacts.metrics import reading
from swarm.errors import UserError
from swarm.log import Entry, Log, run_is_alive
from swarm.log.entry import value_text
from swarm.printable import without_control
from swarm.rundir import RunFolder
from swarm.views.report import session
from toon.sizes import compact_json

FORMATS = ("toon", "json", "jsonl", "csv", "auto")
TABLES = ("metrics", "events", "bus")
POLL_SECONDS = 0.3

Row = dict[str, Any]
Rows = Callable[[], Iterator[Row]]
"""Gives the rows that exist now; each call reads them again."""


def lines(
    folder: RunFolder,
    *,
    what: str,
    form: str,
    stream: str | None = None,
    since: int = 0,
    follow: bool = False,
    points: int | None = None,
    columns: Sequence[str] = (),
    count_tokens: Callable[[str], int] | None = None,
) -> Iterator[str]:
    """The lines of the export.  `since`: steps (metrics) or entries (events) after this one.

    `points`: at most so many rows of metrics for each stream and kind, at even distances, the last among them.  `columns`: only
    these columns.  `follow`: go on with new rows until the run ends.  `auto` is TOON or compact JSON, whichever has fewer tokens by `count_tokens`.
    Raises UserError for an unknown table, form, stream or column.
    """
    if form not in FORMATS:
        raise UserError("--format", f"{form!r} is not known", f"take one of {', '.join(FORMATS)}")
    _check(folder, what, stream)
    if follow and (form in {"json", "auto"} or what not in {"metrics", "events"}):
        raise UserError("--follow", f"{what} as {form} has an end", "follow metrics or events as jsonl, toon or csv")
    if form == "auto":
        from toon import compact

        found = document(folder, what, stream, since, points=points, columns=columns)
        return iter([compact(found, count_tokens=count_tokens).text])
    if what == "session":
        return _session(folder, form, stream)
    if follow and points is not None:
        raise UserError("--points", "thins what is there, and --follow goes on", "leave one of them out")
    rows = chosen(rows_of(folder, what, stream, since, flat=form in {"toon", "csv"}), what, points, columns)
    return _followed(folder, rows, form) if follow else _table(rows, form, what)


def document(
    folder: RunFolder,
    what: str,
    stream: str | None = None,
    since: int = 0,
    *,
    points: int | None = None,
    columns: Sequence[str] = (),
) -> Any:
    """The whole export as one value, to compare the sizes of its forms.  Raises UserError as `lines` does."""
    _check(folder, what, stream)
    if what == "session":
        return _session_value(folder, stream)
    return {what: list(chosen(rows_of(folder, what, stream, since, flat=True), what, points, columns)())}


def _check(folder: RunFolder, what: str, stream: str | None) -> None:
    if what not in {*TABLES, "session"}:
        raise UserError("--what", f"{what!r} is not known", f"take one of {', '.join(TABLES)} or session")
    check_stream(folder, stream, tasks=what == "events")


def check_stream(folder: RunFolder, stream: str | None, *, tasks: bool = False) -> None:
    """Raises UserError for a stream that neither the config nor the log names.

    The first part of an agents' task counts as a stream; with `tasks` the whole ref of a task is accepted too, and `run`.
    """
    if stream is None or stream in (known := set(config.of_run(folder, ()).streams)):
        return
    events = [entry.event for entry in Log(folder.log).entries()]
    if tasks and stream in {"run", *(event.ref for event in events)}:
        return
    known |= {event.stream for event in events} - {"-", "run"}
    if stream not in known:
        there = f"there is {', '.join(sorted(known))}" if known else "the run has none yet"
        raise UserError("--stream", f"there is no stream {stream!r}", there)


# ---- rows ------------------------------------------------------------------------------------------------------------


def rows_of(folder: RunFolder, what: str, stream: str | None, since: int, *, flat: bool) -> Rows:
    """The source of a table's rows; with `flat` every cell is a text, a number, a boolean or None."""
    match what:
        case "metrics":
            return lambda: (row for row in metric_rows(folder, stream) if not since or row["step"] > since)
        case "events":
            return lambda: event_rows(folder, stream, since, flat=flat)
        case _:
            return lambda: iter(bus_rows(folder))


def chosen(rows: Rows, what: str, points: int | None, columns: Sequence[str]) -> Rows:
    """The rows thinned to `points` and reduced to `columns`.  Raises UserError for an unknown column."""
    if points is not None and what != "metrics":
        raise UserError("--points", f"thins metrics, not {what}", "leave it out")
    if columns and (first := next(rows(), None)) is not None and (unknown := [c for c in columns if c not in first]):
        raise UserError("--columns", f"{unknown[0]!r} is no column of {what}", f"take some of {', '.join(first)}")
    thin = rows if points is None else lambda: thinned(rows, points)
    return thin if not columns else lambda: ({name: row[name] for name in columns} for row in thin())


def thinned(rows: Rows, points: int) -> Iterator[Row]:
    """At most `points` rows of each stream and kind at even distances, the last among them; the rows are read twice."""
    counts = Counter((row["stream"], row["kind"]) for row in rows())
    seen: Counter[tuple[str, str]] = Counter()
    for row in rows():
        key = row["stream"], row["kind"]
        seen[key] += 1
        # row k of n is kept where k * points / n passes a whole number
        if seen[key] * points // counts[key] > (seen[key] - 1) * points // counts[key]:
            yield row


def metric_rows(folder: RunFolder, stream: str | None) -> Iterator[Row]:
    with reading(folder.metrics) as metrics:
        yield from metrics.read(stream) if metrics else ()


def event_rows(folder: RunFolder, stream: str | None, since: int, *, flat: bool) -> Iterator[Row]:
    for entry in Log(folder.log).entries(since):
        if stream in {None, entry.event.stream, entry.event.ref}:
            yield event_row(entry, flat=flat)


def event_row(entry: Entry, *, flat: bool) -> Row:
    """One entry; `facts` is an object, or with `flat` a text of `k=v` pairs, quoted as in the log."""
    facts = entry.event.facts()
    return {
        "seq": entry.seq,
        "time": round(entry.time),
        "kind": entry.event.kind,
        "ref": entry.event.ref,
        "author": entry.author,
        "via": entry.via,
        "facts": facts_text(facts) if flat else facts,
        "body": entry.event.body,
    }


def facts_text(facts: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value_text(value)}" for key, value in facts.items())


def bus_rows(folder: RunFolder) -> list[Row]:
    """The links of the hub, one row per member.  Raises UserError if no coordinator runs."""
    from swarm.access.client import Client

    if not run_is_alive(folder.log):
        raise UserError(folder.name, "is not running, so it has no bus", "`--what events` is what it left")
    with Client(folder) as client:
        return list(client.ask("links")["links"])


def _session(folder: RunFolder, form: str, stream: str | None) -> Iterator[str]:
    value = _session_value(folder, stream)
    if form in {"csv", "jsonl"}:
        return _table(lambda: iter(value["streams"]), form, "streams")
    return iter([_text(value, form)])


def _session_value(folder: RunFolder, stream: str | None) -> Row:
    from swarm.views.watch import Watcher

    with Watcher.attach(folder.path) as watcher:
        value = session(watcher.snapshot())
    value["streams"] = [row for row in value["streams"] if stream in (None, row["stream"])]
    return value


def _text(value: Any, form: str) -> str:
    if form == "json":
        return json.dumps(value, indent=2, ensure_ascii=False)
    from toon import encode

    return encode(value)


# ---- lines -----------------------------------------------------------------------------------------------------------


def _table(rows: Rows, form: str, name: str) -> Iterator[str]:
    match form:
        case "json":
            return _json(rows(), name)
        case "toon":
            return _toon(rows, name)
        case _:
            return _endless(rows(), form)


def _json(rows: Iterable[Row], name: str) -> Iterator[str]:
    """One JSON document with one row per line."""
    yield f'{{"{name}": ['
    before = ""
    for row in rows:
        if before:
            yield f"{before},"
        before = compact_json(row)
    yield f"{before}]}}"


def _toon(rows: Rows, name: str) -> Iterator[str]:
    """A TOON table, whose header holds the number of rows: they are counted first, and rows that come after that are left out."""
    count = sum(1 for _ in rows())
    if count == 0:
        yield f"{name}: []"
        return
    written = _endless(islice(rows(), count), "toon", batch_rows=500)
    yield next(written).replace("[0", f"{name}[{count}", 1)
    yield from written


def _endless(rows: Iterable[Row], form: str, batch_rows: int = 1) -> Iterator[str]:
    """The rows as they come, after the header of a form that has one."""
    waiting = iter(rows)
    first = next(waiting, None)
    if first is None:
        return
    rows = chain([first], waiting)
    match form:
        case "toon":
            yield from _toon_lines(list(first), rows, batch_rows)
        case "csv":
            yield _csv_line(first)
            yield from (_csv_line(row.values()) for row in rows)
        case _:
            yield from map(compact_json, rows)


def _toon_lines(names: Sequence[str], rows: Iterable[Row], batch_rows: int) -> Iterator[str]:
    from toon import RowWriter

    written: list[str] = []
    writer = RowWriter(names, written.append, batch_rows=batch_rows)
    for row in rows:
        writer.write(row)
        yield from (text.removeprefix("\n") for text in written)
        written.clear()
    writer.flush()
    yield from (text.removeprefix("\n") for text in written)


def _csv_line(cells: Iterable[Any]) -> str:
    """Without control characters: other forms escape them, and this one has no escapes."""
    line = io.StringIO()
    safe = (without_control(cell) if isinstance(cell, str) else cell for cell in cells)
    csv.writer(line, lineterminator="").writerow(safe)
    return line.getvalue()


# ---- following -------------------------------------------------------------------------------------------------------


def _followed(folder: RunFolder, rows: Rows, form: str) -> Iterator[str]:
    """The rows that exist, then new ones as they come, until the run has ended."""
    return _endless(_growing(folder, rows), form)


def _growing(folder: RunFolder, rows: Rows) -> Iterator[Row]:
    seen: set[Sequence[Any]] = set()
    while True:
        over = not run_is_alive(
            folder.log
        )  # before reading: so the last rows that the coordinator wrote are read below
        for row in rows():
            key = tuple(row.get(name) for name in ("seq", "stream", "token", "step", "kind"))
            if key not in seen:
                seen.add(key)
                yield row
        if over:
            return
        time.sleep(POLL_SECONDS)
