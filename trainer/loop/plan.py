"""Whose rows are in a forward pass: rows of all streams in buckets of like length, each row with the slot of the adapter that it takes.

A slot is a stream's place in the stacks of the layers (`layer`).  Rows are padded on the right; with causal attention no real
position sees a pad, so that no attention mask is needed.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import attrgetter

import torch
from torch import Tensor

from trainer.data.classes import predicted
from trainer.data.tokens import IGNORED
from trainer.device import widest

LINEAR_COST_FLOPS = 3e7
"""What a linear layer costs a CPU in a pass besides its arithmetic, forth and back and with what stands around it: 0.4 ms of a core that
computes 70 GFLOP/s (`bench_loop.py passes`).  Not measured anew at each start: which rows share a pass decides a training's last bits."""
READ_TOKENS = 16
"""Reading the weights of a large base takes a CPU at least as long as computing with them for so many tokens."""
GPU_LINEAR_COST_FLOPS, GPU_READ_TOKENS = 7e10, 256
"""The same of an H100: 1.1 ms of kernels that are started one by one, at 68 TFLOP/s (0.5B in bf16, `bench_gpu.py map`), and its ridge."""


def pass_cost(weights: Sequence[int], *, on_gpu: bool) -> int:
    """What one more pass costs, in tokens, by the sizes of the linear layers: padding fewer than this is cheaper than another pass."""
    cost, least = (GPU_LINEAR_COST_FLOPS, GPU_READ_TOKENS) if on_gpu else (LINEAR_COST_FLOPS, READ_TOKENS)
    return max(least, round(len(weights) * cost / (4 * sum(weights))))


@dataclass(frozen=True)
class Row:
    """One sequence of a micro-batch."""

    slot: int
    ids: Sequence[int]
    labels: Sequence[int]
    """As long as `ids`; IGNORED where the loss does not count."""
    weight: float = 1.0
    """Of each supervised token: 1 / supervised tokens of the stream's whole optimizer step; 0 where the row only keeps its place."""
    key: int | None = None
    """Seeds the row's dropout: drawn from the stream's seed, its step and the row's number in that step, nothing else.  None: no dropout."""
    everywhere: bool = False
    """Its loss looks at all tokens that it predicts, not the supervised ones alone."""
    classes: Sequence[int] = ()
    """Of each token, of a control adapter (`trainer.data.classes`); none: all are 1."""
    is_on_start: bool = False
    """Its base has the adapter on which its stream begins."""


def supervised(labels: Sequence[int]) -> int:
    """Tokens that the loss counts: the first one is never predicted."""
    return len(labels) - 1 - labels[1:].count(IGNORED)


@dataclass(frozen=True)
class Pass:
    """Rows that go through the base together, sorted by slot."""

    rows: Sequence[Row]
    ids: Tensor  # (R, T)
    blocks: Sequence[int]
    """The slot of each of S equal blocks of rows: one block a stream where all streams bring as many rows, else one a row."""
    slots: slice | Tensor  # (S,)
    """The same: on the device, or a slice where they are neighbours."""
    positions: Tensor
    """(M,) Where a loss looks at a next token, as indices into (R * T)."""
    targets: Tensor  # (M,) the tokens predicted there, IGNORED where none is supervised
    weights: Tensor  # (M,)
    owners: Tensor
    """(M,) The slot that each of them belongs to."""
    classes: Tensor | None = None
    """(R, T) The class of the token that each position predicts; None where no row has any: all are 1."""
    is_adapted: bool = True
    """False: each row has the base of its stream, without what is trained."""

    @classmethod
    def of(cls, rows: Sequence[Row], device: torch.device) -> Pass:
        rows = sorted(rows, key=attrgetter("slot"))
        width = max(len(row.ids) for row in rows)
        ids = torch.tensor([[*row.ids, *[0] * (width - len(row.ids))] for row in rows])
        labels = torch.tensor([[*row.labels[1:], *[IGNORED] * (width + 1 - len(row.labels))] for row in rows]).flatten()
        counted = labels != IGNORED
        for place, row in enumerate(rows):
            if row.everywhere:
                counted[place * width : place * width + len(row.ids) - 1] = True
        positions = counted.nonzero().squeeze(1)
        number = positions // width
        weights = torch.tensor([row.weight for row in rows], dtype=widest(device))
        blocks = _blocks(rows)
        return cls(
            rows=rows,
            ids=ids.to(device),
            blocks=blocks,
            slots=_slots(blocks, device),
            positions=positions.to(device),
            targets=labels[positions].to(device),
            weights=weights[number].to(device),
            owners=torch.tensor([row.slot for row in rows])[number].to(device),
            classes=_classes(rows, width, device),
        )

    @cached_property
    def used(self) -> frozenset[int]:
        return frozenset(self.blocks)


