"""The frozen 4-bit layers of a base as whole matrices beside them: the same weights, and nothing to unpack in a pass."""

from __future__ import annotations

from math import prod
from typing import Literal

import torch
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from swarm.surroundings import free_memory_bytes

Dequantise = Literal["auto", "step", "cached"]
"""`step`: each layer unpacks its matrix in each pass, once for all streams, and again on the way back.  `cached`: once for all passes."""
FREE_SHARE = 4
"""`auto` caches what is at most one in so many of the bytes that are free: activations and other streams come on top."""


def is_cached(wanted: Dequantise, model: PreTrainedModel) -> bool:
    if wanted != "auto":
        return wanted == "cached"
    free = torch.cuda.mem_get_info(model.device)[0] if model.device.type == "cuda" else free_memory_bytes()
    return free is not None and image_bytes(model) * FREE_SHARE <= free


def image_bytes(model: PreTrainedModel) -> int:
    """Of the matrices of all 4-bit layers, in the numbers that the model computes with."""
    shapes = [parameter.quant_state.shape for parameter in model.parameters() if hasattr(parameter, "quant_state")]
    return sum(map(prod, shapes)) * model.dtype.itemsize


def is_packed(base: nn.Module) -> bool:
    return hasattr(base.weight, "quant_state")


@torch.no_grad()
def whole(base: nn.Module, dtype: torch.dtype) -> nn.Linear:
    """The layer with its matrix unpacked."""
    weight = dequantize_module_weight(base).to(dtype)  # (out, in)
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    made.weight = nn.Parameter(weight, requires_grad=False)
    made.bias = base.bias  # type: ignore[assignment]
    return made


def weight_of(base: nn.Module) -> Tensor:
    """(out, in), dequantised where it is held in 4 bit."""
    weight: Tensor = base.weight if type(base.weight) is nn.Parameter else dequantize_module_weight(base)
    return weight.T if isinstance(base, Conv1D) else weight
