"""What the adapters of a pass add to a frozen layer, and their gradients: one step of autograd's graph for all blocks of rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from trainer.loop.dequantised import is_packed, weight_of

Slots = slice | Tensor
"""Which slots the blocks of a pass take: a run of neighbours, whose stacks need no copy, or any."""


class _LowRank(torch.autograd.Function):
    """factor * z A^T B for each block of rows with its own A and B, and base(x) with a base; x is z where it is not given.

    Only z and z A^T are kept for the backward pass.  The gradients of A and B are added to the stacks' in place: autograd would fill
    whole stacks with zeros for a few rows.  So are the products to what the base gives, forth and back.
    """

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        x: Tensor | None,
        base: nn.Module | None,
        a: Tensor,
        b: Tensor,
        factor: Tensor,
        slots: Slots,
        rank: int,
    ) -> Tensor:
        low = torch.bmm(_blocks(z, len(factor)).to(a.dtype), picked(a, slots, rank).mT).mul_(factor)  # (S, t, rank)
        ctx.save_for_backward(z, low)
        ctx.layer, ctx.is_apart = (base, a, b, factor, slots, rank), x is not None
        y = None if base is None else base(z if x is None else x)
        return _plus(y, low, picked(b, slots, rank), z)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = gradients
        z, low = ctx.saved_tensors
        base, a, b, factor, slots, rank = ctx.layer
        blocks = _blocks(dy, len(factor)).to(low.dtype)
        dlow = torch.bmm(blocks, picked(b, slots, rank).mT).mul_(factor)  # (S, t, rank)
        _add(a.grad, dlow.mT, _blocks(z, len(factor)).to(low.dtype), slots)
        _add(b.grad, low.mT, blocks, slots)
        if not ctx.needs_input_grad[0]:  # z is made of x: neither does
            return (None,) * 8
        dx = None if base is None else dy @ weight_of(base).to(dy.dtype)
        dz = _plus(None if ctx.is_apart else dx, dlow, picked(a, slots, rank), z).to(z.dtype)
        return dz, dx if ctx.is_apart else None, *[None] * 6


def low_rank(
    z: Tensor,
    a: Tensor,
    b: Tensor,
    factor: Tensor,
    slots: Slots,
    rank: int,
    *,
    base: nn.Module | None = None,
    x: Tensor | None = None,
) -> Tensor:
    """(R, T, in) -> (R, T, out): factor * z A^T B, and base(x) with a base.

    a (N, r, in) and b (N, r, out) are stacks; `factor` (S, 1 or t, 1) is of each of S blocks of rows, or of its tokens.
    """
    added: Tensor = _LowRank.apply(z, None if x is z else x, base, a, b, factor, slots, rank)  # type: ignore[no-untyped-call]
    return added


def is_its_matrix(base: nn.Module, dtype: torch.dtype) -> bool:
    """Whether what goes back through a base is a product with its matrix, in the numbers of what came in: nothing stands in for its forward pass."""
    if "forward" in vars(base):
        return False
    if is_packed(base):
        return base.compute_dtype in (None, dtype)
    return type(base).forward in (nn.Linear.forward, Conv1D.forward)


def _blocks(x: Tensor, count: int) -> Tensor:
    """(R, T, d) -> (S, t, d)"""
    return x if x.dim() == 3 and len(x) == count else x.reshape(count, -1, x.shape[-1])


def _plus(y: Tensor | None, left: Tensor, right: Tensor, like: Tensor) -> Tensor:
    """Returns y (R, T, d) with left @ right of each block, (S, t, r) @ (S, r, d), added to it in place and rounded once.

    Without y the product alone, of as many rows and tokens as `like`.
    """
    if y is None:
        return torch.bmm(left, right).view(*like.shape[:-1], -1)
    blocks = y.view(len(left), -1, y.shape[-1])
    if y.dtype is left.dtype:
        blocks.baddbmm_(left, right)
    else:
        blocks.add_(torch.bmm(left, right))
    return y


def picked(stack: Tensor, slots: Slots, rank: int | None = None) -> Tensor:
    """(N, r, ...) -> (S, rank, ...)"""
    if rank is not None and rank < stack.shape[1]:
        stack = stack[:, :rank]
    if isinstance(slots, Tensor):
        return stack.index_select(0, slots)
    return stack if slots == slice(0, len(stack)) else stack[slots]


def _add(stack: Tensor, left: Tensor, right: Tensor, slots: Slots) -> None:
    """Adds left @ right of each block, (S, rank, t) @ (S, t, d), to its slot of a stack (N, r, d)."""
    if isinstance(slots, slice):
        picked(stack, slots, left.shape[1]).baddbmm_(left, right)
    else:
        stack[:, : left.shape[1]].index_add_(0, slots, torch.bmm(left, right))
