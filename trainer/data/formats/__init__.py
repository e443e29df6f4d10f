"""How each kind of file is read into rows: one module a format, chosen by the file's ending.

A line that cannot be read is yielded as a BadRow, so that the rest of its file still is; a file that cannot be read is a UserError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from trainer.data.bad import BadRow
from trainer.data.formats import arrow, comma_separated, documents, jsonl, plain_text, tab_separated
from trainer.data.raw import RawRow

READERS: dict[str, Callable[[Path], Iterator[RawRow | BadRow]]] = {
    ".jsonl": jsonl.read,
    ".ndjson": jsonl.read,
    ".json": documents.read_json,
    ".csv": comma_separated.read,
    ".tsv": tab_separated.read,
    ".parquet": arrow.read,
    ".arrow": arrow.read,
    ".toon": documents.read_toon,
    ".txt": plain_text.read,
}
"""By ending: those of `swarm.settings.DATA_SUFFIXES`."""
