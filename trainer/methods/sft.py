"""Supervised fine-tuning: next-token cross-entropy on the supervised tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from swarm.keys import NoSettings
from swarm.kinds import Method

if TYPE_CHECKING:
    from trainer.engines.trl import Ingredients, StreamTrainer
    from trainer.loop.parts import Loss


class Sft(Method[NoSettings]):
    name = "sft"
    summary = "supervised fine-tuning"
    settings = NoSettings
    engines: ClassVar[frozenset[str]] = frozenset({"shared", "trl"})

    def trainer(self, ingredients: Ingredients) -> StreamTrainer:
        from trainer.engines import trl

        return trl.trainer(ingredients)

    def loss(self, settings: NoSettings) -> Loss:
        from trainer.loop.head import NLL

        return NLL


KINDS = (Sft(),)
