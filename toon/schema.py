"""Checks decoded values against types and converts them. Everything about schema types is in this file.

A schema is a dataclass, a TypedDict, `{field: type}`, `[type]`, or any type built of int, float, bool, str, None, Decimal, datetime,
date, time, enums, Literal, list, dict, tuple, unions and Any. Nothing is guessed: text never becomes a number, and a number never
becomes text. A whole number fits float, and 1.0 (which TOON writes as 1) fits int; NaN does not come back from null. Keys are text
to TOON, so only they are read as what the schema says: `dict[int, str]` has integers again.

An enum's member is known by how its value is encoded. A dataclass is made by its constructor; fields that this does not take
(`init=False`) may be there, are checked, and are set afterwards, so that an instance comes back as it was. What its own code raises
is a `schema` error with the path, and the original as its cause.
"""

from __future__ import annotations

import datetime as dt
import re
import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from decimal import Decimal, InvalidOperation
from enum import Enum
from functools import lru_cache
from math import isinf
from typing import Any

from toon.encode import encode
from toon.errors import ToonError, excerpt
from toon.scopes import path_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from toon.limits import Limits

Place = tuple[Any, Any]
ROOT: Place = (None, None)
_TIMES: tuple[type, ...] = (dt.datetime, dt.date, dt.time)


def decode_as(text: str | bytes, schema: Any, *, indent: int, strict: bool, limits: Limits) -> Any:
    """Decode and check; `toon.decode(..., schema=...)` is the way in. Numbers are read digit by digit where Decimals are wanted."""
    from toon.documents import checked_indent, document_text
    from toon.fast_reader import FastReader
    from toon.lines import prepared

    real = decimal_number if _mentions_decimal(schema, set()) else float
    reader = FastReader(checked_indent(indent), strict, limits, real)
    reader.read(prepared(document_text(text, limits)))
    try:
        return checked(reader.finish(), schema)
    except RecursionError:
        raise ToonError("limit", "expected fewer levels: Python's stack is used up by the schema") from None


def decimal_number(token: str) -> Decimal:
    """The number of a token with all its digits."""
    try:
        return Decimal(token)
    except InvalidOperation:
        raise ToonError(
            "number", f"expected an exponent that Decimal can hold, found {excerpt(token)}", column=1
        ) from None


def checked(value: Any, schema: Any, place: Place = ROOT) -> Any:
    """The value converted to the schema's types. Raises `schema` with the path of the first part that does not fit."""
    if schema is Any:
        return _without_decimals(value)
    if isinstance(schema, dict) and all(isinstance(name, str) for name in schema):
        return _fields(value, schema, frozenset(schema), place)
    if isinstance(schema, list) and len(schema) == 1:
        return _items(value, schema[0], place)
    origin = typing.get_origin(schema)
    if origin is not None:
        return _generic(value, schema, origin, typing.get_args(schema), place)
    if is_dataclass(schema) and isinstance(schema, type):
        return _instance(value, schema, place)
    if typing.is_typeddict(schema):
        return _fields(value, _hints(schema), _required_keys(schema), place)
    return _scalar(value, schema, place)


def _instance(value: Any, schema: type, place: Place) -> Any:
    """A dataclass instance from its constructor; fields that the constructor does not take are set afterwards."""
    members = fields(schema)
    required = {f.name for f in members if f.init and f.default is MISSING and f.default_factory is MISSING}
    found = _fields(value, {f.name: _hints(schema)[f.name] for f in members}, required, place)
    later = {f.name: found.pop(f.name) for f in members if not f.init and f.name in found}
    try:
        instance = schema(**found)
    except RecursionError:
        raise
    except Exception as fault:  # the class's own code refused a value that its types allow
        reason = f"expected what {schema.__name__} accepts, found {type(fault).__name__}: {fault}"
        raise ToonError("schema", reason, path=_path(place)) from fault
    for name, item in later.items():
        object.__setattr__(instance, name, item)  # frozen ones too
    return instance


