"""The device that a process computes on, as far as torch is imported at all."""

from __future__ import annotations

import gc
import os
import re
import sys
from pathlib import Path

from swarm.errors import UserError
from trainer.place import Place


def set_environment(device: str | None = None) -> None:
    """Before torch is imported: the process sees the one GPU that the user named."""
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # the driver's order, in which users count
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # nothing compiles here; bitsandbytes would import the compiler
    if device and device.startswith("gpu"):
        os.environ["CUDA_VISIBLE_DEVICES"] = device.removeprefix("gpu")


def place_of(device: str | None, folder: Path = Path()) -> Place:
    """Where a command computes: on the device that the user named, or on a GPU where there is one.  Raises UserError."""
    import torch

    is_there = torch.cuda.is_available()
    if device is not None and re.fullmatch(r"cpu|gpu\d+", device) is None:
        raise UserError("--device", f"{device!r} is no device", "take cpu, or gpu0 as `swarm env` lists them")
    if device not in {None, "cpu"} and not is_there:
        what = f"{device} is not there: torch {torch.__version__} sees no GPU"
        raise UserError("--device", what, "take cpu, or a GPU that `swarm env` lists")
    return Place(folder, device or ("gpu0" if is_there else "cpu"))


def free_memory() -> None:
    """Free the memory of the last task; without torch there is none on a GPU."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def refuse_missing_gpu(device: str) -> None:
    torch = sys.modules.get("torch")
    if device != "cpu" and torch is not None and not torch.cuda.is_available():
        raise UserError(
            "--device", f"{device} cannot be used: torch {torch.__version__} sees no GPU", "install a CUDA build"
        )


def gpu_name(device: str) -> str | None:
    torch = sys.modules.get("torch")
    return str(torch.cuda.get_device_name(0)) if torch is not None and device != "cpu" else None
