"""The run's metrics in SQLite: one wide table, a column for each figure, added when the figure is first seen.

The key (stream, token, step, kind) makes a message that comes twice harmless.  A cell is NULL where the row lacks the figure; columns
of figures have no type, so that whole numbers stay whole.  Files of the version before, which had a fixed set of columns and no
version number, are read as they are and extended when a run goes on.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import chain, groupby, repeat
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from swarm.errors import UserError
from swarm.figures import MAX_FIGURES_OF_A_RUN
from swarm.messages import ROW, MetricRow, Metrics
from swarm.plainfiles import check_file, check_ours, is_ours

VERSION = 1
"""In the file's `user_version`; 0 is the version before, whose rows of kind eval have their held-out loss under `loss`."""
_FIXED = ("stream", "token", "steps", *ROW)
_SCHEMA = """CREATE TABLE metrics (stream TEXT, token INTEGER, steps INTEGER, step INTEGER, kind TEXT, time REAL,
    PRIMARY KEY (stream, token, step, kind)) WITHOUT ROWID"""


_PASSING = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


def may_pass(error: sqlite3.OperationalError) -> bool:
    """Whether it is worth another try: the disk is full, or somebody else holds the file.  An extended code ends in its kind."""
    return error.sqlite_errorcode & 0xFF in _PASSING


MOVE_AWAY = "move it away: its figures are lost, the log is whole"


