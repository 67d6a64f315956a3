"""What guides a sampler node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...motionprompt_core.guidance.optimise import OnGradient
from ...motionprompt_core.guidance.settings import GuidanceSettings
from ...motionprompt_core.guidance.view import GuidedModel
from .comfy_types import Vae
from .models import ManagedModel
from .report import GuidanceReport
from .status import NodeView

if TYPE_CHECKING:
    from .step_pass import StepPass


@dataclass
class Guidance:
    """What guides a sampler node.

    Attributes:
        settings: see `GuidanceSettings`.
        vae: ComfyUI's VAE, for looking at frames.
        flow, discriminator: the models, the latter None to go by smoothness alone.
        report: filled while sampling.
        view: the node to show progress on, or None.
        on_step: called before a step is guided, when all is ready to differentiate; may raise to end the sampling.
        on_gradient: for who wants to watch the optimisation, see `PromptOptimiser`.
    """

    settings: GuidanceSettings
    vae: Vae
    flow: ManagedModel
    discriminator: ManagedModel | None
    report: GuidanceReport
    view: NodeView | None = None
    on_gradient: OnGradient | None = None
    on_step: Callable[[StepPass, GuidedModel], None] | None = None

    @property
    def num_flows(self) -> int:
        """How many flows in a row are judged together."""
        return 1 if self.discriminator is None else self.discriminator.module.num_flows
