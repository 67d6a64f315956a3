"""What these models cannot be right with is refused before sampling: other noise schedules, other packs' motion, ..."""

from __future__ import annotations

import logging

import torch
from comfy.patcher_extension import WrappersMP

from ..comfy_types import ContextHandler, Executor, ModelSampling, Options, Patcher
from .model import Variant
from .sampling import ScaledSampling

KEY = "motionprompt_video"


def checked(model: Patcher, variant: Variant) -> Patcher:
    """The same MODEL, looked at whenever a sampler begins."""

    def outer_sample(executor: Executor, noise: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        guider = executor.class_obj
        check_latent(variant, noise)
        if guider.model_patcher.get_attachment("ADE_params") is not None:
            raise ValueError(
                f"MotionPrompt: {variant.title} has temporal layers of its own, and AnimateDiff-Evolved adds others, "
                "for Stable Diffusion. Connect the model without AnimateDiff-Evolved's nodes."
            )
        check_schedule(variant, guider.model_patcher.get_model_object("model_sampling"))
        check_options(variant, guider.model_options, noise)
        return executor(noise, *args, **kwargs)

    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, outer_sample)
    return model


def check_latent(variant: Variant, noise: torch.Tensor) -> None:
    """Raise ValueError unless the latents are the frames of one clip, (F, 4, h, w)."""
    if getattr(noise, "is_nested", False) or not isinstance(noise, torch.Tensor) or noise.ndim != 4:
        raise ValueError(
            f"MotionPrompt: {variant.title} makes frames as a batch: use Empty Latent Image with a batch of 16, not an "
            "empty latent for videos."
        )
    if variant.image and len(noise) != 16:
        logging.warning(
            "MotionPrompt: %s was trained on 16 frames and reads its image differently for another number; the latent "
            "has %d. Make 16 and leave out what is too much.",
            variant.title,
            len(noise),
        )


def check_schedule(variant: Variant, sampling: ModelSampling) -> None:
    """Raise ValueError if another node replaced a noise schedule that ComfyUI's own classes cannot express."""
    scaled = variant.sampling.get("latent_scale", 1.0) != 1.0
    if scaled and not isinstance(sampling, ScaledSampling):
        raise ValueError(
            f"MotionPrompt: a node (ModelSamplingDiscrete or the like) replaced the noise schedule of {variant.title}, "
            "whose latents are scaled by a factor that depends on the noise; without it the video loses a third of its "
            "contrast. Connect the model without that node."
        )


def check_options(variant: Variant, model_options: Options, noise: torch.Tensor) -> None:
    """Raise ValueError for patches of other nodes that would change the result silently."""
    cfg = model_options.get("sampler_cfg_function")
    if getattr(cfg, "__qualname__", "").startswith("RescaleCFG."):
        raise ValueError(
            f"MotionPrompt: RescaleCFG takes the contrast of each frame for itself, and {variant.title} needs that of "
            "the clip. Use Rescale CFG (Video) in its place."
        )
    replaced = model_options.get("transformer_options", {}).get("patches_replace", {})
    if variant.image and replaced.get("attn2"):
        raise ValueError(
            f"MotionPrompt: a node (IPAdapter or the like) replaces the cross-attention of {variant.title}, and with "
            "it its view of the image. Connect the model without that node."
        )
    handler = model_options.get("context_handler")
    if handler is not None:
        check_windows(variant, handler, noise)


def check_windows(variant: Variant, handler: ContextHandler, noise: torch.Tensor) -> None:
    """Raise ValueError unless ComfyUI's context windows go over the frames and can."""
    if handler.dim != 0:
        raise ValueError(
            f"MotionPrompt: the context windows go over dimension {handler.dim}, but {variant.title} has its frames in "
            "the batch. Set dim of Context Windows to 0."
        )
    if len(noise) <= handler.context_length:
        return
    try:  # older ones compare the schedule with one noise level per frame
        handler.set_step(torch.ones(2), {"transformer_options": {"sample_sigmas": torch.tensor([1.0, 0.5, 0.0])}})
    except RuntimeError as error:
        raise ValueError(
            "MotionPrompt: the context windows of this ComfyUI cannot have frames in the batch. Update ComfyUI to 0.8 "
            "or newer, or make a shorter video."
        ) from error