def _scalar(value: Any, schema: Any, place: Place) -> Any:
    kind = type(value)
    if schema is None or schema is types.NoneType:
        fits = value is None
    elif schema is int:
        return _integer(value, place)
    elif schema is float:
        return _float(value, place)
    elif schema is Decimal:
        if kind is int:
            return Decimal(value)
        fits = kind is Decimal
    elif isinstance(schema, type) and issubclass(schema, Enum):
        return _member(value, schema, place)
    elif schema in _TIMES:
        return _time(value, schema, place)
    elif schema is tuple:
        return tuple(_items(value, Any, place))
    elif isinstance(schema, type) and schema in {str, bool, list, dict}:
        fits = kind is schema
    else:
        raise ToonError("option", f"expected a type that a schema can hold, found {schema!r}")
    if not fits:
        raise _unfit(value, schema, place)
    return _without_decimals(value) if kind in {list, dict} else value


def _integer(value: Any, place: Place) -> int:
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer():
        return int(value)
    if type(value) is Decimal and value.adjusted() < 4300 and value == value.to_integral_value():
        return int(value)
    raise _unfit(value, int, place)


def _float(value: Any, place: Place) -> float:
    if type(value) not in {int, float, Decimal}:
        raise _unfit(value, float, place)
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if isinf(number):
        raise ToonError("schema", "expected a number that a double can hold, found a larger one", path=_path(place))
    return number


def _member(value: Any, schema: type[Enum], place: Place) -> Enum:
    member = _members(schema).get(encode(value))
    if member is None:
        choices = ", ".join(repr(member.value) for member in schema)
        raise ToonError("schema", f"expected one of {choices}, found {_found(value)}", path=_path(place))
    return member


@lru_cache(maxsize=256)
def _members(schema: type[Enum]) -> dict[str, Enum]:
    """An enum's members by the text of their values: so 0.1 is found whether it was read as a float or as a Decimal."""
    known: dict[str, Enum] = {}
    for member in schema:
        try:
            known.setdefault(encode(member.value), member)
        except ToonError:
            continue  # a value that cannot be encoded cannot be decoded
    return known


def _time(value: Any, schema: Any, place: Place) -> Any:
    if type(value) is not str:
        raise _unfit(value, schema, place)
    try:
        return schema.fromisoformat(value)
    except ValueError as fault:
        reason = f"expected an ISO 8601 {schema.__name__}, found {excerpt(value)} ({fault})"
        raise ToonError("schema", reason, path=_path(place)) from None


def _generic(value: Any, schema: Any, origin: Any, arguments: tuple[Any, ...], place: Place) -> Any:
    if not arguments and schema != tuple[()]:  # typing.List and its like
        return checked(value, origin, place)
    if origin is typing.Union or origin is types.UnionType:
        return _any_of(value, schema, arguments, place)
    if origin is typing.Literal:
        for choice in arguments:
            if choice == value and type(choice) is type(value):
                return choice
        raise ToonError("schema", f"expected one of {list(arguments)}, found {_found(value)}", path=_path(place))
    if origin in {typing.Annotated, typing.Required, typing.NotRequired}:
        return checked(value, arguments[0], place)
    if origin is list:
        return _items(value, arguments[0], place)
    if origin is tuple:
        return _tuple(value, arguments, place)
    if origin is dict and len(arguments) == 2:
        if type(value) is not dict:
            raise _unfit(value, dict, place)
        keys, items = arguments
        return {_key(key, keys, (place, key)): checked(item, items, (place, key)) for key, item in value.items()}
    raise ToonError("option", f"expected a type that a schema can hold, found {schema!r}")


def _key(key: str, schema: Any, place: Place) -> Any:
    """A key in the schema's type: as text where that fits, else as the integer it stands for."""
    if schema is str or schema is Any:
        return key
    try:
        return checked(key, schema, place)
    except ToonError as fault:
        if fault.code != "schema" or not _INTEGER.fullmatch(key):
            raise
    return checked(int(key), schema, place)


_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,639}")
"""An integer as `encode` spells it as a key; longer ones Python may refuse to read."""


def _any_of(value: Any, schema: Any, choices: tuple[Any, ...], place: Place) -> Any:
    """The first member of a union that fits, but float only after the number's own type: a large integer would lose digits.

    Where only one member could fit, its own error is raised, because it explains more than the union's.
    """
    if type(value) in {int, Decimal} and type(value) in choices:
        choices = tuple(sorted(choices, key=lambda choice: choice is float))
    faults = []
    for choice in choices:
        try:
            return checked(value, choice, place)
        except ToonError as fault:
            if fault.code != "schema":
                raise
            faults.append(fault)
    deepest = max(faults, key=lambda fault: len(fault.path))
    if len(deepest.path) > len(_path(place)) or len(faults) == 1:
        raise deepest
    raise ToonError("schema", f"expected {_name(schema)}, found {_found(value)}", path=_path(place))


