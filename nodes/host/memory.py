"""Memory for gradients, set aside through ComfyUI's own estimate so that it frees or offloads what it must
beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import comfy.model_management

from .comfy_types import BaseModel, ModulePatcher, Patcher
from .guidance_run import GuidedRun

KEY = "motionprompt"


def gradient_memory(model: Patcher, run: GuidedRun, checkpointed: bool) -> float:
    """Bytes that one optimiser iteration needs beyond inference; with checkpoints those of one context window."""
    shape = list(run.shape)
    if checkpointed and run.windows is not None:
        shape[run.windows.dim] = run.windows.length
    factors = run.family.memory
    base = _inference_memory(model.model, shape) * (factors.checkpointed if checkpointed else factors.saved)
    # A decoder keeps several times what it needs at a time; two frames of 512 px take 3.5 GiB in SD's.
    decode = 2.0 * run.decoder.memory(run.shape, (1 + run.guidance.num_flows) * run.settings.pairs)
    return base + decode


def _inference_memory(inner: BaseModel, shape: list[int]) -> float:
    """Bytes that ComfyUI reckons for inference with fused attention, as gradients are computed with whatever attention
    samples. For others it reckons 0.15 MiB a latent pixel instead of 0.01 for each byte of a number."""
    told = inner.memory_required(shape)
    if comfy.model_management.xformers_enabled() or comfy.model_management.pytorch_attention_flash_attention():
        return told
    return told * 0.01 * comfy.model_management.dtype_size(inner.manual_cast_dtype or inner.get_dtype()) / 0.15


@contextmanager
def reserved(model: Patcher, run: GuidedRun) -> Iterator[None]:
    """While ComfyUI loads the models: ours are loaded as well, and it sees the memory that gradients will need."""
    needed = gradient_memory(model, run, checkpointed=run.settings.checkpointing != "off")
    with loaded_beside(model, KEY, run.patchers(), needed):
        yield


@contextmanager
def loaded_beside(model: Patcher, key: str, patchers: Sequence[ModulePatcher], needed: float) -> Iterator[None]:
    """While ComfyUI loads a MODEL: others are loaded beside it, and memory for `needed` bytes more is made free."""
    inner = model.model
    had_own = "memory_required" in inner.__dict__
    original = inner.memory_required
    model.set_additional_models(key, patchers)
    inner.memory_required = lambda *args, **kwargs: original(*args, **kwargs) + needed
    try:
        yield
    finally:
        if had_own:
            inner.memory_required = original
        else:
            del inner.memory_required
        model.remove_additional_models(key)
