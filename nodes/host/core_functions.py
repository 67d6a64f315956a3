"""The functions of ComfyUI that a guided run rests on, and a look at whether they are still what they were.

They are no public interface. A ComfyUI in which one of them has another shape would perhaps run, and be wrong.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

# Module, name, and the parameters that it is called with, in this order.
_EXPECTED = (
    ("comfy.ops", "cast_bias_weight", ("s", "input", "dtype", "device", "bias_dtype", "offloadable")),
    ("comfy.ops", "uncast_bias_weight", ("s", "weight", "bias", "offload_stream")),
    ("comfy.ops", "disable_weight_init.GroupNorm.forward_comfy_cast_weights", ("self", "input")),
    ("comfy.ldm.modules.attention", "attention_pytorch", ("q", "k", "v", "heads", "mask")),
    ("comfy.samplers", "CFGGuider.predict_noise", ("self", "x", "timestep", "model_options", "seed")),
    ("comfy.samplers", "CFGGuider.outer_sample", ("self", "noise", "latent_image", "sampler", "sigmas")),
    ("comfy.samplers", "KSAMPLER.sample", ("self", "model_wrap", "sigmas", "extra_args", "callback", "noise")),
    ("comfy.sampler_helpers", "prepare_sampling", ("model", "noise_shape", "conds", "model_options")),
    ("comfy.model_base", "BaseModel.memory_required", ("self", "input_shape")),
    ("comfy.model_base", "BaseModel.process_latent_out", ("self", "latent")),
    ("comfy.model_patcher", "ModelPatcher.set_additional_models", ("self", "key", "models")),
    ("comfy.sd1_clip", "ClipTokenWeightEncoder.encode_token_weights", ("self", "token_weight_pairs")),
)
_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def check_core() -> None:
    """To be called before a guided run.

    Raises:
        RuntimeError: a function has gone, or takes other parameters. It is named.
    """
    for module, name, parameters in _EXPECTED:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part, None)
        if not _takes(found, parameters):
            what = "is not there" if found is None else f"takes {inspect.signature(found)}"
            raise RuntimeError(
                f"MotionPrompt rests on {module}.{name}({', '.join(parameters)}), which in this ComfyUI {what}. Guided "
                "like this, the video could be wrong. Update MotionPrompt (or the node pack that replaced this "
                "function); until then set strength to 0."
            )


def _takes(function: object, parameters: tuple[str, ...]) -> bool:
    if not callable(function):
        return False
    found = inspect.signature(function).parameters
    if any(parameter.kind in _ANY for parameter in found.values()):  # another pack's wrapper, which hands all on
        return True
    return tuple(found)[: len(parameters)] == parameters


def newer(module: object, name: str, otherwise: Any) -> Any:
    """What a module of ComfyUI has under this name, or, as older ones lack it, `otherwise`."""
    return getattr(module, name, otherwise)
