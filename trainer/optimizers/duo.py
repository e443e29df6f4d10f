"""Duo for a stream of one model: AdamW, Lion, or a blend of both (rows D05, D09, D10, D27)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from swarm.kinds import Optimizer, Shape
from trainer.optimizers.moments import AdamSettings
from trainer.optimizers.states import moment_bytes

if TYPE_CHECKING:
    import torch


class DuoSettings(AdamSettings):
    duo_mode: Literal["split", "blend", "symbolic", "hybrid", "amp"] = "hybrid"
    """split: AdamW for an encoder, Lion for a decoder and for what is shared; blend (or symbolic): both updates, mixed; hybrid: as split, but
    mixed for what is shared; amp: as split, and steps whose gradient is not finite change nothing."""
    duo_role: Literal["encoder", "decoder", "shared"] = "shared"
    """What this model counts as."""
    duo_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """AdamW's share of a mixed update: 1 is AdamW, 0 is Lion, bit for bit."""
    duo_lion_scale: Annotated[float, Field(gt=0)] = 0.3
    """Lion's learning rate is learning_rate times it."""


class DuoKind(Optimizer[DuoSettings]):
    name = "duo"
    summary = "AdamW and Lion: one of them by the role of the model, or both updates mixed"
    settings = DuoSettings

    def state_bytes(self, shape: Shape) -> float:
        return 3 * moment_bytes(shape, bits=32)

    def made_of(self, settings: DuoSettings) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
        from trainer.duo import Duo

        return Duo, {
            "betas": (settings.beta1, settings.beta2), "eps": settings.eps, "share": settings.duo_share,
            "mode": "blend" if settings.duo_mode == "symbolic" else settings.duo_mode, "role": settings.duo_role,
            "lion_scale": settings.duo_lion_scale,
        }  # fmt: skip


KINDS = (DuoKind(),)
