"""Muon: matrices are moved by the orthogonal factor of their momentum, everything else by AdamW (row D23)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swarm.keys import Share
from swarm.kinds import Optimizer, Shape
from trainer.optimizers.moments import AdamSettings
from trainer.optimizers.states import moment_bytes

if TYPE_CHECKING:
    import torch

MATRIX = 2
"""Dimensions of what Muon can move."""


class MuonSettings(AdamSettings):
    muon_momentum: Share = 0.95
    """How much of the momentum of a matrix is kept at each step; beta1, beta2 and eps are of what is no matrix."""


class MuonKind(Optimizer[MuonSettings]):
    name = "muon"
    summary = "Muon for matrices, with AdamW's learning rates, and AdamW for the rest"
    settings = MuonSettings

    def state_bytes(self, shape: Shape) -> float:
        return (1 if len(shape) == MATRIX else 2) * moment_bytes(shape, bits=32)

    def made_of(self, settings: MuonSettings) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
        from trainer.muon import Muon

        betas = (settings.beta1, settings.beta2)
        return Muon, {"momentum": settings.muon_momentum, "betas": betas, "eps": settings.eps}


KINDS = (MuonKind(),)
