"""A model with a saved control adapter on it, computed by hooks at any scale: the reference that conversions are measured against."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from swarm.errors import UserError
from trainer.control.tuner import steering_of
from trainer.loading import load_adapter

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def attach(model: PreTrainedModel, folder: Path, scale: float = 1.0) -> PeftModel:
    """The model with the adapter in `folder`: class +1 at scale 1, -1 at -1, the base at 0; `.unload()` gives the model back.

    Raises UserError where the folder holds no control adapter.
    """
    made = load_adapter(model, folder)
    set_scale(made, scale, str(folder))
    return made


def set_scale(model: PeftModel, scale: float, where: str = "adapter") -> None:
    """Raises UserError for a model without control adapters: nothing else has a scale here."""
    steering = steering_of(model)
    if steering is None:
        raise UserError(where, "is no control adapter, and only those have a scale", "leave the scale out")
    steering.scale = scale
