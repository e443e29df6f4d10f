"""Kernels of a GPU that add up in one order only, so that the same pass gives the same bits; on a CPU all of them do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

VARIABLE = "CUBLAS_WORKSPACE_CONFIG"


@cache
def allow_one_order() -> None:
    """To be called before the first matrix product of a process on a GPU.

    torch looks once, at that product, whether the variable allows deterministic ones.  While it is set torch parses it at every
    product, which costs more than the launch; the workspaces that it names are torch's own on these GPUs with or without it.
    """
    if VARIABLE in os.environ:
        return
    os.environ[VARIABLE] = ":4096:8"
    try:
        one = torch.ones(1, 1, device="cuda")
        torch.mm(one, one)
    finally:
        del os.environ[VARIABLE]


@contextmanager
def one_order(device: torch.device, *, wanted: bool) -> Iterator[None]:
    """Where it is wanted.  An operation that has no such kernel raises RuntimeError, which names it; so does a matrix product in a
    process whose first one was computed before `allow_one_order`.
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
