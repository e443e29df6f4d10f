"""The arithmetic of control adapters: x is what a site adds to the residual stream, k the sign of each token, u what is added to it.

    full            u = k s (x A^T) B^T                             A (r, H), B (H, r), s = alpha / r
    symmetrise      u = k s / 2 ((x A^T) B^T + (x B) A)             a symmetric map, of rank 2 r
    antisymmetrise  u = k s / 2 ((x A^T) B^T - (x B) A)             an antisymmetric one
    spectral        u = (x Q) diag(exp(k S) - 1) Q^T                Q (H, r) with orthonormal columns, S (r): -1 is exactly the inverse of +1

k is +1, -1 or 0 in training and any number at inference.  B and S begin with zero.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Form = Literal["full", "symmetrise", "antisymmetrise", "spectral"]
MIRROR: dict[Form, int] = {"full": 0, "symmetrise": 1, "antisymmetrise": -1, "spectral": 0}
"""The sign of the transposed map beside the map itself."""


def scale_of(alpha: float, rank: int, *, rslora: bool = False) -> float:
    return alpha / (math.sqrt(rank) if rslora else rank)


def begun(form: Form, size: int, rank: int) -> tuple[Tensor, Tensor]:
    """The first values in fp32, by torch's generator: A (r, H) and B (H, r), or of `spectral` Q (H, r) and S (r)."""
    if form == "spectral":
        return torch.linalg.qr(torch.randn(size, rank))[0].contiguous(), torch.zeros(rank)
    a = torch.empty(rank, size)
    torch.nn.init.kaiming_uniform_(a, a=math.sqrt(5))
    return a, torch.zeros(size, rank)


def added(form: Form, x: Tensor, first: Tensor, second: Tensor, scale: float, k: Tensor | float) -> Tensor:
    """(..., H) -> u (..., H); `first` and `second` as `begun` makes them, k a number or (..., 1)."""
    if form == "spectral":
        return ((x @ first) * torch.expm1(k * second)) @ first.T
    map_of = (x @ first.T) @ second.T
    if mirror := MIRROR[form]:
        map_of = (map_of + mirror * ((x @ second) @ first)) / 2
    return k * scale * map_of


def factors(form: Form, first: Tensor, second: Tensor, scale: float, k: float = 1.0) -> tuple[Tensor, Tensor]:
    """L (H, n) and R (n, H) with u = x (L R)^T; n is r, of the mirrored forms 2 r."""
    if form == "spectral":
        return first * torch.expm1(k * second), first.T.contiguous()
    if mirror := MIRROR[form]:
        return k * scale / 2 * torch.cat([second, mirror * first.T], dim=1), torch.cat([first, second.T])
    return k * scale * second, first
