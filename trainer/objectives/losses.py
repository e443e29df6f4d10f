"""The losses of the objectives as plain functions of what a model returns; in nats, in fp32 where numbers are shorter."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from trainer.data.tokens import IGNORED
from trainer.loop.losses import by_probability, wide

MASKED_SHARE, REPLACED, KEPT = 0.15, 0.1, 0.1
"""Of the tokens that are predicted so many are another word instead of the mask, so many stay (BERT, arXiv 1810.04805, section 3.1)."""


def next_token(logits: Tensor, labels: Tensor) -> Tensor:
    """(B, T, V), (B, T) -> (): the token at t is predicted from those before it."""
    return token(logits[:, :-1], labels[:, 1:])


def token(logits: Tensor, labels: Tensor) -> Tensor:
    """(B, T, V), (B, T) -> (): each token where it stands, as after `masked`; IGNORED where it does not count."""
    return cross_entropy(wide(logits).flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


def label(logits: Tensor, labels: Tensor) -> Tensor:
    """(B, L), (B,) -> (B,): which of L labels a text has."""
    return cross_entropy(wide(logits), labels, reduction="none")


def divergence(student: Tensor, teacher: Tensor, count: int) -> Tensor:
    """(M, V), (M, V) -> (M,): KL(student, teacher) of the teacher's `count` likeliest tokens and of all others as one outcome.

    At most the divergence of the whole vocabulary, and equal to it where `count` is V - 1 or more.
    """
    told_apart = teacher.topk(min(count, teacher.shape[-1] - 1), dim=-1).indices  # (M, k)
    of, other = (_outcomes(wide(logits).log_softmax(-1), told_apart) for logits in (student, teacher))
    return (of.exp() * (of - other)).sum(-1)


def _outcomes(logs: Tensor, told_apart: Tensor) -> Tensor:
    """(M, V), (M, k) -> (M, k + 1)"""
    rest = logs.scatter(-1, told_apart, -torch.inf).logsumexp(-1, keepdim=True)
    return torch.cat([logs.gather(-1, told_apart), rest], dim=-1)


def contrastive(first: Tensor, second: Tensor, temperature: float = 0.05) -> Tensor:
    """(B, d), (B, d) -> (B,): row i of one belongs to row i of the other among all B, both ways (InfoNCE, arXiv 1807.03748; 2104.08821)."""
    likeness = normalize(wide(first), dim=-1) @ normalize(wide(second), dim=-1).T / temperature  # (B, B)
    own = torch.arange(len(likeness), device=likeness.device)
    there, back = (cross_entropy(one, own, reduction="none") for one in (likeness, likeness.T))
    return (there + back) / 2


def masked(
    ids: Tensor, may_be: Tensor, *, mask: int, vocabulary: int, key: int, share: float = MASKED_SHARE
) -> tuple[Tensor, Tensor]:
    """What a model is given of `ids`, and the labels of what it must find; of equal arguments always the same.

    `may_be`: (T,) where a token may be masked: no special one, no pad.  At least one is, where any may.
    """
    generator = torch.Generator().manual_seed(key)
    drawn = torch.rand(ids.shape, generator=generator).masked_fill(~may_be, 2.0)  # (T,)
    chosen = drawn < share
    if not bool(chosen.any()) and bool(may_be.any()):
        chosen[drawn.argmin()] = True
    kind = torch.rand(ids.shape, generator=generator)
    others = torch.randint(vocabulary, ids.shape, generator=generator)
    given = torch.where(
        kind < 1 - REPLACED - KEPT, torch.full_like(ids, mask), torch.where(kind < 1 - KEPT, others, ids)
    )
    return torch.where(chosen, given, ids), torch.where(chosen, ids, IGNORED)


def total(nats: Tensor, *, weighted: bool) -> Tensor:
    """The sum over all; `weighted`: each counts by the model's own probability of it."""
    return (by_probability(nats) if weighted else nats).sum()
