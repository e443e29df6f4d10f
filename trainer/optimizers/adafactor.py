"""Adafactor (arXiv 1804.04235) at a given learning rate: a row and a column stand for a matrix of second moments."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from swarm.keys import NoSettings
from swarm.kinds import Optimizer, Shape
from trainer.optimizers.states import FP32

if TYPE_CHECKING:
    import torch


class Adafactor(Optimizer[NoSettings]):
    name = "adafactor"
    summary = "Adafactor at the given learning rate"
    settings = NoSettings

    def state_bytes(self, shape: Shape) -> float:
        return (sum(shape) if len(shape) == 2 else prod(shape)) * FP32

    def made_of(self, settings: NoSettings) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
        from transformers.optimization import Adafactor as TransformersAdafactor

        return TransformersAdafactor, {"scale_parameter": False, "relative_step": False}


KINDS = (Adafactor(),)
