"""validate: checks that a checkpoint has the hash and figures that were reported, the shape that its stream asks for, finite weights, and
a lower held-out loss than the bare base.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from swarm.events import Verdict
from swarm.messages import Piece
from swarm.policy.rules import worse_than
from trainer import bases
from trainer.data.prepared import HELD_OUT, read_rows, verified
from trainer.judge.baseline import base_figure
from trainer.judge.fitness import Unfit, private_copy, put_on, refuse_broken
from trainer.judge.heldout import held_out_loss
from trainer.lease import Lease
from trainer.loading import load_base
from trainer.place import Place

STATED_TOLERANCE = 0.02
"""Allowed difference between the reported held-out loss and the measured one: batches and kernels may differ."""


@dataclass(frozen=True)
class Judged:
    result: Literal["SUCCESS", "WARNING", "FAIL"]
    why: str | None
    """None: the figures say it."""
    sha256: str
    figures: dict[str, float] = field(default_factory=dict)


def run(assign: Piece, lease: Lease, place: Place) -> None:
    assert assign.checkpoint is not None and assign.sha256 is not None and assign.prepared is not None
    judged = _judged(assign, assign.sha256, lease, place)
    lease.report(
        Verdict(
            ref=assign.ref, tok=assign.token, result=judged.result, path=assign.checkpoint, sha256=judged.sha256,
            figures=judged.figures, why=judged.why,
        )
    )  # fmt: skip


def _judged(assign: Piece, sha256: str, lease: Lease, place: Place) -> Judged:
    try:
        with private_copy(place.run_folder / (assign.checkpoint or ""), sha256) as copy:
            refuse_broken(copy)
            loss, base_loss, overlap = _losses(assign, copy, lease, place)
    except Unfit as error:
        return Judged("FAIL", error.what, error.found or sha256)
    if not math.isfinite(loss):
        return Judged("FAIL", "held-out loss is not finite", sha256, {"base_eval_loss": base_loss})
    figures, stated = {"eval_loss": loss, "base_eval_loss": base_loss}, assign.figures.get("eval_loss")
    if stated is not None and abs(loss - stated) > STATED_TOLERANCE * max(1.0, abs(loss)):
        return Judged("WARNING", f"held-out loss {loss:.4g}, but its maker stated {stated:.4g}", sha256, figures)
    if why := worse_than(loss, base_loss, assign.settings.max_heldout_ratio):
        return Judged("WARNING", why, sha256, figures)
    if overlap:
        why = f"{overlap} training rows equal held-out rows (allow_overlap: true): its held-out loss shows what it learned by heart"
        return Judged("WARNING", why, sha256, figures)
    return Judged("SUCCESS", None, sha256, figures)


def _losses(assign: Piece, copy: Path, lease: Lease, place: Place) -> tuple[float, float, int]:
    """Held-out loss of the adapter and of the bare base, which is loaded anew and measured before the adapter is put on.

    Third: training rows that equal held-out rows.
    """
    settings, prepared = assign.settings, place.run_folder / (assign.prepared or "")
    facts = verified(prepared, assign.prepared_sha256)
    rows = list(read_rows(prepared / HELD_OUT))
    base = load_base(bases.folder_of(settings.base_model), settings, place)
    base_loss = base_figure("eval_loss", assign, place, lambda: held_out_loss(base, rows, lease.progress))
    loss = held_out_loss(put_on(base, copy, settings), rows, lease.progress)
    return round(loss, 6), round(base_loss, 6), int(facts.get("overlap", 0))
