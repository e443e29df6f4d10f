"""The device that a process computes on, as far as torch is imported at all."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from swarm.errors import UserError
from trainer.place import Place

if TYPE_CHECKING:
    import torch

WITHOUT_FLOAT64 = frozenset({"mps"})
"""Types of devices on which torch has no float64."""
BFLOAT16_MACOS = 14, 0
"""The first macOS in which MPS has bfloat16, by torch's own message."""


def widest(device: torch.device) -> torch.dtype:
    """In which losses and norms are added up on it."""
    import torch

    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64


def set_environment(device: str | None = None) -> None:
    """Before torch is imported: the process sees the one GPU that the user named."""
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # the driver's order, in which users count
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # nothing compiles here; bitsandbytes would import the compiler
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # what MPS has no kernel for is computed on the CPU
    if device and device.startswith("gpu"):
        os.environ["CUDA_VISIBLE_DEVICES"] = device.removeprefix("gpu")


def place_of(device: str | None, folder: Path = Path()) -> Place:
    """Where a command computes: on the device that the user named, or on a GPU where there is one.  Raises UserError."""
    import torch

    if device is None:
        return Place(
            folder, "gpu0" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    if re.fullmatch(r"cpu|mps|gpu\d+", device) is None:
        raise UserError("--device", f"{device!r} is no device", "take cpu, mps, or gpu0 as `swarm env` lists them")
    if not _is_there(device):
        what = f"{device} is not there: torch {torch.__version__} sees no GPU of this kind"
        raise UserError("--device", what, "take cpu, or a GPU that `swarm env` lists")
    return Place(folder, device)


def _is_there(device: str) -> bool:
    import torch

    return {"cpu": True, "mps": torch.backends.mps.is_available()}.get(device, torch.cuda.is_available())


def has_bfloat16(place: Place) -> bool:
    """Whether bases are computed in it there: a CPU has it and is slower with it."""
    import torch

    if place.on_cuda:
        return bool(torch.cuda.is_bf16_supported())
    return place.on_gpu and torch.backends.mps.is_macos_or_newer(*BFLOAT16_MACOS)


def free_memory() -> None:
    """Free the memory of the last task; without torch there is none on a GPU."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # of glibc alone: what lies free in the heap goes back to the system
        ctypes.CDLL(None).malloc_trim(0)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch is not None and torch.backends.mps.is_available():
        torch.mps.empty_cache()


def refuse_missing_gpu(device: str) -> None:
    torch = sys.modules.get("torch")
    if torch is not None and not _is_there(device):
        fix = "update macOS, or write `gpus: none` under placement" if device == "mps" else "install a CUDA build"
        raise UserError("--device", f"{device} cannot be used: torch {torch.__version__} sees no GPU", fix)


def gpu_name(device: str) -> str | None:
    torch = sys.modules.get("torch")
    if torch is None or device in {"cpu", "mps"}:
        return None
    return str(torch.cuda.get_device_name(0))
