"""Everything that knows ComfyUI: one node family a file, and `host`, the only place that touches its internals."""

from __future__ import annotations

from comfy_api.latest import io

from .capture import CaptureFlowEstimates, ClipSeeds
from .conditioning import MotionPromptCLIP, MotionPromptConditioning
from .dataset import FlowDatasetNode
from .demo import LoadDemoVideoModel
from .host.folders import register
from .loaders import LoadFlowDiscriminator, LoadOpticalFlowModel
from .metrics import TemporalMetrics
from .report import MotionPromptReport
from .sampler import ApplyMotionPrompt, MotionPromptKSampler, MotionPromptSettings
from .training import SaveFlowDiscriminator, TrainFlowDiscriminator
from .video_checkpoint import DynamiCrafterImageToVideo, LoadVideoCheckpoint, RescaleVideoCFG, VideoFPS

NODES: list[type[io.ComfyNode]] = [
    LoadFlowDiscriminator,
    LoadOpticalFlowModel,
    MotionPromptConditioning,
    MotionPromptCLIP,
    MotionPromptKSampler,
    ApplyMotionPrompt,
    MotionPromptSettings,
    MotionPromptReport,
    LoadDemoVideoModel,
    ClipSeeds,
    CaptureFlowEstimates,
    FlowDatasetNode,
    TrainFlowDiscriminator,
    SaveFlowDiscriminator,
    TemporalMetrics,
    LoadVideoCheckpoint,
    VideoFPS,
    RescaleVideoCFG,
    DynamiCrafterImageToVideo,
]

register()
