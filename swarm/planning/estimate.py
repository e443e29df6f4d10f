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

from swarm.errors import UserError
from swarm.settings import StreamSettings

NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
"""4-bit values, an 8-bit constant per 64 of them, and one fp32 per 256 constants: 4.127 (QLoRA, arXiv 2305.14314, section 3)."""
FP32, HALF = 4, 2
SMALL_ELEMENTS = 4096
"""bitsandbytes keeps the state of smaller tensors in fp32 (`min_8bit_size`)."""
BLOCK_8BIT = 256
"""Elements that share an fp32 constant in bitsandbytes' 8-bit states."""
LOGITS_ROWS, LOGITS_COLUMNS = 4096, 32768
"""TRL 1.16 makes logits in tiles of so many tokens and words (trl/kernels/chunked_logprob.py, trl/trainer/utils.py)."""
JUDGED_TOKENS, JUDGED_LOGITS_BYTES = 4096, 512 << 20
"""Bounds of one batch of held-out rows in validator and evaluator."""

HEADER_BYTES_AT_MOST = 100_000_000
"""The safetensors format's own limit."""
TABLES = re.compile(r"(?:^|\.)(?:embed_tokens|embeddings?|embed_\w+|wte|wpe|lm_head|\w*experts)(?:\.|$)")
"""Weights of two dimensions that are no linear layer to `all-linear`; experts are fused into one tensor when loaded."""


# ---- the base --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer."""

    name: str
    inputs: int
    outputs: int

    @property
    def elements(self) -> int:
        return self.inputs * self.outputs


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """The shape of a base model, as its folder tells it."""

    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate_size: int
    vocabulary: int
    parameters: int
    linears: tuple[Linear, ...]
    """Every linear layer except the head."""
    tied: bool = False
    """The head is the embedding."""
    context_tokens: int | None = None

    @classmethod
    def read(cls, folder: Path) -> BaseFacts:
        """From config.json and, where there are any, the headers of its safetensors files.

        Raises UserError.
        """
        config = _object(folder / "config.json")
        shape = config.get("text_config") or config  # models with images keep the language model one level down
        try:
            return cls.of(shape, {} if "quantization_config" in config else tensors(folder))
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            what = f"{folder / 'config.json'} does not tell the model's shape ({error})"
            raise UserError("base_model", what, "take a causal language model that transformers knows") from error

    @classmethod
    def of(cls, config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]) -> BaseFacts:
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
        return cls(
            hidden_size=hidden, layers=layers, heads=heads, kv_heads=kv_heads, head_size=head_size, intermediate_size=int(inner),
            vocabulary=vocabulary, parameters=counted, linears=linears, tied=tied,
            context_tokens=config.get("max_position_embeddings") or config.get("n_positions"),
        )  # fmt: skip

    @property
    def head(self) -> Linear:
        return Linear("lm_head", self.hidden_size, self.vocabulary)


HIDDEN, HEADS, LAYERS = (
    ("hidden_size", "n_embd", "d_model"),
    ("num_attention_heads", "n_head"),
    ("num_hidden_layers", "n_layer"),
)


def _first(config: Mapping[str, Any], *keys: str) -> int:
    return int(next((config[key] for key in keys if config.get(key)), None) or config[keys[0]])


def linears_of(shapes: Mapping[str, Sequence[int]]) -> tuple[Linear, ...]:
    """The linear layers among stored weights; their shape is (outputs, inputs)."""
    found = [
        (name.removesuffix(".weight"), shape)
        for name, shape in sorted(shapes.items())
        if name.endswith(".weight") and len(shape) == 2
    ]
    return tuple(Linear(name, shape[1], shape[0]) for name, shape in found if not TABLES.search(name))


