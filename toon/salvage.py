"""What can be saved of a document that was cut off: a torn file, a model's answer that ran out of tokens.

It repairs nothing and guesses nothing: lines are either read as they stand or left out, and what is missing is listed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from toon.decode import checked_indent, decode
from toon.errors import ToonError
from toon.limits import DEFAULT_LIMITS, Limits
from toon.lines import prepared
from toon.reader import Reader
from toon.scopes import OBJECT, path_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from toon.headers import Header
    from toon.scopes import Scope


class Missing(NamedTuple):
    """One place where something was cut off."""

    path: str
    declared: int | None
    """Values, items, rows or entries that the header promised; None for an object, which promises nothing."""
    got: int
    """How many of them there are, or how many fields the object has."""


def salvage(
    text: str | bytes, *, indent: int = 2, limits: Limits = DEFAULT_LIMITS
) -> tuple[Any, list[Missing]]:
    """The complete part of a cut document, and what is missing from it, outermost first.

    A whole document comes back as `decode` gives it, with nothing missing. Otherwise the last line is taken as torn, unless it
    ends with a newline: half a number looks like a number. Reading stops at the first faulty line. Raises only `limit` and
    `option`.
    """
    try:
        return decode(text, indent=indent, limits=limits), []
    except ToonError as fault:
        if fault.code in {"limit", "option"}:
            raise
    characters = text if isinstance(text, str) else text.decode("utf-8", "ignore" if _cut_character(text) else "replace")
    complete, _, _torn = characters.removeprefix("\ufeff").rpartition("\n")
    reader = _SalvageReader(checked_indent(indent), strict=True, limits=limits)
    return reader.salvaged(prepared(complete))
