"""Can streams share this base's forward pass?  Two rows are computed alone and together; what must not change, must not change."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer.loop.adapter import Layers
from trainer.loop.head import Head
from trainer.loop.plan import Plan

LENGTHS = (5, 9)
TOLERANCE = 1e-3
"""Relative to the largest value: far above rounding, far below any influence that matters."""


@torch.no_grad()
def unfusable(model: PreTrainedModel, *, linears: bool = True) -> str | None:
    """Why the loop cannot train on this base, or None.  The model is put into eval mode.

    `linears`: adapters are to stand on its linear layers; control adapters stand where all tokens of a row pass in order.
    """
    if linears and _experts(model):
        return "it is a mixture of experts: its router sees the rows of all streams"
    if model.get_output_embeddings() is None or model.base_model is model:  # type: ignore[no-untyped-call]
        return f"{type(model).__name__} has no head over a decoder"
    model.eval()  # type: ignore[no-untyped-call]
    head = Head(model, Plan())
    rows = [torch.arange(3, 3 + length, device=model.device) % head.vocabulary for length in LENGTHS]
    joint = torch.zeros(len(rows), max(LENGTHS), dtype=torch.long, device=model.device)
    for number, row in enumerate(rows):
        joint[number, : len(row)] = row
    seen = _inputs_of_layers(model, head, joint)
    if linears and (odd := next((name for name, size in seen.items() if size != joint.numel()), None)) is not None:
        return f"{odd} is not given one vector for each token"
    together = head.hidden(joint)
    for number, row in enumerate(rows):
        alone = head.hidden(row[None])[0]
        if not _close(alone, together[number, : len(row)]):
            return "a row's hidden states depend on the rows or pads beside it"
        try:
            logits = head.logits(alone)
        except Exception as error:  # a family's own forward pass around its decoder
            return f"its head does not work without its decoder ({type(error).__name__})"
        if not _close(logits, model(input_ids=row[None], use_cache=False).logits[0]):
            return "its logits are not those of its head over its last hidden states"
    return None


def _experts(model: PreTrainedModel) -> bool:
    config = model.config.get_text_config()
    return any(
        getattr(config, key, None)
        for key in ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    )


def _inputs_of_layers(model: PreTrainedModel, head: Head, ids: Tensor) -> dict[str, int]:
    """How many vectors each linear layer was given; 0 where it was not used."""
    linear = Layers(model, Plan()).linear
    seen = dict.fromkeys(linear, 0)

    def note(name: str, x: Tensor) -> None:
        seen[name] += x.numel() // x.shape[-1]

    hooks = [
        module.register_forward_pre_hook(lambda _, args, name=name: note(name, args[0]))
        for name, module in linear.items()
    ]
    try:
        head.hidden(ids)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _close(mine: Tensor, other: Tensor) -> bool:
    return bool((mine - other).abs().max() <= TOLERANCE * other.abs().max())
