"""The guidance's inputs, made from its knobs: what an artist moves is on the sampling nodes, the rest on MotionPrompt
Settings. Every setting has one input. One that was not moved says nothing, and the preset's value counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ..motionprompt_core.guidance.presets import DEFAULT_PRESET, PRESETS, resolve
from ..motionprompt_core.guidance.settings import DEFAULTS, KNOBS, GuidanceSettings
from .host.schema import DiscriminatorType, FlowModelType, SettingsType, make

SLIDERS = ("strength", "mode", "guide", "start", "stop", "preserve_motion", "preserve_detail", "checkpointing")
REST = tuple(name for name in KNOBS if name not in SLIDERS)
# No preset has an opinion on these: how hard, at what price in motion, and what the machine can do. They always count.
OWN = ("strength", "preserve_motion", "checkpointing")
AS_PRESET = "preset"


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
    """The widget of one setting. Its first choice, or its lowest number, leaves the setting to the preset."""
    knob, default, own = KNOBS[name], DEFAULTS[name], name in OWN
    tooltip = knob.text if own else f"{knob.text} {_left_to_the_preset(name)}"
    if isinstance(default, (bool, str)):
        choices = ["on", "off"] if isinstance(default, bool) else list(knob.choices)
        options, default = (choices, default) if own else ([AS_PRESET, *choices], AS_PRESET)
        return make(io.Combo.Input, name, options=options, default=default, tooltip=tooltip, optional=True)
    lowest, first = (knob.low, default) if own else (_lowest(name), _lowest(name))
    highest = knob.high if knob.shown is None else knob.shown
    limits: dict[str, Any] = {"min": lowest, "max": highest, "default": first, "step": knob.step}
    limits = {key: type(default)(value) for key, value in limits.items()}
    kind: Any = io.Int.Input if isinstance(default, int) else io.Float.Input
    if isinstance(default, float):
        limits["round"] = knob.step / 1000
    if own:
        limits["display_mode"] = io.NumberDisplay.slider
    return make(kind, name, tooltip=tooltip, optional=True, **limits)


def _lowest(name: str) -> float:
    """One step below what a number may be. web/presets.js writes "preset" there, so that nobody has to read it."""
    knob = KNOBS[name]
    return knob.low if knob.above else knob.low - knob.step


def _left_to_the_preset(name: str) -> str:
    values = {preset: _shown(getattr(PRESETS[preset].settings, name)) for preset in PRESETS}
    same = set(values.values())
    shown = f"{same.pop()} in each" if len(same) == 1 else ", ".join(f"{preset} {v}" for preset, v in values.items())
    choice = isinstance(DEFAULTS[name], (bool, str))
    return f"{AS_PRESET if choice else f'Lowest, {_lowest(name):g}'}: the preset's ({shown})."


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return value if isinstance(value, str) else f"{value:g}"


def moved(widgets: Mapping[str, Any]) -> dict[str, Any]:
    """The settings among some widgets that were moved, so that they count in place of the preset's."""
    return {name: _value(name, value) for name, value in widgets.items() if name in OWN or not _unmoved(name, value)}


def settings_from(preset: str, settings: Mapping[str, Any] | None, widgets: Mapping[str, Any]) -> GuidanceSettings:
    """What applies: the preset, what MotionPrompt Settings has in its place, and what the node's own sliders have."""
    return resolve(preset, settings or {}, moved(widgets))


def check_settings(values: Mapping[str, Any]) -> None:
    """Raise ValueError, as soon as MotionPrompt Settings runs, for a value that is not in its range."""
    resolve(DEFAULT_PRESET, values)


def _unmoved(name: str, value: Any) -> bool:
    return value == AS_PRESET if isinstance(value, str) else value < KNOBS[name].low or value == _lowest(name)


def _value(name: str, value: Any) -> Any:
    return value == "on" if isinstance(DEFAULTS[name], bool) and value in ("on", "off") else value
