"""validate: checks that a checkpoint has the hash and figures that were reported, the shape that its stream asks for, finite weights, and
a lower held-out loss than the bare base.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from transformers import PreTrainedModel

from swarm import kinds
from swarm.errors import UserError
from swarm.events import Verdict
from swarm.messages import Piece
from swarm.policy.rules import worse_than
from trainer import models
from trainer.data.prepared import rows_to_choose_by
from trainer.data.tokens import Tokens
from trainer.judge.fitness import Unfit, private_copy, put_on, refuse_broken
from trainer.judge.heldout import RowLoss, mean_loss
from trainer.judge.measured import base_losses, keep_losses
from trainer.judge.objective import Objective
from trainer.judge.session import Session
from trainer.lease import Lease
from trainer.objectives import tied
from trainer.place import Place
from trainer.work import Mates, Work, alone

JudgedBy = Callable[[PreTrainedModel], Objective]
"""What a model with its adapter is judged by; the bare base is judged by its method alone."""
STATED_TOLERANCE = 0.02
"""Allowed difference between the reported held-out loss and the measured one: batches and kernels may differ."""


ORDER = ("SUCCESS", "WARNING", "FAIL")
"""The last of its models' results is a stream's."""


@dataclass(frozen=True)
class Judged:
    result: Literal["SUCCESS", "WARNING", "FAIL"]
    why: str | None
    """None: the figures say it."""
    sha256: str
    figures: dict[str, float] = field(default_factory=dict)


def run(piece: Piece, lease: Lease, place: Place) -> None:
    alone(together, Work(piece, lease), place)


def together(mates: Mates, place: Place) -> None:
    """Those that arrive, one after another on one base, until none is left.

    Each has the base for itself, bare before and after, so that its figures are those of a process of its own, bit for bit.
    """
    session = Session(place)
    while works := mates.arrived(at_most=1):  # the time of a validation begins when it is its turn
        for work in works:
            mates.ended(work, work.error_of(partial(_validate, work, session)))


def _validate(work: Work, session: Session) -> None:
    piece = work.piece
    assert piece.checkpoint is not None and piece.sha256 is not None and piece.prepared is not None
    judged = _judged(piece, piece.sha256, work.lease, session)
    work.lease.report(
        Verdict(
            ref=piece.ref, tok=piece.token, result=judged.result, path=piece.checkpoint, sha256=judged.sha256,
            figures=judged.figures, why=judged.why,
        )
    )  # fmt: skip


def _judged(piece: Piece, sha256: str, lease: Lease, session: Session) -> Judged:
    """Each of the stream's models on its own."""
    place = session.place
    try:
        with private_copy(place.run_folder / (piece.checkpoint or ""), sha256) as copy:
            found = {
                name: _judged_model(one, copy / name, sha256, lease, session, _judged_by(name, piece, copy, place))
                for name, one in models.pieces(piece, place).items()
            }
    except Unfit as error:
        return Judged("FAIL", error.what, error.found or sha256)
    result = max((judged.result for judged in found.values()), key=ORDER.index)
    whys = [f"{name}: {judged.why}" if name else judged.why for name, judged in found.items() if judged.why]
    return Judged(
        result, "; ".join(whys) or None, sha256, models.joined({name: judged.figures for name, judged in found.items()})
    )


def _judged_by(model: str, pair: Piece, copy: Path, place: Place) -> JudgedBy:
    def objective(tuned: PreTrainedModel) -> Objective:
        try:
            return tied.objective_of(model, tuned, copy, pair.settings, place)
        except UserError as error:  # the projector is a part of the adapters
            raise Unfit(f"{Path(error.where).name} {error.what}") from error

    return objective


def _judged_model(piece: Piece, copy: Path, sha256: str, lease: Lease, session: Session, judged_by: JudgedBy) -> Judged:
    try:
        refuse_broken(copy)
        loss, base_loss, overlap, chosen_by = _losses(piece, copy, lease, session, judged_by)
    except Unfit as error:
        return Judged("FAIL", error.what, sha256)
    if not math.isfinite(loss):
        return Judged("FAIL", "held-out loss is not finite", sha256, {"base_eval_loss": base_loss})
    figures, stated = {"eval_loss": loss, "base_eval_loss": base_loss}, piece.figures.get("eval_loss")
    if stated is not None and abs(chosen_by - stated) > STATED_TOLERANCE * max(1.0, abs(chosen_by)):
        return Judged("WARNING", f"held-out loss {chosen_by:.4g}, but its maker stated {stated:.4g}", sha256, figures)
    if why := worse_than(loss, base_loss, piece.settings.max_heldout_ratio):
        return Judged("WARNING", why, sha256, figures)
    if overlap:
        why = f"{overlap} training rows equal held-out rows (allow_overlap: true): its held-out loss shows what it learned by heart"
        return Judged("WARNING", why, sha256, figures)
    return Judged("SUCCESS", None, sha256, figures)


def _losses(
    piece: Piece, copy: Path, lease: Lease, session: Session, judged_by: JudgedBy
) -> tuple[float, float, int, float]:
    """Held-out loss of the adapter and of the bare base.

    Third: training rows that equal held-out rows.  Fourth: the adapter's loss on the rows by which its step was chosen.
    """
    settings, place, held_out = piece.settings, session.place, session.held_out(piece)
    base_loss = mean_loss(base_losses(piece, place, partial(_of_base, piece, held_out.rows, lease, session)))
    with session.tuned(settings, lambda base: put_on(base, copy, settings)) as tuned:
        measured = judged_by(tuned).losses
        losses = measured(tuned, held_out.rows, lease.progress)
        loss = chosen_by = mean_loss(losses)
        if settings.val_datasets:
            rows = rows_to_choose_by(place.run_folder / (piece.prepared or ""))
            chosen_by = mean_loss(measured(tuned, rows, lease.progress))
    keep_losses(piece, place, losses)
    return round(loss, 6), round(base_loss, 6), int(held_out.facts.get("overlap", 0)), chosen_by


def _of_base(piece: Piece, rows: Sequence[Tokens], lease: Lease, session: Session) -> list[RowLoss]:
    """By its method alone."""
    objective: Objective = kinds.method(piece.settings.method).objective(piece.settings)
    with session.bare(piece.settings) as base:
        return objective.losses(base, rows, lease.progress)
