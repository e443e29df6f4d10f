"""A stream's rows in the order in which transformers' Trainer takes them: which rows a step holds is a function of seed and step alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, Self

import torch
from transformers.trainer_pt_utils import get_length_grouped_indices

from trainer.data.prepared import Rows
from trainer.loop import packing

if TYPE_CHECKING:
    from swarm.settings import StreamSettings


class Tokenised(Protocol):
    """One row of a data set."""

    @property
    def ids(self) -> Sequence[int]: ...

    @property
    def labels(self) -> Sequence[int]: ...
    @property
    def task(self) -> str: ...
    @property
    def classes(self) -> Sequence[int]: ...


class Batches:
    """Micro-batches by optimizer step.  An epoch ends with what is left: a smaller micro-batch, fewer of them in a step."""

    def __init__(
        self,
        rows: Sequence[Tokenised],
        *,
        micro_batch_size: int,
        accumulation: int = 1,
        seed: int = 0,
        units: Sequence[Sequence[int]] | None = None,
        by_length: bool = False,
    ) -> None:
        """`units`: numbers of rows that stay together, `micro_batch_size` of which are a micro-batch; None: each row for itself.

        `by_length`: micro-batches of like length, in transformers' order.
        """
        assert rows
        self.rows = rows
        self.units = [[row] for row in range(len(rows))] if units is None else units
        self.micro_batch_size = micro_batch_size
        self.accumulation = accumulation
        self.seed = seed
        self._lengths = lengths_of(rows) if by_length else None
        self._order: tuple[int, list[int]] = (-1, [])

    @classmethod
    def of(cls, settings: StreamSettings, rows: Sequence[Tokenised]) -> Self:
        size, units = settings.micro_batch_size, None
        if settings.packing == "bfd":
            units = packing.best_fit_decreasing(lengths_of(rows), settings.sequence_len)
        elif settings.batch_size_tokens:
            size, by_length = 1, settings.group_by_length
            units = packing.within_tokens(lengths_of(rows), settings.batch_size_tokens, by_length=by_length)
        return cls(
            rows, micro_batch_size=size, accumulation=settings.gradient_accumulation_steps, seed=settings.seed, units=units,
            by_length=settings.group_by_length and units is None,
        )  # fmt: skip

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.units) // self.units_per_step)

    @property
    def units_per_step(self) -> int:
        return self.micro_batch_size * self.accumulation

    @cached_property
    def most_tokens(self) -> int:
        """Of a micro-batch."""
        lengths = lengths_of(self.rows)
        largest = sorted((sum(lengths[row] for row in unit) for unit in self.units), reverse=True)
        return sum(largest[: self.micro_batch_size])

    @cached_property
    def longest(self) -> int:
        """Tokens of a row."""
        return max(lengths_of(self.rows))

    def epochs_after(self, steps: int) -> float:
        """Passes over the rows, counted in micro-batches as Trainer does."""
        whole, at = divmod(steps, self.steps_per_epoch)
        return whole + at * self.accumulation / -(-len(self.units) // self.micro_batch_size)

    def of_step(self, step: int) -> list[list[Tokenised]]:
        """The micro-batches of a step, counted from 0."""
        epoch, at = divmod(step, self.steps_per_epoch)
        chosen = self._order_of(epoch)[at * self.units_per_step : (at + 1) * self.units_per_step]
        return [
            [self.rows[row] for unit in chosen[start : start + self.micro_batch_size] for row in self.units[unit]]
            for start in range(0, len(chosen), self.micro_batch_size)
        ]

    def _order_of(self, epoch: int) -> list[int]:
        if self._order[0] != epoch:
            generator = torch.Generator().manual_seed(self.seed + epoch)  # as accelerate's SeedableRandomSampler
            self._order = epoch, self._drawn(generator)
        return self._order[1]

    def _drawn(self, generator: torch.Generator) -> list[int]:
        if self._lengths:
            return list(get_length_grouped_indices(self._lengths, self.micro_batch_size, generator=generator))  # type: ignore[no-untyped-call]
        return list(torch.randperm(len(self.units), generator=generator).tolist())


def tasks_of(rows: Sequence[Tokenised]) -> list[str]:
    return rows.tasks() if isinstance(rows, Rows) else sorted({row.task for row in rows})


def lengths_of(rows: Sequence[Tokenised]) -> list[int]:
    return rows.lengths() if isinstance(rows, Rows) else [len(row.ids) for row in rows]
