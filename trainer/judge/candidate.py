"""One model of a stream with its adapter, that is measured beside its bare base on held-out rows and questions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from swarm import figures
from swarm.messages import Piece
from swarm.settings import StreamSettings
from trainer.judge.answers import Answer
from trainer.judge.examination import Examination, Graded, Result, samples
from trainer.judge.measured import base_answers, base_kept, base_losses, losses_kept
from trainer.judge.model_judge import Case, judged
from trainer.judge.objective import Objective
from trainer.judge.retention import Kept, Retention
from trainer.judge.session import Session
from trainer.lease import Lease
from trainer.loading import load_adapter

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


@dataclass(eq=False)
class Candidate:
    piece: Piece
    copy: Path
    """Of its adapter, where nobody else writes."""
    lease: Lease
    judged_by: JudgedBy
    session: Session
    examination: Examination
    held_out_sha256: str
    answers: list[Answer] | None = None
    """To the questions, where there are none or it has answered them beside others."""

    def __post_init__(self) -> None:
        self.answers = None if self.examination.asked else []

    @classmethod
    def of(cls, piece: Piece, copy: Path, lease: Lease, judged_by: JudgedBy, session: Session) -> Candidate:
        held_out, tokenizer = session.held_out(piece), session.tokenizer(piece.settings)
        stops = held_out.facts["stop_tokens"]
        examination = Examination.of(held_out.rows, stops, tokenizer, piece.settings, lease.progress)
        return cls(piece, copy, lease, judged_by, session, examination, held_out.facts["held_out_sha256"])

    @property
    def settings(self) -> StreamSettings:
        return self.piece.settings

    def measured(self) -> Measured:
        examination = self.examination
        base, tuned, kept = self._measured()
        of_base, of_tuned = examination.graded(base), examination.graded(tuned)
        rows = samples(examination.asked, base, tuned, of_base, of_tuned)
        kept |= _of_a_model(examination, rows)
        return Measured(
            rows=len(examination.rows), asked=len(examination.asked),
            rows_sha256=examination.rows_sha256(self.held_out_sha256), samples=rows, graded=(of_base, of_tuned),
            figures={**_figures(of_base, of_tuned), **kept},
        )  # fmt: skip

    def _measured(self) -> tuple[Result, Result, dict[str, float]]:
        """Of the bare base, then of the same with the adapter on it; third: what it has retained, where that is asked.

        A base is loaded only where something is left to measure.
        """
        piece, place, examination, retention = self.piece, self.session.place, self.examination, None
        base = Result(
            base_losses(piece, place, lambda: self._bare(examination.losses_of)),
            base_answers(examination.about, piece, place, lambda: self._bare(examination.answers_of))
            if examination.asked
            else [],
        )
        kept: Kept | None = None
        if retention := examination.retention():
            kept = base_kept(piece, place, lambda: self._bare(retention.kept_by))
        losses = losses_kept(piece, place)
        if losses is not None and self.answers is not None and retention is None:
            return base, Result(losses, self.answers), {}
        with self.session.tuned(self.settings, lambda model: load_adapter(model, self.copy)) as tuned:
            of_tuned = replace(examination, objective=self.judged_by(tuned))
            losses = of_tuned.losses_of(tuned) if losses is None else losses
            answers = of_tuned.answers_of(tuned) if self.answers is None else self.answers
            return base, Result(losses, answers), self._retained(retention, kept, tuned)

    def _bare(self, measure: Callable[[PreTrainedModel], Any]) -> Any:
        with self.session.bare(self.settings) as model:
            return measure(model)

    def _retained(self, retention: Retention | None, kept: Kept | None, tuned: PreTrainedModel) -> dict[str, float]:
        if retention is None or kept is None:
            return {}
        found, metrics = retention.figures(tuned, kept, self.examination.asked), self.settings.metrics
        return {name: value for name, value in found.items() if name.removeprefix(figures.BASE) in metrics}


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
