"""One gate for the cells of every dataset format: whatever a reader gives becomes text, number, truth value, list or object, or nothing.

Null, NaN and NaT mean "not given"; decimals, dates and bytes have fixed text forms.  What has no such form is a NotARow that
names the column and the type.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from trainer.data.bad import NotARow


def plain_row(values: Mapping[str, Any], *, filled: bool) -> dict[str, Any]:
    """The row's columns that are given, as plain values.

    `filled`: the row comes from Arrow, which gives every object the keys that any other has; those without a value are left out.
    """
    cells = {str(name): plain(value, str(name)) for name, value in values.items()}
    return {name: _pruned(value) if filled else value for name, value in cells.items() if value is not None}


def _pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _pruned(entry) for key, entry in value.items() if entry is not None}
    return [_pruned(entry) for entry in value] if isinstance(value, list) else value


def plain(value: Any, column: str) -> Any:
    """A cell as str, int, float, bool, list or dict; None where it is not given."""
    match value:
        case None | bool() | int():
            return value
        case str():
            return _text(value, column)
        case float():
            return _number(value, column)
        case Decimal():
            return _decimal(value, column)
        case datetime() | date() | time():
            return None if value != value else value.isoformat()  # noqa: PLR0124  NaT equals nothing
        case timedelta():
            return f"PT{value.total_seconds()!r}S".replace(".0S", "S")  # ISO 8601
        case UUID():
            return str(value)
        case bytes() | bytearray() | memoryview():
            return _decoded(bytes(value), column)
        case Mapping():
            return _object(value, column)
        case list() | tuple():
            return _list(list(value), column)
        case _:
            return _array(value, column)


def _array(value: Any, column: str) -> Any:
    if callable(item := getattr(value, "item", None)) and getattr(value, "shape", None) == ():
        return plain(item(), column)  # a numpy scalar
    if callable(listed := getattr(value, "tolist", None)):
        return plain(listed(), column)  # a numpy array
    raise NotARow(f"column {column!r} holds {_kind(value)}, which has no text form", "convert it to text or numbers")


def _text(value: str, column: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        what = f"column {column!r} is not valid Unicode at character {error.start}"
        raise NotARow(what, "save it as UTF-8, or remove the lone surrogate there") from error
    return str(value)


def _number(value: float, column: str) -> float | None:
    if math.isinf(value):
        raise NotARow(f"column {column!r} holds an infinite number", "write a finite one, or leave it empty")
    return None if math.isnan(value) else float(value)


def _decimal(value: Decimal, column: str) -> str | None:
    if value.is_nan():
        return None
    if value.is_infinite():
        raise NotARow(f"column {column!r} holds an infinite decimal", "write a finite one, or leave it empty")
    return format(value, "f")


def _decoded(value: bytes, column: str) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        what = f"column {column!r} holds bytes that are not UTF-8 text (at byte {error.start})"
        raise NotARow(what, "convert the column to text") from error


def _object(value: Mapping[Any, Any], column: str) -> dict[str, Any]:
    return {str(plain(key, column)): plain(entry, column) for key, entry in value.items()}


def _list(values: list[Any], column: str) -> Any:
    """A list; Arrow's maps come as lists of key and value."""
    if values and all(isinstance(entry, tuple) and len(entry) == 2 for entry in values):
        return _object(dict(values), column)
    return [plain(entry, column) for entry in values]


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def written(values: Any) -> str:
    """Any row as one line of ASCII JSON that loses nothing a reader can give."""
    return json.dumps(values, ensure_ascii=True, default=_written)


def _written(value: Any) -> Any:
    match value:
        case bytes() | bytearray() | memoryview():
            return {"base64": base64.b64encode(bytes(value)).decode()}
        case Mapping():
            return {str(key): entry for key, entry in value.items()}
        case datetime() | date() | time():
            return value.isoformat()
        case _:
            return str(value)
