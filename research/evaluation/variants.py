"""What is compared: ways to make one video from a prompt and a seed with the demo model."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from motionprompt_core.demo.checkpoint import DemoWeights
from motionprompt_core.discriminator.model import FlowDiscriminator
from motionprompt_core.flow import load_flow_model
from motionprompt_core.flow.base import FlowModel
from motionprompt_core.guidance.report import StepReport
from motionprompt_core.guidance.settings import GuidanceSettings
from motionprompt_tools import world

from ..demo.pipeline import DemoPipeline


@dataclass
class Networks:
    """The demo model, and what guides and judges it.

    Attributes:
        flow: the discriminator's flow model, which guides. measure: the one that the metrics look with.
        steps: DDIM steps of a plain video.
        others: further discriminators by name, see `Variant.discriminator`.
    """

    weights: DemoWeights
    flow: FlowModel
    discriminator: FlowDiscriminator
    measure: FlowModel
    steps: int = 20
    others: Mapping[str, FlowDiscriminator] = field(default_factory=dict)


_flow_model = functools.cache(load_flow_model)  # a run makes many videos


def clip_of(seed: int) -> world.Clip:
    """What a seed's video should show."""
    return world.random_clip(torch.Generator().manual_seed(seed), fault_share=0)


class Rendered(DemoPipeline):
    """Samples nothing: the clip that the seed's prompt describes, rendered, through the autoencoder and back."""

    def sample(self, prompt: str, seed: int, *_: Any, **__: Any) -> tuple[Tensor, list[StepReport]]:
        with torch.no_grad():
            latents = self.encode(world.render(clip_of(seed))[0])
            return self.decode(latents).clamp(0, 1), []


@dataclass(frozen=True)
class Variant:
    """One way to make the video.

    Attributes:
        name: unique within a suite. about: what it is, for the report.
        guided: MotionPrompt's learnable tokens are in the prompt. learn: they are optimised.
        settings: guidance settings that differ from the run's. words: initial words that differ from the run's.
        repeat: how many times the initial words are there.
        suffix: words appended to the prompt.
        placement: where learnable tokens go.
        discriminator: name in `Networks.others`; empty for the run's own.
        pipeline, options: another sampler, a subclass of `DemoPipeline`, and its fields.
        step_factor: sampling steps in units of the run's.
        reference: what a perfect model would have made, no rival; says which way a metric should go.
    """

    name: str
    about: str
    guided: bool = True
    learn: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)
    words: str = ""
    repeat: int = 1
    suffix: str = ""
    placement: Literal["end", "front"] = "end"
    discriminator: str = ""
    pipeline: type[DemoPipeline] = DemoPipeline
    options: Mapping[str, Any] = field(default_factory=dict)
    step_factor: float = 1.0
    reference: bool = False

    def sample(self, networks: Networks, prompt: str, seed: int, settings: GuidanceSettings, words: str) -> Tensor:
        """The video, (T, 3, H, W) in [0, 1]."""
        judge = networks.others[self.discriminator] if self.discriminator else networks.discriminator
        flow = networks.flow
        if self.discriminator and judge.config.flow_model != flow.name:  # it judges the flow that it was trained on
            flow = _flow_model(judge.config.flow_model)
        pipeline = self.pipeline(
            networks.weights,
            flow,
            judge,
            steps=max(1, round(networks.steps * self.step_factor)),
            placement=self.placement,
            **self.options,
        )
        prompt = f"{prompt} {self.suffix}".strip()
        if not self.guided:
            return pipeline.sample(prompt, seed)[0]
        changed = GuidanceSettings.from_dict({**settings.to_dict(), **self.settings})
        words = " ".join([self.words or words] * self.repeat)
        return pipeline.sample(prompt, seed, changed, words, learn=self.learn)[0]


PLAIN = Variant("plain", "the prompt as it is", guided=False)
RENDERED = Variant(
    "rendered",
    "no model: what the prompt describes, rendered, through the autoencoder",
    guided=False,
    pipeline=Rendered,
    reference=True,
)
MOTIONPROMPT = Variant("motionprompt", "MotionPrompt with the run's settings")
UNOPTIMISED = Variant("unoptimised", "the same tokens at the same steps, never optimised", learn=False)


def fixed_word(word: str) -> Variant:
    return Variant("fixed word", f'"{word}" at the end of the prompt', guided=False, suffix=word)
