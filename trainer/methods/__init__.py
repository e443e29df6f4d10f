"""The training methods: one module each, named as users write it under `method:`; this folder is the list of names."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from trainer.methods.sft import Ingredients, StreamTrainer


class MethodModule(Protocol):
    def trainer(self, ingredients: Ingredients) -> StreamTrainer:
        """A trainer that is ready to train one stream."""


def load(method: str) -> MethodModule:
    return cast("MethodModule", importlib.import_module(f"trainer.methods.{method}"))
