"""Rows of `.json` and `.toon` files, which are read whole: a list of objects, or of texts, or an object with exactly one list."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from swarm.errors import UserError
from swarm.printable import one_line
from toon import decode
from trainer.data.bad import BadRow
from trainer.data.formats.jsonl import Twice, object_of
from trainer.data.formats.text import whole_text
from trainer.data.gate import written
from trainer.data.raw import RawRow


def read_json(path: Path) -> Iterator[RawRow | BadRow]:
    yield from _listed(path, _json_document(path))


def read_toon(path: Path) -> Iterator[RawRow | BadRow]:
    yield from _listed(path, _toon_document(path))


def _json_document(path: Path) -> Any:
    try:
        return json.loads(whole_text(path), object_pairs_hook=_document_object)
    except (ValueError, RecursionError) as error:
        raise UserError(
            str(path), f"not JSON ({error})", "one list of objects; for an object per line use .jsonl"
        ) from error


class _TwiceNamed(dict[str, Any]):
    """An object of a JSON document that names a key twice: its row is a bad one, the document is read on."""

    def __init__(self, pairs: list[tuple[str, Any]], why: str) -> None:
        super().__init__(pairs)
        self.pairs, self.why = pairs, why

    def items(self) -> Any:
        """All that was named, so that the row is set aside without loss."""
        return self.pairs


def _document_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    try:
        return object_of(pairs)
    except Twice as error:
        return _TwiceNamed(pairs, str(error))


def _toon_document(path: Path) -> Any:
    try:
        return decode(whole_text(path))
    except ValueError as error:
        raise UserError(
            str(path), f"not TOON ({str(error).splitlines()[0]})", "one table, like `rows[2]{prompt,completion}:`"
        ) from error


def _listed(path: Path, document: Any) -> Iterator[RawRow | BadRow]:
    """Rows of a document that is a list, or an object with exactly one list."""
    if isinstance(document, dict):
        lists = {str(name): value for name, value in document.items() if isinstance(value, list)}
        if len(lists) > 1:
            what = f"holds {len(lists)} lists ({', '.join(lists)}), and rows stand in one"
            raise UserError(str(path), one_line(what), "write one list of objects")
        document = next(iter(lists.values()), document)
    if not isinstance(document, list):
        raise UserError(str(path), "holds no list of rows", "write one list of objects")
    if all(isinstance(one, str) for one in document):
        document = [{"text": text} for text in document]
    for number, values in enumerate(document, start=1):
        where, text = f"{path}: row {number}", partial(written, values)
        if why := _why_named_twice(values):
            yield BadRow(where, why, "keep one of them", text)
        elif isinstance(values, dict):
            yield RawRow(where, values, text)
        else:
            yield BadRow(where, f"a {type(values).__name__}, not an object", "write objects with named columns", text)


def _why_named_twice(row: Any) -> str:
    """What is wrong with an object in a row; empty: nothing.  Without recursion: rows may be deep."""
    waiting = [row]
    while waiting:
        value = waiting.pop()
        if isinstance(value, _TwiceNamed):
            return value.why
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return ""
