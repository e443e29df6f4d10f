"""Files as text, whatever their encoding."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import IO, Literal

from swarm.errors import UserError

WHOLE_BYTES = 1 << 27
"""Of a document that has to be read whole; a larger one is refused.  It takes 2 to 9 times its size in memory, TOON up to 15 times."""
HEAD_BYTES = 1 << 16
"""Of a text file are read to tell how it was saved."""
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
SAVE_AS_UTF8 = "save the file as UTF-8"


def opened(path: Path, newline: str = "\n") -> IO[str]:
    """The file as text, its lines ended by line feeds alone; bytes that are not valid there become lone surrogates.

    UTF-8 with or without a mark, UTF-16 by its mark or by the zero bytes that ASCII characters have in it.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    encoding = "utf-16-le" if _is_utf16(head, "<") else "utf-16-be" if _is_utf16(head, ">") else None
    if encoding and head.startswith(UTF16_MARKS):
        encoding = "utf-16"
    errors = "surrogatepass" if encoding else "surrogateescape"
    return path.open(encoding=encoding or "utf-8-sig", errors=errors, newline=newline)


def _is_utf16(head: bytes, order: Literal["<", ">"]) -> bool:
    """Whether a file begins as UTF-16 of this byte order does: a row of another encoding may begin with any bytes as well.

    Its mark or an ASCII character stands in front, and it has line breaks or a share of ASCII characters that chance does not give.
    """
    units = [unit for (unit,) in struct.iter_unpack(f"{order}H", head[: len(head) // 2 * 2])]
    marked, first = units[:1] == [0xFEFF], units[0] if units else 0
    ascii_units = sum(0 < unit < 0x80 for unit in units)
    return (marked or 0 < first < 0x80) and (0x0A in units or ascii_units * (100 if marked else 8) > len(units))


def whole_text(path: Path) -> str:
    if (size := path.stat().st_size) > WHOLE_BYTES:
        what = f"has {size >> 20} MiB, and a {path.suffix} file is read whole: at most {WHOLE_BYTES >> 20} MiB"
        raise UserError(str(path), what, "write one JSON object per line into a .jsonl file, which is read row by row")
    with opened(path) as file:
        return file.read()


def not_utf8(text: str) -> int | None:
    """Index of the first byte that was no UTF-8, or None."""
    found = None if text.isascii() else re.search("[\udc80-\udcff]", text)
    return len(text[: found.start()].encode("utf-8", "surrogatepass")) if found else None
