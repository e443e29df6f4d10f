"""Bytes of an optimizer's state for one tensor, as torch and bitsandbytes keep it."""

from __future__ import annotations

from math import prod

from swarm.kinds import Shape

FP32 = 4
SMALL_ELEMENTS = 4096
"""bitsandbytes keeps the state of smaller tensors in fp32 (`min_8bit_size`)."""
PAGED_ON_CPU = "there is no GPU here, so nothing is paged: its state stays in memory"
BLOCK_ELEMENTS = 256
"""Elements that share an fp32 constant in bitsandbytes' 8-bit states."""


def moment_bytes(shape: Shape, bits: int) -> float:
    """One number per element."""
    elements = prod(shape)
    if bits == 8 and elements >= SMALL_ELEMENTS:
        return elements * (1 + FP32 / BLOCK_ELEMENTS)
    return elements * FP32
