"""Samples the demo model without ComfyUI: DDIM with CFG, guided or not; for training's checks and for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from motionprompt_core.demo import text
from motionprompt_core.demo.checkpoint import DemoWeights, load_demo_weights
from motionprompt_core.discriminator.model import FlowDiscriminator, load_discriminator
from motionprompt_core.flow import load_flow_model
from motionprompt_core.flow.base import FlowModel
from motionprompt_core.guidance.autograd import constant_layers
from motionprompt_core.guidance.optimise import PromptOptimiser
from motionprompt_core.guidance.record import guide_step
from motionprompt_core.guidance.report import StepReport
from motionprompt_core.guidance.schedule import guided_steps
from motionprompt_core.guidance.settings import GuidanceSettings
from motionprompt_core.guidance.tokens import LearnableTokens
from motionprompt_core.guidance.view import GuidedModel
from motionprompt_tools import world

from .networks import TextEncoder, alphas_cumprod, tokenize


@dataclass
class DemoPipeline:
    """The demo model with what guides it.

    Attributes:
        weights: from `load_demo_weights`.
        flow, discriminator: as in `GuidedModel`; only needed for guided samples.
        steps: DDIM steps. cfg: classifier-free guidance scale (1 is the prompt alone).
        negative: the negative prompt. placement: where the learnable tokens go in the prompt.
    """

    weights: DemoWeights
    flow: FlowModel | None = None
    discriminator: FlowDiscriminator | None = None
    steps: int = 20
    cfg: float = 3.0
    negative: str = ""
    placement: Literal["end", "front"] = "end"
    frames: int = world.FRAMES
    alphas: Tensor = field(default_factory=alphas_cumprod)

    @cached_property
    def text(self) -> TextEncoder:
        """The text encoder, frozen."""
        encoder = TextEncoder()
        encoder.load_state_dict(self.weights.text)
        return encoder.eval().requires_grad_(False)

    def timesteps(self) -> list[int]:
        """Noise levels of the steps, from 999 down, evenly spaced."""
        return torch.linspace(999, 0, self.steps + 1).round().long().tolist()[:-1]

    def embed(self, prompt: str, rows: Tensor | None = None) -> Tensor:
        """Context (1, L, d) of the prompt P, with rows T (n, d) of learnable tokens at its end or front if given."""
        ids, model = tokenize([prompt]), self.text.text_model
        x = model.embeddings.token_embedding(ids)
        if rows is not None:
            words = 0 if self.placement == "front" else len(text.word_ids(prompt))
            at = min(words + 1, text.MAX_LENGTH - 1 - len(rows))
            x = torch.cat((x[:, :at], rows[None], x[:, at:]), dim=1)[:, : text.MAX_LENGTH]
        x = x + model.embeddings.position_embedding.weight
        return model.final_layer_norm(model.encoder(x))

    def initial_tokens(self, words: str) -> Tensor:
        """Rows T0 (n, d) of the initial words."""
        return self.text.text_model.embeddings.token_embedding.weight[text.word_ids(words)].detach()

    def predict_x0(self, x: Tensor, t: int, context: Tensor) -> Tensor:
        """Tweedie's estimate from x_t (F, 4, h, w) for one prompt; v-prediction: x0 = alpha x - sigma v."""
        a = self.alphas[t]
        v = self.weights.unet(x, torch.full((len(x),), t), context.expand(len(x), -1, -1), len(x))
        return a.sqrt() * x - (1 - a).sqrt() * v

    def estimate(self, x0: Tensor, t: int, context: Tensor, negative: Tensor, generator: torch.Generator) -> Tensor:
        """Tweedie's estimate with CFG, after noise of level t was put on clean latents (F, 4, h, w)."""
        a = self.alphas[t]
        x = a.sqrt() * x0 + (1 - a).sqrt() * torch.randn(x0.shape, generator=generator)
        return torch.lerp(self.predict_x0(x, t, negative), self.predict_x0(x, t, context), self.cfg)

    def encode(self, frames: Tensor) -> Tensor:
        """Frames (N, 3, H, W) in [0, 1] -> latents (N, 4, h, w); `decode`'s inverse as far as there is one."""
        return self.weights.autoencoder.encode(frames * 2 - 1) * self.weights.autoencoder.scale

    def decode(self, x0: Tensor) -> Tensor:
        """Latents (N, 4, h, w) -> frames (N, 3, H, W), nominally in [0, 1], not clamped."""
        return self.weights.autoencoder.decode(x0 / self.weights.autoencoder.scale) / 2 + 0.5

    def noise(self, seed: int) -> Tensor:
        """The latents (F, 4, h, w) that a seed begins with."""
        size = world.SIZE // 8
        return torch.randn(self.frames, 4, size, size, generator=torch.Generator().manual_seed(seed))

    def sample(
        self,
        prompt: str,
        seed: int,
        settings: GuidanceSettings | None = None,
        words: str = "authentic",
        on_estimate: Callable[[int, int, Tensor], object] | None = None,
        learn: bool = True,
    ) -> tuple[Tensor, list[StepReport]]:
        """One video, (F, 3, 128, 128) in [0, 1], and what the guidance did at each guided step.

        Args:
            settings: None samples the prompt as it is.
            words: initial words of the learnable tokens.
            on_estimate: called at each step with its number, its noise level (0..999) and Tweedie's estimate with CFG,
                latents (F, 4, h, w): what the discriminator has to judge where `loss_on` is "cfg".
            learn: False leaves the tokens as they begin, in the very steps in which they would be optimised: the
                control for what optimising them does.
        """
        x0, guided = self.denoise(self.noise(seed), prompt, seed, settings, words, on_estimate, learn)
        with torch.no_grad():
            return self.decode(x0).clamp(0, 1), guided

    @torch.no_grad()
    def denoise(
        self,
        x: Tensor,
        prompt: str,
        seed: int,
        settings: GuidanceSettings | None = None,
        words: str = "authentic",
        on_estimate: Callable[[int, int, Tensor], object] | None = None,
        learn: bool = True,
    ) -> tuple[Tensor, list[StepReport]]:
        """All steps, from the noise x (F, 4, h, w) to clean latents; else as `sample`."""
        guidance = None if settings is None else _Guidance(self, prompt, words, settings, seed, learn)
        plain, negative = self.embed(prompt), self.embed(self.negative)
        timesteps = [*self.timesteps(), None]
        for step, (t, following) in enumerate(zip(timesteps[:-1], timesteps[1:], strict=True)):
            x = self.before_step(step, t, x, plain, negative)
            uncond = self.predict_x0(x, t, negative)
            context = None if guidance is None else guidance.context(step, t, x, uncond)
            context = plain if context is None else context
            cond = self.predict_x0(x, t, context)
            x0 = torch.lerp(uncond, cond, self.cfg)
            if on_estimate is not None:
                on_estimate(step, t, x0)
            x0 = self.after_estimate(step, t, x0, context, negative)
            x = x0 if following is None else self.ddim(x, x0, t, following)
        return x, [] if guidance is None else guidance.steps

    def before_step(self, step: int, t: int, x: Tensor, context: Tensor, negative: Tensor) -> Tensor:
        """The latents x_t that the step goes on with. For subclasses: guidance of the latents themselves."""
        return x

    def after_estimate(self, step: int, t: int, x0: Tensor, context: Tensor, negative: Tensor) -> Tensor:
        """The clean latents that the step goes towards. For subclasses: guidance of the estimate."""
        return x0

    def ddim(self, x: Tensor, x0: Tensor, t: int, following: int) -> Tensor:
        """One deterministic DDIM step (Song et al. 2020, eq. 12 with eta 0)."""
        a, b = self.alphas[t], self.alphas[following]
        eps = (x - a.sqrt() * x0) / (1 - a).sqrt()
        return b.sqrt() * x0 + (1 - b).sqrt() * eps


