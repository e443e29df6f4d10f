"""The device that a worker was given, as far as torch is imported at all."""

from __future__ import annotations

import gc
import sys

from swarm.errors import UserError


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
