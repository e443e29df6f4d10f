"""Masked tokens are found from what stands around them, by an encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from swarm.errors import UserError
from trainer import bases
from trainer.data.tokens import IGNORED, Tokens
from trainer.device import widest
from trainer.families import is_encoder
from trainer.judge.heldout import RowLoss
from trainer.judge.objective import Objective
from trainer.loading import load_tokenizer
from trainer.loop.losses import wide
from trainer.objectives import losses, texts
from trainer.vectors import given, knows_kinds, pad_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from swarm.settings import StreamSettings


@dataclass(frozen=True)
class Masked(Objective):
    base_model: str
    share: float
    """Of the tokens that are to be found."""

    def model_class(self, config: Any) -> Any:
        from transformers import AutoModelForMaskedLM

        if not is_encoder(config):
            what = f"predicts what comes next ({config.model_type}), and `method: mlm` masks tokens within a text"
            raise UserError("base_model", what, "take an encoder such as BERT, or `method: sft`")
        return AutoModelForMaskedLM

    def reader(self, settings: StreamSettings, tokenizer: PreTrainedTokenizerBase, folder: Path) -> texts.TextReader:
        if tokenizer.mask_token_id is None:
            raise UserError("base_model", "its tokenizer has no mask token", "take an encoder such as BERT")
        return texts.TextReader(tokenizer, settings.sequence_len)

    def counted(self, rows: Sequence[Tokens], keys: Sequence[int]) -> int:
        return sum(int((labels != IGNORED).sum()) for _, labels in map(self._masked, rows, keys))

    def loss(
        self, model: torch.nn.Module, rows: Sequence[Tokens], keys: Sequence[int], *, weighted: bool = False
    ) -> Tensor:
        """The sum over masked tokens; `keys` decide which ones they are, row by row."""
        return losses.total(_nats(*self._logits(model, rows, keys)), weighted=weighted)

    @torch.no_grad()
    def losses(self, model: PreTrainedModel, rows: Sequence[Tokens], check: Callable[[], None]) -> list[RowLoss]:
        """Rows are masked by what they say: always alike."""
        was_training, found = model.training, dict[int, RowLoss]()
        model.eval()  # type: ignore[no-untyped-call]
        try:
            for batch in texts.batches(rows, check, model.device):
                chosen = [rows[at] for at in batch]
                keys = [int.from_bytes(row.fingerprint[:7]) for row in chosen]
                logits, labels = self._logits(model, chosen, keys)
                of_each = (
                    _nats(logits, labels).to(widest(logits.device)),
                    labels != IGNORED,
                    logits.argmax(-1) == labels,
                )
                sums = zip(*(values.sum(1).tolist() for values in of_each), strict=True)
                found |= zip(batch, (RowLoss(*row) for row in sums), strict=True)
        finally:
            model.train(was_training)
        return [found[at] for at in range(len(rows))]

    def _logits(
        self, model: torch.nn.Module, rows: Sequence[Tokens], keys: Sequence[int]
    ) -> tuple[Tensor, Tensor]:  # (B, T, V), labels (B, T)
        device = next(model.parameters()).device
        made = given(rows, pad_of(model), kinds=knows_kinds(model))
        labels = torch.full_like(made["input_ids"], IGNORED)
        for at, (row, key) in enumerate(zip(rows, keys, strict=True)):
            made["input_ids"][at, : len(row.ids)], labels[at, : len(row.ids)] = self._masked(row, key)
        return model(**{name: value.to(device) for name, value in made.items()}).logits, labels.to(device)

    def _masked(self, row: Tokens, key: int) -> tuple[Tensor, Tensor]:
        """(T,), (T,)"""
        tokenizer = _tokenizer(self.base_model)
        mask = int(tokenizer.mask_token_id)  # `reader` refuses those without
        may_be = torch.tensor(row.labels) != IGNORED
        return losses.masked(
            torch.tensor(row.ids), may_be, mask=mask, vocabulary=len(tokenizer), key=key, share=self.share
        )


_tokenizers: dict[str, PreTrainedTokenizerBase] = {}


def _tokenizer(base_model: str) -> PreTrainedTokenizerBase:
    if base_model not in _tokenizers:
        _tokenizers[base_model] = load_tokenizer(bases.folder_of(base_model))
    return _tokenizers[base_model]


def _nats(logits: Tensor, labels: Tensor) -> Tensor:  # (B, T)
    return cross_entropy(wide(logits).transpose(1, 2), labels, reduction="none", ignore_index=IGNORED)
