"""Training a flow discriminator: clips -> flows -> real or generated?"""

from .discriminator import EpochResult, TrainingResult, auroc, train_discriminator
from .flows import extract_flows

__all__ = ["EpochResult", "TrainingResult", "auroc", "extract_flows", "train_discriminator"]
