"""The kinds of adapter: one module each, named as users write it under `adapter:`; this folder is the list of names."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig

    from swarm.settings import StreamSettings


class AdapterModule(Protocol):
    def quantisation(self, compute_dtype: torch.dtype) -> BitsAndBytesConfig | None:
        """How the base's weights are held; None: as they are."""

    def config(self, settings: StreamSettings) -> LoraConfig:
        """What is trained on the base."""


def load(adapter: str) -> AdapterModule:
    return cast("AdapterModule", importlib.import_module(f"trainer.adapters.{adapter}"))
