"""What making a video costs, counted rather than timed: operations, and the memory alive at once."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count


class Cost(TorchDispatchMode):
    """Counts what is computed inside, on any device.

    Torch's own FlopCounterMode hooks into modules, which forbids gradients for a leaf that a module is given; hence
    only its formulas are used.

    Attributes:
        flops: floating-point operations of matrix products, convolutions and attention, backward passes included.
        alive, peak: bytes of the tensors made inside that are alive, and the most there were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.alive = self.peak = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = _formula(func)
        if formula is None and func is not torch.ops.prim.device.default:
            with self:  # an operation that is made of others is counted by them
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=out)
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


def _formula(func: Any) -> Callable[..., int] | None:
    """Operations of a call, from its arguments and `out_val`; torch's table knows attention on GPUs only."""
    packet = func._overloadpacket
    if packet is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:
        return lambda q, k, v, *_, **__: sdpa_flop_count(q.shape, k.shape, v.shape)
    if packet is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward:
        return lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad.shape, q.shape, k.shape, v.shape)
    return flop_registry.get(packet)


def measure(work: Callable[[], object]) -> dict[str, float]:
    """Operations of `work`, and the peak of the tensors alive in it, in bytes, without what was there before (the
    weights)."""
    with Cost() as cost:
        work()
    return {"flops": float(cost.flops), "memory": float(cost.peak)}
