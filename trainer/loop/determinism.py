"""Kernels of a GPU that add up in one order only, so that the same pass gives the same bits; on a CPU all of them do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def one_order(device: torch.device, *, wanted: bool) -> Iterator[None]:
    """Where it is wanted.  An operation that has no such kernel raises RuntimeError, which names it.

    cuBLAS needs CUBLAS_WORKSPACE_CONFIG in the environment by its first call: `trainer.device` sets it.
    """
    if not wanted or device.type != "cuda":
        yield
        return
    settings: Any = torch.utils.deterministic  # a property of a module, which has no type
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fills = settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    settings.fill_uninitialized_memory = False  # no result depends on it, and it writes every new tensor twice
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        settings.fill_uninitialized_memory = fills
