"""Which streams one process may train together: those whose frozen bases are the same in memory; pure."""

from __future__ import annotations

from typing import NamedTuple

from swarm import kinds
from swarm.settings import Part, StreamSettings


class BaseKey(NamedTuple):
    """How one base stands in memory."""

    base_model: str
    trust_remote_code: bool
    quantisation: str | None
    dtype: str
    """In which it computes: `auto` (bfloat16 where the GPU has it), `bfloat16` or `float32`."""
    attention: str


class BatchKey(NamedTuple):
    """What streams must have in common to be trained together."""

    bases: tuple[BaseKey, ...]
    """One for each part of the stream."""
    engines: frozenset[str]
    """Training engines that can run the stream's method."""


def batch_key(settings: StreamSettings) -> BatchKey:
    return BatchKey(tuple(map(_base_key, settings.parts.values())), kinds.method(settings.method).engines)


def _base_key(part: Part) -> BaseKey:
    return BaseKey(
        base_model=part.base_model,
        trust_remote_code=part.trust_remote_code,
        quantisation=kinds.adapter(part.adapter).quantisation,
        dtype="auto" if part.bf16 == "auto" else "bfloat16" if part.bf16 else "float32",
        attention=part.attn_implementation,
    )
