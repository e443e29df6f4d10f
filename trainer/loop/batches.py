"""A stream's rows in the order in which transformers' Trainer takes them: which rows a step holds is a function of seed and step alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch


class Tokenised(Protocol):
    """One row of a data set."""

    @property
    def ids(self) -> Sequence[int]: ...

    @property
    def labels(self) -> Sequence[int]: ...


class Batches:
    """Micro-batches by optimizer step.  An epoch ends with what is left: a smaller micro-batch, fewer of them in a step."""

    def __init__(
        self, rows: Sequence[Tokenised], *, micro_batch_size: int, accumulation: int = 1, seed: int = 0
    ) -> None:
        assert rows
        self.rows = rows
        self.micro_batch_size = micro_batch_size
        self.accumulation = accumulation
        self.seed = seed
        self._order: tuple[int, list[int]] = (-1, [])

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.rows) // self.rows_per_step)

    @property
    def rows_per_step(self) -> int:
        return self.micro_batch_size * self.accumulation

    def epochs_after(self, steps: int) -> float:
        """Passes over the rows, counted in micro-batches as Trainer does."""
        whole, at = divmod(steps, self.steps_per_epoch)
        return whole + at * self.accumulation / -(-len(self.rows) // self.micro_batch_size)

    def of_step(self, step: int) -> list[list[Tokenised]]:
        """The micro-batches of a step, counted from 0."""
        epoch, at = divmod(step, self.steps_per_epoch)
        chosen = self._order_of(epoch)[at * self.rows_per_step : (at + 1) * self.rows_per_step]
        rows = [self.rows[index] for index in chosen]
        return [rows[start : start + self.micro_batch_size] for start in range(0, len(rows), self.micro_batch_size)]

    def _order_of(self, epoch: int) -> list[int]:
        if self._order[0] != epoch:
            generator = torch.Generator().manual_seed(self.seed + epoch)  # as accelerate's SeedableRandomSampler
            self._order = epoch, torch.randperm(len(self.rows), generator=generator).tolist()
        return self._order[1]
