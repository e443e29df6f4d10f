"""The summed loss of the supervised tokens of rows, each predicted from those before it, by a model that is given them as they are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trainer.data.tokens import IGNORED, Tokens
from trainer.objectives.losses import wide


def summed(model: nn.Module, rows: Sequence[Tokens]) -> tuple[Tensor, int]:
    """Their sum, and of how many tokens."""
    device, width = next(model.parameters()).device, max(len(row.ids) for row in rows)
    ids, labels, mask = (
        torch.tensor([[*values, *[fill] * (width - len(values))] for values in columns], device=device)  # (B, T)
        for columns, fill in (
            ([row.ids for row in rows], 0),
            ([row.labels for row in rows], IGNORED),
            ([[1] * len(row.ids) for row in rows], 0),
        )
    )
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]  # (B, T-1, V)
    targets = labels[:, 1:]
    counted = targets != IGNORED
    return cross_entropy(wide(logits[counted]), targets[counted], reduction="sum"), int(counted.sum())
