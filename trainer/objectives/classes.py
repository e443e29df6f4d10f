"""Which of several labels a text has, by a head on an encoder or a decoder; `answers` are the names of labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from swarm.errors import UserError
from trainer.data.tokens import Tokens
from trainer.families import classifier_of, labels_of
from trainer.judge.answers import Answer, Question
from trainer.judge.heldout import RowLoss
from trainer.judge.objective import Objective
from trainer.objectives import losses, texts
from trainer.vectors import given, knows_kinds, pad_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from swarm.settings import StreamSettings
    from trainer.judge.answers import Sampling

FIRST_DEVIATION = 0.02
"""Of the first values of a new head's inner layers, as BERT's."""


@dataclass(frozen=True)
class Classes(Objective):
    labels: tuple[str, ...]

    def model_class(self, config: Any) -> Any:
        from transformers import AutoModelForSequenceClassification

        own = labels_of(config)
        if own and own != list(self.labels):
            what = f"the base tells {', '.join(own)} already, and `labels` has {', '.join(self.labels)}"
            raise UserError(
                "labels", what, "write the base's own labels in its order, or take a base without such a head"
            )
        return AutoModelForSequenceClassification

    def arguments(self, config: Any) -> dict[str, Any]:
        numbers = dict(enumerate(self.labels))
        return {"id2label": numbers, "label2id": {name: number for number, name in numbers.items()}}

    def kept_whole(self, config: Any) -> list[str]:
        return sorted({name.rpartition(".")[0] for name, _ in classifier_of(config)})

    def is_made_here(self, model: PreTrainedModel, tensor: str) -> bool:
        """The head, to which an encoder's pooler belongs."""
        return not tensor.startswith(f"{model.base_model_prefix}.") or ".pooler." in tensor

    def after_loading(self, model: PreTrainedModel, missing: Collection[str]) -> None:
        """A new head has the same first values wherever it is made; its last layer is zero, so that it prefers no label."""
        generator = torch.Generator().manual_seed(0)
        for value in (value for name, value in model.named_parameters() if name in missing):
            first = torch.zeros(value.shape)
            if value.dim() > 1 and value.shape[0] != len(self.labels):
                first.normal_(0, FIRST_DEVIATION, generator=generator)
            value.data.copy_(first)
        model.config.pad_token_id = pad_of(model)

    def reader(self, settings: StreamSettings, tokenizer: PreTrainedTokenizerBase, folder: Path) -> texts.TextReader:
        return texts.TextReader(tokenizer, settings.sequence_len, self.labels)

    def shown(self, row: Tokens, tokenizer: PreTrainedTokenizerBase) -> list[tuple[bool, str]]:
        return [(False, f"{tokenizer.decode(row.ids)} "), (True, self.labels[row.labels[0]])]

    def counted(self, rows: Sequence[Tokens], keys: Sequence[int]) -> int:
        return len(rows)

    def loss(
        self, model: torch.nn.Module, rows: Sequence[Tokens], keys: Sequence[int], *, weighted: bool = False
    ) -> Tensor:
        """The sum over rows."""
        logits = self._logits(model, rows)
        labels = torch.tensor([row.labels[0] for row in rows], device=logits.device)
        return losses.total(losses.label(logits, labels), weighted=weighted)

    def losses(self, model: PreTrainedModel, rows: Sequence[Tokens], check: Callable[[], None]) -> list[RowLoss]:
        logits = self._judged(model, rows, check).double()
        labels = torch.tensor([row.labels[0] for row in rows])
        nats, hits = cross_entropy(logits, labels, reduction="none"), logits.argmax(-1) == labels
        return [RowLoss(value, 1, int(hit)) for value, hit in zip(nats.tolist(), hits.tolist(), strict=True)]

    def questions(
        self, rows: Sequence[Tokens], tokenizer: PreTrainedTokenizerBase, stops: Sequence[int], count: int
    ) -> list[Question]:
        return [
            Question(
                row.ids,
                str(tokenizer.decode(row.ids, skip_special_tokens=True)),
                self.labels[row.labels[0]],
                1,
                row.answer_start,
            )
            for row in rows[:count]
        ]

    def answers(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asked: Sequence[Question], stops: Sequence[int],
        max_new_tokens: int, check: Callable[[], None], how: Sampling,
    ) -> list[Answer]:  # fmt: skip
        """Where all labels are equally likely, as a new head finds them, the most frequent one is answered: the majority class."""
        rows = [Tokens(question.prompt_ids, [0], question.segment) for question in asked]
        majority = Counter(question.expected for question in asked).most_common(1)
        found = [
            majority[0][0] if bool((row == row[0]).all()) else self.labels[int(row.argmax())]
            for row in self._judged(model, rows, check)
        ]
        return [Answer(label, ended=True, tokens=1, seconds=0.0) for label in found]

    @torch.no_grad()
    def _judged(self, model: PreTrainedModel, rows: Sequence[Tokens], check: Callable[[], None]) -> Tensor:
        """(R, L) on the CPU, in evaluation mode."""
        was_training, found = model.training, torch.zeros(len(rows), len(self.labels))
        model.eval()  # type: ignore[no-untyped-call]
        try:
            for batch in texts.batches(rows, check, model.device):
                found[batch] = self._logits(model, [rows[at] for at in batch]).float().cpu()
        finally:
            model.train(was_training)
        return found

    def _logits(self, model: torch.nn.Module, rows: Sequence[Tokens]) -> Tensor:
        device = next(model.parameters()).device
        made = given(rows, pad_of(model), kinds=knows_kinds(model))
        logits: Tensor = model(**{name: value.to(device) for name, value in made.items()}).logits  # (B, L)
        return logits
