"""Gradient checkpointing of a base in eval mode: its layers' activations are computed twice instead of being kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer


@contextmanager
def recomputed(model: PreTrainedModel, *, wanted: bool) -> Iterator[None]:
    """Where it is wanted, in forward and backward passes meanwhile."""
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)] if wanted else []
    for layer in layers:
        layer.gradient_checkpointing, layer.training = True, True
        layer._gradient_checkpointing_func = _checkpoints_of(layer)  # type: ignore[assignment]
    try:
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing, layer.training = False, False


def _checkpoints_of(layer: GradientCheckpointingLayer) -> Callable[..., Tensor]:
    """What runs a layer that is to be recomputed.  Only a layer in training mode is; within it the base's own dropout stays off."""

    def computed(function: Callable[..., Tensor], *args: object) -> Tensor:
        def in_eval_mode(*given: object) -> Tensor:
            layer.training = False
            try:
                return function(*given)
            finally:
                layer.training = True

        result: Tensor = torch.utils.checkpoint.checkpoint(in_eval_mode, *args, use_reentrant=False)
        return result

    return computed
