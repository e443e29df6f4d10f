"""Losses of single tokens beside the likelihood: weighted by the model's own probability, and held near the base.

DFT (arXiv 2508.05629): -sg(p) log p, so that tokens which the model finds unlikely count for less.
KL regularisation: loss + lambda tau^2 KL at temperature tau, between the base's and the trained model's distributions (the factor
tau^2 keeps the gradient's size, arXiv 1503.02531).
ASFT (arXiv 2509.23753): DFT with KL regularisation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from trainer.data.tokens import IGNORED
from trainer.loop.parts import Loss, Predicted

SEEN = ("entropy", "token_accuracy")
"""Figures of what is predicted, beside every loss."""


@dataclass(frozen=True)
class Likelihood(Loss):
    """Cross entropy."""

    parts: ClassVar[tuple[str, ...]] = SEEN

    def __call__(self, tokens: Predicted) -> Tensor:
        return torch.stack([_nats(tokens), *_seen(tokens)], dim=1)

    def reweighted(self) -> Loss:
        return WEIGHTED


@dataclass(frozen=True)
class Judged(Loss):
    """Cross entropy of held-out rows, and the share of their tokens that are the likeliest."""

    parts: ClassVar[tuple[str, ...]] = ("token_accuracy",)

    def __call__(self, tokens: Predicted) -> Tensor:
        return torch.stack([_nats(tokens), _hits(tokens)], dim=1)


JUDGED = Judged()


@dataclass(frozen=True)
class Weighted(Loss):
    """DFT; figure `ce`: the plain cross entropy."""

    parts: ClassVar[tuple[str, ...]] = ("ce", *SEEN)
    weighted: bool = True

    def __call__(self, tokens: Predicted) -> Tensor:
        nats = _nats(tokens)
        return torch.stack([by_probability(nats), nats.detach(), *_seen(tokens)], dim=1)


WEIGHTED = Weighted()


@dataclass(frozen=True)
class Regularised(Loss):
    """Cross entropy, plain or as DFT weights it, plus lambda tau^2 KL; figures `ce`, plain, and `kl`.

    Where it is `everywhere`, KL counts for all tokens; its sum is divided by the number of supervised ones as well.
    """

    parts: ClassVar[tuple[str, ...]] = ("ce", "kl", *SEEN)

    factor: float
    """lambda"""
    tau: float = 1.0
    reverse: bool = False
    """KL(trained || base), which the mode of the base draws; else KL(base || trained)."""
    everywhere: bool = False
    weighted: bool = False
    needs_base: bool = True

    def __call__(self, tokens: Predicted) -> Tensor:
        assert tokens.base is not None
        nats = _nats(tokens)
        trained, base = (wide(logits).div(self.tau).log_softmax(-1) for logits in (tokens.logits, tokens.base))
        of, other = (trained, base) if self.reverse else (base, trained)
        kl = (of.exp() * (of - other)).sum(-1)
        loss = (by_probability(nats) if self.weighted else nats) + self.factor * self.tau**2 * kl
        return torch.stack([loss, nats.detach(), kl.detach(), *_seen(tokens)], dim=1)

    def reweighted(self) -> Loss:
        return _weighted(self)


@cache
def _weighted(loss: Regularised) -> Loss:
    return replace(loss, weighted=True)


def _nats(tokens: Predicted) -> Tensor:
    """(m,) 0 where no token is supervised."""
    return cross_entropy(wide(tokens.logits), tokens.targets, reduction="none", ignore_index=IGNORED)


@torch.no_grad()
def _seen(tokens: Predicted) -> tuple[Tensor, Tensor]:
    """(m,), (m,): entropy in nats, and whether the target is the likeliest token; 0 where no token is supervised."""
    logits, counts = wide(tokens.logits), tokens.targets != IGNORED
    entropy = logits.logsumexp(-1) - torch.linalg.vecdot(logits.softmax(-1), logits)
    return entropy * counts, _hits(tokens)


def _hits(tokens: Predicted) -> Tensor:
    """(m,) 1 where the target is the likeliest token; 0 where no token is supervised."""
    logits = wide(tokens.logits)
    return (logits.argmax(-1) == tokens.targets).to(logits.dtype)


def by_probability(nats: Tensor) -> Tensor:
    """-log p -> -sg(p) log p: what the model finds unlikely counts for less (DFT, arXiv 2508.05629)."""
    return nats * (-nats.detach()).exp()


def wide(values: Tensor) -> Tensor:
    return values if values.dtype is torch.float64 else values.float()
