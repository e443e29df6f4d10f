"""What this machine has to compute with: GPUs as NVIDIA's driver tells them, cores and free memory; nothing is decided here.

What the system does not tell is None, never 0.
"""

from __future__ import annotations

import contextlib
import os
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
    """The driver's: what nvidia-smi shows and what CUDA_VISIBLE_DEVICES takes with CUDA_DEVICE_ORDER=PCI_BUS_ID."""
    uuid: str
    name: str
    total_bytes: int | None
    free_bytes: int | None


@dataclass(frozen=True, slots=True)
class Devices:
    """What a run may use."""

    gpus: tuple[Gpu, ...]
    cores: int
    free_memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is there of what the config wants, and what is not."""

    devices: Devices
    lacking: tuple[int, ...] = ()
    """Indices of GPUs that it names and nobody sees."""
    visible: tuple[int, ...] = ()

    def complaint(self) -> tuple[str, str]:
        """What is wrong and the fix, where something is lacking."""
        named = ", ".join(map(str, self.lacking))
        what = f"there is no GPU {named}" if len(self.lacking) == 1 else f"there are no GPUs {named}"
        if self.visible:
            return what, f"this machine has {', '.join(map(str, self.visible))}"
        return what, "no GPU is to be seen here: write `gpus: all` or `none`"


def chosen(placement: Placement) -> Chosen:
    there = found() if placement.gpus != "none" else []
    have = {gpu.index: gpu for gpu in there}
    lacking: list[int] = []
    if isinstance(placement.gpus, list):
        named = dict.fromkeys(placement.gpus)
        there = [have[index] for index in named if index in have]
        lacking = [index for index in named if index not in have]
    return Chosen(Devices(tuple(there), cores(), free_memory_bytes()), tuple(lacking), tuple(have))


def devices(placement: Placement) -> Devices:
    """What is there of what the config wants.

    Raises UserError where it names GPUs that are not there.
    """
    made = chosen(placement)
    if made.lacking:
        raise UserError("placement.gpus", *made.complaint())
    return made.devices


# ---- GPUs ------------------------------------------------------------------------------------------------------------


def found(visible: str | None = None) -> list[Gpu]:
    """GPUs that CUDA may use here; none without a driver.  `visible` stands for CUDA_VISIBLE_DEVICES."""
    with _driver() as nvml:
        every = [_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())] if nvml else []
    return seen(every, os.environ.get("CUDA_VISIBLE_DEVICES") if visible is None else visible)


def seen(every: list[Gpu], visible: str | None) -> list[Gpu]:
    """As CUDA reads the variable: indices or beginnings of UUIDs, in that order, up to the first that names nothing."""
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
    memory = _told(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    return Gpu(
        index=index,
        uuid=_text(_told(nvml, nvml.nvmlDeviceGetUUID, handle)),
        name=_text(_told(nvml, nvml.nvmlDeviceGetName, handle)),
        total_bytes=None if memory is None else int(memory.total),
        free_bytes=None if memory is None else int(memory.free),
    )


def _told(nvml: Any, question: Any, handle: Any) -> Any:
    """The driver's answer; None where it is "not supported" (memory of GPUs that share the host's, for one)."""
    try:
        return question(handle)
    except nvml.NVMLError:
        return None


def _text(value: str | bytes | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""
