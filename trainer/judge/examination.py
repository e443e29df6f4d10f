"""The rows and questions by which adapters and their bare base are measured, what each came to, and the samples for people to read."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from swarm import figures, kinds
from swarm.files import write_whole
from swarm.settings import StreamSettings
from toon import encode
from trainer.data.tokens import Tokens
from trainer.judge import scorers
from trainer.judge.answers import Answer, Question, Sampling
from trainer.judge.heldout import RowLoss, held_out_figures
from trainer.judge.retention import Retention
from trainer.judge.scorers import Given

if TYPE_CHECKING:
    from trainer.judge.objective import Objective


@dataclass(frozen=True)
class Result:
    """What one model did in an examination."""

    losses: list[RowLoss]
    answers: list[Answer]


@dataclass(frozen=True)
class Graded:
    """The figures of one model, and its scores row by row and answer by answer."""

    figures: dict[str, float]
    scores: dict[str, list[float]]
    """By metric, an entry for each answer."""
    losses: list[RowLoss]


@dataclass(frozen=True)
class Examination:
    rows: list[Tokens]
    asked: list[Question]
    stops: list[int]
    settings: StreamSettings
    tokenizer: PreTrainedTokenizerBase
    check: Callable[[], None]
    """Called between batches and at each token of an answer; may raise."""
    objective: Objective | None = None
    """By which a model is measured; None: by the settings' own."""

    @classmethod
    def of(
        cls,
        rows: list[Tokens],
        stops: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        settings: StreamSettings,
        check: Callable[[], None],
    ) -> Examination:
        """On these held-out rows, and questions about the first of them."""
        asked = objective_of(settings).questions(rows, tokenizer, stops, settings.eval_rows)
        return cls(rows, asked, list(stops), settings, tokenizer, check)

    @property
    def about(self) -> str:
        """How the answers are made: figures are comparable only where it is equal."""
        settings, how = self.settings, Sampling.of(self.settings)
        drawn = f", temperature {how.temperature:g}, top_p {how.top_p:g}, seed {how.seed}" if how.temperature else ""
        return f"answers {settings.eval_rows} rows of at most {settings.eval_max_new_tokens} tokens{drawn}"

    def rows_sha256(self, held_out_sha256: str) -> str:
        return hashlib.sha256(f"{held_out_sha256} {self.about}".encode()).hexdigest()

    @property
    def _objective(self) -> Objective:
        return self.objective or objective_of(self.settings)

    def losses_of(self, model: PreTrainedModel) -> list[RowLoss]:
        return self._objective.losses(model, self.rows, self.check)

    def answers_of(self, model: PreTrainedModel) -> list[Answer]:
        most, how = self.settings.eval_max_new_tokens, Sampling.of(self.settings)
        return self._objective.answers(model, self.tokenizer, self.asked, self.stops, most, self.check, how)

    def graded(self, result: Result) -> Graded:
        metrics, given = self.settings.metrics, self.given(result.answers)
        scores = scorers.of_each(metrics, given)
        held_out = held_out_figures(result.losses)
        held_out["perplexity"] = perplexity(held_out["eval_loss"])
        of_rows = {name: round(value, 6) for name, value in held_out.items() if name in ("eval_loss", *metrics)}
        measured = {**of_rows, **scorers.of_all(scores, given)}
        return Graded(measured, scores, result.losses)

    def retention(self) -> Retention | None:
        """What the base could do before; None where no metric asks."""
        if not any(figures.of(name).of == "retention" for name in self.settings.metrics):
            return None
        return Retention.of(self.settings, self.tokenizer, self.stops, self.check)

    def given(self, found: Sequence[Answer]) -> list[Given]:
        return [
            Given(question.expected, answer, self.settings) for question, answer in zip(self.asked, found, strict=True)
        ]


def objective_of(settings: StreamSettings) -> Objective:
    made: Objective = kinds.method(settings.method).objective(settings)
    return made


def perplexity(loss: float) -> float:
    """Returns exp of the loss in nats; infinite where that is beyond a float."""
    return round(math.exp(loss), 6) if loss < 700 else math.inf


# ---- what is kept ----------------------------------------------------------------------------------------------------


def samples(
    asked: Sequence[Question], base: Result, tuned: Result, of_base: Graded, of_tuned: Graded
) -> list[dict[str, Any]]:
    """Each question with the expected answer, those of base and adapter, and the scores of both."""
    both = zip(asked, base.answers, tuned.answers, strict=True)
    return [
        {
            "prompt": question.prompt, "expected": question.expected, "base": before.text, "adapter": after.text,
            **figures.with_base(_at(of_tuned, at), _at(of_base, at)),
        }
        for at, (question, before, after) in enumerate(both)
    ]  # fmt: skip


def _at(graded: Graded, at: int) -> dict[str, float]:
    return {name: round(values[at], 6) for name, values in graded.scores.items()}


def write_samples(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """As samples.jsonl and samples.toon, for people and models to read."""
    write_whole(folder / "samples.jsonl", jsonl(rows))
    write_whole(folder / "samples.toon", encode([dict(row) for row in rows]) + "\n")


def jsonl(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def scores_document(graded: Sequence[tuple[Graded, Graded]]) -> str:
    """Scores row by row, by which streams are compared: a TOON document with a table of adapter, base and weight for each figure.

    `graded`: base and adapter of each of the stream's models, which weigh alike: the rows of two together give the mean of their losses.
    """
    tables: dict[str, list[dict[str, float]]] = {}
    for of_base, of_tuned in graded:
        whole = 1 if len(graded) == 1 else sum(row.tokens for row in of_tuned.losses)
        tables.setdefault("eval_loss", []).extend(
            {
                "adapter": own.nats / own.tokens,
                "base": base.nats / base.tokens,
                "weight": own.tokens if whole == 1 else own.tokens / whole,
            }
            for own, base in zip(of_tuned.losses, of_base.losses, strict=True)
        )
        for name, own_scores in of_tuned.scores.items():
            pairs = zip(own_scores, of_base.scores[name], strict=True)
            tables.setdefault(name, []).extend({"adapter": own, "base": base, "weight": 1} for own, base in pairs)
    return encode(tables) + "\n"
