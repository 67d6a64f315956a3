"""How much memory a run has taken."""

from __future__ import annotations

import psutil
import torch


class PeakMemory:
    """The most memory in use at the moments when `look` was called, or where the device counts for itself, ever.

    Args:
        device: where the model runs. On the CPU the process's own memory is looked at.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.peak = 0
        self._counter = getattr(torch.get_device_module(device), "max_memory_allocated", None)
        if self._counter is not None:
            torch.get_device_module(device).reset_peak_memory_stats(device)

    def look(self) -> int:
        used = psutil.Process().memory_info().rss if self._counter is None else self._counter(self.device)
        self.peak = max(self.peak, used)
        return self.peak
