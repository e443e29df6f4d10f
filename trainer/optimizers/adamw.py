"""AdamW (arXiv 1711.05101): torch's own, and bitsandbytes' with both moments in 8 bits (arXiv 2110.02861)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swarm.keys import NoSettings
from swarm.kinds import Optimizer, Shape
from trainer.optimizers.states import moment_bytes

if TYPE_CHECKING:
    import torch

BETAS_AND_EPSILON = {"betas": (0.9, 0.999), "eps": 1e-8}


class AdamW(Optimizer[NoSettings]):
    name = "adamw_torch"
    summary = "AdamW"
    settings = NoSettings

    def state_bytes(self, shape: Shape) -> float:
        return 2 * moment_bytes(shape, bits=32)

    def made_of(self, settings: NoSettings) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
        from torch.optim import AdamW as TorchAdamW

        return TorchAdamW, {**BETAS_AND_EPSILON, "fused": True}


class AdamW8bit(Optimizer[NoSettings]):
    settings = NoSettings

    def __init__(self, name: str, summary: str, *, paged: bool) -> None:
        self.name, self.summary, self.paged = name, summary, paged

    def state_bytes(self, shape: Shape) -> float:
        return 2 * moment_bytes(shape, bits=8)

    def made_of(self, settings: NoSettings) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
        from bitsandbytes.optim.adamw import AdamW as QuantisedAdamW

        return QuantisedAdamW, {**BETAS_AND_EPSILON, "optim_bits": 8, "is_paged": self.paged}


KINDS = (
    AdamW(),
    AdamW8bit("adamw_8bit", "AdamW with 8-bit moments", paged=False),
    AdamW8bit("paged_adamw_8bit", "AdamW with 8-bit moments, which may move to host memory", paged=True),
)
