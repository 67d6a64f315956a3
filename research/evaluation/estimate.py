"""Guidance of the estimate on the demo model, what it might be mistaken for, and its nearest rivals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from motionprompt_core.discriminator.features import successive_flows
from motionprompt_core.estimate.correct import correct, euler_share, factor
from motionprompt_core.estimate.steady import steady
from motionprompt_core.estimate.window import Window
from motionprompt_core.flow.base import FlowModel
from motionprompt_core.guidance.losses import adversarial_loss
from motionprompt_core.guidance.report import StepReport
from motionprompt_core.guidance.schedule import guided_steps
from motionprompt_core.guidance.settings import GuidanceSettings
from motionprompt_core.media.ops import gaussian_blur
from motionprompt_core.metrics.video import flow_scores, video_flow

from ..demo.pipeline import DemoPipeline
from .baselines import LatentGuidance
from .descend import descend
from .variants import Variant


@dataclass
class Corrected(DemoPipeline):
    """The estimate corrected, as the nodes do it; with settings, the tokens are optimised as well.

    `form` closed is `steady`, gradient is `descend`; `last` corrects the last step alone. `phi` is the weight of
    the discriminator's opinion among the terms of the gradient form; `judged` takes over only what it finds more real.
    """

    form: Literal["closed", "gradient"] = "closed"
    last: bool = False
    phi: float = 0.0
    judged: bool = False

    def sample(self, *args: Any, **more: Any) -> tuple[Tensor, list[StepReport]]:
        self._window = Window(self.steps)
        return super().sample(*args, **more)

    def improve(self, pictures: Tensor) -> Tensor:
        assert self.flow is not None
        if self.form == "closed":
            return steady(pictures, self.flow)
        return descend(pictures, self.flow, terms=[self._unreal] if self.phi else [])

    def _unreal(self, pictures: Tensor, flow: Tensor) -> Tensor:
        assert self.discriminator is not None
        rows = successive_flows(flow, self.discriminator.num_flows)
        return self.phi * adversarial_loss(self.discriminator(rows), "non_saturating")

    def _reality(self, x0: Tensor) -> float:
        assert self.flow is not None and self.discriminator is not None
        return float(flow_scores(video_flow(self.decode(x0), self.flow), self.flow, self.discriminator).mean())

    def after_estimate(self, step: int, t: int, x0: Tensor, context: Tensor, negative: Tensor) -> Tensor:
        following = [*self.timesteps(), None][step + 1]
        sigma, target = (
            0.0 if at is None else float(((1 - self.alphas[at]) / self.alphas[at]).sqrt()) for at in (t, following)
        )
        wanted = step == self.steps - 1 if self.last else self._window.wants(step, sigma, x0)
        if not wanted:
            return x0
        better = x0 + factor(euler_share(sigma, target)) * correct(x0, self.decode, self.encode, self.improve)
        return x0 if self.judged and self._reality(better) <= self._reality(x0) else better


@dataclass
class Afterwards(DemoPipeline):
    """Nothing while sampling: the finished frames are steadied in the same way, or merely blurred (px)."""

    blur: float = 0.0

    def sample(self, *args: Any, **more: Any) -> tuple[Tensor, list[StepReport]]:
        video, guided = super().sample(*args, **more)
        assert self.flow is not None
        if self.blur:
            return gaussian_blur(video, self.blur).clamp(0, 1), guided
        return steady(video, self.flow).clamp(0, 1), guided


def downhill(pictures: Tensor, flow: FlowModel) -> Tensor:
    """What stands for the gradient of the gradient form's loss: where its moves lead, backwards."""
    pictures = pictures.detach()
    return pictures - descend(pictures, flow, moves=10)


@dataclass
class LatentGuidanceSameLoss(LatentGuidance):
    """DPS with the loss of the gradient form, as often and as far as with MotionPrompt's."""

    def before_step(self, step: int, t: int, x: Tensor, context: Tensor, negative: Tensor) -> Tensor:
        if step not in self._guided or self.flow is None:
            return x
        for _ in range(self._settings.iterations):
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                x0 = torch.lerp(self.predict_x0(leaf, t, negative), self.predict_x0(leaf, t, context), self.cfg)
                (gradient,) = torch.autograd.grad(pictures := self.decode(x0), leaf, downhill(pictures, self.flow))
            x = x - self.scale * x.norm() * gradient / gradient.norm().clamp(min=1e-12)
        return x


@dataclass
class TokensSameLoss(DemoPipeline):
    """MotionPrompt's place with another loss: the tokens go down the loss of the gradient form, and stay in the prompt
    from the first guided step on. Initial words, steps, iterations and Adam as in the settings."""

    def sample(
        self, prompt: str, seed: int, settings: GuidanceSettings | None = None, words: str = "", *_: Any, **__: Any
    ) -> tuple[Tensor, list[StepReport]]:
        self._prompt, self._settings = prompt, settings or GuidanceSettings()
        self._guided = guided_steps(self.steps, self._settings)
        self._rows = self.initial_tokens(words).clone().requires_grad_()
        betas = (0.9, self._settings.beta2)
        self._adam = torch.optim.Adam([self._rows], lr=self._settings.learning_rate, betas=betas)
        return super().sample(prompt, seed)

    def before_step(self, step: int, t: int, x: Tensor, context: Tensor, negative: Tensor) -> Tensor:
        if step not in self._guided or self.flow is None:
            return x
        uncond = self.predict_x0(x, t, negative)
        for _ in range(self._settings.iterations):
            with torch.enable_grad():
                cond = self.predict_x0(x, t, self.embed(self._prompt, self._rows))
                pictures = self.decode(torch.lerp(uncond, cond, self.cfg))
                (self._rows.grad,) = torch.autograd.grad(pictures, self._rows, downhill(pictures, self.flow))
            self._adam.step()
        context.copy_(self.embed(self._prompt, self._rows))  # the prompt's own, which the sampler goes on with
        return x


