"""TOON, Token-Oriented Object Notation (specification 4.4): values to text and back, whole, in rows, in frames, or torn."""

from __future__ import annotations

from toon.decode import decode
from toon.encode import encode
from toon.errors import ToonError
from toon.limits import Limits
from toon.tables import decode_columns, encode_columns

__all__ = ["Limits", "ToonError", "decode", "decode_columns", "encode", "encode_columns"]
