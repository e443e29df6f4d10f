"""Bytes that a stream needs on its device, estimated from its settings and the shape of its base; nothing is loaded or measured.

Figures are for a process of its own, without the process's own floor (imports, CUDA context): `placement` adds that.
Sizes of weights, adapter and optimizer are exact for transformer bases; activations are counted for Llama-like layers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from swarm import kinds
from swarm.errors import UserError
from swarm.facts import BaseFacts, Module
from swarm.kinds import AdapterKind
from swarm.settings import Part, StreamSettings

NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
"""4-bit values, an 8-bit constant per 64 of them, and one fp32 per 256 constants: 4.127 (QLoRA, arXiv 2305.14314, section 3)."""
FP32, HALF = 4, 2
LOGITS_ROWS, LOGITS_COLUMNS = 4096, 32768
"""TRL 1.16 makes logits in tiles of so many tokens and words (trl/kernels/chunked_logprob.py, trl/trainer/utils.py)."""
JUDGED_TOKENS, JUDGED_LOGITS_BYTES = 4096, 512 << 20
"""Bounds of one batch of held-out rows in validator and evaluator."""

HEADER_BYTES_AT_MOST = 100_000_000
"""The safetensors format's own limit."""
TABLES = re.compile(r"(?:^|\.)(?:embed_tokens|embeddings?|embed_\w+|wte|wpe|lm_head|\w*experts)(?:\.|$)")
"""Weights of two dimensions that are no linear layer to `all-linear`; experts are fused into one tensor when loaded."""


# ---- the base --------------------------------------------------------------------------------------------------------


def read_base(folder: Path) -> BaseFacts:
    """From config.json and, where there are any, the headers of its safetensors files.

    Raises UserError.
    """
    config = _object(folder / "config.json")
    shape = config.get("text_config") or config  # models with images keep the language model one level down
    try:
        return base_of(shape, {} if "quantization_config" in config else tensors(folder))
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        what = f"{folder / 'config.json'} does not tell the model's shape ({error})"
        raise UserError("base_model", what, "take a causal language model that transformers knows") from error


