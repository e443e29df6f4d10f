"""Low-rank matrices by their factors: L (out, n) and R (n, in) stand for L R, which is never made.  All in float64, by QR of both factors."""

from __future__ import annotations

import torch
from torch import Tensor


def singular_values(left: Tensor, right: Tensor) -> Tensor:
    """(min(n, in, out),) of L R, the largest first."""
    values: Tensor = torch.linalg.svdvals(_core(left, right)[1])
    return values


def compressed(left: Tensor, right: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """L' (out, k) and R' (k, in) with the L' R' nearest to L R, each with the roots of the singular values, and all of these; k <= rank."""
    outer, core, inner = _core(left, right)
    u, values, v = torch.linalg.svd(core, full_matrices=False)
    roots = values[:rank].sqrt()
    return (outer @ u[:, :rank] * roots).to(left), (roots[:, None] * v[:rank] @ inner.T).to(right), values


def _core(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Q_L, C and Q_R with L R = Q_L C Q_R^T."""
    outer, upper = torch.linalg.qr(left.double())
    inner, lower = torch.linalg.qr(right.double().T)
    return outer, upper @ lower.T, inner
