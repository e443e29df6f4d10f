"""Bytes that a stream needs on its device, estimated from its settings and the shape of its base; nothing is loaded or measured.

Figures are for a process of its own, without the process's own floor (imports, CUDA context): `placement` adds that.
Sizes of weights, adapter and optimizer are exact for transformer bases; activations are counted for Llama-like layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import prod
from typing import Any

from swarm import kinds
from swarm.facts import BaseFacts
from swarm.kinds import AdapterKind
from swarm.policy.batching import engine_of
from swarm.policy.fitting import JUDGED_LOGITS_BYTES, LOGITS_BYTES, full_pass_tokens, judged_tokens
from swarm.settings import Part, StreamSettings

FP32, HALF = 4, 2
CHUNK_VALUE_BYTES = 3 * FP32
"""The shared engine holds logits, their log-softmax and their gradient of a chunk of tokens."""
LOGITS_ROWS, LOGITS_COLUMNS = 4096, 32768
"""TRL 1.16 computes logits in tiles of so many tokens and words (trl/kernels/chunked_logprob.py, trl/trainer/utils.py)."""

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
    """What a micro-batch keeps for the backward pass, and the gradients of one layer."""
    overhead: int
    """Temporary buffers: a weight dequantised from NF4 or merged for DoRA, and the optimizer's."""
    judging: int = 0
    """What validator or evaluator needs for the same stream, base included."""
    logits: int = 0
    """Of the tokens that go through the head at a time."""
    tokens: int = 1
    """Of a micro-batch at full length, or the most of it that are in one pass: what the activations are of."""

    @property
    def shared(self) -> int:
        """What streams of one process that train on one base need once."""
        return self.weights + self.overhead

    @property
    def own(self) -> int:
        """What each of them needs beside it."""
        return self.held + self.passing

    @property
    def held(self) -> int:
        """From step to step."""
        return self.adapter + self.gradients + self.moments

    @property
    def passing(self) -> int:
        """Within a step."""
        return self.activations + self.logits

    @property
    def total(self) -> int:
        """Of training alone."""
        return self.shared + self.own


def of_stream(bases: Mapping[str, BaseFacts], settings: StreamSettings, *, on_gpu: bool = True) -> Need:
    """The sum of its parts; `bases` by `base_model`.

    Raises UserError if a base cannot have the adapter.
    """
    judges, shared = settings.evaluates_itself, engine_of(settings) == "shared"
    needs = [
        estimate(bases[part.base_model], part, on_gpu=on_gpu, judges_itself=judges, shared=shared)
        for part in settings.parts.values()
    ]
    return Need(**{one.name: sum(getattr(need, one.name) for need in needs) for one in fields(Need)})


def estimate(
    base: BaseFacts, settings: Part, *, on_gpu: bool = True, judges_itself: bool = False, shared: bool = False
) -> Need:
    """One part, trained by TRL or by the `shared` engine.  On a CPU everything is fp32; on a GPU of 16 bits, unless `bf16: false`.

    Raises UserError if the base cannot have the adapter.
    """
    width = HALF if on_gpu and (settings.fp16 or settings.bf16 is not False) else FP32
    kind, optimizer = kinds.adapter(settings.adapter), kinds.optimizer(settings.optimizer)
    shapes = kind.trained(base, settings).values()
    trainable = sum(map(prod, shapes))
    stacked = kind.tensors(base, settings).values() if shared else shapes  # fixed rows stand in the stacks too
    adapter = sum(map(prod, stacked)) * FP32  # it is kept in fp32 whatever the base is in
    bits = kind.bits(settings)
    weights = weights_of(base, bits, width)
    tokens = _tokens(settings, on_gpu=on_gpu, shared=shared)
    training = activations_of(base, kind, settings, tokens, width, shared=shared)
    judging, logits = _judging(base, width, on_gpu=on_gpu), _logits(base, tokens, width, shared=shared)
    passing = _dequantised(base, bits, width) + kind.overhead_bytes(base, settings, width)
    return Need(
        trainable=trainable,
        weights=weights,
        adapter=adapter,
        gradients=adapter,
        moments=round(sum(optimizer.state_bytes(shape) for shape in shapes)),
        activations=max(training, judging - logits) if judges_itself else training,
        overhead=passing + adapter,
        judging=weights + adapter + judging + passing,
        logits=logits,
        tokens=tokens,
    )


def weights_of(base: BaseFacts, bits: float | None, width: int) -> int:
    """The frozen base in bytes; `bits` of a quantised weight."""
    if bits is None:
        return base.parameters * width
    quantised = sum(module.elements for module in base.modules if module.quantised)
    return round(quantised * bits / 8) + (base.parameters - quantised) * width


def _dequantised(base: BaseFacts, bits: float | None, width: int) -> int:
    """The largest quantised matrix: one at a time is dequantised."""
    quantised = [module.elements for module in base.modules if module.quantised]
    return max(quantised, default=0) * width if bits else 0


def activations_of(
    base: BaseFacts, kind: AdapterKind[Any], settings: Part, tokens: int, width: int, *, shared: bool = False
) -> int:
    """What the forward pass of so many tokens keeps for the backward pass, and the gradients of one layer.

    Counted with transformers 5.23 and PEFT 0.21, and again by tests/trainer: per token and layer 8 hidden + 4 intermediate
    values, and what the adapter keeps.  On the shared engine gradients come when the logits have gone: only what they take beyond those counts.
    """
    adapters = kind.shared_activation_bytes if shared else kind.activation_bytes
    per_layer: float = (8 * max(base.hidden_size, base.heads * base.head_size) + 4 * base.intermediate_size) * width
    per_layer += (base.heads + 2) * FP32  # attention's log-sums; norms' scales
    per_layer += 0 if shared else settings.sequence_len * width  # attention's mask: the shared engine needs none
    per_layer += adapters(base, settings, width) / base.layers
    moving: float = (4 * base.hidden_size + 2 * base.intermediate_size) * width  # gradients
    moving += 4 * base.hidden_size * FP32  # the last hidden state
    kept: float = per_layer * base.layers
    if settings.gradient_checkpointing:
        kept, moving = base.hidden_size * width * base.layers, moving + per_layer
    moving *= tokens
    return round(tokens * kept + (max(0, moving - _logits(base, tokens, width, shared=True)) if shared else moving))


def _tokens(settings: Part, *, on_gpu: bool, shared: bool) -> int:
    """Of a micro-batch, at most, that are computed at once: TRL computes all of it, the shared engine in passes."""
    whole = settings.batch_size_tokens or settings.micro_batch_size * settings.sequence_len
    return min(whole, max(full_pass_tokens(on_gpu=on_gpu), settings.sequence_len)) if shared else whole


def _logits(base: BaseFacts, tokens: int, width: int, *, shared: bool) -> int:
    if not shared:
        return min(tokens, LOGITS_ROWS) * min(base.embedding_rows, LOGITS_COLUMNS) * FP32 * 2
    values = min(tokens * base.embedding_rows, LOGITS_BYTES // FP32)
    return values * (CHUNK_VALUE_BYTES + (HALF if width == HALF else 0))  # short ones are widened


def _judging(base: BaseFacts, width: int, *, on_gpu: bool) -> int:
    """Logits of one batch, twice, and the values of one layer: nothing is kept for a backward pass."""
    tokens = judged_tokens(on_gpu=on_gpu)
    logits = min(JUDGED_LOGITS_BYTES, tokens * base.embedding_rows * FP32)
    return 2 * logits + tokens * (8 * base.hidden_size + 4 * base.intermediate_size) * width
