"""What making a video costs, counted rather than timed: operations, and the memory alive at once."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all tensors made inside that are alive at once.

    Attributes:
        peak: the most there were, bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        size = storage.nbytes()
        self._seen.add(storage)
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.alive -= size


# torch's counter knows attention on GPUs only.
_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:
        lambda q, k, v, *_, out_shape=None, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward:
        lambda grad, q, k, v, *_, out_shape=None, **__: sdpa_backward_flop_count(grad, q, k, v),
}


def measure(work: Callable[[], object]) -> dict[str, float]:
    """Floating-point operations of `work` (of matrix products, convolutions and attention, the backward pass included),
    and the peak of the tensors alive in it, in bytes, without what was there before (the weights)."""
    flops, memory = FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION), PeakMemory()
    with flops, memory:
        work()
    return {"flops": float(flops.get_total_flops()), "memory": float(memory.peak)}
