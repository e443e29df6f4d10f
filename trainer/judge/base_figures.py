"""The bare base's figures on held-out rows: what every adapter is measured against, measured once by a process for all its streams.

They are kept in memory alone: whoever could write them to a file could move what adapters are measured against.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

from swarm.errors import UserError
from swarm.messages import Piece
from swarm.settings import StreamSettings
from trainer import bases
from trainer.judge.answers import Answer
from trainer.judge.heldout import RowLoss, mean_loss
from trainer.judge.retention import Kept
from trainer.loading import compute_dtype
from trainer.place import Place

Measured = TypeVar("Measured")

_measured: dict[tuple[object, ...], Any] = {}


def base_losses(piece: Piece, place: Place, measure: Callable[[], list[RowLoss]]) -> list[RowLoss]:
    """Its losses on the held-out rows.  Raises UserError where their mean is not finite."""

    def finite() -> list[RowLoss]:
        found = measure()
        if not math.isfinite(mean_loss(found)):
            what = "the bare base's held-out loss is not finite, so nothing can be measured against it"
            raise UserError("base_model", what, "take another base, or set bf16: false")
        return found

    return _once("losses", piece, place, finite)


def base_answers(about: str, piece: Piece, place: Place, measure: Callable[[], list[Answer]]) -> list[Answer]:
    """Its answers to the questions; `about` says how they are asked."""
    return _once(about, piece, place, measure)


def base_kept(piece: Piece, place: Place, measure: Callable[[], Kept]) -> Kept:
    """Its losses on unrelated text, and the skills that it has."""
    return _once("retention", piece, place, measure)


def _once(what: str, piece: Piece, place: Place, measure: Callable[[], Measured]) -> Measured:
    """Measured where this process has not measured it on these rows before."""
    key = (what, place.run_folder, piece.prepared, piece.prepared_sha256, *_held(piece.settings, place))
    if key not in _measured:
        _measured[key] = measure()
    return cast("Measured", _measured[key])


def _held(settings: StreamSettings, place: Place) -> tuple[object, ...]:
    """The base and how it is held.  A change of its files moves their ctime, which nobody can set back; hashing them reads gigabytes."""
    folder = bases.folder_of(settings.base_model)
    files = [(path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file()]
    seen = tuple((name, about.st_size, about.st_ctime_ns) for name, about in files)
    how = settings.adapter, settings.trust_remote_code, settings.attn_implementation, compute_dtype(settings, place)
    return folder, seen, *how, place.device