def _items(value: Any, schema: Any, place: Place) -> list[Any]:
    if type(value) is not list:
        raise _unfit(value, list, place)
    return [checked(item, schema, (place, index)) for index, item in enumerate(value)]


def _tuple(value: Any, arguments: tuple[Any, ...], place: Place) -> tuple[Any, ...]:
    if len(arguments) == 2 and arguments[1] is ...:
        return tuple(_items(value, arguments[0], place))
    if type(value) is not list or len(value) != len(arguments):
        raise ToonError("schema", f"expected an array of {len(arguments)}, found {_found(value)}", path=_path(place))
    return tuple(
        checked(item, schema, (place, index)) for index, (item, schema) in enumerate(zip(value, arguments, strict=True))
    )


def _fields(value: Any, known: dict[str, Any], required: Any, place: Place) -> dict[str, Any]:
    if type(value) is not dict:
        raise _unfit(value, dict, place)
    for name in value:
        if name not in known:
            raise ToonError(
                "schema", f"expected one of the fields {list(known)}, found {excerpt(name)}", path=_path((place, name))
            )
    for name in known:
        if name in required and name not in value:
            raise ToonError("schema", f"expected the field {excerpt(name)}, found none", path=_path(place))
    return {name: checked(item, known[name], (place, name)) for name, item in value.items()}


@lru_cache(maxsize=256)
def _hints(schema: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(schema)
    except (NameError, AttributeError, TypeError, SyntaxError) as fault:
        raise ToonError("option", f"expected a schema whose types can be looked up: {fault}") from None


def _required_keys(schema: Any) -> set[str]:
    """A TypedDict's required keys. (Where annotations are text, `__required_keys__` has not seen Required and NotRequired.)"""
    marks = {name: typing.get_origin(hint) for name, hint in typing.get_type_hints(schema, include_extras=True).items()}
    marked = {name for name, mark in marks.items() if mark is typing.Required}
    return (set(schema.__required_keys__) | marked) - {
        name for name, mark in marks.items() if mark is typing.NotRequired
    }


def _mentions_decimal(schema: Any, seen: set[int]) -> bool:
    if schema is Decimal:
        return True
    if isinstance(schema, type) and issubclass(schema, Enum):
        return any(isinstance(member.value, Decimal) for member in schema)
    if id(schema) in seen:
        return False
    seen.add(id(schema))
    parts: list[Any] = list(typing.get_args(schema))
    if isinstance(schema, dict | list):
        parts += schema.values() if isinstance(schema, dict) else schema
    elif (is_dataclass(schema) and isinstance(schema, type)) or typing.is_typeddict(schema):
        parts += _hints(schema).values()
    return any(_mentions_decimal(part, seen) for part in parts)


def _without_decimals(value: Any) -> Any:
    """Where the schema says nothing, numbers are what they are without one."""
    if type(value) is Decimal:
        return _float(value, ROOT)
    if type(value) is list:
        return [_without_decimals(item) for item in value]
    if type(value) is dict:
        return {key: _without_decimals(item) for key, item in value.items()}
    return value


def _unfit(value: Any, schema: Any, place: Place) -> ToonError:
    return ToonError("schema", f"expected {_name(schema)}, found {_found(value)}", path=_path(place))


def _name(schema: Any) -> str:
    if schema is None or schema is types.NoneType:
        return "null"
    names = {
        dict: "an object",
        list: "an array",
        str: "text",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
    }
    return names.get(schema, getattr(schema, "__name__", str(schema))) if isinstance(schema, type) else str(schema)


def _found(value: Any) -> str:
    if type(value) is dict or type(value) is list:
        return f"an {'object' if type(value) is dict else 'array'} of {len(value)}"
    if type(value) is str:
        return f"text {excerpt(value)}"
    if value is None or type(value) is bool:
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)[:40]


def _path(place: Place) -> str:
    names = []
    while place is not ROOT:
        place, name = place
        names.append(name)
    return path_text(reversed(names))
