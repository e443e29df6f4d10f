"""Makes events from user input; invalid input is a UserError that names the field."""

from __future__ import annotations

import math
import shlex
from typing import Any

from pydantic import ValidationError

from swarm.errors import UserError
from swarm.event import Event
from swarm.policy.leases import LONGEST_LEASE_SECONDS

SHORTEST_LEASE_SECONDS = 3.0
_PATTERNS = {
    "ref": "a name is [a-z0-9][a-z0-9._-]*, a task NAME/NAME, `-` means none",
    "idem": "an idempotency key is 1 to 64 of A-Z a-z 0-9 . _ : -",
}
"""The format of some fields, for error messages."""


def waitable(where: str, seconds: float) -> float:
    """The seconds themselves.  Raises UserError for a negative number, an infinity or NaN, which would wait for ever."""
    if not (math.isfinite(seconds) and seconds >= 0):
        raise UserError(where, f"{seconds:g} s is not a time to wait", "take 0 seconds or more")
    return seconds


def words(text: str, where: str = "changes") -> list[str]:
    """The words of `text` as a shell would read them.  Raises UserError."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(where, f"{text!r} cannot be read ({error})", "close the quotation mark") from error


def no_entry(seq: int) -> UserError:
    return UserError(f"entry {seq}", "there is no such entry", "see `swarm log`")


def checked(kind: type[Event], **fields: Any) -> Event:
    """The event with these fields.  Raises UserError that names the first invalid one."""
    if isinstance(of := fields.get("of"), int) and of < 1:
        raise no_entry(of)
    if (ttl := fields.get("ttl")) is not None and not SHORTEST_LEASE_SECONDS <= ttl <= LONGEST_LEASE_SECONDS:
        raise UserError(
            f"{kind.__name__.lower()}: ttl", f"{ttl:g} s is out of range", "take 3 to 604800 seconds (7 days)"
        )
    for name, value in {**fields, **fields.get("figures", {})}.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(
                f"{kind.__name__.lower()}: {name}", f"{value} is not a number", "leave it out, or report FAIL"
            )
    try:
        return kind.model_validate({name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise UserError(f"{kind.__name__.lower()}: {where}", *_what_and_fix(where, first)) from error


def _what_and_fix(field: str, error: Any) -> tuple[str, str]:
    """Problem and fix of a validation error."""
    given = f"{error['input']!r}"
    match error["type"]:
        case "string_pattern_mismatch":
            return f"{given} is not valid", _PATTERNS.get(field, _PATTERNS["ref"])
        case "literal_error":
            return f"{given} is not known", f"take {error['ctx']['expected']}"
        case "missing":
            return "is missing", "add it"
        case "extra_forbidden":
            return "is not a known field", "leave it out"
        case "value_error":
            return f"{given} {str(error['msg']).removeprefix('Value error, ')}", "correct it"
        case _:
            return f"{given} is not valid ({_uncapitalised(str(error['msg']).removeprefix('Input '))})", "correct it"


def _uncapitalised(text: str) -> str:
    return text[:1].lower() + text[1:]
