"""validate: is this checkpoint what its maker said, what its stream asks for, finite, and better on held-out rows than the bare base?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from swarm.events import Verdict
from swarm.messages import Assign
from swarm.policy.rules import worse_than
from trainer import bases
from trainer.data.prepared import HELD_OUT, read_rows, verified
from trainer.judge.baseline import yardstick
from trainer.judge.fitness import Unfit, private_copy, put_on, refuse_broken
from trainer.judge.heldout import held_out_loss
from trainer.lease import Lease
from trainer.loading import load_base
from trainer.place import Place

CLAIM_TOLERANCE = 0.02
"""Between the held-out loss that a maker states and ours: other batches, and kernels of another device."""


@dataclass(frozen=True)
class Judged:
    result: Literal["SUCCESS", "WARNING", "FAIL"]
    why: str
    sha256: str
    heldout: float | None = None
    base_heldout: float | None = None


def run(assign: Assign, lease: Lease, place: Place) -> None:
    assert assign.checkpoint is not None and assign.sha256 is not None and assign.prepared is not None
    judged = _judged(assign, assign.sha256, lease, place)
    lease.report(
        Verdict(
            ref=assign.ref, tok=assign.token, result=judged.result, path=assign.checkpoint, sha256=judged.sha256,
            heldout=judged.heldout, base_heldout=judged.base_heldout, why=judged.why,
        )
    )  # fmt: skip


def _judged(assign: Assign, sha256: str, lease: Lease, place: Place) -> Judged:
    try:
        with private_copy(place.run_folder / (assign.checkpoint or ""), sha256) as copy:
            refuse_broken(copy)
            heldout, base_heldout = _losses(assign, copy, lease, place)
    except Unfit as error:
        return Judged("FAIL", error.what, error.found or sha256)
    if not math.isfinite(heldout):
        return Judged("FAIL", "held-out loss is not finite", sha256, None, base_heldout)
    if assign.heldout is not None and abs(heldout - assign.heldout) > CLAIM_TOLERANCE * max(1.0, abs(heldout)):
        why = f"held-out loss {heldout:.4g}, but its maker said {assign.heldout:.4g}"
        return Judged("WARNING", why, sha256, heldout, base_heldout)
    if why := worse_than(heldout, base_heldout, assign.settings.max_heldout_ratio):
        return Judged("WARNING", why, sha256, heldout, base_heldout)
    return Judged("SUCCESS", f"held-out loss {heldout:.4g}, base {base_heldout:.4g}", sha256, heldout, base_heldout)


def _losses(assign: Assign, copy: Path, lease: Lease, place: Place) -> tuple[float, float]:
    """Held-out loss of the adapter and of the bare base, which is loaded anew and measured before the adapter is put on."""
    settings, prepared = assign.settings, place.run_folder / (assign.prepared or "")
    verified(prepared, assign.prepared_sha256)
    rows = list(read_rows(prepared / HELD_OUT))
    base = load_base(bases.folder_of(settings.base_model), settings, place)
    base_heldout = yardstick("heldout", assign, place, lambda: held_out_loss(base, rows, lease.progress))
    return round(held_out_loss(put_on(base, copy, settings), rows, lease.progress), 6), round(base_heldout, 6)
