"""The tensors of an adapter's folder: one place that refuses a file that is missing, torn, empty or not finite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from swarm.errors import UserError
from swarm.weights import ADAPTER


@contextmanager
def opened(folder: Path) -> Iterator[Any]:
    """Safetensors' open file.  Raises UserError where there is none that can be read."""
    if not (folder / ADAPTER).is_file():
        raise UserError(
            str(folder), f"has no {ADAPTER}", "name the folder of an adapter; .bin and .pt files are not read"
        )
    try:
        with safe_open(str(folder / ADAPTER), "pt") as file:
            yield file
    except SafetensorError as error:
        raise UserError(str(folder), f"{ADAPTER} cannot be read ({error})", "download or copy it again") from error


def names_of(folder: Path) -> list[str]:
    """Raises UserError where the file holds no tensor, too."""
    with opened(folder) as file:
        names = list(file.keys())
    if not names:
        raise UserError(str(folder), f"{ADAPTER} holds no tensors", "save the adapter again")
    return names


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """By name.  Raises UserError where a value is not finite, too: nothing that is computed with it would be."""
    names = names_of(folder)
    with opened(folder) as file:
        tensors = {name: file.get_tensor(name) for name in names}
    for name, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value.float()).all():
            raise UserError(str(folder), f"{name} has values that are not finite", "take an earlier checkpoint")
    return tensors
