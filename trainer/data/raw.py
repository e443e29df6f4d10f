"""One row as it stands in a file or in a data set of the hub, and the place it came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarm.errors import UserError


@dataclass(frozen=True)
class RawRow:
    where: str
    """`file:line`, or `file: row N` where a format has no lines."""
    values: Mapping[str, Any]
    text: Callable[[], str]
    """The row without loss, for setting it aside."""
    filled: bool = False
    """From Arrow, which gives every object the keys that any other has."""


def named(path: Path, header: Sequence[str]) -> list[str]:
    """The columns of a table whose first line names them; one without a name, as spreadsheets save, is called by its number.

    Raises UserError where two have one name.
    """
    columns = [name.strip() or f"column {number}" for number, name in enumerate(header, start=1)]
    refuse_twice(path, columns)
    return columns


def refuse_twice(path: Path, columns: list[str]) -> None:
    """Raises UserError where two columns of a table have one name: one of them would be lost."""
    name, count = Counter(columns).most_common(1)[0] if columns else ("", 0)
    if count > 1:
        raise UserError(str(path), f"{count} columns are named {name!r}", "give each column a name of its own")
