"""Python values brought to the JSON data model before they are encoded (specification section 3); writes no TOON itself.

=====================================================  ====================================================
dict, other mappings (keys: text, integers, enums)     object
list, tuple (named ones too), numpy array, pandas      array
column, Arrow column (`tolist` or `to_pylist`)
dataclass instance                                     object of its fields
enum member                                            what its value becomes
str, int, float, bool, None and their subclasses       themselves; NaN and the infinities become null
Decimal                                                number, every digit kept
datetime, date, time                                   ISO 8601 text
numpy scalar, 0-d array or tensor                      what its `tolist` gives; datetime64 as text, NaT as null
=====================================================  ====================================================

Everything else (sets, bytes, timedelta, arbitrary objects) is a `ToonError` with code `value` and the path.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from decimal import Decimal
from enum import Enum
from typing import Any, Protocol, runtime_checkable

from toon.columns import Verbatim
from toon.errors import ToonError
from toon.limits import DEFAULT_LIMITS
from toon.scalars import canonical
from toon.scopes import path_text

Place = tuple[Any, Any]
"""(place of what is around, own key or index): a path that costs nothing until an error needs it."""

ROOT: Place = (None, None)


@runtime_checkable
class _HasToList(Protocol):
    def tolist(self) -> Any: ...


@runtime_checkable
class _HasToPyList(Protocol):
    def to_pylist(self) -> Any: ...


@runtime_checkable
class _HasDtype(Protocol):
    dtype: Any

    def astype(self, dtype: str) -> Any: ...


def plain(value: Any, place: Place = ROOT, depth: int = 0) -> Any:
    """The same value in exact JSON types.

    Raises `value` or `key` for what has none, `surrogate` for half a pair, `limit` for depth and for too long an integer.
    """
    kind = type(value)
    if kind is str or (isinstance(value, str) and not isinstance(value, Enum)):
        return _checked_text(value, place)
    if value is None or kind is bool or kind is float or kind is Verbatim:
        return value
    if kind is int:
        return _checked_integer(value, place)
    if kind is dict or kind is list:
        return _container(value, place, depth)
    return _foreign(value, place, depth)


def _foreign(value: Any, place: Place, depth: int) -> Any:
    """A value of a type that JSON does not know."""
    if isinstance(value, Enum):
        return plain(value.value, place, depth)
    if isinstance(value, int):
        return _checked_integer(int(value), place)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Decimal):
        return Verbatim(canonical(str(value))) if value.is_finite() else None
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat() if value == value else None  # noqa: PLR0124 - pandas' NaT is a datetime unequal to itself
    if is_dataclass(value) and not isinstance(value, type):
        return _container({field.name: value.__getattribute__(field.name) for field in fields(value)}, place, depth)
    if isinstance(value, Mapping | tuple):
        return _container(dict(value) if isinstance(value, Mapping) else list(value), place, depth)
    if isinstance(value, list):
        return _container(list(value), place, depth)
    if isinstance(value, _HasToList | _HasToPyList) and not isinstance(value, type):
        return plain(column_list(value), place, depth)
    raise _fault("value", f"expected a value with a JSON form, found {type(value).__qualname__}", place)


def column_list(column: Any) -> Any:
    """A numpy, pandas or Arrow column (or a numpy scalar) as Python values; anything else as it is.

    numpy gives nanoseconds since 1970 as bare integers, so instants are asked for in microseconds, which it gives as datetimes.
    """
    if isinstance(column, _HasToPyList):
        return column.to_pylist()
    if not isinstance(column, _HasToList):
        return column
    values = column.tolist()
    sample = values[0] if isinstance(values, list) and values else values
    if isinstance(sample, int) and isinstance(column, _HasDtype) and str(column.dtype).startswith("datetime64"):
        return column.astype("datetime64[us]").tolist()
    return values


def _container(value: Any, place: Place, depth: int) -> Any:
    depth += 1
    if depth > DEFAULT_LIMITS.max_depth:
        raise _fault(
            "limit",
            f"expected at most {DEFAULT_LIMITS.max_depth} arrays and objects inside one another (is the value cyclic?)",
            place,
        )
    if isinstance(value, list):
        items = []
        for index, item in enumerate(value):
            items.append(plain(item, (place, index), depth))
        return items
    result: dict[str, Any] = {}
    for key, item in value.items():
        name = _key(key, place)
        if name in result:
            raise _fault("key", f"expected each key once, found {name!r} from two keys", place)
        result[name] = plain(item, (place, name), depth)
    return result


def _key(key: Any, place: Place) -> str:
    if isinstance(key, Enum):
        key = key.value
    if isinstance(key, str):
        return _checked_text(key, place)
    if isinstance(key, int) and not isinstance(key, bool):
        return str(_checked_integer(int(key), place))
    raise _fault("key", f"expected a key of text or an integer, found {type(key).__qualname__}", place)


def _checked_text(text: str, place: Place) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as fault:
        raise _fault(
            "surrogate", f"expected text, found half a surrogate pair at character {fault.start + 1}", place
        ) from None
    return text if type(text) in {str, Verbatim} else str.__str__(text)


def _checked_integer(number: int, place: Place) -> int:
    try:
        int.__repr__(number)
    except ValueError:
        raise _fault(
            "limit", "expected an integer that Python turns into text (sys.get_int_max_str_digits())", place
        ) from None
    return number


def _fault(code: Any, reason: str, place: Place) -> ToonError:
    names = []
    while place is not ROOT:
        place, name = place
        names.append(name)
    return ToonError(code, reason, path=path_text(reversed(names)))
