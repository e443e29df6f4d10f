"""Lion (arXiv 2302.06675): one moment, and steps of equal size; bitsandbytes' own, with the moment in 32 or 8 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swarm.keys import NoSettings
from swarm.kinds import Optimizer, Shape
from trainer.optimizers.states import moment_bytes

if TYPE_CHECKING:
    import torch


class Lion(Optimizer[NoSettings]):
    settings = NoSettings

    def __init__(self, bits: int) -> None:
        self.name, self.summary, self.bits = f"lion_{bits}bit", f"Lion with a {bits}-bit moment", bits

    def state_bytes(self, shape: Shape) -> float:
        return moment_bytes(shape, self.bits)

    def made_of(self, settings: NoSettings) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
        from bitsandbytes.optim.lion import Lion as QuantisedLion

        # Betas as transformers' Trainer gives them to Lion; the paper's second one is 0.99.
        return QuantisedLion, {"betas": (0.9, 0.999), "optim_bits": self.bits, "is_paged": False}


KINDS = (Lion(32), Lion(8))
