"""Adapters of single tasks, cloned from a stream's own: how far they contradict each other, and how they become one again.

A clone begins as the adapter is, with the state of its optimizer: the function does not change, and each task goes on as it would have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trainer.loop.adapter import Adapter
from trainer.loop.layer import Pair

Merge = Literal["mean", "ties", "best"]
DENSITY = 0.2
"""Share of each tensor's changes, the largest, that TIES keeps: its authors' default (arXiv 2306.01708)."""


@dataclass(eq=False)
class Clone:
    adapter: Adapter
    optimizer: torch.optim.Optimizer


def copied(value: Any) -> Any:
    """In main memory."""
    match value:
        case Tensor():
            return value.detach().to("cpu", copy=True)
        case dict():
            return {key: copied(inner) for key, inner in value.items()}
        case list() | tuple():
            return type(value)(copied(inner) for inner in value)
        case _:
            return value


def cloned(
    adapter: Adapter,
    optimizer: torch.optim.Optimizer,
    fresh: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
) -> Clone:
    """`fresh`: makes an optimizer of the same kind."""
    other = Adapter(adapter.config, {name: _copy(pair) for name, pair in adapter.pairs.items()})
    stepping = fresh(other.parameters())
    stepping.load_state_dict(copied(optimizer.state_dict()))
    return Clone(other, stepping)


def _copy(pair: Pair) -> Pair:
    a, b, magnitude = (None if value is None else value.detach().clone() for value in (pair.a, pair.b, pair.magnitude))
    assert a is not None and b is not None
    made = Pair(a, b, magnitude, pair.scale, pair.dropout, pair.fixed, pair.form)
    made.neutral, made.is_on_start = pair.neutral, pair.is_on_start
    return made


@torch.no_grad()
def conflict(adapters: Sequence[Adapter]) -> float:
    """1 - |mean W|^2 / mean |W|^2 over W = s B A of all layers: 0 where they are equal, 1 - 1/K where orthogonal, near 1 where opposite.

    <W_i, W_j> = s_i s_j sum((B_i^T B_j) * (A_i A_j^T)): no matrix of the layer's size is made.
    """
    count = len(adapters)
    gram = torch.zeros(count, count, dtype=torch.float64)
    for name in adapters[0].pairs:
        gram += _gram([adapter.pairs[name] for adapter in adapters])
    own = float(gram.diagonal().mean())
    return min(1.0, max(0.0, 1 - float(gram.mean()) / own)) if own > 0 else 0.0


def _gram(pairs: Sequence[Pair]) -> Tensor:
    """(K, K)"""
    rank = len(pairs[0].a)
    a = torch.cat([pair.a for pair in pairs])  # (K r, in)
    b = torch.cat([pair.b * pair.scale for pair in pairs])  # (K r, out)
    products = (a @ a.T).cpu().double() * (b @ b.T).cpu().double()  # (K r, K r)
    return products.view(len(pairs), rank, len(pairs), rank).sum((1, 3))


@torch.no_grad()
def merge(into: Adapter, clones: Sequence[Adapter], start: Sequence[Tensor] | None) -> None:
    """The mean of the clones' tensors, which began as one and so stand in one basis; with `start`, what they began as, TIES of the changes."""
    each = zip(*(adapter.parameters() for adapter in clones), strict=True)
    for number, (value, tensors) in enumerate(zip(into.parameters(), each, strict=True)):
        stacked = torch.stack(list(tensors))  # (K, ...)
        if start is None:
            value.copy_(stacked.mean(0))
        else:
            began = start[number].to(value)
            value.copy_(began + ties(stacked - began))


def ties(changes: Tensor, density: float = DENSITY) -> Tensor:
    """(K, ...) -> (...): of each task the largest changes, of each weight the sign with more weight, the mean of those that agree with it."""
    flat = changes.flatten(1)
    keep = max(1, round(density * flat.shape[1]))
    least = flat.abs().topk(keep, dim=1).values[:, -1:]
    trimmed = flat.where(flat.abs() >= least, torch.zeros_like(flat))
    sign = trimmed.sum(0).sign()
    agreeing = (trimmed.sign() == sign) & (sign != 0)
    total = trimmed.where(agreeing, torch.zeros_like(trimmed)).sum(0)
    return (total / agreeing.sum(0).clamp(min=1)).view(changes.shape[1:])


def merged_state(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of optimizers that began as one: moments are averaged, counters are those of the longest."""
    first = states[0]
    return {
        **first,
        "state": {
            number: {key: _merged([state["state"][number][key] for state in states]) for key in kept}
            for number, kept in first["state"].items()
            if all(number in state["state"] for state in states)
        },
    }


def _merged(values: list[Any]) -> Any:
    first = values[0]
    match first:
        case Tensor() if first.dim() and first.is_floating_point():
            return torch.stack(values).mean(0)
        case Tensor() if not first.dim():
            return torch.stack(values).max()
        case int() | float():
            return max(values)
        case _:  # moments in 8 bits cannot be averaged
            return first