class _Guidance:
    """The prompt of one sampling, its learnable tokens optimised on the way; arguments as for `DemoPipeline.sample`."""

    def __init__(
        self,
        pipeline: DemoPipeline,
        prompt: str,
        words: str,
        settings: GuidanceSettings,
        seed: int,
        learn: bool,
    ):
        if learn and pipeline.flow is None:
            raise ValueError("a guided sample needs a flow model: pass flow= to DemoPipeline")
        self.pipeline, self.prompt, self.settings, self.learn = pipeline, prompt, settings, learn
        self.flow = pipeline.flow
        self.planned, self.steps = guided_steps(pipeline.steps, settings), list[StepReport]()
        self.optimiser = PromptOptimiser(LearnableTokens({"l": pipeline.initial_tokens(words)}), settings, seed)

    def encode(self, rows: Mapping[str, Tensor]) -> Tensor:
        return self.pipeline.embed(self.prompt, rows["l"])

    def context(self, step: int, t: int, x: Tensor, uncond: Tensor) -> Tensor | None:
        """What the step is steered by: with optimised tokens in the window; None for the plain prompt."""
        optimised = self.settings.outside_window == "tokens"
        if step in self.planned:
            optimised = not self.learn or self._optimise(step, t, x, uncond) or optimised
        return self.encode(self.optimiser.tokens.detached()) if optimised else None

    def _optimise(self, step: int, t: int, x: Tensor, uncond: Tensor) -> bool:
        """Whether it went well."""
        pipeline = self.pipeline
        unet, alpha = pipeline.weights.unet, pipeline.alphas[t]
        early = (unet.down0, unet.down1, unet.down2) if self.optimiser.mode.truncated else ()

        def predict_x0(context: Tensor) -> Tensor:
            with constant_layers(early):
                x0 = pipeline.predict_x0(x, t, context)
            return torch.lerp(uncond, x0, pipeline.cfg) if self.settings.loss_on == "cfg" else x0

        assert self.flow is not None  # looked for above, where tokens learn
        report = StepReport(step, float(((1 - alpha) / alpha).sqrt()))
        self.steps.append(report)
        model = GuidedModel(self.encode, predict_x0, pipeline.decode, self.flow, pipeline.discriminator)
        with torch.enable_grad():
            guide_step(self.optimiser, model, report)
        return report.fallback is None


def load_pipeline(weights: Path) -> DemoPipeline:
    """The demo model of a folder with its weights, its flow model and its discriminator."""
    judge = load_discriminator(weights / "demo_discriminator.safetensors")
    return DemoPipeline(
        load_demo_weights(weights / "demo_video_model.safetensors"),
        load_flow_model(judge.config.flow_model),
        judge,
    )
