"""The loss of a control adapter's streams: that of their method, and beside it what each class of text came to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from trainer.data.classes import NEUTRAL
from trainer.loop.parts import Loss, Predicted

CLASSES = {"toward": (1,), "away": (-1,), "neutral": (NEUTRAL, -NEUTRAL)}


@cache
def classed(loss: Loss) -> Loss:
    """One object for equal losses: streams share its calls."""
    return Classed(loss, loss.needs_base, loss.everywhere)


@dataclass(frozen=True)
class Classed(Loss):
    """Figures `loss_toward`, `loss_away`, `loss_neutral`, and the tokens of each."""

    of: Loss
    needs_base: bool
    everywhere: bool
    names: ClassVar[tuple[str, ...]] = tuple(f"{what}_{name}" for name in CLASSES for what in ("loss", "tokens"))

    @property
    def figures(self) -> tuple[str, ...]:
        return (*self.of.figures, *self.names)

    def __call__(self, tokens: Predicted) -> Tensor:
        values = self.of(tokens)
        values = values.reshape(len(values), -1)  # (m, 1 + parts)
        classes = torch.ones_like(tokens.targets) if tokens.classes is None else tokens.classes
        masks = [torch.isin(classes, torch.tensor(ones).to(classes)).to(values.dtype) for ones in CLASSES.values()]
        columns = [column for mask in masks for column in (values[:, 0].detach() * mask, mask)]
        return torch.cat([values, torch.stack(columns, dim=1)], dim=1)

    def reweighted(self) -> Loss:
        return classed(self.of.reweighted())

    def stated(self, means: dict[str, float], supervised: int) -> dict[str, float]:
        """Each class's own mean and count; nothing of one that the step holds no token of."""
        made = self.of.stated({name: means[name] for name in self.of.figures}, supervised)
        for name in CLASSES:
            if share := means[f"tokens_{name}"]:
                made |= {f"loss_{name}": means[f"loss_{name}"] / share, f"tokens_{name}": round(share * supervised)}
        return made

    def state_dict(self) -> dict[str, Any]:
        return self.of.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.of.load_state_dict(state)
