"""Lion (arXiv 2302.06675): one moment, and steps of equal size; bitsandbytes' own, with the moment in 32 or 8 bits, or paged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swarm.kinds import Optimizer, Shape
from trainer.optimizers.moments import LionSettings
from trainer.optimizers.states import PAGED_ON_CPU, moment_bytes

if TYPE_CHECKING:
    import torch


class Lion(Optimizer[LionSettings]):
    settings = LionSettings

    def __init__(self, name: str, bits: int, *, paged: bool = False) -> None:
        self.name, self.bits, self.paged = name, bits, paged
        self.summary = f"Lion with a {bits}-bit moment{', which may move to host memory' if paged else ''}"

    def state_bytes(self, shape: Shape) -> float:
        return moment_bytes(shape, self.bits)

    def on_cpu(self) -> str | None:
        return PAGED_ON_CPU if self.paged else None

    def made_of(self, settings: LionSettings) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
        from bitsandbytes.optim.lion import Lion as QuantisedLion

        betas = (settings.beta1, settings.beta2)
        return QuantisedLion, {"betas": betas, "optim_bits": self.bits, "is_paged": self.paged}


KINDS = (
    Lion("lion", 32),
    Lion("lion_32bit", 32),
    Lion("lion_8bit", 8),
    Lion("paged_lion", 32, paged=True),
    Lion("paged_lion_8bit", 8, paged=True),
)
