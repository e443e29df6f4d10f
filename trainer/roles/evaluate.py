"""evaluate: adapter and bare base answer the same held-out rows; scores are held-out loss and the share of exact answers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from swarm.events import Score
from swarm.messages import Piece
from trainer import bases
from trainer.data.prepared import HELD_OUT, read_rows, verified
from trainer.data.tokens import Tokens
from trainer.judge.answers import Question, answers, exact_share, questions
from trainer.judge.baseline import base_figure
from trainer.judge.fitness import private_copy
from trainer.judge.heldout import held_out_loss
from trainer.lease import Lease
from trainer.loading import load_adapter, load_base, load_tokenizer
from trainer.place import Place
from trainer.whole import write_text


@dataclass(frozen=True)
class Examination:
    """The rows and questions that base and adapter are measured on."""

    rows: list[Tokens]
    asked: list[Question]
    stops: list[int]
    max_new_tokens: int
    tokenizer: PreTrainedTokenizerBase
    lease: Lease

    def answers_of(self, model: PreTrainedModel) -> list[str]:
        return answers(model, self.tokenizer, self.asked, self.stops, self.max_new_tokens, self.lease.progress)

    def loss_of(self, model: PreTrainedModel) -> float:
        return held_out_loss(model, self.rows, self.lease.progress)


def run(assign: Piece, lease: Lease, place: Place) -> None:
    assert assign.checkpoint is not None and assign.sha256 is not None and assign.prepared is not None
    settings, prepared = assign.settings, place.run_folder / assign.prepared
    manifest = verified(prepared, assign.prepared_sha256)
    base_folder = bases.folder_of(settings.base_model)
    examination = _examination(assign, prepared, manifest, base_folder, lease)
    base = load_base(base_folder, settings, place)
    base_loss = base_figure("eval_loss", assign, place, lambda: examination.loss_of(base))
    what = f"answers {settings.eval_rows} rows of at most {settings.eval_max_new_tokens} tokens"
    base_answers = base_figure(what, assign, place, lambda: examination.answers_of(base))
    with private_copy(place.run_folder / assign.checkpoint, assign.sha256) as copy:
        # A PeftModel passes generate() on to its base; its own class is no PreTrainedModel.
        tuned = cast("PreTrainedModel", load_adapter(base, copy))
    loss, given = examination.loss_of(tuned), examination.answers_of(tuned)
    _write_answers(place.stream_folder(assign.stream) / "answers.jsonl", examination.asked, base_answers, given)
    measured = {
        "eval_loss": round(loss, 6),
        "base_eval_loss": round(base_loss, 6),
        "exact_match": exact_share(given, examination.asked),
        "base_exact_match": exact_share(base_answers, examination.asked),
    }
    lease.report(
        Score(
            ref=assign.ref, tok=assign.token, sha256=assign.sha256, rows=len(examination.rows),
            rows_sha256=hashlib.sha256(f"{manifest['held_out_sha256']} {what}".encode()).hexdigest(),
            figures={name: value for name, value in measured.items() if value is not None},
        )
    )  # fmt: skip


def _examination(
    assign: Piece, prepared: Path, manifest: dict[str, Any], base_folder: Path, lease: Lease
) -> Examination:
    settings = assign.settings
    tokenizer = load_tokenizer(base_folder, trust_remote_code=settings.trust_remote_code)
    rows, stops = list(read_rows(prepared / HELD_OUT)), list(manifest["stop_tokens"])
    asked = questions(rows, tokenizer, stops, settings.eval_rows)
    return Examination(rows, asked, stops, settings.eval_max_new_tokens, tokenizer, lease)


def _write_answers(path: Path, asked: list[Question], of_base: list[str], of_adapter: list[str]) -> None:
    """Each question with the expected answer and those of base and adapter, for people to read."""
    lines = [
        json.dumps(
            {"prompt": question.prompt, "expected": question.expected, "base": base, "adapter": adapter},
            ensure_ascii=False,
        )
        for question, base, adapter in zip(asked, of_base, of_adapter, strict=True)
    ]
    write_text(path, "".join(line + "\n" for line in lines))
