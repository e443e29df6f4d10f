"""PATH or PATH:SCALE, as commands take what acts on all of their models; without torch."""

from __future__ import annotations

import math
from pathlib import Path

from swarm.errors import UserError


def scaled(word: str, option: str) -> tuple[Path, float]:
    """The scale is 1 where none is written.  Raises UserError."""
    path, colon, text = word.rpartition(":")
    if not colon or Path(word).exists():
        return Path(word), 1.0
    try:
        scale = float(text)
    except ValueError:
        scale = math.nan
    if not math.isfinite(scale):
        raise UserError(option, f"{text!r} is no scale", f"write {path}, or {path}:0.5")
    return Path(path), scale
