"""How many ranks of an adapter are used, by the mode of a controller: a leading slice of its A and B; the others are zero, and keep what they were for later.

Nested ranks: the slice of 4 is part of the slice of 8.  By default their scale stays; the source multiplies it by how many fewer they
are, so that the output jumps at the moment at which it wants to brake.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trainer.loop.adapter import Adapter
from trainer.loop.layer import Pair
from trainer.loop.parts import Stepped
from trainer.loop.steering import C, Steering
from trainer.loop.stream import Stream


class SteeredRanks(Steering[C]):
    """A controller as a part of the loop: its mode chooses the ranks beside the learning rate, or alone where its factors are 1."""

    def __init__(self, controller: C, shares: Sequence[float], *, rescale: bool = False) -> None:
        """`shares`: of each adapter's rank that are trained and used, by mode."""
        super().__init__(controller)
        self.shares, self.rescale = shares, rescale

    def join(self, stream: Stream) -> None:
        self.ranks = Ranks(stream.adapter, rescale=self.rescale)

    def begin(self) -> None:
        """The first step already has the ranks of the mode that it begins in; those that rest keep what they begin with."""
        self._use()

    def __call__(self, step: Stepped) -> float:
        factor = super().__call__(step)
        self._use()
        return factor

    def _use(self) -> None:
        self._active = self.ranks.use(self.shares[self.controller.trace.mode])

    @property
    def figures(self) -> Mapping[str, float]:
        return {**super().figures, "active_rank": self._active}

    def state_dict(self) -> dict[str, Any]:
        return {"controller": self.controller.state_dict(), "ranks": self.ranks.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.controller.load_state_dict(state["controller"])
        self.ranks.load_state_dict(state["ranks"])


class Ranks:
    def __init__(self, adapter: Adapter, *, rescale: bool = False) -> None:
        self.pairs = list(adapter.pairs.values())
        self.rescale = rescale
        self.used = [len(pair.a) for pair in self.pairs]
        self.aside = [(pair.a[:0].detach(), pair.b[:0].detach()) for pair in self.pairs]
        """Rows of A and B that are not used."""

    @torch.no_grad()
    def use(self, share: float) -> float:
        """Called after every step, since momentum would move rows that are not used.  Returns the mean of the ranks."""
        for number, pair in enumerate(self.pairs):
            rank = max(1, round(share * len(pair.a)))
            if rank != self.used[number]:
                self._change(number, pair, rank)
            pair.a[rank:].zero_()
            pair.b[rank:].zero_()
        return sum(self.used) / len(self.used)

    def _change(self, number: int, pair: Pair, rank: int) -> None:
        before = self.used[number]
        kept_a, kept_b = self.aside[number]
        a = torch.cat([pair.a[:before], kept_a.to(pair.a)])
        b = torch.cat([pair.b[:before] / self._factor(pair, before), kept_b.to(pair.b)])
        self.used[number], self.aside[number] = rank, (a[rank:].clone(), b[rank:].clone())
        pair.a[:rank], pair.b[:rank] = a[:rank], b[:rank] * self._factor(pair, rank)

    def _factor(self, pair: Pair, rank: int) -> float:
        return len(pair.a) / rank if self.rescale else 1.0

    def state_dict(self) -> dict[str, Any]:
        return {"used": list(self.used), "aside": [(a.cpu(), b.cpu()) for a, b in self.aside]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.used = list(state["used"])
        kept: Sequence[tuple[Tensor, Tensor]] = state["aside"]
        self.aside = [(a, b) for a, b in kept]
