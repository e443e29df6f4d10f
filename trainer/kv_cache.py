"""A key-value cache that grows by half when it is full, so that a token's keys and values are written in place.

transformers' dynamic cache copies all keys and values at every token, which takes most of the time where a batch has many rows; its
static one attends to its whole length at every token.  For greedy and sampled decoding: beams reorder rows, which is not done here.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

FIRST_TOKENS = 64
"""Room for answers beside the prompt at first."""
LOOK_AT_THE_PROMPT = (
    "encoder_no_repeat_ngram_size", "encoder_repetition_penalty", "begin_suppress_tokens", "min_new_tokens", "exponential_decay_length_penalty",
    "forced_bos_token_id", "guidance_scale",
)  # fmt: skip
"""Of a generation config: what follows from where the prompt ends, which a second call takes to be elsewhere."""


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values of one layer: views, as long as what was written, of tensors with more room."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.rooms: tuple[Tensor, ...] = _with_room(key_states), _with_room(value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if end > self.rooms[0].shape[-2]:
            self.rooms = tuple(_grown(room, start, end) for room in self.rooms)
        for room, states in zip(self.rooms, (key_states, value_states), strict=True):
            room[..., start:end, :] = states
        self.keys, self.values = (room[..., :end, :] for room in self.rooms)  # (B, heads, T, d)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows."""
        length = self.get_seq_length()
        self.rooms = tuple(room[indices] for room in self.rooms)
        self.keys, self.values = (room[..., :length, :] for room in self.rooms)


def _with_room(states: Tensor) -> Tensor:
    return states.new_empty(*states.shape[:-2], states.shape[-2] + FIRST_TOKENS, states.shape[-1])


def _grown(room: Tensor, written: int, tokens: int) -> Tensor:
    grown = room.new_empty(*room.shape[:-2], tokens + tokens // 2, room.shape[-1])
    grown[..., :written, :] = room[..., :written, :]
    return grown


def growing_cache(model: PreTrainedModel) -> dict[str, DynamicCache]:
    """An argument for one call of `generate`; nothing for a model that makes a cache of its own kind.

    Layers of other kinds (sliding windows, linear attention) stay transformers' own.
    """
    cache = DynamicCache(config=model.config)
    grows = [type(layer) is DynamicLayer for layer in cache.layers]
    if not any(grows) or not _takes_cache(model):
        return {}
    cache.layers = [
        GrowingLayer() if plain else layer  # type: ignore[no-untyped-call]
        for plain, layer in zip(grows, cache.layers, strict=True)
    ]
    return {"past_key_values": cache}


def _takes_cache(model: PreTrainedModel) -> bool:
    """The first GPT keeps none, whatever it says."""
    supported = model._supports_default_dynamic_cache()  # type: ignore[operator]  # GenerationMixin has it
    inner: Any = model
    if hasattr(inner, "get_base_model"):  # of PEFT
        inner = inner.get_base_model()
    return bool(supported) and "past_key_values" in inspect.signature(inner.forward).parameters


def can_select(model: PreTrainedModel) -> bool:
    """Whether rows that have ended can leave this model's cache, and the others go on as if in one call of `generate`.

    Qwen-VL and its like keep rotary offsets of their own for each row; some settings of a base's generation config look at its prompt.
    """
    cache, config = growing_cache(model).get("past_key_values"), model.generation_config
    selects = cache is not None and all(hasattr(layer, "batch_select_indices") for layer in cache.layers)
    offsets = any(hasattr(module, "rope_deltas") for module in (model, model.base_model))
    return selects and not offsets and not any(getattr(config, name, None) for name in LOOK_AT_THE_PROMPT)
