"""Which streams may be trained together by one process: those that put the same frozen base into memory; pure."""

from __future__ import annotations

from typing import NamedTuple

from swarm.settings import StreamSettings

SHARED_LOOP_METHODS = frozenset({"sft"})
"""Methods whose loss the shared training loop computes; the others need TRL's trainers, one stream a process."""


class BatchKey(NamedTuple):
    """What streams must have in common to be trained together."""

    base_model: str
    trust_remote_code: bool
    quantisation: str
    """Of the base: `nf4` or `none`."""
    dtype: str
    """In which it computes: `auto` (bfloat16 where the GPU has it), `bfloat16` or `float32`."""
    engines: frozenset[str]
    """Training engines that the method allows."""


def batch_key(settings: StreamSettings) -> BatchKey:
    return BatchKey(
        base_model=settings.base_model,
        trust_remote_code=settings.trust_remote_code,
        quantisation="nf4" if settings.adapter == "qlora" else "none",
        dtype="auto" if settings.bf16 == "auto" else "bfloat16" if settings.bf16 else "float32",
        engines=frozenset({"shared", "trl"} if settings.method in SHARED_LOOP_METHODS else {"trl"}),
    )
