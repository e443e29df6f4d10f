"""evaluate: adapter and bare base are measured on the same held-out rows and questions; the samples stay in the run folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedModel

from swarm import figures
from swarm.event import SHORT
from swarm.events import Score
from swarm.files import write_whole
from swarm.messages import Piece
from swarm.weights import sha256_in_run
from trainer import bases, models
from trainer.data.prepared import verified
from trainer.judge.base_figures import base_answers, base_kept, base_losses
from trainer.judge.examination import Examination, Graded, Result, samples, scores_document, write_samples
from trainer.judge.fitness import private_copy
from trainer.judge.model_judge import Case, judged
from trainer.judge.objective import Objective
from trainer.lease import Lease
from trainer.loading import load_adapter, load_base
from trainer.objectives import tied
from trainer.place import Place

JudgedBy = Callable[[PreTrainedModel], Objective]
"""What a model with its adapter is judged by; the bare base is judged by its method alone."""


@dataclass(frozen=True)
class Measured:
    """One model."""

    rows: int
    asked: int
    rows_sha256: str
    figures: dict[str, float]
    samples: list[dict[str, Any]]
    graded: tuple[Graded, Graded]
    """Of the base and of the adapter."""


def run(piece: Piece, lease: Lease, place: Place) -> None:
    assert piece.checkpoint is not None and piece.sha256 is not None
    with private_copy(place.run_folder / piece.checkpoint, piece.sha256) as copy:
        found = {
            name: _examined(
                one,
                copy / name,
                lease,
                place,
                partial(tied.objective_of, name, copy=copy, pair=piece.settings, place=place),
            )
            for name, one in models.pieces(piece, place).items()
        }
    scores = place.stream_folder(piece.stream) / "scores.toon"
    write_samples(scores.parent, [row for measured in found.values() for row in measured.samples])
    write_whole(scores, scores_document([measured.graded for measured in found.values()]))
    rows, asked = (sum(getattr(measured, count) for measured in found.values()) for count in ("rows", "asked"))
    lease.report(
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


def _examined(piece: Piece, copy: Path, lease: Lease, place: Place, judged_by: JudgedBy) -> Measured:
    """`copy`: of its adapter, where nobody else writes."""
    assert piece.prepared is not None
    prepared, base_folder = place.run_folder / piece.prepared, bases.folder_of(piece.settings.base_model)
    manifest = verified(prepared, piece.prepared_sha256)
    examination = Examination.of(prepared, manifest["stop_tokens"], base_folder, piece.settings, lease.progress)
    base, tuned, kept = _measured(examination, piece, copy, place, judged_by)
    of_base, of_tuned = examination.graded(base), examination.graded(tuned)
    rows = samples(examination.asked, base, tuned, of_base, of_tuned)
    kept |= _of_a_model(examination, rows)
    return Measured(
        rows=len(examination.rows), asked=len(examination.asked),
        rows_sha256=examination.rows_sha256(manifest["held_out_sha256"]), samples=rows, graded=(of_base, of_tuned),
        figures={**_figures(of_base, of_tuned), **kept},
    )  # fmt: skip


def _measured(
    examination: Examination, piece: Piece, copy: Path, place: Place, judged_by: JudgedBy
) -> tuple[Result, Result, dict[str, float]]:
    """Of the freshly loaded base, then of the same with the adapter on it; third: what it has retained, where that is asked."""
    model = load_base(bases.folder_of(piece.settings.base_model), piece.settings, place)
    base = Result(
        base_losses(piece, place, lambda: examination.losses_of(model)),
        base_answers(examination.about, piece, place, lambda: examination.answers_of(model)),
    )
    retention = examination.retention()
    kept = base_kept(piece, place, lambda: retention.kept_by(model)) if retention else None
    # A PeftModel passes generate() on to its base; its own class is no PreTrainedModel.
    tuned = cast("PreTrainedModel", load_adapter(model, copy))
    of_tuned = replace(examination, objective=judged_by(tuned))
    result = Result(of_tuned.losses_of(tuned), of_tuned.answers_of(tuned))
    if retention is None or kept is None:
        return base, result, {}
    found, metrics = retention.figures(tuned, kept, examination.asked), piece.settings.metrics
    return base, result, {name: value for name, value in found.items() if name.removeprefix(figures.BASE) in metrics}


def _of_a_model(examination: Examination, rows: list[dict[str, Any]]) -> dict[str, float]:
    """What a model says of the samples, where the settings name one; each sample gets its judgement."""
    judge = examination.settings.judge
    if judge is None or not rows:
        return {}
    cases = [Case(row["prompt"], row["expected"], row["base"], row["adapter"]) for row in rows]
    found = judged(judge, cases, examination.check)
    for row, score in zip(rows, found.scores, strict=True):
        row["judge"] = "FAIL" if score is None else score
    exact = [(case.adapter == case.expected, case.base == case.expected) for case in cases]
    return found.figures(exact, lambda text: len(examination.tokenizer(text)["input_ids"]))


def _figures(of_base: Graded, of_tuned: Graded) -> dict[str, float]:
    """Each figure, followed by the base's."""
    both = figures.with_base(of_tuned.figures, of_base.figures)
    return {name: both[name] for plain in of_tuned.figures for name in (plain, f"{figures.BASE}{plain}")}
