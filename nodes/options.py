"""The guidance's inputs, shared by MotionPrompt KSampler and Apply MotionPrompt. Their order is final: ComfyUI saves
widget values by position. New ones go to the end and are optional."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..motionprompt_core.guidance.settings import (
    ADVERSARIAL_FORMS,
    CHECKPOINTING,
    LOSS_ON,
    LR_UNITS,
    MODES,
    OUTSIDE_WINDOW,
    TV_REDUCTIONS,
    GuidanceSettings,
)
from .host.schema import DiscriminatorType, FlowModelType, make, slider

_DEFAULT = GuidanceSettings()
# Of new nodes. Workflows from before there were modes mean "exact", which is what settings without one say, and what
# web/motionprompt.js sets when it opens them.
_MODE = "balanced"


def model_inputs() -> list[Any]:
    return [
        make(
            io.Vae.Input,
            "vae",
            tooltip="Turns the frames into pictures for the flow model to look at. Use the VAE of "
            "the model; a TAESD one is faster and takes a tenth of the memory.",
        ),
        make(
            FlowModelType.Input,
            "flow_model",
            tooltip="Measures the motion between two frames. Use the one that the discriminator was trained with.",
        ),
        make(
            DiscriminatorType.Input,
            "discriminator",
            optional=True,
            tooltip="Judges whether the motion looks real. "
            "Without it only the smoothness of the motion (lambda_tv) guides.",
        ),
    ]


def sliders() -> list[Any]:
    d = _DEFAULT
    return [
        slider(
            "strength",
            d.strength,
            0.0,
            3.0,
            0.05,
            "How hard the motion is pushed towards the real. 0 is off: exactly "
            "the picture of the plain prompt. Raise it if the motion still jitters, lower it if the picture drifts "
            "from the prompt.",
            round=0.001,
        ),
        slider(
            "iterations",
            d.iterations,
            1,
            10,
            1,
            "Optimiser iterations per guided step. More push harder and cost "
            "more time; 5 and more begin to still the video.",
        ),
        slider(
            "window_start",
            d.window_start,
            0.0,
            1.0,
            0.01,
            "Where in the schedule guidance begins, as a share of the "
            "steps. The very first steps are too noisy to see motion in.",
            round=0.001,
        ),
        slider(
            "window_end",
            d.window_end,
            0.0,
            1.0,
            0.01,
            "Where guidance ends. Motion is decided early; later steps cost "
            "time and change detail. At window_start nothing is guided, and it may not be below.",
            round=0.001,
        ),
        make(
            io.Float.Input,
            "learning_rate",
            default=d.learning_rate,
            min=1e-5,
            max=10.0,
            step=1e-4,
            round=1e-6,
            tooltip="How far an iteration moves the tokens. Try 0.001 to 0.01; strength multiplies it.",
        ),
        slider(
            "lambda_disc",
            d.lambda_disc,
            0.0,
            10.0,
            0.05,
            "Weight of the discriminator: motion like that of real videos.",
            round=0.001,
        ),
        slider(
            "lambda_tv",
            d.lambda_tv,
            0.0,
            100.0,
            0.01,
            "Weight of smoothness (total variation of the flow). Raise it "
            "against warping and flicker; too much stills the video.",
            round=0.0001,
        ),
        slider(
            "lambda_reg",
            d.lambda_reg,
            0.0,
            10.0,
            0.01,
            "Weight that keeps the tokens near their initial words. Raise it if colours or content change too much.",
            round=0.0001,
        ),
    ]


def advanced() -> list[Any]:
    d = _DEFAULT
    return [
        _advanced(
            io.Int.Input, "every", d.every, "Guide every m-th step of the window: 2 halves the cost.", min=1, max=100
        ),
        _advanced(
            io.Int.Input,
            "pairs",
            d.pairs,
            "Frame pairs looked at per iteration. More steady the motion of the whole "
            "video and cost decoding time and memory.",
            min=1,
            max=64,
        ),
        _advanced(
            io.Int.Input,
            "max_gap",
            d.max_gap,
            "Greatest distance between the frames of a pair; 0 is any. 1 looks at "
            "neighbouring frames only, as discriminators are usually trained.",
            min=0,
            max=1000,
        ),
        _advanced(
            io.Boolean.Input,
            "resample_pairs",
            d.resample_pairs,
            "Look at new pairs in each iteration, or at the same ones throughout a step.",
        ),
        _choice(
            "adversarial",
            d.adversarial,
            ADVERSARIAL_FORMS,
            "The paper's saturating loss is gentle where the "
            "discriminator is sure that the motion is fake; non_saturating pushes hardest there.",
        ),
        _choice(
            "tv_reduction",
            d.tv_reduction,
            TV_REDUCTIONS,
            "Smoothness per pixel, or summed over the frame; with sum, lower lambda_tv by the number of pixels.",
        ),
        _advanced(
            io.Boolean.Input,
            "reset_tokens",
            d.reset_tokens,
            "Begin each guided step from the initial words. Off: what was learnt is carried over.",
        ),
        _advanced(io.Boolean.Input, "fresh_adam", d.fresh_adam, "Begin each guided step without momentum."),
        _choice(
            "lr_unit",
            d.lr_unit,
            LR_UNITS,
            "Learning rate in plain units, or relative to the size of the token's "
            "embedding, which suits text encoders of any scale.",
        ),
        _advanced(
            io.Float.Input,
            "lr_decay",
            d.lr_decay,
            "Each later guided step learns this share less.",
            min=0.0,
            max=1.0,
            step=0.01,
            round=0.001,
        ),
        _advanced(io.Float.Input, "beta1", d.beta1, "Adam's momentum.", min=0.0, max=0.999, step=0.01, round=0.0001),
        _advanced(
            io.Float.Input,
            "beta2",
            d.beta2,
            "Adam's memory of gradient sizes.",
            min=0.0,
            max=0.9999,
            step=0.001,
            round=0.0001,
        ),
        _choice(
            "loss_on",
            d.loss_on,
            LOSS_ON,
            "Judge the estimate from the prompt alone, or mixed with the negative prompt "
            "as the picture will be (one more evaluation per guided step).",
        ),
        _choice(
            "outside_window",
            d.outside_window,
            OUTSIDE_WINDOW,
            "Steps outside the window follow the plain prompt, or "
            "the prompt with the tokens as they stand: stronger, but details may follow the tokens.",
        ),
        _advanced(
            io.Float.Input,
            "grad_clip",
            d.grad_clip,
            "Greatest norm of the gradient; 0 does not clip.",
            min=0.0,
            max=1e6,
            step=0.1,
            round=0.0001,
        ),
        _choice(
            "checkpointing",
            d.checkpointing,
            CHECKPOINTING,
            "On: a seventh of the memory for a third more time. Auto: only if memory is short.",
        ),
        slider(
            "preserve_motion",
            d.preserve_motion,
            0.0,
            10.0,
            0.1,
            "Keeps the motion from being slowed down: a penalty for every frame pair that moves less than with the "
            "initial words. Raise it if guided videos come out too still; 0 is off and saves one evaluation per guided "
            "step.",
            round=0.001,
            optional=True,
        ),
        _choice(
            "mode",
            _MODE,
            MODES,
            "How much is computed for the guidance. exact: the paper's way, one evaluation per iteration. balanced: "
            "one evaluation per guided step serves all iterations, for about half of the extra time. fast: the same "
            "with a coarser gradient, for the least time and memory.",
        ),
        slider(
            "preserve_detail",
            d.preserve_detail,
            0.0,
            10.0,
            0.1,
            "Keeps the picture from being softened: a penalty for every frame that has less fine detail than with the "
            "initial words. Raise it if guided videos come out blurred; 0 is off and saves one evaluation per guided "
            "step, as preserve_motion does.",
            round=0.001,
            optional=True,
        ),
    ]


def settings_from(widgets: dict[str, Any]) -> GuidanceSettings:
    """Settings from the values of `sliders` and `advanced`; those not given have their defaults."""
    return GuidanceSettings.from_dict(widgets)


def _advanced(kind: Any, name: str, default: Any, tooltip: str, **more: Any) -> Any:
    return make(kind, name, default=default, tooltip=tooltip, optional=True, advanced=True, **more)


def _choice(name: str, default: str, options: tuple[str, ...], tooltip: str) -> Any:
    return _advanced(io.Combo.Input, name, default, tooltip, options=list(options))
