"""The run's metrics in SQLite: the key (stream, token, step, kind) makes a message that comes twice harmless."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from swarm.errors import UserError
from swarm.messages import METRIC_COLUMNS, MetricRow, Metrics

_COLUMNS = ("stream", "token", "steps", *METRIC_COLUMNS)
_TYPES = {
    "stream": "TEXT",
    "kind": "TEXT",
    "token": "INTEGER",
    "step": "INTEGER",
    "steps": "INTEGER",
    "tokens": "INTEGER",
    "memory_bytes": "INTEGER",
}
_SCHEMA = f"""CREATE TABLE IF NOT EXISTS metrics (
    {", ".join(f"{column} {_TYPES.get(column, 'REAL')}" for column in _COLUMNS)},
    PRIMARY KEY (stream, token, step, kind)) WITHOUT ROWID"""
_INSERT = f"INSERT OR REPLACE INTO metrics VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608  names of our own


def records(table: Metrics) -> list[tuple[str | int | float | None, ...]]:
    """The rows of a message as the file keeps them."""
    head = (table.stream, table.token, table.steps)
    return [head + row for row in table.rows]


class MetricsFile:
    """One run's metrics; one process writes, any number read."""

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        """Raises sqlite3.OperationalError where a file to be read is missing, UserError for one to be written that is damaged."""
        self._path = path
        if readonly:
            self._db = sqlite3.connect(f"{path.absolute().as_uri()}?{_mode(path)}", uri=True, timeout=10)
        else:
            self._db = sqlite3.connect(path, timeout=10)
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                # NORMAL: after a power cut the newest rows may be gone; the sources' spools send what was not acknowledged.
                self._db.execute("PRAGMA synchronous=NORMAL")
                self._db.execute(_SCHEMA)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                self._db.close()
                raise self._damaged(error) from error

    def insert(self, tables: Iterable[Metrics]) -> None:
        """Store the rows of these messages in one transaction."""
        with self._db:
            self._db.executemany(_INSERT, chain.from_iterable(map(records, tables)))

    def read(self, stream: str | None = None, *, since: float = 0.0) -> Iterator[dict[str, Any]]:
        """Rows by stream and step; of a step that was trained twice the newer lease's.

        Raises UserError on a damaged file, sqlite3.OperationalError on one that cannot be read now.
        """
        # of the rows of a group, SQLite takes the bare columns from the one that has the MAX (lang_select, 2.5)
        columns = ", ".join("MAX(token)" if column == "token" else column for column in _COLUMNS)
        query = f"""SELECT {columns} FROM metrics WHERE (? IS NULL OR stream = ?) AND time > ?
            GROUP BY stream, step, kind ORDER BY stream, step, kind"""  # noqa: S608  names of our own
        try:
            for row in self._db.execute(query, (stream, stream, since)):
                yield dict(zip(_COLUMNS, row, strict=True))
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    def _damaged(self, error: sqlite3.DatabaseError) -> UserError:
        fix = "move it away: its figures are lost, the log is whole"
        return UserError(str(self._path), f"is damaged ({error})", fix)

    def tables(self) -> list[Metrics]:
        """All rows as messages, one per (stream, token)."""
        grouped: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for row in self.read():
            grouped.setdefault((row["stream"], row["token"]), []).append(row)
        return [
            Metrics(
                stream=stream,
                token=token,
                steps=rows[-1]["steps"],
                rows=[MetricRow(**{column: row[column] for column in METRIC_COLUMNS}) for row in rows],
            )
            for (stream, token), rows in grouped.items()
        ]

    def close(self) -> None:
        self._db.close()


def _mode(path: Path) -> str:
    """For a reader; where it may not write, SQLite could not make the index that it keeps beside the file (wal.html, 8)."""
    beside = path.with_name(f"{path.name}-wal")
    return "mode=ro" if beside.exists() or os.access(path.parent, os.W_OK) else "mode=ro&immutable=1"
