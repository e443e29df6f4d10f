"""A decoder is given vectors before the tokens of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class Ahead(Protocol):
    """What stands before a prompt and is no token of it."""

    tokens: int
    """Positions that it takes."""

    def __call__(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """(B, N, d)"""


def given_of(
    model: Any, ids: Tensor, mask: Tensor, ahead: Ahead | None, prompts: Sequence[Sequence[int]]
) -> dict[str, Tensor]:
    """What `generate` is given of (B, T) ids, which it returns before the answer, or of vectors, which it does not."""
    if ahead is None:
        return {"input_ids": ids, "attention_mask": mask}
    return prefixed(model, ids, mask, ahead(prompts))


def prefixed(model: Any, ids: Tensor, mask: Tensor, soft: Tensor) -> dict[str, Tensor]:
    """What a decoder is given in place of (B, T) ids and their mask, with (B, N, d) before them; its own embeddings may be scaled inside it."""
    embedded = model.get_input_embeddings()(ids)  # (B, T, d)
    ahead = mask.new_ones(soft.shape[:2])  # (B, N)
    return {
        "inputs_embeds": torch.cat([soft.to(embedded.dtype), embedded], dim=1),
        "attention_mask": torch.cat([ahead, mask], dim=1),
    }
