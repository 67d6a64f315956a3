"""One schema for every ComfyUI from 0.3.75 on.

A keyword that an older core does not know would cost the whole pack (its loader gives up at the first error), so every
schema, input and output is made through `make`, which leaves such keywords out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

from comfy_api.latest import io

CATEGORY = "MotionPrompt"
Made = TypeVar("Made")

FlowModelType = io.Custom("MOTIONPROMPT_FLOW")
DiscriminatorType = io.Custom("MOTIONPROMPT_DISCRIMINATOR")
DatasetType = io.Custom("MOTIONPROMPT_FLOWS")
ReportType = io.Custom("MOTIONPROMPT_REPORT")
SettingsType = io.Custom("MOTIONPROMPT_SETTINGS")
# ComfyUI's own, of its Load Optical Flow Model.
OpticalFlowType = io.Custom("OPTICAL_FLOW")


def make(kind: Callable[..., Made], *args: object, **keywords: object) -> Made:
    """`kind(*args, **keywords)` without the keywords that this core's `kind` does not have."""
    known = inspect.signature(kind).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        keywords = {name: value for name, value in keywords.items() if name in known}
    return kind(*args, **keywords)


def schema(**keywords: object) -> io.Schema:
    return make(io.Schema, **{"category": CATEGORY, **keywords})


def slider(name: str, default: float, low: float, high: float, step: float, tooltip: str, **more: object) -> io.Input:
    """A number with a slider; whole if its default is."""
    kind = io.Int.Input if isinstance(default, int) else io.Float.Input
    more = {"display_mode": io.NumberDisplay.slider, **more}
    return make(kind, name, default=default, min=low, max=high, step=step, tooltip=tooltip, **more)
