"""Optimizers that keep what rounding takes from weights in bfloat16 (Kahan summation, arXiv 2010.06192), from torch-optimi.

On weights in float32 they are the plain ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swarm.keys import Settings
from swarm.kinds import Optimizer, Shape
from trainer.optimizers.moments import AdamSettings, LionSettings
from trainer.optimizers.states import moment_bytes

if TYPE_CHECKING:
    import torch


class Kahan(Optimizer[Any]):
    package, extra = "optimi", "kahan"

    def __init__(self, name: str, theirs: str, settings: type[Settings], moments: int) -> None:
        self.name, self.theirs, self.settings, self.moments = name, theirs, settings, moments
        self.summary = f"{theirs} with Kahan summation, for `lora_weight_dtype: bfloat16`"

    def state_bytes(self, shape: Shape) -> float:
        """The compensation is as long as the weight; counted as if all were fp32."""
        return (self.moments + 1) * moment_bytes(shape, bits=32)

    def made_of(self, settings: Any) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
        import optimi

        numbers = {"eps": settings.eps} if isinstance(settings, AdamSettings) else {}
        return getattr(optimi, self.theirs), {"betas": (settings.beta1, settings.beta2), **numbers, "triton": False}


KINDS = (
    Kahan("adamw_kahan", "AdamW", AdamSettings, 2),
    Kahan("adam_kahan", "Adam", AdamSettings, 2),
    Kahan("lion_kahan", "Lion", LionSettings, 1),
)
