"""Text or bytes to values, for a whole document at once (specification sections 4, 5 and 14)."""

from __future__ import annotations

from typing import Any

from toon.documents import checked_indent, document_text
from toon.limits import DEFAULT_LIMITS, Limits
from toon.lines import prepared
from toon.quick import QuickReader


def decode(
    text: str | bytes,
    *,
    indent: int = 2,
    strict: bool = True,
    limits: Limits = DEFAULT_LIMITS,
    schema: Any = None,
) -> Any:
    """The value of a document.

    `strict=False` forgives exactly what section 14.4 lists: counts, repeated keys, indentation, blank lines, depth jumps.
    With a `schema` (see `toon.schema`) the value is checked and converted. Integers come back as int, other numbers as float.
    Raises `ToonError` for whatever section 14 forbids and for what exceeds `limits`.
    """
    if schema is not None:
        from toon.schema import decode_as

        return decode_as(text, schema, indent=indent, strict=strict, limits=limits)
    reader = QuickReader(checked_indent(indent), strict, limits)
    reader.read(prepared(document_text(text, limits)))
    return reader.finish()
