"""Bad input is turned away here, before any work has been done."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch
from comfy.samplers import CFGGuider
from torch import Tensor

from ...motionprompt_core.guidance.losses import TERMS
from ...motionprompt_core.guidance.settings import GuidanceSettings
from .comfy_types import CondLists, Guider, Options, Sampler, Vae, cfg_of
from .families import ModelFamily
from .guidance import Guidance
from .report import GuidanceReport


def sampler_function(sampler: Sampler) -> str:
    """Name of the k-diffusion function behind a ComfyUI SAMPLER; empty if it has none."""
    return getattr(getattr(sampler, "sampler_function", None), "__name__", "")


def check_sampler(sampler: Sampler) -> None:
    """Raise ValueError for samplers that do not follow the schedule."""
    if "dpm_adaptive" in sampler_function(sampler):
        raise ValueError(
            "MotionPrompt: dpm_adaptive chooses its own steps, so it cannot be promised which of them are guided. "
            "Choose another sampler, such as dpmpp_2m, or set strength to 0."
        )


def empty_window(settings: GuidanceSettings, report: GuidanceReport) -> str:
    """What to say where tokens should be guided, and no step of a short schedule is in the window; else nothing."""
    if report.planned or settings.strength == 0 or settings.guide == "estimate" or report.num_steps < 1:
        return ""
    return (
        f"No token is guided: none of the {report.num_steps} steps is between start ({settings.start:g}) and stop "
        f"({settings.stop:g}). Raise stop, or set guide to estimate, which finds its steps by itself."
    )


def check_tokens(family: ModelFamily) -> None:
    """Raise ValueError for models whose prompt cannot learn."""
    if not family.tokens:
        raise ValueError(
            f"MotionPrompt: the text encoder of {family.title} is a language model, through which no prompt can learn, "
            "so this model is guided by its estimate alone. Set guide to estimate, or use the node Steady Motion."
        )


def check_finite(latents: Tensor, conds: CondLists) -> None:
    """Raise ValueError for latents (any shape), or prompts, with NaN or infinity in them."""
    if not finite(latents):
        raise ValueError(
            "MotionPrompt: the latents hold NaN or infinity, and the video would be nothing else. Look at the "
            "node that made them: a VAE in fp16 overflows, and bf16 or fp32 does not."
        )
    for key, entries in conds.items():
        if not all(finite(cond.get(name)) for cond in entries for name in ("cross_attn", "pooled_output")):
            raise ValueError(
                f"MotionPrompt: the {key} prompt holds NaN or infinity, and the video would be nothing else. Look at "
                "the nodes that made it: a text encoder or a LoRA is damaged, or embeddings were divided by 0."
            )


def finite(value: object) -> bool:
    """Whether a tensor has no NaN or infinity; anything else has none."""
    parts = getattr(value, "unbind", None)
    if getattr(value, "is_nested", False) and parts is not None:
        return all(finite(part) for part in parts())
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return True
    return bool(torch.isfinite(value).all())


def encodes(vae: Vae) -> bool:
    """Whether a VAE can encode: some tiny ones of ComfyUI's only decode, and say so when they are asked."""
    try:
        getattr(vae, "process_input", lambda pixels: pixels)(torch.zeros(1, 3, 8, 8))
    except NotImplementedError:
        return False
    return True


def check_encodes(vae: Vae) -> None:
    """Raise ValueError for a VAE that only decodes: what is corrected in pictures has to become latents again."""
    if not encodes(vae):
        raise ValueError(
            "MotionPrompt: this VAE only decodes in this version of ComfyUI, and a corrected estimate has to be "
            "encoded. Connect the model's own VAE, or update ComfyUI."
        )


def check_cfg(guider: Guider) -> None:
    """Raise ValueError where the prompt that is to learn takes no part in what is sampled."""
    as_the_widget_says = not (own_mixture(guider) or mixed_otherwise(guider.model_options))
    # AnimateDiff-Evolved's Custom CFG takes the place of the widget's.
    if as_the_widget_says and guider.model_patcher.get_attachment("ADE_params") is None and cfg_of(guider) == 0:
        raise ValueError(
            "MotionPrompt: cfg is 0, so that the negative prompt alone is sampled and the learnable one has no say. "
            "Raise cfg, or set guide to estimate."
        )


