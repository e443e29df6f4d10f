"""Texts as a model is given them, and the vectors that it makes of them: the mean of its last layer over a text's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from trainer.data.tokens import Tokens
from trainer.loop.losses import wide

SECOND = "token_type_ids"
"""What some encoders are given beside the ids: 1 for the tokens of a second text."""


def vectors(model: torch.nn.Module, ids: Sequence[Sequence[int]]) -> Tensor:
    """(B, d): of each text in tokens; `model`: of transformers, with PEFT's adapter or without."""
    device = next(model.parameters()).device
    made = given([plain(one) for one in ids], pad_of(model), kinds=knows_kinds(model))
    known = {name: value.to(device) for name, value in made.items()}
    return pooled(body_of(model)(**known).last_hidden_state, known["attention_mask"])


def pooled(states: Tensor, mask: Tensor) -> Tensor:
    """(B, T, d), (B, T) -> (B, d): the mean over the tokens of each text."""
    weights = mask.unsqueeze(-1)  # (B, T, 1)
    return (wide(states) * weights).sum(1) / weights.sum(1)


def body_of(model: torch.nn.Module) -> Any:
    """The model without its head."""
    from peft import PeftModel

    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    return cast("Any", inner).base_model


def plain(ids: Sequence[int]) -> Tokens:
    """A text that has no second one."""
    return Tokens(list(ids), [], len(ids))


def given(rows: Sequence[Tokens], pad: int, *, kinds: bool) -> dict[str, Tensor]:
    """(B, T) each: what a model is given of texts; `kinds`: it is told which tokens are a second text's."""
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([[*row.ids, *[pad] * (width - len(row.ids))] for row in rows])
    lengths = torch.tensor([[len(row.ids)] for row in rows])
    places = torch.arange(width)[None]
    made = {"input_ids": ids, "attention_mask": (places < lengths).long()}
    if kinds:
        starts = torch.tensor([[row.answer_start] for row in rows])
        made[SECOND] = ((places >= starts) & (places < lengths)).long()
    return made


def pad_of(model: torch.nn.Module) -> int:
    """A token that stands behind a text, where a decoder looks for the last one of it."""
    config = cast("Any", model).config
    known = (config.pad_token_id, config.eos_token_id, 0)
    first = next(token for token in known if token is not None)
    return int(first[0] if isinstance(first, list) else first)


def knows_kinds(model: torch.nn.Module) -> bool:
    return int(getattr(cast("Any", model).config, "type_vocab_size", None) or 0) > 1
