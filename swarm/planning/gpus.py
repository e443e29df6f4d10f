"""The GPUs, cores and free memory of this machine; GPUs as NVIDIA's driver reports them, or Apple's.  Decides nothing.

A figure that the system does not report is None, never 0.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from swarm.errors import UserError
from swarm.settings import Placement
from swarm.surroundings import cores, free_memory_bytes


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU."""

    index: int
    """The driver's: as in nvidia-smi, and in CUDA_VISIBLE_DEVICES with CUDA_DEVICE_ORDER=PCI_BUS_ID."""
    uuid: str
    name: str
    total_bytes: int | None
    free_bytes: int | None
    by_mps: bool = False
    """Whether torch computes on it by Metal (MPS) instead of CUDA."""

    @property
    def device(self) -> str:
        """Its name on command lines and in the log."""
        return "mps" if self.by_mps else f"gpu{self.index}"


@dataclass(frozen=True, slots=True)
class Devices:
    """What a run may use."""

    gpus: tuple[Gpu, ...]
    cores: int
    free_memory_bytes: int | None

    def free_bytes_of(self, gpu_index: int | None) -> int | None:
        """Of a GPU, or of this machine; None where it is not known."""
        if gpu_index is None:
            return self.free_memory_bytes
        return next((gpu.free_bytes for gpu in self.gpus if gpu.index == gpu_index), None)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The devices that the config names: those that exist, and those that do not."""

    devices: Devices
    missing: tuple[int, ...] = ()
    """Indices of GPUs that the config names and that do not exist or are hidden by CUDA_VISIBLE_DEVICES."""
    visible: tuple[int, ...] = ()
    """Indices of all GPUs that could be used."""

    def problem(self) -> tuple[str, str]:
        """What is wrong and the fix, if a GPU is missing."""
        named = ", ".join(map(str, self.missing))
        what = f"there is no GPU {named}" if len(self.missing) == 1 else f"there are no GPUs {named}"
        if self.visible:
            return what, f"this machine has {', '.join(map(str, self.visible))}"
        return what, "no GPU is visible here: write `gpus: all` or `none`"


def chosen(placement: Placement) -> Chosen:
    used = found() if placement.gpus != "none" else []
    visible = {gpu.index: gpu for gpu in used}
    missing: list[int] = []
    if isinstance(placement.gpus, list):
        named = dict.fromkeys(placement.gpus)
        used = [visible[index] for index in named if index in visible]
        missing = [index for index in named if index not in visible]
    return Chosen(Devices(tuple(used), cores(), free_memory_bytes()), tuple(missing), tuple(visible))


def devices(placement: Placement) -> Devices:
    """The devices that the config names.  Raises UserError if one of the GPUs does not exist."""
    found_here = chosen(placement)
    if found_here.missing:
        raise UserError("placement.gpus", *found_here.problem())
    return found_here.devices


# ---- GPUs ------------------------------------------------------------------------------------------------------------


def found(visible: str | None = None) -> list[Gpu]:
    """GPUs that torch may use here.  `visible`: used instead of CUDA_VISIBLE_DEVICES."""
    if (platform.system(), platform.machine()) == ("Darwin", "arm64"):
        return [_apples()]
    with _driver() as nvml:
        every = [_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())] if nvml else []
    return seen(every, os.environ.get("CUDA_VISIBLE_DEVICES") if visible is None else visible)


def _apples() -> Gpu:
    """It shares the machine's memory."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Gpu(0, "", "Apple's GPU, by MPS", total, free_memory_bytes(), by_mps=True)


def seen(every: list[Gpu], visible: str | None) -> list[Gpu]:
    """The GPUs that the variable names, as CUDA reads it: indices or beginnings of UUIDs, in its order, up to the first unknown one."""
    if visible is None:
        return every
    chosen: list[Gpu] = []
    for word in (part.strip() for part in visible.split(",")):
        named = [
            gpu
            for gpu in every
            if word and (str(gpu.index) == word or (word.startswith("GPU-") and gpu.uuid.startswith(word)))
        ]
        if len(named) != 1 or named[0] in chosen:
            break
        chosen += named
    return chosen


@contextlib.contextmanager
def _driver() -> Iterator[Any]:
    """NVIDIA's management library, or None where there is none."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except ImportError:
        yield None
        return
    except pynvml.NVMLError:  # no driver, or one that does not answer
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = _asked(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    return Gpu(
        index=index,
        uuid=_text(_asked(nvml, nvml.nvmlDeviceGetUUID, handle)),
        name=_text(_asked(nvml, nvml.nvmlDeviceGetName, handle)),
        total_bytes=None if memory is None else int(memory.total),
        free_bytes=None if memory is None else int(memory.free),
    )


def _asked(nvml: Any, question: Any, handle: Any) -> Any:
    """The driver's answer; None where the driver does not support the question (memory of GPUs that share the host's, for example)."""
    try:
        return question(handle)
    except nvml.NVMLError:
        return None


def _text(value: str | bytes | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""
