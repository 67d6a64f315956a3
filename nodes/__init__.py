"""Everything that knows ComfyUI: one node family a file, and `host`, the only place that touches its internals."""

from __future__ import annotations

from comfy_api.latest import io

from .conditioning import MotionPromptConditioning
from .host.folders import register
from .loaders import LoadFlowDiscriminator, LoadOpticalFlowModel
from .report import MotionPromptReport
from .sampler import ApplyMotionPrompt, MotionPromptKSampler

NODES: list[type[io.ComfyNode]] = [
    LoadFlowDiscriminator,
    LoadOpticalFlowModel,
    MotionPromptConditioning,
    MotionPromptKSampler,
    ApplyMotionPrompt,
    MotionPromptReport,
]

register()
