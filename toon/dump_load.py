"""Writes a document to a file and reads it back. Apart from the command line, no other module opens files."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

from toon.decode import decode
from toon.encode import encode
from toon.limits import DEFAULT_LIMITS, Limits


def dump(value: Any, file: str | Path | IO[str], *, indent: int = 2, delimiter: str = ",") -> None:
    """Write a value as one document to an open text file, or to the file of that name. Raises what `encode` raises, and OSError.

    Nothing is written when the value cannot be encoded. No newline is added: a document has none at its end (section 12).
    """
    text = encode(value, indent=indent, delimiter=delimiter)
    if isinstance(file, str | Path):
        Path(file).write_bytes(text.encode())
    else:
        file.write(text)


def load(
    file: str | Path | IO[str] | IO[bytes],
    *,
    indent: int = 2,
    strict: bool = True,
    limits: Limits = DEFAULT_LIMITS,
    schema: Any = None,
) -> Any:
    r"""The value of the document in an open file, or in the file of that name. Raises what `decode` raises, and OSError.

    At most `limits.max_bytes` are read. A text file opened with newline translation has "\r\n" turned into "\n" before it is read here.
    """
    if isinstance(file, str | Path):
        with Path(file).open("rb") as opened:
            text: str | bytes = opened.read(limits.max_bytes + 1)
    else:
        text = file.read(limits.max_bytes + 1)
    return decode(text, indent=indent, strict=strict, limits=limits, schema=schema)
