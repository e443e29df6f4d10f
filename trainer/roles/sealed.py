"""sealed: the adapter that is to be promoted against the bare base on rows that nobody else has read; only sums leave this module.

No row, no score of a row and no text of a row stands in a report, a file or an error: what goes wrong is named by its kind alone.
It passes where its held-out loss is lower than the base's by more than chance, so an adapter that changes nothing fails.
"""

from __future__ import annotations

import random
from typing import cast

from transformers import PreTrainedModel

from swarm import kinds
from swarm.errors import UserError
from swarm.events import Sealed
from swarm.messages import Piece
from swarm.policy.chance import Difference, difference
from trainer import bases
from trainer.data.bad import BadRow
from trainer.data.boundary import boundary_of
from trainer.data.documents import Cutting
from trainer.data.prepared import TRAIN, counts_all, read_rows, verified, with_classes
from trainer.data.tokens import Tokens
from trainer.errors import LeaseRevoked, LeaseStopped
from trainer.judge.fitness import private_copy
from trainer.judge.heldout import RowLoss, mean_loss
from trainer.lease import Lease
from trainer.loading import load_adapter, load_base, load_tokenizer
from trainer.place import Place

LEVEL = 0.01
"""Of the test against the base: one of a hundred adapters that change nothing passes."""


def run(piece: Piece, lease: Lease, place: Place) -> None:
    try:
        lease.report(_examined(piece, lease, place))
    except (LeaseRevoked, LeaseStopped, MemoryError):
        raise
    except Exception as error:
        what = f"cannot be judged ({type(error).__name__})"
        fix = "check their file: each row must be one that `datasets` could hold"
        raise UserError("sealed_datasets", what, fix) from None  # the cause may quote a row


def _examined(piece: Piece, lease: Lease, place: Place) -> Sealed:
    assert piece.checkpoint is not None and piece.sha256 is not None and piece.prepared is not None
    rows = _rows(piece, lease)
    prepared = place.run_folder / piece.prepared
    verified(prepared, piece.prepared_sha256)
    sealed = frozenset().union(*(row.documents for row in rows))
    overlap = sum(not sealed.isdisjoint(row.documents) for row in read_rows(prepared / TRAIN))
    known = {"ref": piece.ref, "tok": piece.token, "sha256": piece.sha256, "rows": len(rows), "overlap": overlap}
    if overlap:
        why = f"{overlap} training rows equal sealed rows, so nothing was measured"
        return Sealed.model_validate({**known, "result": "FAIL", "why": why})
    base, own = _losses(piece, rows, lease, place)
    gaps = [((b.nats - o.nats) / b.tokens, float(b.tokens)) for b, o in zip(base, own, strict=True)]
    found = difference(gaps, LEVEL, random.Random(0))
    passed = found.value > 0 and found.p <= LEVEL
    figures = {"sealed_loss": round(mean_loss(own), 6), "base_sealed_loss": round(mean_loss(base), 6)}
    return Sealed.model_validate(
        {**known, "result": "SUCCESS" if passed else "FAIL", "why": _why(found, passed=passed), "figures": figures}
    )


def _rows(piece: Piece, lease: Lease) -> list[Tokens]:
    settings, folder = piece.settings, bases.folder_of(piece.settings.base_model)
    tokenizer = load_tokenizer(folder, trust_remote_code=settings.trust_remote_code)
    boundary = boundary_of(settings, tokenizer, folder)
    read: list[tuple[int, Tokens]] = []
    for item in boundary.rows(settings.sealed_datasets):
        lease.progress()
        if isinstance(item, BadRow):
            raise ValueError  # noqa: TRY004  no fault of the program
        if counts_all(item.row):
            read.append((item.source, with_classes(item.row, settings, settings.sealed_datasets[item.source])))
    found = list(Cutting.of(settings, tokenizer).held_out(read, settings.sealed_datasets))
    if not found:
        raise ValueError
    return found


def _losses(piece: Piece, rows: list[Tokens], lease: Lease, place: Place) -> tuple[list[RowLoss], list[RowLoss]]:
    """Of the freshly loaded base, and of the same with the adapter on it."""
    assert piece.checkpoint is not None and piece.sha256 is not None
    model = load_base(bases.folder_of(piece.settings.base_model), piece.settings, place)
    losses = kinds.method(piece.settings.method).objective(piece.settings).losses
    base: list[RowLoss] = losses(model, rows, lease.progress)
    with private_copy(place.run_folder / piece.checkpoint, piece.sha256) as copy:
        tuned = cast("PreTrainedModel", load_adapter(model, copy))
    return base, losses(tuned, rows, lease.progress)


def _why(found: Difference, *, passed: bool) -> str:
    interval = f"by {found.value:.3g}, {100 * (1 - LEVEL):g}% interval {found.low:.3g} to {found.high:.3g}"
    return f"better than the base {interval}" if passed else f"not better than the base by more than chance: {interval}"
