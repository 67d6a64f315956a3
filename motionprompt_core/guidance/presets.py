"""Settings that belong together, each with what is known of it: nobody can choose 21 numbers well by hand.

A node's input that was not moved says nothing, and `resolve` takes the preset's value for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .settings import KNOBS, GuidanceSettings


@dataclass(frozen=True)
class Preset:
    """A complete set of settings.

    Attributes:
        about: what it is for, in one sentence. evidence: what was measured with it, and where; or that nothing was.
        family: the only family of models that it is for, by its name in nodes/host/families; empty for any.
    """

    about: str
    evidence: str
    settings: GuidanceSettings
    family: str = ""


PRESETS: dict[str, Preset] = {
    "animatediff": Preset(
        "For AnimateDiff and other large models, with the general discriminator: the paper's numbers, at half of "
        "their extra time, and the loss wasserstein, which asks how the score changes and not at what level it is.",
        "None on AnimateDiff itself. The window and the iterations are the paper's, which reports AnimateDiff among "
        "its models; on the demo model balanced keeps nine tenths of exact's gain (docs/evidence.md, What the ways to "
        "save cost in quality), and the general discriminator guides as well as the demo's own (docs/evidence.md, The "
        "general discriminator, and preserve_motion), with wasserstein a little better than with the paper's loss, and "
        "slowing half as much (docs/discriminators.md).",
        GuidanceSettings(mode="balanced", adversarial="wasserstein"),
    ),
    "demo": Preset(
        "For the demo video model, with its discriminator and the flow model lucas_kanade: its estimate is corrected. "
        "With guide tokens, the paper's way as it was measured on this model.",
        "64 prompts and seeds: jitter -28 %, pulsation -33 %, exposure flicker -70 %, as sharp and as fast as plain; "
        "coherence +1.84 [1.70, 1.98] standard deviations of the plain videos (docs/evidence.md, Correcting the "
        "estimate). With guide tokens +0.42 [0.33, 0.51] (docs/evidence.md, Guidance against three controls). Chosen "
        "on other prompts and seeds. For no other model.",
        GuidanceSettings(
            guide="estimate",
            mode="balanced",
            start=0.4,
            stop=0.9,
            preserve_detail=4.0,
            iterations=2,
            learning_rate=0.03,
            lambda_tv=20.0,
            lambda_reg=0.0,
            adversarial="non_saturating",
            pairs=6,
            max_gap=3,
            loss_on="cfg",
            outside_window="tokens",
            fresh_adam=False,
            beta2=0.9,
            grad_clip=0.5,
        ),
        family="demo",
    ),
    "paper": Preset(
        "The paper's way: one evaluation of the model per iteration, at the steps 4 to 14 of 50.",
        "The paper's own (arXiv 2411.15540) for window, iterations and loss. It does not tell the learning rate, the "
        "weights and the number of pairs: these are its ancestor MinorityPrompt's, or guesses. On the demo model this "
        "window gains less than the preset demo's by 0.54 [0.32, 0.77] (docs/evidence.md, The paper's findings).",
        GuidanceSettings(),
    ),
}
DEFAULT_PRESET = "animatediff"


def resolve(preset: str, *layers: Mapping[str, Any]) -> GuidanceSettings:
    """The preset's settings with those of the layers in their place, the later ones last.

    Args:
        preset: a name in `PRESETS`. layers: setting -> value; None leaves what is below.

    Raises:
        ValueError: no such preset or setting, or a value that is not in its range.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset is {preset!r}, but must be one of: {', '.join(PRESETS)}.")
    values = {**PRESETS[preset].settings.to_dict(), "preset": preset}
    for layer in layers:
        values.update({name: value for name, value in layer.items() if value is not None})
    return GuidanceSettings.from_dict(values)


def describe(settings: GuidanceSettings) -> str:
    """What applies, in words: "preset demo, but lambda_tv 5.0"; empty if the settings came from no preset."""
    if settings.preset not in PRESETS:
        return ""
    base = PRESETS[settings.preset].settings
    changed = [name for name in KNOBS if getattr(settings, name) != getattr(base, name)]
    but = ", but " + ", ".join(f"{name} {_shown(getattr(settings, name))}" for name in changed) if changed else ""
    return f"preset {settings.preset}{but}"


def remark(settings: GuidanceSettings, family: str) -> str:
    """What to say of a preset that does not go with the model's family; empty if it does, or there is no preset."""
    preset = PRESETS.get(settings.preset)
    if preset is None or preset.family == family:
        return ""
    if preset.family:
        return f"The preset {settings.preset} was found on another model and is for that one only: {preset.about}"
    own = [name for name, other in PRESETS.items() if other.family == family]
    return f"For this model there is the preset {own[0]}, which was measured on it." if own else ""


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
