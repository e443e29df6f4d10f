"""The direction in which two classes of hidden states differ, of one layer; plain arithmetic.

With A and B (n, H) what the classes' states are apart from a baseline's, the eigenvectors of the symmetric part of A^T B are directions along
which both move together or against each other.  Of those that tell the classes apart, by the variance between them over that within
them, the best are summed, each as long as the classes' means are apart along it, for as long as the sum tells them apart better.  Without a baseline
the middle of each pair stands for it: then B = -A, and the directions are the principal components of the differences.
(The discriminant of jukofyork/control-vectors; the eigenvectors are found within the span of A and B, n and not H wide.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Direction:
    axis: Tensor
    """(H,) From the middle of the two classes' means to that of the positive one; minus it goes to the negative one."""
    middle: Tensor
    """(H,) From the baseline to that middle: what takes a bias of the base away.  Zero without a baseline."""
    ratio: float
    """Variance between the classes over that within them, along the axis."""


def direction(
    negative: Tensor, positive: Tensor, baseline: Tensor | None = None, least_ratio: float = 0.5
) -> Direction | None:
    """Of states (n, H), row by row of the same pair.  None where no direction tells the classes apart at this ratio."""
    middle = (negative + positive) / 2 if baseline is None else baseline
    a, b = (negative - middle).double(), (positive - middle).double()
    chosen = _chosen(a, b, _candidates(a, b), least_ratio)
    if chosen is None:
        return None
    unit, ratio = chosen
    low, high = float((a @ unit).mean()), float((b @ unit).mean())
    return Direction((high - low) / 2 * unit, (high + low) / 2 * unit, ratio)


def _candidates(a: Tensor, b: Tensor) -> Tensor:
    """(H, k) unit eigenvectors of A^T B + B^T A with eigenvalues above rounding."""
    basis, triangle = torch.linalg.qr(torch.cat([a, b]).T)  # (H, 2 n)
    basis = basis[:, triangle.abs().amax(1) > 1e-9 * triangle.abs().max()]
    inner, outer = a @ basis, b @ basis
    values, vectors = torch.linalg.eigh(inner.T @ outer + outer.T @ inner)
    found: Tensor = basis @ vectors[:, values.abs() > 1e-9 * values.abs().max()]
    return found


def _chosen(a: Tensor, b: Tensor, candidates: Tensor, least_ratio: float) -> tuple[Tensor, float] | None:
    """The sum of the best, of length 1, and its ratio."""
    ratios = [discriminant(a @ one, b @ one) for one in candidates.T]
    best = sorted((at for at, ratio in enumerate(ratios) if ratio >= least_ratio), key=lambda at: -ratios[at])
    kept: tuple[Tensor, float] | None = None
    for one in candidates.T[best]:
        part = ((b @ one).mean() - (a @ one).mean()) * one
        whole = part if kept is None else kept[0] + part
        ratio = discriminant(a @ whole, b @ whole)
        if kept is None or ratio > kept[1]:
            kept = whole, ratio
    return None if kept is None else (kept[0] / kept[0].norm(), kept[1])


def discriminant(low: Tensor, high: Tensor) -> float:
    """Variance between two classes of numbers (n,) over the mean of that within them; infinite where nothing varies within them."""
    between = ((high.mean() - low.mean()) / 2).square()
    within = (low.var(correction=0) + high.var(correction=0)) / 2
    return float(between / within) if within > 0 else float("inf") if between > 0 else 0.0
