"""What this process has measured: the bare base's figures once for all streams, and an adapter's losses until its scores are made.

They are kept in memory alone: whoever could write them to a file could move what adapters are measured against.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from swarm.errors import UserError
from swarm.messages import Piece
from swarm.policy.batching import batch_key
from swarm.settings import StreamSettings
from trainer import bases
from trainer.judge.answers import Answer
from trainer.judge.heldout import RowLoss, mean_loss
from trainer.judge.retention import Kept
from trainer.loading import compute_dtype
from trainer.place import Place

Measured = TypeVar("Measured")
Key = tuple[object, ...]

_measured: dict[Key, Any] = {}


def base_losses(piece: Piece, place: Place, measure: Callable[[], list[RowLoss]]) -> list[RowLoss]:
    """Its losses on the held-out rows.  Raises UserError where their mean is not finite."""

    def finite() -> list[RowLoss]:
        found = measure()
        if not math.isfinite(mean_loss(found)):
            what = "the bare base's held-out loss is not finite, so nothing can be measured against it"
            raise UserError("base_model", what, "take another base, or set bf16: false")
        return found

    return _once(_key("losses", piece, place), finite)


def base_answers(about: str, piece: Piece, place: Place, measure: Callable[[], list[Answer]]) -> list[Answer]:
    """Its answers to the questions; `about` says how they are asked."""
    return _once(_key(about, piece, place), measure)


def has_base_answers(about: str, piece: Piece, place: Place) -> bool:
    return _key(about, piece, place) in _measured


def base_kept(piece: Piece, place: Place, measure: Callable[[], Kept]) -> Kept:
    """Its losses on unrelated text, and the skills that it has."""
    return _once(_key("retention", piece, place), measure)


def keep_losses(piece: Piece, place: Place, losses: list[RowLoss]) -> None:
    """Those of an adapter, by the hash of its files."""
    _measured[_key("losses", piece, place, piece.sha256)] = losses


def losses_kept(piece: Piece, place: Place) -> list[RowLoss] | None:
    """Of these files, where this process has just validated them; asked once, and gone then."""
    return cast("list[RowLoss] | None", _measured.pop(_key("losses", piece, place, piece.sha256), None))


def _once(key: Key, measure: Callable[[], Measured]) -> Measured:
    """Measured where this process has not measured it on these rows before."""
    if key not in _measured:
        _measured[key] = measure()
    return cast("Measured", _measured[key])


def _key(what: str, piece: Piece, place: Place, sha256: str | None = None) -> Key:
    rows = place.run_folder, piece.prepared, piece.prepared_sha256
    return (what, sha256, *rows, piece.settings.method, *base_as_held(piece.settings, place))


def base_as_held(settings: StreamSettings, place: Place) -> Sequence[object]:
    """The base and how it is held.  A change of its files moves their ctime, which nobody can set back; hashing them reads gigabytes."""
    folder = bases.folder_of(settings.base_model)
    files = [(path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file()]
    seen = tuple((name, about.st_size, about.st_ctime_ns) for name, about in files)
    return folder, seen, batch_key(settings).bases, compute_dtype(settings, place), place.device
