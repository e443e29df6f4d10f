"""Decay of what an adapter adds, W = s B A, instead of A and B apart: after each optimizer step, with the learning rate in effect.

With G_A = A A^T and G_B = B^T B, both rank x rank, |W|^2 = s^2 tr(G_B G_A) and the gradients of the penalties need no matrix of the
layer's size.  Decaying A and B apart instead pulls W to zero in directions that the data need (qlora-pipe issue 29).

    l2         1/2 |W|^2                    dA = s^2 G_B A, dB = s^2 B G_A
    nuclear    s (|A|^2 + |B|^2)            dA = 2 s A, dB = 2 s B; at least twice the nuclear norm of W, and equal where A and B are balanced
    frobenius  |W|                          exact: |W| is lowered by rate * strength, and A and B by the root of that ratio each

A spectral control adapter, W = Q (exp(S) - 1) Q^T, has S times 1 - rate * strength, and then Q - gamma Q (Q^T Q - 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trainer.device import widest
from trainer.loop.layer import Pair

Penalty = Literal["nuclear", "l2", "frobenius"]


@dataclass(frozen=True)
class Decay:
    penalty: Penalty = "nuclear"
    strength: float = 0.0
    """Of the penalty; times the learning rate it is a step."""
    max_norm: float = 0.0
    """|W| of a layer is cut to it, after the decay; 0: it is not."""
    gamma: float = 0.0
    """Of spectral control adapters: how far Q is brought back to orthonormal columns."""

    @torch.no_grad()
    def __call__(self, pairs: Sequence[Pair], rate: float) -> dict[str, float]:
        """Takes one step on every layer; returns figures of |W|, of the part of it that was taken off, and how far Q is from orthonormal."""
        before = [norm_of(pair) for pair in pairs]
        for pair, norm in zip(pairs, before, strict=True):
            self._shrink(pair, norm, rate * self.strength)
        for pair in pairs if self.max_norm else ():
            _scale(pair, self.max_norm / norm_of(pair))
        after = torch.stack([norm_of(pair) for pair in pairs])
        taken = 1 - after / torch.stack(before).clamp(min=torch.finfo(after.dtype).tiny)
        taken = taken.where(after > 0, torch.stack(before).sign())
        apart = [_apart(pair.a).norm() for pair in pairs if pair.form == "spectral"]
        return {
            **_spread("adapter_norm", after), **_spread("adapter_decay", taken),
            **({"adapter_orthogonality": float(torch.stack(apart).max())} if apart else {}),
        }  # fmt: skip

    def _shrink(self, pair: Pair, norm: Tensor, step: float) -> None:
        """An adapter whose B is still zero adds nothing: its A stays as it was drawn."""
        a, b, s = pair.a, pair.b, pair.scale  # (rank, in), (rank, out)
        if pair.form == "spectral":  # Q^T (rank, H), S (rank,)
            b.mul_(1 - step)
            a.sub_(_apart(a) @ a, alpha=self.gamma)
            return
        match self.penalty:
            case "nuclear":
                factor = (1 - 2 * s * step * norm.sign()).to(a.dtype)
                a.mul_(factor)
                b.mul_(factor)
            case "l2":  # both from the values before the step
                change_a, change_b = (b @ b.T) @ a, (a @ a.T) @ b
                a.sub_(change_a, alpha=step * s * s)
                b.sub_(change_b, alpha=step * s * s)
            case "frobenius":
                _scale(pair, (1 - step / norm).clamp(min=0).where(norm > 0, 1.0))


def _spread(name: str, of_layers: Tensor) -> dict[str, float]:
    return {
        name: float(of_layers.mean()),
        f"{name}_min": float(of_layers.min()),
        f"{name}_max": float(of_layers.max()),
    }


def _apart(a: Tensor) -> Tensor:
    """(rank, rank) Q^T Q - 1, of Q^T (rank, H)."""
    return a @ a.T - torch.eye(len(a), dtype=a.dtype, device=a.device)


def norm_of(pair: Pair) -> Tensor:
    """|s B A|, Frobenius, also of mirrored control adapters; of spectral ones |exp(S) - 1|.

    In fp64 where there is one: a small one is the root of a sum whose terms fp32 would lose.
    """
    wide = widest(pair.a.device)
    a, b = pair.a.detach().to(wide), pair.b.detach().to(wide)
    if pair.form == "spectral":
        spectral: Tensor = torch.linalg.vector_norm(torch.expm1(b))
        return spectral
    return pair.scale * ((a @ a.T) * (b @ b.T)).sum().clamp(min=0).sqrt()


def _scale(pair: Pair, ratio: Tensor) -> None:
    """W times `ratio`, which is at most 1, shared evenly by A and B, or of spectral adapters by S alone."""
    if pair.form == "spectral":
        pair.b.copy_(torch.log1p(torch.expm1(pair.b) * ratio.clamp(max=1).to(pair.b.dtype)))
        return
    root = ratio.clamp(max=1).sqrt().to(pair.a.dtype)
    pair.a.mul_(root)
    pair.b.mul_(root)