def _llama_linears(hidden: int, layers: int, wide: int, narrow: int, inner: int) -> tuple[Linear, ...]:
    sizes = {
        "self_attn.q_proj": (hidden, wide), "self_attn.k_proj": (hidden, narrow), "self_attn.v_proj": (hidden, narrow),
        "self_attn.o_proj": (wide, hidden), "mlp.gate_proj": (hidden, inner), "mlp.up_proj": (hidden, inner), "mlp.down_proj": (inner, hidden),
    }  # fmt: skip
    return tuple(
        Linear(f"model.layers.{layer}.{name}", *size) for layer in range(layers) for name, size in sizes.items()
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


def estimate(base: BaseFacts, settings: StreamSettings, *, on_gpu: bool = True) -> Need:
    """On a CPU everything is fp32; on a GPU bf16, unless `bf16: false`.

    Raises UserError where `lora_target_modules` matches no layer.
    """
    width = HALF if on_gpu and settings.bf16 is not False else FP32
    targets = targeted(base, settings.lora_target_modules)
    trainable = parameters_of(targets, settings)
    adapter = trainable * FP32  # PEFT and the trainer keep A and B in fp32 whatever the base is in
    weights, largest = weights_of(base, settings, width), max(linear.elements for linear in targets)
    training, judging = activations_of(base, targets, settings, width), _judging(base, width)
    passing = (width if settings.adapter == "qlora" else 0) + (3 * FP32 if settings.use_dora else 0)
    return Need(
        trainable=trainable,
        weights=weights,
        adapter=adapter,
        gradients=adapter,
        moments=moments_of(targets, settings),
        activations=max(training, judging) if settings.eval_steps else training,
        overhead=largest * passing + adapter,
        judging=weights + adapter + judging + largest * passing,
    )


def targeted(base: BaseFacts, wanted: str | list[str]) -> list[Linear]:
    """The layers that get an adapter, by PEFT's rules: a list names the ends of names, a text is a pattern of whole names.

    Raises UserError where nothing matches.
    """
    if wanted == "all-linear":
        return list(base.linears)
    try:
        found = [linear for linear in (*base.linears, base.head) if _matches(linear.name, wanted)]
    except re.error as error:
        raise UserError(
            "lora_target_modules", f"{wanted!r} is no pattern ({error})", "write all-linear, or a list of names"
        ) from error
    if not found:
        have = dict.fromkeys(linear.name.rpartition(".")[2] for linear in base.linears)
        raise UserError(
            "lora_target_modules",
            f"{wanted} matches no layer of the base",
            f"its layers are {', '.join(have)}; or write all-linear",
        )
    return found


def _matches(name: str, wanted: str | list[str]) -> bool:
    if isinstance(wanted, str):
        return re.fullmatch(wanted, name) is not None
    return any(name == end or name.endswith(f".{end}") for end in wanted)


def parameters_of(targets: Sequence[Linear], settings: StreamSettings) -> int:
    """A is (r, inputs), B is (outputs, r) (LoRA, arXiv 2106.09685); DoRA adds a magnitude per output (arXiv 2402.09353)."""
    return sum(settings.lora_r * (t.inputs + t.outputs) + (t.outputs if settings.use_dora else 0) for t in targets)


def weights_of(base: BaseFacts, settings: StreamSettings, width: int) -> int:
    if settings.adapter != "qlora":
        return base.parameters * width
    quantised = sum(linear.elements for linear in base.linears)
    return round(quantised * NF4_BITS / 8) + (base.parameters - quantised) * width


def moments_of(targets: Sequence[Linear], settings: StreamSettings) -> int:
    """State of the optimizer for A, B and magnitudes, tensor by tensor."""
    sizes = [(rows, settings.lora_r) for t in targets for rows in (t.inputs, t.outputs)]
    sizes += [(t.outputs, 1) for t in targets if settings.use_dora]
    return round(sum(_state_of(rows, columns, settings.optimizer) for rows, columns in sizes))


def _state_of(rows: int, columns: int, optimizer: str) -> float:
    elements = rows * columns
    in_8bit = elements * (1 + FP32 / BLOCK_8BIT) if elements >= SMALL_ELEMENTS else elements * FP32
    match optimizer:
        case "adamw_torch":
            return elements * FP32 * 2
        case "adamw_8bit" | "paged_adamw_8bit":
            return in_8bit * 2
        case "lion_32bit":
            return elements * FP32
        case "lion_8bit":
            return in_8bit
        case "adafactor":  # a row and a column instead of the matrix (arXiv 1804.04235)
            return (rows + columns) * FP32
        case _:  # sgd without momentum
            return 0


def activations_of(base: BaseFacts, targets: Sequence[Linear], settings: StreamSettings, width: int) -> int:
    """What the forward pass keeps for the backward one, one micro-batch at its full length.

    Counted on transformers 5.23 with PEFT 0.21 (tests/swarm/placement/test_memory.py counts again): per token and layer
    8 hidden + 4 intermediate values, the inputs of A, r values per target; DoRA keeps every target's output twice.
    """
    tokens = settings.micro_batch_size * settings.sequence_len
    layers = base.layers
    per_layer: float = (8 * max(base.hidden_size, base.heads * base.head_size) + 4 * base.intermediate_size) * width
    per_layer += settings.sequence_len * width + (base.heads + 2) * FP32  # attention's mask and log-sums; norms' scales
    inputs, outputs = (sum(getattr(t, side) for t in targets) / layers for side in ("inputs", "outputs"))
    per_layer += len(targets) / layers * settings.lora_r * FP32
    per_layer += inputs * width if width == HALF or settings.lora_dropout else 0  # cast or dropped out, they are copies
    per_layer += inputs * FP32 if settings.lora_dropout else 0  # dropout's mask
    per_layer += 2 * outputs * width if settings.use_dora else 0
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
