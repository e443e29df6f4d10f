"""An adapter that stays as it is below the one that TRL trains (`start_adapter`): the base's layers answer with it, and a checkpoint's file holds both.

With the trained adapter switched off the base still answers with the one below: that is the reference of DPO and KTO.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from swarm import kinds
from swarm.errors import UserError
from swarm.facts import BaseFacts
from swarm.settings import StreamSettings
from swarm.weights import ADAPTER

PREFIX = "base_model.model."
OF_FILE = ("r", "lora_alpha", "rank_pattern", "alpha_pattern")
"""What both adapters together change of the trained one's config."""


@dataclass(frozen=True)
class Below:
    model: PeftModel
    fixed: Mapping[str, tuple[Tensor, Tensor]]
    """By the names of A and B less their halves: A0 (rank, in) and s0 / s B0 (out, rank), as they stand in the file."""
    config: LoraConfig
    """Of the file."""

    def complete(self, folder: Path) -> None:
        """The trained adapter that was saved there, with the one below."""
        state = load_file(folder / ADAPTER)
        for layer, (a, b) in self.fixed.items():
            state[f"{layer}.lora_A.weight"] = torch.cat([state[f"{layer}.lora_A.weight"], a])
            state[f"{layer}.lora_B.weight"] = torch.cat([state[f"{layer}.lora_B.weight"], b], dim=1)
        save_file(state, folder / ADAPTER, metadata={"format": "pt"})
        self.config.save_pretrained(str(folder))

    def read(self, folder: Path) -> None:
        """The trained adapter of such a folder.  Raises UserError where it began on another one."""
        state = load_file(folder / ADAPTER)
        for layer, (a, b) in self.fixed.items():
            for half, fixed, dim in (("A", a, 0), ("B", b, 1)):
                name = f"{layer}.lora_{half}.weight"
                rank = state[name].shape[dim] - fixed.shape[dim]
                own, kept = state[name].tensor_split([rank], dim)
                if not torch.equal(kept, fixed):
                    what = "is not the adapter on which this training began"
                    raise UserError("start_adapter", what, "put it back as it was, or start a new run")
                state[name] = own.contiguous()
        set_peft_model_state_dict(self.model, state)


def stand_below(model: PeftModel, base: BaseFacts, settings: StreamSettings) -> Below | None:
    """Puts the start of these settings below the adapter that is trained; None where it has none."""
    kind, own = kinds.adapter(settings.adapter), cast("Any", settings)
    start = kind.start(settings)
    if start is None:
        return None
    filed = cast("LoraConfig", kind.config(base, kind.filed(base, settings)))
    config = copy.deepcopy(model.peft_config["default"])
    for key in OF_FILE:
        setattr(config, key, getattr(filed, key))
    fixed = {}
    for layer, (a, b) in start.values().items():
        scale = own.alpha_of(layer) / (own.rank_of(layer) ** 0.5 if own.use_rslora else own.rank_of(layer))
        _answer_with(model.get_base_model().get_submodule(layer), a, b)
        fixed[f"{PREFIX}{layer}"] = a, (b / scale).T.contiguous()
    return Below(model, fixed, cast("LoraConfig", config))


def _answer_with(layer: Any, a: Tensor, b: Tensor) -> None:
    """A (rank, in) and s B^T (rank, out) beside the layer that the trained adapter stands on."""
    base: nn.Module = layer.get_base_layer()
    device = next(base.parameters()).device
    base.register_forward_hook(partial(_added, a.to(device), b.to(device)))


def _added(a: Tensor, b: Tensor, layer: nn.Module, given: tuple[Tensor, ...], answer: Tensor) -> Tensor:
    return answer + ((given[0].to(a.dtype) @ a.T) @ b).to(answer.dtype)
