"""Nodes that spoil what goes into a sampler, and nodes that look at what is left when it has ended."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import math
import threading
from pathlib import Path
from typing import Any

import torch


def one_bad(tensor: torch.Tensor, value: float) -> torch.Tensor:
    tensor = tensor.clone()
    if tensor.numel():
        tensor.view(-1)[tensor.numel() // 2] = value
    return tensor


SPOIL = {
    "nothing": lambda t: t,
    "NaN": lambda t: t * math.nan,
    "one NaN": lambda t: one_bad(t, math.nan),
    "infinity": lambda t: one_bad(t, math.inf),
    "huge": lambda t: t + 1e30,
    "half": lambda t: t.half(),
    "whole numbers": lambda t: t.long(),
    "zeros": torch.zeros_like,
    "noise": lambda t: torch.randn(t.shape, generator=torch.Generator().manual_seed(0)),
    "odd size": lambda t: t[..., :-1, : max(1, t.shape[-1] - 3)],
    "one pixel": lambda t: t[..., :1, :1],
    "no frames": lambda t: t[:0],
    "no height": lambda t: t[..., :0, :],
    "another channel": lambda t: torch.cat([t, t[:, :1]], 1),
    "two videos": lambda t: t.repeat(2, *[1] * (t.ndim - 1)),
    "a dimension more": lambda t: t[None],
}
MASKS = ("none", "half of it", "nothing", "NaN", "another size", "above one")


def mask_of(kind: str) -> torch.Tensor:
    mask = torch.ones(1, 64, 64)
    if kind == "half of it":
        mask[..., :32] = 0
    if kind == "nothing":
        mask *= 0
    if kind == "NaN":
        mask[0, 5, 5] = math.nan
    if kind == "above one":
        mask *= 3
    return mask[..., :7] if kind == "another size" else mask


class SpoilLatent:
    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "spoil", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"latent": ("LATENT",), "how": (list(SPOIL),), "mask": (list(MASKS),)}}

    def spoil(self, latent, how, mask):
        latent = {**latent, "samples": SPOIL[how](latent["samples"])}
        return ({**latent, "noise_mask": mask_of(mask)} if mask != "none" else latent,)


class SpoilConditioning:
    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "spoil", ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"conditioning": ("CONDITIONING",), "how": (list(SPOIL),), "pooled": (list(SPOIL),)}}

    def spoil(self, conditioning, how, pooled):
        return ([self._spoiled(cond, dict(more), how, pooled) for cond, more in conditioning],)

    @staticmethod
    def _spoiled(cond, more, how, pooled):
        if isinstance(more.get("pooled_output"), torch.Tensor):
            more["pooled_output"] = SPOIL[pooled](more["pooled_output"])
        return [SPOIL[how](cond), more]


class FailLater:
    """A MODEL that fails at one of its evaluations."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "patch", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "evaluation": ("INT", {"default": 1, "min": 1, "max": 1000})}}

    def patch(self, model, evaluation):
        left = [evaluation]

        def wrapper(apply, given):
            left[0] -= 1
            if left[0] == 0:
                raise RuntimeError("out of luck")
            return apply(given["input"], given["timestep"], **given["c"])

        model = model.clone()
        model.set_model_unet_function_wrapper(wrapper)
        return (model,)


class _Shown:
    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "tests", "show", (), True

    @classmethod
    def IS_CHANGED(cls, **_):
        return math.nan

    @staticmethod
    def shown(value: Any) -> dict[str, Any]:
        return {"ui": {"text": [json.dumps(value)]}}


class ShowFinite(_Shown):
    """Whether a latent is finite, and its shape."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"latent": ("LATENT",)}}

    def show(self, latent):
        samples = latent["samples"]
        return self.shown({"finite": bool(torch.isfinite(samples.float()).all()), "shape": list(samples.shape)})


class _MallocInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def _memory() -> int:
    """Bytes of this process in memory, without what it has freed and the C library keeps: that varies by 3 %."""
    kept = 0
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.malloc_trim(0)
        library.mallinfo2.restype = _MallocInfo
        kept = library.mallinfo2().fordblks
    status = Path("/proc/self/status").read_text() if Path("/proc/self/status").is_file() else "VmRSS: 0"
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) - kept


class ShowLeftovers(_Shown):
    """What is alive in this process: memory, threads, hooks, forwards that were replaced, objects of a run."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def show(self):
        gc.collect()
        memory = _memory()
        kinds: dict[str, int] = {}
        tensors = hooks = forwards = 0
        for thing in gc.get_objects():
            kind = type(thing)
            if issubclass(kind, torch.Tensor):
                tensors += 1
            elif issubclass(kind, torch.nn.Module):
                hooks += len(thing._forward_hooks) + len(thing._forward_pre_hooks) + len(thing._backward_hooks)
                forwards += "forward" in thing.__dict__
            elif kind.__name__ in ("GuidedRun", "StepPass", "_Evaluation", "ModelPatcher", "CFGGuider"):
                kinds[kind.__name__] = kinds.get(kind.__name__, 0) + 1
        threads = sorted(thread.name for thread in threading.enumerate())
        return self.shown(
            {
                "memory": memory,
                "tensors": tensors,
                "hooks": hooks,
                "forwards": forwards,
                "objects": kinds,
                "threads": threads,
            }
        )


NODE_CLASS_MAPPINGS = {
    "SpoilLatent": SpoilLatent,
    "SpoilConditioning": SpoilConditioning,
    "FailLater": FailLater,
    "ShowFinite": ShowFinite,
    "ShowLeftovers": ShowLeftovers,
}
