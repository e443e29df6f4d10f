"""train: one stream is trained on its prepared rows, from the start or from the newest whole checkpoint, and ends with a final checkpoint.

Streams of one base are trained together by the shared engine, others one at a time by TRL.
"""

from __future__ import annotations

from swarm.messages import Piece
from swarm.policy.batching import engine_of
from trainer import training
from trainer.engines import shared
from trainer.errors import Elsewhere
from trainer.lease import Lease
from trainer.place import Place
from trainer.work import Mates, Work, alone


def run(assign: Piece, lease: Lease, place: Place) -> None:
    """One training with no others beside it."""
    work = Work(assign, lease)
    if engine_of(assign.settings) == "shared":
        try:
            alone(together, work, place)
        except Elsewhere as why:
            work.set_apart(str(why))
        else:
            return
    apart(work, place)


def together(mates: Mates, place: Place) -> None:
    """Trainings that share a base, until none is left."""
    shared.train(mates, place)


def apart(work: Work, place: Place) -> None:
    """One training of one model by TRL, or of two models."""
    from trainer.engines import callbacks, pair, trl  # TRL is a second of imports, which the shared engine does without

    progress = training.begin(work.piece, work.lease, place)
    try:
        of_two = engine_of(work.piece.settings) == pair.ENGINE
        training.refuse_other(progress, pair.ENGINE if of_two else callbacks.ENGINE)
        if not training.is_finished(progress):
            (pair if of_two else trl).train(progress)
        training.finish(progress)
    finally:
        progress.close()
