"""TOON, Token-Oriented Object Notation (toon-spec: 4.4): values to text and back, whole, in rows, in frames, or torn.

`encode`, `decode`, `dump`, `load` are what `json` has; `encode_columns`, `decode_columns` and `decode_tables` do without an object per row;
`RowWriter`, `iter_rows` and `Decoder` stream; `toon.frames` keeps many documents in one stream; `salvage` reads what was cut off;
`stats` and `compact` tell when TOON is smaller than JSON. Every failure is a `ToonError`; `Limits` bounds the cost of a document.
"""

from __future__ import annotations

from typing import Any

from toon.decode import decode
from toon.encode import encode
from toon.errors import ToonError
from toon.limits import Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from toon.dump_load import dump, load
    from toon.frames import Frame, FrameReader, FrameWriter, Gap, read_frames
    from toon.sizes import Stats, compact, estimated_tokens, stats
    from toon.stream import Decoder, RowWriter, iter_rows
    from toon.tables import decode_columns, decode_tables, encode_columns
    from toon.torn import Missing, salvage

__all__ = [
    "Decoder",
    "Frame",
    "FrameReader",
    "FrameWriter",
    "Gap",
    "Limits",
    "Missing",
    "RowWriter",
    "Stats",
    "ToonError",
    "compact",
    "decode",
    "decode_columns",
    "decode_tables",
    "dump",
    "encode",
    "encode_columns",
    "estimated_tokens",
    "iter_rows",
    "load",
    "read_frames",
    "salvage",
    "stats",
]

_MODULES = {
    "dump_load": ("dump", "load"),
    "frames": ("Frame", "FrameReader", "FrameWriter", "Gap", "read_frames"),
    "torn": ("Missing", "salvage"),
    "sizes": ("Stats", "compact", "estimated_tokens", "stats"),
    "stream": ("Decoder", "RowWriter", "iter_rows"),
    "tables": ("decode_columns", "decode_tables", "encode_columns"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import the less common modules at their first use, so that `import toon` is fast."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'toon' has no attribute {name!r}")
    from importlib import import_module

    module = import_module(f"toon.{_MODULE_OF[name]}")
    value = globals()[name] = getattr(module, name)
    return value
