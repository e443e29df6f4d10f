"""Rows of `.jsonl` files: one JSON object per line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from trainer.data.bad import BadRow, reason_of
from trainer.data.formats.text import SAVE_AS_UTF8, not_utf8, opened
from trainer.data.raw import RawRow


def read(path: Path) -> Iterator[RawRow | BadRow]:
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip(" \t\r\n\ufeff"):
                yield _json_line(f"{path}:{number}", line.rstrip("\n"))


def _json_line(where: str, line: str) -> RawRow | BadRow:
    text = partial(str, line)
    try:
        values = json.loads(line.lstrip("\ufeff"), object_pairs_hook=object_of)
    except Twice as error:
        return BadRow(where, str(error), "keep one of them", text)
    except (ValueError, RecursionError) as error:
        if (at := not_utf8(line)) is not None:
            return BadRow(where, f"not UTF-8 at byte {at}", SAVE_AS_UTF8, text)
        return BadRow(where, f"not JSON ({reason_of(error)})", "write one JSON object per line", text)
    if (at := not_utf8(line)) is not None:
        return BadRow(where, f"not UTF-8 at byte {at}", SAVE_AS_UTF8, text)
    if not isinstance(values, dict):
        return BadRow(where, f"a JSON {type(values).__name__}, not an object", "write one JSON object per line", text)
    return RawRow(where, values, text)


class Twice(ValueError):
    """A JSON object names a key twice: the first value would be lost."""


def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise Twice(f"the key {twice!r} stands twice in one object")
    return found
