"""Where a worker works: its run folder, device and memory floor, as every role is given them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    run_folder: Path
    device: str
    """`cpu`, `mps` (Apple's GPU), or `gpu0`: the index that the user knows; the process itself sees that GPU alone, as cuda:0."""
    threads: int = 1
    floor_bytes: int = 0
    """Resident memory after the imports; peaks are reported above it."""

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    @property
    def on_cuda(self) -> bool:
        return self.device.startswith("gpu")

    @property
    def torch_device(self) -> str:
        return "cuda:0" if self.on_cuda else self.device

    def relative(self, path: Path) -> str:
        return str(path.relative_to(self.run_folder))

    def stream_folder(self, stream: str) -> Path:
        return self.run_folder / "streams" / stream
