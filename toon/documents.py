"""First checks of every reader: size limit, UTF-8, and the unit of indentation."""

from __future__ import annotations

from toon.errors import ToonError
from toon.limits import Limits


def document_text(text: str | bytes, limits: Limits) -> str:
    """The characters of a document, without a byte-order mark."""
    if not isinstance(text, str | bytes | bytearray):
        raise ToonError("option", f"expected text or bytes, found {type(text).__name__}")
    if len(text) > limits.max_bytes:
        raise ToonError("limit", f"expected at most {limits.max_bytes} bytes, found {len(text)}")
    if not isinstance(text, str):
        text = utf8_text(text)
    return text.removeprefix("\ufeff")


def utf8_text(data: bytes) -> str:
    """Decodes UTF-8; invalid bytes are an error and never replaced."""
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as fault:
        line = data.count(b"\n", 0, fault.start) + 1
        start = data.rfind(b"\n", 0, fault.start) + 1
        good = str(data[start : fault.start], "utf-8")
        raise ToonError(
            "utf8",
            f"expected UTF-8, found byte 0x{data[fault.start]:02x} ({fault.reason})",
            line=line,
            column=len(good) + 1,
            source=good,
        ) from None


def checked_indent(indent: int) -> int:
    """The indentation unit itself, if it is valid."""
    if not isinstance(indent, int) or indent < 1:
        raise ToonError("option", f"expected indent to be a positive number of spaces, found {indent!r}")
    return indent
