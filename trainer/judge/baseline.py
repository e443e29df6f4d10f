"""The bare base's figures on held-out rows: what every adapter is measured against, measured once by a process for all its streams.

They are kept in memory alone: whoever could write them to a file could move the baseline.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar, cast

from swarm.errors import UserError
from swarm.messages import Piece
from swarm.settings import StreamSettings
from trainer import bases
from trainer.loading import compute_dtype
from trainer.place import Place

Figure = TypeVar("Figure", float, list[str])

_measured: dict[tuple[object, ...], float | list[str]] = {}


def base_figure(what: str, assign: Piece, place: Place, measure: Callable[[], Figure]) -> Figure:
    """The base's figures called `what`; measured where this process has not measured them on these rows before."""
    key = (what, place.run_folder, assign.prepared, assign.prepared_sha256, *_held(assign.settings, place))
    if key not in _measured:
        _measured[key] = _finite(measure())
    return cast("Figure", _measured[key])


def _held(settings: StreamSettings, place: Place) -> tuple[object, ...]:
    """The base and how it is held.  A change of its files moves their ctime, which nobody can set back; hashing them reads gigabytes."""
    folder = bases.folder_of(settings.base_model)
    files = [(path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file()]
    seen = tuple((name, about.st_size, about.st_ctime_ns) for name, about in files)
    return folder, seen, settings.adapter, settings.trust_remote_code, compute_dtype(settings, place), place.device


def _finite(figure: Figure) -> Figure:
    if isinstance(figure, float) and not math.isfinite(figure):
        what = "the bare base's held-out loss is not finite, so nothing can be measured against it"
        raise UserError("base_model", what, "take another base, or set bf16: false")
    return figure
