"""Control adapters on tiny random decoders, saved as the loop saves them; their second factor is not zero."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model

from trainer.control.tuner import ControlConfig


def sites(model: Any, site: str) -> list[str]:
    count = model.config.get_text_config().num_hidden_layers
    return [f"model.layers.{number}{'.mlp' if site == 'mlp' else ''}" for number in range(count)]


def save(
    model: Any, folder: Path, *, site: str = "mlp", form: str = "full", seed: int = 1, std: float = 0.3, **changes: Any
) -> Path:
    """The model is as it was afterwards."""
    torch.manual_seed(seed)
    config = ControlConfig(
        task_type="CAUSAL_LM", control_site=site, control_adapter_type=form,
        **{"r": 4, "lora_alpha": 2, "target_modules": sites(model, site), **changes},
    )  # fmt: skip
    made = get_peft_model(model, config)
    for name, value in made.named_parameters():
        if "lora_B" in name or "lora_S" in name:
            torch.nn.init.normal_(value, std=std)
    made.save_pretrained(folder)
    made.unload()
    return folder
