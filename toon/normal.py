"""Converts Python values to the JSON data model before they are encoded (specification section 3); writes no TOON itself.

=====================================================  ====================================================
dict, other mappings (keys: text, integers, enums)     object
list, tuple (named ones too), numpy array, pandas      array
column, Arrow column (`tolist` or `to_pylist`)
dataclass instance                                     object of its fields
enum member                                            what its value becomes
str, int, float, bool, None and their subclasses       themselves; NaN and the infinities become null
Decimal                                                number, every digit kept
datetime, date, time                                   ISO 8601 text
numpy scalar, 0-d array or tensor                      what its `tolist` gives
datetime64, alone or in arrays                         ISO 8601 text to the microsecond, NaT as null
=====================================================  ====================================================

Everything else (sets, bytes, timedelta, longdouble, arbitrary objects) is a `ToonError` with code `value` and the path.
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
        return _container(_field_values(value, place), place, depth)
    if isinstance(value, Mapping | tuple):
        return _container(dict(value) if isinstance(value, Mapping) else list(value), place, depth)
    if isinstance(value, list):
        return _container(list(value), place, depth)
    if isinstance(value, _HasToList | _HasToPyList) and not isinstance(value, type):
        values = column_list(value, place)
        if type(values) is not type(value):  # a longdouble stays what it is: no number of Python's holds it
            return plain(values, place, depth)
    raise _fault("value", f"expected a value with a JSON form, found {type(value).__qualname__}", place)


def column_list(column: Any, place: Place = ROOT) -> Any:
    """A numpy, pandas or Arrow column (or a numpy scalar) as Python values; anything else as it is.

    numpy gives instants and durations in nanoseconds as bare integers. Instants are then asked for in microseconds, which it gives
    as datetimes; durations have no JSON form. Raises `value` for those, and for an instant outside the years 1 to 9999.
    """
    if isinstance(column, _HasToPyList):
        return column.to_pylist()
    if not isinstance(column, _HasToList):
        return column
    kind = getattr(column.dtype, "kind", "") if isinstance(column, _HasDtype) else ""
    if kind == "m":
        raise _fault("value", "expected a value with a JSON form, found timedelta64", place)
    values = column.tolist()
    if kind == "M" and isinstance(column, _HasDtype) and _holds_integers(values):
        if str(column.dtype)[-3:] not in _FINER_THAN_DATETIME:
            raise _fault("value", "expected an instant between the years 1 and 9999, found another datetime64", place)
        values = column.astype("datetime64[us]").tolist()
    return values


_FINER_THAN_DATETIME = {"ns]", "ps]", "fs]", "as]"}
"""How `datetime64[ns]` and its like end; instants in all other units come as datetimes, unless their year is out of range."""


def _holds_integers(values: Any) -> bool:
    return any(map(_holds_integers, values)) if isinstance(values, list) else isinstance(values, int)


def _field_values(value: Any, place: Place) -> dict[str, Any]:
    """A dataclass instance's fields; one declared with `init=False` may not have been set."""
    try:
        return {field.name: value.__getattribute__(field.name) for field in fields(value)}
    except AttributeError as fault:
        raise _fault("value", f"expected a dataclass whose fields are set: {fault}", place) from fault


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
    number = column_list(key, place)  # numpy's integers become Python's
    if isinstance(number, int) and not isinstance(number, bool):
        return str(_checked_integer(int(number), place))
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
