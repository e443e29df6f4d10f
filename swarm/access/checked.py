"""What somebody wants to append, made into an event, or refused with the field that will not do."""

from __future__ import annotations

import math
from typing import Any

from pydantic import ValidationError

from swarm import events as ev
from swarm.errors import UserError
from swarm.policy.admission import LONGEST_LEASE_SECONDS

SHORTEST_LEASE_SECONDS = 1.0
_PATTERNS = {
    "ref": "a name is [a-z0-9][a-z0-9._-]*, a task NAME/NAME, nothing is `-`",
    "idem": "a key is 1 to 64 of A-Z a-z 0-9 . _ : -",
}
"""What fields look like, for who wrote one that does not."""


def waitable(where: str, seconds: float) -> float:
    """The seconds themselves.  Raises UserError for what is no time: a wait for NaN would never end."""
    if not (math.isfinite(seconds) and seconds >= 0):
        raise UserError(where, f"{seconds:g} s is no time to wait", "take 0 seconds or more")
    return seconds


def no_entry(seq: int) -> UserError:
    return UserError(f"entry {seq}", "there is none", "see `swarm log`")


def checked(kind: type[ev.Event], **fields: Any) -> ev.Event:
    """The event with these fields.  Raises UserError naming the first that will not do."""
    if isinstance(of := fields.get("of"), int) and of < 1:
        raise no_entry(of)
    if (ttl := fields.get("ttl")) is not None and not SHORTEST_LEASE_SECONDS <= ttl <= LONGEST_LEASE_SECONDS:
        raise UserError(f"{kind.__name__.lower()}: ttl", f"{ttl:g} s is no lease", "take 1 to 604800 seconds (7 days)")
    for name, value in {**fields, **fields.get("figures", {})}.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{kind.__name__.lower()}: {name}", f"{value} is no figure", "leave it out, or say FAIL")
    try:
        return kind.model_validate({name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise UserError(f"{kind.__name__.lower()}: {where}", *_what_and_fix(where, first)) from error


def _what_and_fix(field: str, error: Any) -> tuple[str, str]:
    """The library's finding in this project's words."""
    given = f"{error['input']!r}"
    match error["type"]:
        case "string_pattern_mismatch":
            return f"{given} will not do", _PATTERNS.get(field, _PATTERNS["ref"])
        case "literal_error":
            return f"{given} is not known", f"take {error['ctx']['expected']}"
        case "missing":
            return "is missing", "say it"
        case "extra_forbidden":
            return "is not known here", "leave it out"
        case "value_error":
            return f"{given} {str(error['msg']).removeprefix('Value error, ')}", "correct it"
        case _:
            return f"{given} will not do ({_uncapitalised(str(error['msg']).removeprefix('Input '))})", "correct it"


def _uncapitalised(text: str) -> str:
    return text[:1].lower() + text[1:]
