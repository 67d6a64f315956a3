"""The guidance's inputs, made from its knobs: what an artist moves is on the sampling nodes, the rest on MotionPrompt
Settings. Every setting has one input. One that was not moved says nothing, and the preset's value counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ..motionprompt_core.guidance.presets import DEFAULT_PRESET, PRESETS, resolve
from ..motionprompt_core.guidance.settings import DEFAULTS, KNOBS, GuidanceSettings
from .host import ksampler
from .host.guidance import Guidance
from .host.report import GuidanceReport
from .host.schema import DiscriminatorType, FlowModelType, SettingsType, make
from .host.status import node_view

SLIDERS = ("strength", "mode", "guide", "start", "stop", "preserve_motion", "preserve_detail", "checkpointing")
REST = tuple(name for name in KNOBS if name not in SLIDERS)
# No preset has an opinion on these: how hard, at what price in motion, and what the machine can do. They always count.
OWN = ("strength", "preserve_motion", "checkpointing")
AS_PRESET = "preset"


def sampling_inputs(seed: str, steps: str, cfg: str, **seeds: Any) -> list[Any]:
    """The widgets of ComfyUI's KSampler: tooltips of three of them, and what else the seed's may have."""
    sampler = "The sampling algorithm: any but dpm_adaptive."
    scheduler = "How the noise is removed over the steps."
    number = {"default": 8.0, "min": 0.0, "max": 100.0, "step": 0.1, "round": 0.01}
    return [
        make(io.Int.Input, "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, tooltip=seed, **seeds),
        make(io.Int.Input, "steps", default=20, min=1, max=10000, tooltip=steps),
        make(io.Float.Input, "cfg", **number, tooltip=cfg),
        make(io.Combo.Input, "sampler_name", options=ksampler.SAMPLERS, tooltip=sampler),
        make(io.Combo.Input, "scheduler", options=ksampler.SCHEDULERS, tooltip=scheduler),
    ]


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
        make(
            SettingsType.Input,
            "settings",
            optional=True,
            tooltip="From MotionPrompt Settings: what is not on this node. Only what was moved there counts.",
        ),
    ]


def guidance_inputs() -> list[Any]:
    """The preset and the sliders of the sampling nodes."""
    about = " ".join(f"{name}: {preset.about}" for name, preset in PRESETS.items())
    preset = make(
        io.Combo.Input,
        "preset",
        options=list(PRESETS),
        default=DEFAULT_PRESET,
        tooltip=f"Where every setting starts. What is moved here or on MotionPrompt Settings counts in place of the "
        f"preset's value; under the node stands what applies. {about}",
    )
    return [preset, *(knob_input(name) for name in SLIDERS)]


def settings_inputs() -> list[Any]:
    """The inputs of MotionPrompt Settings."""
    return [knob_input(name) for name in REST]


def knob_input(name: str) -> Any:
    """The widget of one setting.

    A setting that presets decide is a menu, also if it is a number: its first choice is the word that leaves it to the
    preset, which every interface shows as it is. Numbers that the menu does not offer count when a script sends them.
    """
    knob, default = KNOBS[name], DEFAULTS[name]
    common: dict[str, Any] = {"tooltip": knob.text, "optional": True}
    if name not in OWN:
        common["tooltip"] += f" {_left_to_the_preset(name)}"
        return make(io.Combo.Input, name, options=[AS_PRESET, *offered(name)], default=AS_PRESET, **common)
    if isinstance(default, str):
        return make(io.Combo.Input, name, options=list(knob.choices), default=default, **common)
    limits = {"min": float(knob.low), "max": float(knob.shown), "step": knob.step, "round": knob.step / 1000}
    return make(io.Float.Input, name, default=default, display_mode=io.NumberDisplay.slider, **limits, **common)


def offered(name: str) -> list[str]:
    """What a setting's menu offers beside the preset."""
    knob = KNOBS[name]
    if isinstance(DEFAULTS[name], bool):
        return ["on", "off"]
    return list(knob.choices) or [_shown(value) for value in knob.offered]


def _left_to_the_preset(name: str) -> str:
    values = {preset: _shown(getattr(PRESETS[preset].settings, name)) for preset in PRESETS}
    same = set(values.values())
    shown = f"{same.pop()} in each" if len(same) == 1 else ", ".join(f"{preset} {v}" for preset, v in values.items())
    return f"{AS_PRESET}: the preset's ({shown})."


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return value if isinstance(value, str) else f"{value:g}"


def moved(widgets: Mapping[str, Any]) -> dict[str, Any]:
    """The settings among some widgets that were moved, so that they count in place of the preset's."""
    return {name: _value(name, value) for name, value in widgets.items() if value != AS_PRESET}


def settings_from(preset: str, settings: Mapping[str, Any] | None, widgets: Mapping[str, Any]) -> GuidanceSettings:
    """What applies: the preset, what MotionPrompt Settings has in its place, and what the node's own sliders have."""
    return resolve(preset, settings or {}, moved(widgets))


def guidance_of(
    node: type[io.ComfyNode],
    vae: Any,
    flow_model: Any,
    discriminator: Any,
    preset: str,
    settings: Any,
    sliders: Mapping[str, Any],
) -> Guidance:
    """What a sampling node guides by, with a report to be filled and the node's view."""
    view = node_view(node)
    chosen = settings_from(preset, settings, sliders)
    return Guidance(chosen, vae, flow_model, discriminator, GuidanceReport(), view)


def check_settings(values: Mapping[str, Any]) -> None:
    """Raise ValueError, as soon as MotionPrompt Settings runs, for a value that is not in its range."""
    resolve(DEFAULT_PRESET, values)


def refusal(preset: str | None, **widgets: Any) -> str | bool:
    """For `validate_inputs`: what is wrong with a sampling node's widgets, or True; None came by a link, for later."""
    try:
        resolve(preset or DEFAULT_PRESET, moved({name: value for name, value in widgets.items() if value is not None}))
    except ValueError as error:
        return str(error)
    return True


def _value(name: str, value: Any) -> Any:
    """A menu's text as the setting's type; as it came if it is none, so that the setting's own check refuses it."""
    default = DEFAULTS[name]
    if isinstance(default, bool):
        return value == "on" if value in ("on", "off") else value
    if isinstance(default, str) or not isinstance(value, str):
        return value
    try:
        return type(default)(value)
    except ValueError:
        return value
