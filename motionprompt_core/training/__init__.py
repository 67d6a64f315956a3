"""Training a flow discriminator: clips -> flows -> real or generated?"""

from .cache import FlowClips, cached_flows
from .clips import ClipSettings, find_clips, read_clip
from .discriminator import TrainingResult, auroc, train_discriminator
from .flows import extract_flows
from .state import EpochResult

__all__ = [
    "ClipSettings", "EpochResult", "FlowClips", "TrainingResult", "auroc", "cached_flows", "extract_flows",
    "find_clips", "read_clip", "train_discriminator",
]
