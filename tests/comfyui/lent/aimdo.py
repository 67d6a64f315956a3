"""A stand-in for comfy_aimdo, ComfyUI's allocator of video memory for weights, on the CPU.

It keeps the promises that ComfyUI counts on and no others: a weight is where it was put while it is pinned, and
afterwards until memory is wanted; then it is taken away and its place filled with other numbers. Two streams each have
one buffer for weights that found no room. Addresses stay the same for ever, as they do on a GPU.

    install()                       # before ComfyUI is imported
    VRAM.reset(budget=1_000_000)    # bytes that all weights together may take
"""

from __future__ import annotations

import ctypes
import mmap
import random
import sys
from types import ModuleType
from typing import Any

import torch

# As a float of 16 or 32 bits: 0.0115. A stale weight is then not found out by a NaN.
GARBAGE = 0x3C
Allocation = tuple[Any, int, int]  # (owner, address, bytes)


class _Video:
    """The memory that weights share.

    Attributes:
        budget, used: bytes. pressure: how often, of the times that a weight is let go, something else wants memory.
        evicted: how many weights were taken away so far.
    """

    def __init__(self) -> None:
        self.vbars: list[ModelVBAR] = []
        self.reset(budget=1 << 60)

    def reset(self, budget: int, pressure: float = 0.0) -> None:
        """Take all weights away and begin anew."""
        self.budget, self.pressure, self.used, self.evicted = budget, pressure, 0, 0
        self.chance = random.Random(0)
        for vbar in self.vbars:
            vbar.watermark = vbar.max_size
            for page in vbar.pages.values():
                page.pins = 0
                page.evict()

    def make_room(self, wanted: int, asking: ModelVBAR) -> bool:
        """Take weights from models of less importance than the one that asks."""
        for vbar in self.vbars:  # the least important first
            for page in reversed(vbar.pages.values()):
                if self.used + wanted <= self.budget or vbar is asking:
                    break
                page.release()
        return self.used + wanted <= self.budget

    def squeeze(self) -> None:
        """Something else wants memory: a weight goes that nobody holds."""
        free = [page for vbar in self.vbars for page in vbar.pages.values() if page.resident and not page.pins]
        if free and self.chance.random() < self.pressure:
            self.chance.choice(free).release()


class _Page:
    """Where one weight is."""

    def __init__(self, address: int, size: int):
        self.address, self.size = address, size
        self.resident, self.pins, self.signature = False, 0, 0

    def fill(self) -> None:
        self.resident, self.signature = True, self.signature + 1
        VRAM.used += self.size

    def release(self) -> None:
        if self.resident and not self.pins:
            VRAM.used -= self.size
            VRAM.evicted += 1
            self.evict()

    def evict(self) -> None:
        self.resident = False
        ctypes.memset(self.address, GARBAGE, self.size)


def _reserve(size: int) -> tuple[Any, int]:
    """Address space that takes no memory before it is used."""
    space = mmap.mmap(-1, max(size, mmap.PAGESIZE))
    return space, ctypes.addressof(ctypes.c_char.from_buffer(space))


class ModelVBAR:
    """Addresses for one model's weights, the important first."""

    def __init__(self, size: int, device: Any):
        self.max_size, self.watermark, self.offset = int(size), int(size), 0
        self.space, self.base_addr = _reserve(self.max_size)
        self.pages: dict[int, _Page] = {}
        VRAM.vbars.append(self)

    def alloc(self, size: int) -> Allocation:
        self.offset = -(-self.offset // 512) * 512
        address = self.base_addr + self.offset
        self.pages[address] = _Page(address, size)
        self.offset += size
        return self, address, size

    def prioritize(self, *_: Any) -> None:
        VRAM.vbars.remove(self)
        VRAM.vbars.append(self)
        self.watermark = self.max_size

    def deprioritize(self) -> None:
        VRAM.vbars.remove(self)
        VRAM.vbars.insert(0, self)

    def fault(self, address: int) -> int | None:
        page = self.pages[address]
        if not page.resident:
            if address - self.base_addr >= self.watermark:
                return None
            if not VRAM.make_room(page.size, self):
                self.watermark = address - self.base_addr
                return None
            page.fill()
        page.pins += 1
        return page.signature

    def unpin(self, address: int) -> None:
        page = self.pages[address]
        page.pins = max(0, page.pins - 1)
        VRAM.squeeze()

    def loaded_size(self) -> int:
        return sum(page.size for page in self.pages.values() if page.resident)

    def free_memory(self, wanted: float) -> int:
        before = VRAM.used
        for page in reversed(self.pages.values()):
            if before - VRAM.used >= wanted:
                break
            page.release()
        return before - VRAM.used


VRAM = _Video()


class VRAMBuffer:
    """A stream's buffer."""

    def __init__(self, size: int, device: Any):
        self.space, self.base_addr = _reserve(1 << 28)
        self.allocated = 0

    def size(self) -> int:
        return self.allocated

    def get(self, size: int, offset: int = 0) -> Allocation:
        self.allocated = max(self.allocated, size + offset)
        return self, self.base_addr + offset, size


class HostBuffer:
    """Pinned memory of the machine, which is switched off here."""

    def __init__(self, *_: Any, **__: Any):
        self.size = 0

    def truncate(self, size: int, **_: Any) -> None:
        self.size = size


class Stream:
    """One of the two streams that weights come on; here nothing runs beside anything else."""

    def wait_stream(self, other: Any) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: Any) -> None:
        pass


def to_tensor(allocation: Allocation, device: Any) -> torch.Tensor:
    owner, address, size = allocation
    memory = (ctypes.c_uint8 * size).from_address(address)
    memory.owner = owner
    return torch.frombuffer(memory, dtype=torch.uint8)


def install() -> None:
    """Be `comfy_aimdo` for whatever is imported from now on."""
    package = ModuleType("comfy_aimdo")
    package.__path__ = []
    parts = {
        "control": {"lib": None, "init": lambda *_, **__: False, "analyze": lambda: None},
        "host_buffer": {"HostBuffer": HostBuffer, "cleanup_file_reader": lambda: None},
        "vram_buffer": {"VRAMBuffer": VRAMBuffer},
        "torch": {"aimdo_to_tensor": to_tensor},
        "model_mmap": {},
        "model_vbar": {
            "ModelVBAR": ModelVBAR,
            "vbar_fault": lambda allocation: allocation[0].fault(allocation[1]),
            "vbar_unpin": lambda allocation: allocation and allocation[0].unpin(allocation[1]),
            "vbar_signature_compare": lambda a, b: a is not None and a == b,
            "vbars_reset_watermark_limits": lambda: None,
            "vbars_analyze": lambda *_: 0,
        },
    }
    sys.modules["comfy_aimdo"] = package
    for name, content in parts.items():
        module = ModuleType(f"comfy_aimdo.{name}")
        module.__dict__.update(content)
        sys.modules[module.__name__] = module
        setattr(package, name, module)