@dataclass
class WithoutMotion(DemoPipeline):
    """Spatiotemporal skip guidance (Hyung et al., CVPR 2025) in its simplest form: away from what the model would draw
    without its temporal layers, in the steps 8 to 17 of 20."""

    scale: float = 1.0

    def after_estimate(self, step: int, t: int, x0: Tensor, context: Tensor, negative: Tensor) -> Tensor:
        if not 0.4 <= step / self.steps < 0.9:
            return x0
        return x0 + self.scale * (self._cond - self._alone)

    def predict_x0(self, x: Tensor, t: int, context: Tensor) -> Tensor:
        found = super().predict_x0(x, t, context)
        a = self.alphas[t]
        v = self.weights.unet(x, torch.full((len(x),), t), context.expand(len(x), -1, -1), 1)
        # The sampler asks for the prompt last.
        self._cond, self._alone = found, a.sqrt() * x - (1 - a).sqrt() * v
        return found


@dataclass
class PhaseLock(DemoPipeline):
    """arXiv 2606.06361 as its abstract describes it: a two-step pass gives the changes of the latents from frame to
    frame; they are added to later frames with weight `weight`, falling to 0 over the first half of the steps."""

    weight: float = 0.05

    def sample(self, prompt: str, seed: int, *args: Any, **more: Any) -> tuple[Tensor, list[StepReport]]:
        quick = DemoPipeline(self.weights, steps=2, cfg=self.cfg, negative=self.negative)
        draft, _ = quick.denoise(self.noise(seed), prompt, seed)
        self._change = draft[1:] - draft[:-1]
        return super().sample(prompt, seed, *args, **more)

    def after_estimate(self, step: int, t: int, x0: Tensor, context: Tensor, negative: Tensor) -> Tensor:
        weight = self.weight * max(0.0, 1 - 2 * step / self.steps)
        lacking = self._change - (x0[1:] - x0[:-1])
        return torch.cat((x0[:1], x0[1:] + weight * lacking))


@dataclass
class PredictAndPerturb(DemoPipeline):
    """Self-refining sampling (arXiv 2601.18577): at the first fifth of the steps the estimate is noised anew and
    estimated again, `repeats` times; only where successive estimates differ by more than their mean does it count."""

    repeats: int = 3
    share: float = 0.2

    def before_step(self, step: int, t: int, x: Tensor, context: Tensor, negative: Tensor) -> Tensor:
        if step >= round(self.share * self.steps):
            return x
        a, before = self.alphas[t], None
        for repeat in range(self.repeats):
            x0 = torch.lerp(self.predict_x0(x, t, negative), self.predict_x0(x, t, context), self.cfg)
            noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1000 * step + repeat))
            again = a.sqrt() * x0 + (1 - a).sqrt() * noise
            change = None if before is None else (x0 - before).abs().mean(1, keepdim=True)
            x = again if change is None else torch.where(change > change.mean(), again, x)
            before = x0
        return x


VARIANTS = (
    Variant("estimate", "the estimate steadied, closed form", guided=False, pipeline=Corrected),
    Variant("estimate, last step", "in the last step alone", guided=False, pipeline=Corrected, options={"last": True}),
    Variant(
        "estimate, gradient", "ten moves down a loss", guided=False, pipeline=Corrected, options={"form": "gradient"}
    ),
    Variant(
        "gradient with discriminator",
        "its opinion among the terms",
        guided=False,
        pipeline=Corrected,
        options={"form": "gradient", "phi": 0.01},
    ),
    Variant(
        "estimate, judged",
        "where the discriminator finds it more real",
        guided=False,
        pipeline=Corrected,
        options={"judged": True},
    ),
    Variant("estimate + motionprompt", "and the tokens optimised", pipeline=Corrected),
    Variant("latent guidance, same loss", "DPS with the gradient form's loss", pipeline=LatentGuidanceSameLoss),
    Variant("motionprompt, same loss", "tokens with the gradient form's loss", pipeline=TokensSameLoss),
    Variant("post-process", "plain's finished frames steadied in the same way", guided=False, pipeline=Afterwards),
    Variant(
        "blurred", "plain's finished frames blurred by 0.8 px", guided=False, pipeline=Afterwards, options={"blur": 0.8}
    ),
    Variant("STG-like", "away from the model without temporal layers", guided=False, pipeline=WithoutMotion),
    Variant("PhaseLock", "frame-to-frame changes of a two-step draft", guided=False, pipeline=PhaseLock),
    Variant("predict and perturb", "self-refining sampling", guided=False, pipeline=PredictAndPerturb),
)
