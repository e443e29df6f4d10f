"""evaluate: adapter and bare base are measured on the same held-out rows and questions; the samples stay in the run folder.

Streams on one base are measured together: it is loaded once at most, what a validation in this process has measured is not measured
again, and all answer in one batch (`judge.jointly` says how equal that is).  All other figures are bit for bit those of each alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial

from swarm.event import SHORT
from swarm.events import Score
from swarm.files import write_whole
from swarm.messages import Piece
from swarm.weights import sha256_in_run
from trainer import models
from trainer.judge import jointly
from trainer.judge.candidate import Candidate
from trainer.judge.examination import scores_document, write_samples
from trainer.judge.fitness import private_copy
from trainer.judge.session import Session
from trainer.lease import Lease
from trainer.objectives import tied
from trainer.place import Place
from trainer.work import Mates, Work, alone


def run(piece: Piece, lease: Lease, place: Place) -> None:
    alone(together, Work(piece, lease), place)


def together(mates: Mates, place: Place) -> None:
    """Those that arrive, until none is left."""
    session = Session(place)
    while works := mates.arrived():
        with ExitStack() as copies:
            _evaluate(works, mates, session, copies)


def _evaluate(works: Sequence[Work], mates: Mates, session: Session, copies: ExitStack) -> None:
    begun: dict[Work, dict[str, Candidate]] = {}
    for work in works:
        try:
            work.lease.check()
            begun[work] = _candidates(work, session, copies)
        except Exception as error:  # its adapter, rows or settings: the others go on
            mates.ended(work, error)
    jointly.answer([of_stream[""] for of_stream in begun.values() if "" in of_stream])
    for work, of_stream in begun.items():
        mates.ended(work, work.error_of(partial(_report, work, of_stream, session.place)))


def _candidates(work: Work, session: Session, copies: ExitStack) -> dict[str, Candidate]:
    """Each of the stream's models, by name."""
    piece, place = work.piece, session.place
    assert piece.checkpoint is not None and piece.sha256 is not None and piece.prepared is not None
    copy = copies.enter_context(private_copy(place.run_folder / piece.checkpoint, piece.sha256))
    return {
        name: Candidate.of(
            one, copy / name, work.lease,
            partial(tied.objective_of, name, copy=copy, pair=piece.settings, place=place), session,
        )
        for name, one in models.pieces(piece, place).items()
    }  # fmt: skip


def _report(work: Work, candidates: Mapping[str, Candidate], place: Place) -> None:
    piece, found = work.piece, {name: candidate.measured() for name, candidate in candidates.items()}
    scores = place.stream_folder(piece.stream) / "scores.toon"
    write_samples(scores.parent, [row for measured in found.values() for row in measured.samples])
    write_whole(scores, scores_document([measured.graded for measured in found.values()]))
    rows, asked = (sum(getattr(measured, count) for measured in found.values()) for count in ("rows", "asked"))
    assert piece.sha256 is not None
    work.lease.report(
        Score(
            ref=piece.ref, tok=piece.token, sha256=piece.sha256, rows=rows,
            answers=asked if 0 < asked < rows else None,
            rows_sha256=_one_of([measured.rows_sha256 for measured in found.values()])[:SHORT],
            scores_sha256=sha256_in_run(scores)[:SHORT],
            figures=models.joined({name: measured.figures for name, measured in found.items()}),
        )
    )  # fmt: skip


def _one_of(hashes: list[str]) -> str:
    return hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()
