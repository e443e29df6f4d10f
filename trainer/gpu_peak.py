"""The peak of this process's GPU memory, in bytes.  torch's counter begins anew for whoever measures a part; the highest one counts."""

from __future__ import annotations

import torch


class GpuPeak:
    def __init__(self) -> None:
        self._before = 0
        """The highest of the parts that are over."""

    @property
    def bytes(self) -> int:
        return max(self._before, torch.cuda.max_memory_allocated())

    def forget(self) -> None:
        """It counts from here."""
        self._before = 0
        torch.cuda.reset_peak_memory_stats()

    def begin_part(self) -> None:
        """Torch's counter counts from here."""
        self._before = self.bytes
        torch.cuda.reset_peak_memory_stats()


GPU_PEAK = GpuPeak()