def base_of(config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]) -> BaseFacts:
    """From a config's values and the shapes of the stored weights; without those, a Llama-like model is assumed.

    Raises KeyError, TypeError or ValueError on a config of another kind.
    """
    hidden, heads, layers = (_first(config, *keys) for keys in (HIDDEN, HEADS, LAYERS))
    inner = config.get("intermediate_size") or config.get("n_inner") or 4 * hidden
    kv_heads = int(config.get("num_key_value_heads") or heads)
    head_size, vocabulary = int(config.get("head_dim") or hidden // heads), int(config["vocab_size"])
    tied = bool(config.get("tie_word_embeddings", not shapes))
    linears = linears_of(shapes) or _llama_linears(hidden, layers, heads * head_size, kv_heads * head_size, inner)
    counted = sum(map(prod, shapes.values())) or (
        sum(linear.elements for linear in linears)
        + vocabulary * hidden * (1 if tied else 2)
        + (2 * layers + 1) * hidden
    )
    return BaseFacts(
        hidden_size=hidden, layers=layers, heads=heads, head_size=head_size, intermediate_size=int(inner),
        vocabulary=vocabulary, parameters=counted, tied=tied,
        modules=(*linears, Module("lm_head", "linear", hidden, vocabulary, quantised=False)),
        context_tokens=config.get("max_position_embeddings") or config.get("n_positions"),
    )  # fmt: skip


HIDDEN, HEADS, LAYERS = (
    ("hidden_size", "n_embd", "d_model"),
    ("num_attention_heads", "n_head"),
    ("num_hidden_layers", "n_layer"),
)


def _first(config: Mapping[str, Any], *keys: str) -> int:
    return int(next((config[key] for key in keys if config.get(key)), None) or config[keys[0]])


def linears_of(shapes: Mapping[str, Sequence[int]]) -> tuple[Module, ...]:
    """The linear layers among stored weights; their shape is (outputs, inputs)."""
    found = [
        (name.removesuffix(".weight"), shape)
        for name, shape in sorted(shapes.items())
        if name.endswith(".weight") and len(shape) == 2
    ]
    return tuple(Module(name, "linear", shape[1], shape[0]) for name, shape in found if not TABLES.search(name))


def _llama_linears(hidden: int, layers: int, wide: int, narrow: int, inner: int) -> tuple[Module, ...]:
    sizes = {
        "self_attn.q_proj": (hidden, wide), "self_attn.k_proj": (hidden, narrow), "self_attn.v_proj": (hidden, narrow),
        "self_attn.o_proj": (wide, hidden), "mlp.gate_proj": (hidden, inner), "mlp.up_proj": (hidden, inner), "mlp.down_proj": (inner, hidden),
    }  # fmt: skip
    return tuple(
        Module(f"model.layers.{layer}.{name}", "linear", *size)
        for layer in range(layers)
        for name, size in sizes.items()
    )


def tensors(folder: Path) -> dict[str, list[int]]:
    """Names and shapes of all tensors in a folder's safetensors files; empty without any.

    Raises UserError on a file that is none.
    """
    files = sorted(folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = [folder / name for name in sorted(set(_object(index).get("weight_map", {}).values()))]
    return {name: about["shape"] for file in files for name, about in _header(file).items() if name != "__metadata__"}


def _header(file: Path) -> dict[str, Any]:
    """github.com/huggingface/safetensors, "Format": 8 bytes of length, little-endian, then so much JSON."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            made = json.loads(opened.read(length)) if length <= HEADER_BYTES_AT_MOST else None
    except (OSError, ValueError) as error:
        raise UserError("base_model", f"{file} cannot be read ({error})", "download or copy the model again") from error
    if not isinstance(made, dict):
        raise UserError("base_model", f"{file} is no safetensors file", "download or copy the model again")
    return made


def _object(path: Path) -> dict[str, Any]:
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            "base_model", f"{path} cannot be read ({error})", "name a folder that save_pretrained wrote"
        ) from error
    if not isinstance(made, dict):
        raise UserError("base_model", f"{path} is no JSON object", "name a folder that save_pretrained wrote")
    return made


# ---- the stream ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Need:
    """What a stream needs, in bytes."""

    trainable: int
    """Parameters, not bytes."""
    weights: int
    """The frozen base."""
    adapter: int
    gradients: int
    moments: int
    """The optimizer's state."""
    activations: int
    overhead: int
    """Buffers that come and go: weights on their way out of NF4 or through DoRA, the optimizer's temporaries."""
    judging: int = 0
    """What validator or evaluator need for the same stream, base included."""

    @property
    def total(self) -> int:
        """Of training."""
        return self.weights + self.adapter + self.gradients + self.moments + self.activations + self.overhead


def estimate(base: BaseFacts, settings: Part, *, on_gpu: bool = True) -> Need:
    """On a CPU everything is fp32; on a GPU bf16, unless `bf16: false`.

    Raises UserError where this base cannot have such an adapter.
    """
    width = HALF if on_gpu and settings.bf16 is not False else FP32
    kind, optimizer = kinds.adapter(settings.adapter), kinds.optimizer(settings.optimizer)
    shapes = kind.tensors(base, settings).values()
    trainable = sum(map(prod, shapes))
    adapter = trainable * FP32  # PEFT and the trainer keep the adapter in fp32 whatever the base is in
    weights = weights_of(base, kind.quantisation, width)
    training, judging = activations_of(base, kind, settings, width), _judging(base, width)
    passing = _dequantised(base, kind.quantisation, width) + kind.overhead_bytes(base, settings, width)
    return Need(
        trainable=trainable,
        weights=weights,
        adapter=adapter,
        gradients=adapter,
        moments=round(sum(optimizer.state_bytes(shape) for shape in shapes)),
        activations=max(training, judging) if _judges_itself(settings) else training,
        overhead=passing + adapter,
        judging=weights + adapter + judging + passing,
    )


def _judges_itself(settings: Part) -> bool:
    return isinstance(settings, StreamSettings) and settings.eval_steps is not None


def weights_of(base: BaseFacts, quantisation: str | None, width: int) -> int:
    """The frozen base in bytes."""
    if quantisation is None:
        return base.parameters * width
    quantised = sum(module.elements for module in base.modules if module.quantised)
    return round(quantised * NF4_BITS / 8) + (base.parameters - quantised) * width


def _dequantised(base: BaseFacts, quantisation: str | None, width: int) -> int:
    """One matrix at a time is turned back into whole numbers."""
    quantised = [module.elements for module in base.modules if module.quantised]
    return max(quantised, default=0) * width if quantisation else 0


def activations_of(base: BaseFacts, kind: AdapterKind[Any], settings: Part, width: int) -> int:
    """What the forward pass keeps for the backward one, one micro-batch at its full length.

    Counted on transformers 5.23 with PEFT 0.21 (tests/trainer count again): per token and layer 8 hidden + 4 intermediate
    values, and what the adapter keeps.
    """
    tokens = settings.micro_batch_size * settings.sequence_len
    layers = base.layers
    per_layer: float = (8 * max(base.hidden_size, base.heads * base.head_size) + 4 * base.intermediate_size) * width
    per_layer += settings.sequence_len * width + (base.heads + 2) * FP32  # attention's mask and log-sums; norms' scales
    per_layer += kind.activation_bytes(base, settings, width) / layers
    kept = base.hidden_size * width * layers + per_layer if settings.gradient_checkpointing else per_layer * layers
    moving = (
        4 * base.hidden_size + 2 * base.intermediate_size
    ) * width + 4 * base.hidden_size * FP32  # gradients; the last hidden state
    tile = min(tokens, LOGITS_ROWS) * min(base.vocabulary, LOGITS_COLUMNS) * FP32 * 2
    return round(tokens * (kept + moving) + tile)


def _judging(base: BaseFacts, width: int) -> int:
    """Logits of one batch, twice, and one layer's values: nothing is kept for a backward pass."""
    logits = min(JUDGED_LOGITS_BYTES, JUDGED_TOKENS * base.vocabulary * FP32)
    return 2 * logits + JUDGED_TOKENS * (8 * base.hidden_size + 4 * base.intermediate_size) * width
