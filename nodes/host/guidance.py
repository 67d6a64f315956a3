"""What guides a sampler node."""

from __future__ import annotations

from dataclasses import dataclass

from ...motionprompt_core.guidance.optimise import OnGradient
from ...motionprompt_core.guidance.settings import GuidanceSettings
from .comfy_types import Vae
from .models import ManagedModel
from .report import GuidanceReport
from .status import NodeView


@dataclass
class Guidance:
    """What guides a sampler node.

    Attributes:
        settings: see `GuidanceSettings`.
        vae: ComfyUI's VAE, for looking at frames.
        flow, discriminator: the models, the latter None to go by smoothness alone.
        report: filled while sampling.
        view: the node to show progress on, or None.
        on_gradient: for who wants to watch the optimisation, see `PromptOptimiser`.
    """

    settings: GuidanceSettings
    vae: Vae
    flow: ManagedModel
    discriminator: ManagedModel | None
    report: GuidanceReport
    view: NodeView | None = None
    on_gradient: OnGradient | None = None

    @property
    def num_flows(self) -> int:
        """How many flows in a row are judged together."""
        return 1 if self.discriminator is None else self.discriminator.module.num_flows