class MetricsFile:
    """One run's metrics; one process writes, any number read."""

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        """Raises sqlite3.OperationalError where a file to be read is missing, UserError for one to be written that is damaged."""
        self._path = path
        self._figures: set[str] = set()
        """Of a file to be written: its columns."""
        _check_files(path, readonly=readonly)
        if readonly:
            self._db = sqlite3.connect(f"{path.absolute().as_uri()}?{_mode(path)}", uri=True, timeout=10)
            return
        self._db = sqlite3.connect(path, timeout=10)
        self._db.execute("PRAGMA trusted_schema=OFF")
        try:
            self._check_schema()
            self._db.execute("PRAGMA journal_mode=WAL")
            # NORMAL: after a power cut the newest rows may be gone; the sources' spools send what was not acknowledged.
            self._db.execute("PRAGMA synchronous=NORMAL")
            with self._db:
                self._bring_up_to_date()
            self._note_figures()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise self._damaged(error) from error

    def _check_schema(self) -> None:
        """A view or a trigger would run what its author wrote.  Raises UserError."""
        strange = self._db.execute("SELECT type, name FROM sqlite_master WHERE (type, name) != ('table', 'metrics')")
        if found := strange.fetchone():
            raise UserError(
                str(self._path), f"holds the {found[0]} {str(found[1])[:40]!r}, which no run makes", MOVE_AWAY
            )

    def _bring_up_to_date(self) -> None:
        columns = self._columns()
        if not columns:
            self._db.execute(_SCHEMA)
        elif self._version() == 0:
            self._db.execute("BEGIN")  # sqlite3 itself begins one only before rows are written
            if "eval_loss" not in columns:
                self._add_columns(["eval_loss"])
            self._db.execute(
                "UPDATE metrics SET eval_loss = loss, loss = NULL WHERE kind = 'eval' AND eval_loss IS NULL"
            )
        self._db.execute(f"PRAGMA user_version={VERSION}")

    def _columns(self) -> list[str]:
        return [name for _, name, *_ in self._db.execute("PRAGMA table_info(metrics)")]

    def _note_figures(self) -> None:
        self._figures = set(self._columns()).difference(_FIXED)

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    # ---- writing -----------------------------------------------------------------------------------------------------

    def insert(self, tables: Iterable[Metrics]) -> None:
        """Store the rows of these messages in one transaction; figures that are new get their columns.  See `check_room`."""
        try:
            with self._db:
                for names, of_one_shape in groupby(tables, lambda table: table.names):
                    self._add_columns(self._new(names))
                    self._db.executemany(_insertion(names), chain.from_iterable(map(_records, of_one_shape)))
        except BaseException:
            self._note_figures()  # columns that were added are gone again
            raise

    def check_room(self, table: Metrics) -> None:
        """Raises ValueError for a table that would bring more figures than a run may have."""
        if len(self._figures) + len(new := self._new(table.names)) > MAX_FIGURES_OF_A_RUN:
            raise ValueError(f"{', '.join(new[:3])}: a run has at most {MAX_FIGURES_OF_A_RUN} figures")

    def _new(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name not in self._figures]

    def _add_columns(self, names: Iterable[str]) -> None:
        for name in names:
            if not self._db.in_transaction:
                self._db.execute("BEGIN")
            self._db.execute(f'ALTER TABLE metrics ADD COLUMN "{name}"')
            self._figures.add(name)

    # ---- reading -----------------------------------------------------------------------------------------------------

    def read(self, stream: str | None = None, *, since: float = 0.0) -> Iterator[dict[str, Any]]:
        """Rows by stream and step; of a step that was trained twice the newer lease's.

        Raises UserError on a damaged file, sqlite3.OperationalError on one that cannot be read now.
        """
        with self._telling_damage():
            self._check_schema()
            if not self._columns():
                return  # the coordinator has just made the file
            columns = self._selected()
            # of the rows of a group, SQLite takes the bare columns from the one that has the MAX (lang_select, 2.5)
            query = f"""SELECT {", ".join(columns.values())} FROM metrics WHERE (? IS NULL OR stream = ?) AND time > ?
                GROUP BY stream, step, kind ORDER BY stream, step, kind"""  # noqa: S608  checked names
            for row in self._db.execute(query, (stream, stream, since)):
                yield dict(zip(columns, row, strict=True))

    def newest(self, stream: str) -> dict[str, float]:
        """`step` and figures of the newest training row of the newest lease, and those of its newest evaluation.  Raises as `read`."""
        found: dict[str, float] = {}
        with self._telling_damage():
            self._check_schema()
            if not self._columns():
                return found
            columns = {"step": "step"} | {name: sql for name, sql in self._selected().items() if name not in _FIXED}
            query = f"""SELECT {", ".join(columns.values())} FROM metrics WHERE stream = ? AND kind = ?
                ORDER BY token DESC, step DESC LIMIT 1"""  # noqa: S608  checked names
            for kind in ("eval", "train"):
                for row in self._db.execute(query, (stream, kind)):
                    found |= {k: v for k, v in zip(columns, row, strict=True) if isinstance(v, int | float)}
        return found

    @contextmanager
    def _telling_damage(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_ERROR:  # it lacks a column
                raise self._damaged(error) from error
            raise
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    def _selected(self) -> dict[str, str]:
        """Columns by name, as SQL."""
        columns = {name: f'"{name}"' for name in self._columns()} | {"token": "MAX(token)"}
        if self._version() == 0:
            columns["loss"] = "CASE kind WHEN 'eval' THEN NULL ELSE loss END"
            columns["eval_loss"] = "CASE kind WHEN 'eval' THEN loss END"
        return columns

    def tables(self) -> list[Metrics]:
        """All rows as messages, one per (stream, token)."""
        grouped: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for row in self.read():
            grouped.setdefault((row["stream"], row["token"]), []).append(row)
        try:
            return [
                Metrics.of(stream, token, rows[-1]["steps"], [_metric_row(row) for row in rows])
                for (stream, token), rows in grouped.items()
            ]
        except ValidationError as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> UserError:
        what = " ".join(str(error).split())[:200]
        return UserError(str(self._path), f"is damaged ({what})", MOVE_AWAY)

    def close(self) -> None:
        self._db.close()


@contextmanager
def reading(path: Path) -> Iterator[MetricsFile | None]:
    """A run's metrics; None where nothing was measured yet.  Raises UserError for a file that is damaged or cannot be read now."""
    if not path.exists():
        yield None
        return
    try:
        file = MetricsFile(path, readonly=True)
        try:
            yield file
        finally:
            file.close()
    except sqlite3.OperationalError as error:
        raise UserError(str(path), f"cannot be read now ({error})", "try again in a moment") from error


def newest(path: Path, streams: Iterable[str]) -> dict[str, dict[str, float]]:
    """What was measured last, by stream (`MetricsFile.newest`); the log has figures only from one checkpoint to the next."""
    with reading(path) as file:
        return {stream: file.newest(stream) for stream in streams} if file else {}


@lru_cache(maxsize=256)
def _insertion(names: Sequence[str]) -> str:
    columns = ", ".join(f'"{name}"' for name in (*_FIXED, *names))
    places = ", ".join("?" * (len(_FIXED) + len(names)))
    return f"INSERT OR REPLACE INTO metrics ({columns}) VALUES ({places})"  # noqa: S608  checked names


def _records(table: Metrics) -> Iterator[tuple[Any, ...]]:
    """The rows of a message as the file keeps them."""
    return zip(repeat(table.stream), repeat(table.token), repeat(table.steps), *table.columns.values(), strict=False)


def _metric_row(row: dict[str, Any]) -> MetricRow:
    figures = {name: value for name, value in row.items() if name not in _FIXED and value is not None}
    return MetricRow(row["step"], row["kind"], row["time"], figures)


def _check_files(path: Path, *, readonly: bool) -> None:
    """SQLite opens by name, and files beside this one too.  Raises NotPlain for what is no file of a run."""
    for end in ("", "-wal", "-shm", "-journal"):
        with suppress(FileNotFoundError, PermissionError):
            check_file(path.with_name(path.name + end))
    if not readonly:
        check_ours(path.parent)


def _mode(path: Path) -> str:
    """For a reader.  SQLite keeps an index beside a file that somebody writes, and makes it where it is missing (wal.html, 8).

    That is not for us to do where we may not write, nor in a folder of another user: there the file is read as it was last folded in.
    """
    wal, index = (path.with_name(path.name + end) for end in ("-wal", "-shm"))
    if is_ours(path.parent):
        changes = wal.exists() or os.access(path.parent, os.W_OK)
    else:
        changes = wal.exists() and index.exists()
    return "mode=ro" if changes else "mode=ro&immutable=1"
