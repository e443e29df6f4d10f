"""Adam (arXiv 1412.6980) and AdamW (1711.05101): torch's own, and bitsandbytes' with moments in 8 bits (2110.02861) or paged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swarm.kinds import Optimizer, Shape
from trainer.optimizers.moments import AdamSettings
from trainer.optimizers.states import PAGED_ON_CPU, moment_bytes

if TYPE_CHECKING:
    import torch


def numbers(settings: AdamSettings) -> dict[str, Any]:
    return {"betas": (settings.beta1, settings.beta2), "eps": settings.eps}


class AdamW(Optimizer[AdamSettings]):
    summary = "AdamW"
    settings = AdamSettings

    def __init__(self, name: str) -> None:
        self.name = name

    def state_bytes(self, shape: Shape) -> float:
        return 2 * moment_bytes(shape, bits=32)

    def made_of(self, settings: AdamSettings) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
        from torch.optim import AdamW as TorchAdamW

        return TorchAdamW, {**numbers(settings), "fused": True}


class Adam(Optimizer[AdamSettings]):
    name = "adam"
    summary = "Adam; weight_decay is added to the gradient"
    settings = AdamSettings

    def state_bytes(self, shape: Shape) -> float:
        return 2 * moment_bytes(shape, bits=32)

    def made_of(self, settings: AdamSettings) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
        from torch.optim import Adam as TorchAdam

        return TorchAdam, {**numbers(settings), "fused": True}


class QuantisedAdamW(Optimizer[AdamSettings]):
    settings = AdamSettings

    def __init__(self, name: str, summary: str, *, bits: int, paged: bool) -> None:
        self.name, self.summary, self.bits, self.paged = name, summary, bits, paged

    def state_bytes(self, shape: Shape) -> float:
        return 2 * moment_bytes(shape, self.bits)

    def on_cpu(self) -> str | None:
        return PAGED_ON_CPU if self.paged else None

    def made_of(self, settings: AdamSettings) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
        from bitsandbytes.optim.adamw import AdamW as OtherAdamW

        return OtherAdamW, {**numbers(settings), "optim_bits": self.bits, "is_paged": self.paged}


KINDS = (
    AdamW("adamw"),
    AdamW("adamw_torch"),
    Adam(),
    QuantisedAdamW("adamw_8bit", "AdamW with 8-bit moments", bits=8, paged=False),
    QuantisedAdamW("paged_adamw", "AdamW, whose moments may move to host memory", bits=32, paged=True),
    QuantisedAdamW("paged_adamw_8bit", "AdamW with 8-bit moments, which may move to host memory", bits=8, paged=True),
)
