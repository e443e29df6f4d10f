"""Text or bytes to values, for a whole document at once (specification sections 4, 5 and 14)."""

from __future__ import annotations

from typing import Any

from toon.documents import checked_indent, document_text
from toon.fast_reader import FastReader
from toon.limits import DEFAULT_LIMITS, Limits
from toon.lines import prepared


def decode(
    text: str | bytes,
    *,
    indent: int = 2,
    strict: bool = True,
    limits: Limits = DEFAULT_LIMITS,
    schema: Any = None,
) -> Any:
    """The value of a document.

    `strict=False` accepts exactly what section 14.4 lists: wrong counts, repeated keys, indentation, blank lines, depth jumps.
    With a `schema` (see `toon.schema`) the value is checked and converted. Integers come back as int, other numbers as float.
    Raises `ToonError` for everything that section 14 forbids and for a document over the `limits`.
    """
    if schema is not None:
        from toon.schema import decode_as

        return decode_as(text, schema, indent=indent, strict=strict, limits=limits)
    reader = FastReader(checked_indent(indent), strict, limits)
    reader.read(prepared(document_text(text, limits)))
    return reader.finish()
