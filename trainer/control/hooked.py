"""A model with saved control adapters on it, computed by hooks at any scale: the reference that conversions are measured against."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from swarm.errors import UserError
from trainer.control.tuner import TYPE, steering_of
from trainer.loading import load_adapter

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def attach(model: PreTrainedModel | PeftModel, folder: Path, scale: float = 1.0, name: str = "default") -> PeftModel:
    """The model with the adapter in `folder`: class +1 at scale 1, -1 at -1, the base at 0; `.unload()` gives the model back.

    Several under names of their own act together where `trainer.control.tuner.together` says so.
    Raises UserError where the folder holds no control adapter.
    """
    made = load_adapter(model, folder, name)
    if made.peft_config[name].peft_type != TYPE:
        raise UserError(str(folder), "is no control adapter, and only those have a scale", "leave the scale out")
    set_scale(made, scale, name)
    return made


def set_scale(model: PeftModel, scale: float, name: str = "default") -> None:
    """Of the control adapter of that name."""
    steering = steering_of(model)
    assert steering is not None
    steering.scales[name] = scale
