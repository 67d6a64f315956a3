"""Counts instead of clocks: operations and bytes of a computation, the same on every machine, also on `meta` tensors.

What is counted follows from the shapes alone, so a model of any size can be measured without its weights, and without
the memory that it would take.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

# PyTorch's formulas lack its own attention on the CPU.
_CPU_ATTENTION: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda q, k, v, *_, **__: sdpa_flop_count(q.shape, k.shape, v.shape)
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad.shape, q.shape, k.shape, v.shape)
    ),
}


@dataclass(frozen=True)
class Cost:
    """What something takes.

    Attributes:
        flops: floating-point operations of matrix products, convolutions and attention (a multiply-add is two).
        kept: bytes alive at its end that were not at its beginning; after a forward pass, what autograd has saved.
        peak: most bytes alive at any moment beyond those at the beginning. Work space inside of a kernel is not seen.
    """

    flops: float = 0.0
    kept: float = 0.0
    peak: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        """One after the other."""
        return Cost(self.flops + other.flops, self.kept + other.kept, max(self.peak, self.kept + other.peak))

    def __mul__(self, times: float) -> Cost:
        """`times` times over, the memory free again between."""
        return Cost(self.flops * times, self.kept, self.peak)


def measure(function: Callable[[], Any]) -> tuple[Any, Cost]:
    """The function's result, and what it took."""
    with Meter() as meter:
        result = function()
        return result, meter.cost()


class Meter(TorchDispatchMode):
    """Within it operations are counted, and the bytes of tensors that were made within it, while they are alive.

    Attributes:
        flops: see `Cost`. now: bytes alive. peak: the most that were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self.now = 0
        self.peak = 0
        self._foreign: dict[int, Any] = {}
        self._own: dict[int, Any] = {}

    def cost(self) -> Cost:
        return Cost(float(self.flops), float(self.now), float(self.peak))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for storage in _storages((args, kwargs)):
            if storage._cdata not in self._own:
                self._watch(storage, self._foreign, 0)
        out = func(*args, **kwargs)
        packet = func._overloadpacket
        if packet in flop_registry:
            self.flops += flop_registry[packet](*args, **kwargs, out_val=out)
        elif packet in _CPU_ATTENTION:
            self.flops += _CPU_ATTENTION[packet](*args, **kwargs)
        for storage in _storages(out):
            if storage._cdata not in self._foreign and storage._cdata not in self._own:
                self._watch(storage, self._own, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return out

    def _watch(self, storage: Any, table: dict[int, Any], size: int) -> None:
        key = storage._cdata
        if key in table:
            return

        def gone() -> None:
            table.pop(key, None)
            self.now -= size

        self.now += size
        table[key] = weakref.finalize(storage, gone)


def _storages(values: Any) -> Iterator[Any]:
    for value in tree_iter(values):
        if isinstance(value, Tensor):
            yield value.untyped_storage()


@contextmanager
def fused_attention() -> Iterator[None]:
    """Within it attention on `meta` tensors is counted as the fused kernels of a GPU do it, which save no matrix of
    weights; PyTorch would take it apart there."""
    original = F.scaled_dot_product_attention

    def attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Any = None, *args: Any, **kwargs: Any) -> Tensor:
        if q.device.type != "meta" or attn_mask is not None:
            return original(q, k, v, attn_mask, *args, **kwargs)
        return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]

    F.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original


def gradient(outputs: Tensor, inputs: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of the outputs' sum, by a backward pass that begins with ones."""
    return torch.autograd.grad(outputs, list(inputs), grad_outputs=torch.ones_like(outputs))


class Stopwatch:
    """Shares out what a computation takes among its parts, their backward passes too.

    Args:
        clock: processor seconds of this thread (the wall clock's, were nothing else running), or any number that grows
            with the work, such as a meter's operations.

    Attributes:
        found: by part.
    """

    def __init__(self, clock: Callable[[], float] = time.thread_time):
        self.clock = clock
        self.found: dict[str, float] = {}

    def timed(self, part: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The function, counted as this part. A backward pass through it is taken to reach its result first and its
        arguments last; what it depends on besides them is not waited for."""

        def call(*args: Any) -> Tensor:
            marks: list[float] = []

            def until(_: Tensor) -> None:
                now = self.clock()
                self._add(part, now - marks[-1])
                marks.append(now)

            args = tuple(_hooked(arg, until) for arg in args)
            started = self.clock()
            result = function(*args)
            self._add(part, self.clock() - started)
            if result.requires_grad:
                result.register_hook(lambda _: marks.append(self.clock()))
            return result

        return call

    def _add(self, part: str, amount: float) -> None:
        self.found[part] = self.found.get(part, 0.0) + amount


def _hooked(value: Any, hook: Callable[[Tensor], None]) -> Any:
    if isinstance(value, Tensor) and value.requires_grad:
        value = value.view_as(value)
        value.register_hook(hook)
    return value
