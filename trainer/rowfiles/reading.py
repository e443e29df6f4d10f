"""Rows of the files that a command names, read as a config's datasets are; a bad row ends the command with its place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from swarm.errors import UserError
from swarm.printable import one_line
from swarm.settings import Dataset
from trainer.data.bad import BadRow, NotARow
from trainer.data.files import files_of, raw_rows
from trainer.data.messages import TRAIN, Turn
from trainer.data.rows import Chat, Labelled, Pair, Row, Text, columns_read, read
from trainer.data.settling import settled

NAME_CHARACTERS, NAMED = 80, 20


def dataset_of(path: str, kind: str, **more: Any) -> Dataset:
    """Raises UserError for an unknown type."""
    try:
        return settled(Dataset.model_validate({"path": path, "type": kind, **more}))
    except ValidationError as error:
        what = error.errors()[0]["msg"]
        raise UserError("--type", f"{kind!r} is no row type ({what})", "docs/settings.md lists them") from error


def files_read(datasets: Sequence[Dataset]) -> list[Path]:
    return [path for dataset in datasets for path in files_of(dataset)]


def rows_of(dataset: Dataset, left: Counter[str] | None = None) -> Iterator[tuple[str, Row]]:
    """Each row with its place; `left` counts the columns that are not read.  Raises UserError."""
    known, holds_rows = columns_read(dataset), False
    for raw in raw_rows(dataset):
        holds_rows = True
        if isinstance(raw, BadRow):
            raise UserError(raw.where, raw.what, raw.fix)
        if left is not None:
            left.update(one_line(str(name), NAME_CHARACTERS) for name in raw.values if name not in known)
        try:
            yield raw.where, read(raw, dataset)
        except NotARow as error:
            raise UserError(raw.where, error.what, error.fix) from error
    if not holds_rows:
        raise UserError(dataset.path, "holds no row", "name another file")


def left_out(columns: Counter[str]) -> list[str]:
    """What to say of columns that a new file does not have."""
    named = ", ".join(f"{name} ({count} rows)" for name, count in sorted(columns.items())[:NAMED])
    return [f"columns that are left out: {named}"] if named else []


def conversation(where: str, row: Row) -> list[Turn]:
    """The messages of a chat or a pair.  Raises UserError for plain text."""
    if isinstance(row, Text | Labelled):
        raise UserError(where, "plain text has no question and no answer", "name chats or pairs")
    return list(row.turns)


def record(row: Row) -> dict[str, Any]:
    """A row as a line that `type: auto` reads again."""
    match row:
        case Text(text):
            return {"text": text}
        case Labelled(text, pair, label):
            return {"text": text, **({"text_pair": pair} if pair else {}), "label": label}
        case Pair():
            return {"messages": row.turns}
        case Chat(turns, tools):
            return {"messages": [_with_mark(turn) for turn in turns], **({"tools": list(tools)} if tools else {})}


def _with_mark(turn: Turn) -> Turn:
    """`train` as the loader reads it: false anywhere, true at an assistant's message."""
    if turn.get(TRAIN) and turn["role"] != "assistant":
        return {key: value for key, value in turn.items() if key != TRAIN}
    return turn
