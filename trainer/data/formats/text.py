"""Files as text, whatever their encoding."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from swarm.errors import UserError

WHOLE_BYTES = 1 << 27
"""A document that has to be read whole takes some ten times its size in memory; a larger one is refused."""
SAVE_AS_UTF8 = "save the file as UTF-8"


def opened(path: Path, newline: str = "\n") -> IO[str]:
    """The file as text, its lines ended by line feeds alone; bytes that are not valid there become lone surrogates.

    UTF-8 with or without a mark, UTF-16 by its mark or by the zero bytes that ASCII characters have in it.
    """
    with path.open("rb") as file:
        head = file.read(4)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding, errors = "utf-16", "surrogatepass"
    elif len(head) >= 2 and 0 in head[:2]:
        encoding, errors = ("utf-16-le" if head[1] == 0 else "utf-16-be"), "surrogatepass"
    else:
        encoding, errors = "utf-8-sig", "surrogateescape"
    return path.open(encoding=encoding, errors=errors, newline=newline)


def whole_text(path: Path) -> str:
    if (size := path.stat().st_size) > WHOLE_BYTES:
        what = f"has {size >> 20} MiB, and a {path.suffix} file is read whole: at most {WHOLE_BYTES >> 20} MiB"
        raise UserError(str(path), what, "write one JSON object per line into a .jsonl file, which is read row by row")
    with opened(path) as file:
        return file.read()
