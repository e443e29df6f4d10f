"""Stochastic gradient descent without momentum: nothing is kept between steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swarm.keys import NoSettings
from swarm.kinds import Optimizer, Shape

if TYPE_CHECKING:
    import torch


class Sgd(Optimizer[NoSettings]):
    name = "sgd"
    summary = "gradient descent without momentum"
    settings = NoSettings

    def state_bytes(self, shape: Shape) -> float:
        return 0.0

    def made_of(self, settings: NoSettings) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
        from torch.optim import SGD

        return SGD, {}


KINDS = (Sgd(),)