def check_number(node: str, name: str, value: float, low: float, high: float) -> None:
    """Raise ValueError for a number out of a widget's range: ComfyUI holds neither a link to it nor NaN."""
    if not low <= value <= high:
        raise ValueError(f"{node}: {name} is {value:g}, expected a number from {low:g} to {high:g}. Change it.")


def all_kept(args: Sequence[object], kwargs: Mapping[str, object]) -> str:
    """What a report says where the latents' noise mask lets nothing be sampled; else nothing.

    Args:
        args, kwargs: what ComfyUI gives a sampling after its sigmas, the mask first.
    """
    mask = args[0] if args else kwargs.get("denoise_mask")
    if not isinstance(mask, Tensor) or bool(mask.any()):
        return ""
    return "The latents' noise mask is 0 everywhere, so the video is as it came and nothing can change it."


def check_losses(guidance: Guidance) -> None:
    """Raise ValueError if no loss is left that pulls at the tokens where they start."""
    judged, settings = guidance.discriminator is not None, guidance.settings
    pulls = [term for term in TERMS if term.needs is None or (term.needs == "logits" and judged)]
    if not any(term.weight_in(settings) for term in pulls):
        raise ValueError(
            "MotionPrompt: no loss is left to guide by: lambda_tv is 0, and lambda_disc is 0 or has no discriminator. "
            "Connect a discriminator, raise one of them, or set strength to 0."
        )


def own_mixture(guider: Guider) -> str:
    """What the report says of a guider that evaluates and mixes the prompts in a way of its own."""
    if getattr(type(guider), "predict_noise", None) is CFGGuider.predict_noise:
        return ""
    return (
        f"{type(guider).__name__} mixes the prompts in a way of its own, so the loss may look at another mixture than "
        "is sampled. CFGGuider and the KSampler nodes mix them as the loss does."
    )


def mixed_otherwise(model_options: Options) -> str:
    """What the report says if the loss is to see CFG, but other nodes mix the predictions in a way of their own."""
    kinds = ("sampler_pre_cfg_function", "sampler_cfg_function", "sampler_post_cfg_function")
    found = [function for kind in kinds for function in _listed(model_options.get(kind))]
    names = sorted({getattr(function, "__qualname__", type(function).__name__).split(".")[0] for function in found})
    if not names:
        return ""
    return (
        f"loss_on cfg looks at the prompts mixed by cfg alone, but {', '.join(names)} mix them otherwise. "
        "loss_on cond looks at the prompt itself, whatever mixes it."
    )


def _listed(value: object) -> list[object]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def check_schedule(sigmas: Tensor) -> None:
    """Raise ValueError for schedules whose noise grows: steps could not be told by their noise level."""
    if (sigmas[1:] > sigmas[:-1]).any():
        raise ValueError(
            "MotionPrompt: the sigmas rise (Flip Sigmas, unsampling), but only a sampling from noise to picture can be "
            "guided. Connect the model without MotionPrompt to this sampler, and guide the one that samples."
        )


def evaluates_once_off_schedule(sampler: Sampler) -> bool:
    """dpm_fast makes exactly one evaluation per step, but at noise levels of its own."""
    return "dpm_fast" in sampler_function(sampler)


def check_discriminator(guidance: Guidance, frames: int) -> None:
    """Note it in the report if the discriminator was trained on another flow model's flow.

    Raises:
        ValueError: the video has too few frames for it.
    """
    if guidance.discriminator is None:
        guidance.report.note("No discriminator: the motion is judged by smoothness alone.")
        return
    flows = guidance.num_flows
    if frames <= flows:
        raise ValueError(
            f"MotionPrompt: this discriminator judges {flows} flows in a row, between {flows + 1} frames, and the "
            f"video has {frames}. Make it longer."
        )
    trained, used = guidance.discriminator.module.config.flow_model, guidance.flow.module.name
    if trained != used:
        text = f"The discriminator was trained on flow of {trained}, but judges that of {used}. Use {trained}."
        guidance.report.note(text)
        logging.warning("MotionPrompt: %s", text)