def _classes(rows: Sequence[Row], width: int, device: torch.device) -> Tensor | None:
    if not any(row.classes for row in rows):
        return None
    found = torch.zeros(len(rows), width, dtype=torch.long)
    for mine, row in zip(found, rows, strict=True):
        mine[: len(row.ids)] = torch.tensor(predicted(row.classes, len(row.ids)))
    return found.to(device)


def _blocks(rows: Sequence[Row]) -> list[int]:
    counts = Counter(row.slot for row in rows)
    return list(counts) if len(set(counts.values())) == 1 else [row.slot for row in rows]


def _slots(blocks: Sequence[int], device: torch.device) -> slice | Tensor:
    first, count = blocks[0], len(blocks)
    if list(blocks) == list(range(first, first + count)):
        return slice(first, first + count)
    return torch.tensor(blocks, device=device)


def tokens_of(rows: Sequence[Row]) -> int:
    """Of a pass, pads included."""
    return len(rows) * max(len(row.ids) for row in rows)


class Plan(threading.local):
    """What every adapted layer looks at while it computes, in each thread its own; without a pass the layers are the bare base."""

    def __init__(self) -> None:
        self.current: Pass | None = None

    @contextmanager
    def running(self, current: Pass | None) -> Iterator[None]:
        """Holds until the backward pass is over, since recomputed activations need the same plan."""
        before, self.current = self.current, current
        try:
            yield
        finally:
            self.current = before


def shared_out(
    rows: Sequence[Row], pass_cost: int, pass_tokens: int, *, exact: bool = False, count: int = 1
) -> list[list[list[Row]]]:
    """The passes of each of some groups that have no slot in common, the group that costs the most first.

    `exact`: a group is one slot, as if it were alone; else there are `count`, and the one that costs the most costs little.
    """
    by_slot = [list(own) for _, own in groupby(sorted(rows, key=attrgetter("slot")), key=attrgetter("slot"))]
    ways = [by_slot] if exact else [_evenly(by_slot, count)]
    if not exact and count > 1:
        ways.append(_by_length(by_slot, count))
    split = [[buckets(group, pass_cost, pass_tokens) for group in way] for way in ways]

    def cost(passes: Sequence[Sequence[Row]]) -> int:
        return sum(tokens_of(part) + pass_cost for part in passes)

    return sorted(min(split, key=lambda way: max(map(cost, way), default=0)), key=cost, reverse=True)


def _evenly(by_slot: Sequence[list[Row]], count: int) -> list[list[Row]]:
    """Groups of about as many tokens."""
    groups: list[list[Row]] = [[] for _ in range(min(count, len(by_slot)))]
    for own in sorted(by_slot, key=_tokens, reverse=True):
        min(groups, key=_tokens).extend(own)
    return groups


def _tokens(rows: Sequence[Row]) -> int:
    return sum(len(row.ids) for row in rows)


def _by_length(by_slot: Sequence[list[Row]], count: int) -> list[list[Row]]:
    """Slots of like length in a group, which pads little."""
    ordered = sorted(by_slot, key=lambda own: max(len(row.ids) for row in own), reverse=True)
    all_tokens = tokens_of([row for own in ordered for row in own]) if ordered else 0
    return _runs(ordered, bisect_left(range(all_tokens), True, key=lambda most: len(_runs(ordered, most)) <= count))


def _runs(ordered: Sequence[list[Row]], most_tokens: int) -> list[list[Row]]:
    """Of neighbours, each as long as its tokens, pads included, are no more."""
    runs: list[list[Row]] = []
    for own in ordered:
        if runs and tokens_of([*runs[-1], *own]) <= most_tokens:
            runs[-1].extend(own)
        else:
            runs.append([*own])
    return runs


def buckets(rows: Sequence[Row], pass_cost: int, pass_tokens: int) -> list[list[Row]]:
    """The split by length that costs the fewest tokens, pads and passes counted."""
    ordered = sorted(rows, key=lambda row: len(row.ids))
    costs, start = [0], [0]  # of the first n rows, and where their last bucket starts
    for end in range(1, len(ordered) + 1):
        width = len(ordered[end - 1].ids)
        begins = range(end - 1, max(-1, end - 1 - max(1, pass_tokens // width)), -1)
        best, at = min((costs[begin] + (end - begin) * width + pass_cost, begin) for begin in begins)
        costs.append(best)
        start.append(at)
    parts: list[list[Row]] = []
    end = len(ordered)
    while end:
        parts.insert(0, list(ordered[start[end] : end]))
        end = start[end]
    return parts
