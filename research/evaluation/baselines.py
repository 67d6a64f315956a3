"""What a user might choose instead of MotionPrompt, each on the demo model as its paper describes it.

Where a paper counts sampling steps of 50, the share of the schedule is kept. Nothing is tuned to the demo model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from motionprompt_core.guidance.objective import objective
from motionprompt_core.guidance.pairs import draw_pairs
from motionprompt_core.guidance.report import StepReport
from motionprompt_core.guidance.schedule import guided_steps
from motionprompt_core.guidance.settings import GuidanceSettings
from motionprompt_core.guidance.view import GuidedModel, View

from ..demo.pipeline import DemoPipeline
from .frequency import mix
from .variants import Variant


@dataclass
class FreeInit(DemoPipeline):
    """Wu et al., ECCV 2024 (arXiv 2312.07537): sample, noise the result, keep its low frequencies, sample again.

    `iterations` counts the runs after the first, so 1 doubles the cost; MotionPrompt, if asked for, guides the last
    run only. Butterworth filter of order 4, stop 0.25 in space and time; the noise put back is the first run's. The
    method lives on what the noisiest level still shows of the video. The demo model's shows nothing, so the re-noising
    is that of Stable Diffusion's last level, `last`.
    """

    iterations: int = 1
    last: float = 0.0047

    def sample(
        self, prompt: str, seed: int, settings: GuidanceSettings | None = None, *args: Any, **more: Any
    ) -> tuple[Tensor, list[StepReport]]:
        x = first = self.noise(seed)
        for run in range(self.iterations):
            x0, _ = self.denoise(x, prompt, seed)
            noised = self.last**0.5 * x0 + (1 - self.last) ** 0.5 * first
            fresh = torch.randn(first.shape, generator=torch.Generator().manual_seed(seed + 1_000_003 * (run + 1)))
            x = mix(noised, fresh, stop=0.25)
        x0, guided = self.denoise(x, prompt, seed, settings, *args, **more)
        with torch.no_grad():
            return self.decode(x0).clamp(0, 1), guided


@dataclass
class LatentGuidance(DemoPipeline):
    """Diffusion posterior sampling (Chung et al., ICLR 2023) with MotionPrompt's loss: the gradient moves the latents
    x_t of all frames, not the tokens. Same steps, iterations and pairs; each move has `scale` of the latents' size.
    """

    scale: float = 0.02

    def sample(
        self, prompt: str, seed: int, settings: GuidanceSettings | None = None, *_: Any, **__: Any
    ) -> tuple[Tensor, list[StepReport]]:
        self._settings = settings or GuidanceSettings()
        self._guided = guided_steps(self.steps, self._settings)
        self._generator = torch.Generator().manual_seed(seed + 1)
        return super().sample(prompt, seed)

    def before_step(self, step: int, t: int, x: Tensor, context: Tensor, negative: Tensor) -> Tensor:
        if step not in self._guided or self.flow is None:
            return x
        model = GuidedModel(lambda _: context, lambda c: x, self.decode, self.flow, self.discriminator)
        for _ in range(self._settings.iterations):
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                x0 = self.predict_x0(leaf, t, context)
                pairs = draw_pairs(len(x0), self._settings, self._generator, model.num_flows)
                loss, _ = objective(View(model, x0, pairs), self._settings)
                (gradient,) = torch.autograd.grad(loss, leaf)
            x = x - self.scale * x.norm() * gradient / gradient.norm().clamp(min=1e-12)
        return x


@dataclass
class FlowMo(DemoPipeline):
    """Shaulov et al., NeurIPS 2025 (arXiv 2506.01144): one Adam step on x_t, against the variance over time of the
    change between consecutive frames of the estimate, at the patch where it is greatest; the first 12 of 50 steps.
    """

    learning_rate: float = 0.005
    share: float = 12 / 50

    def before_step(self, step: int, t: int, x: Tensor, context: Tensor, negative: Tensor) -> Tensor:
        if step >= round(self.share * self.steps):
            return x
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            adam = torch.optim.Adam([leaf], lr=self.learning_rate)
            x0 = torch.lerp(self.predict_x0(leaf, t, negative), self.predict_x0(leaf, t, context), self.cfg)
            change = (x0[1:] - x0[:-1]).abs()
            change.var(dim=0, unbiased=False).mean(dim=0).max().backward()
            adam.step()
        return leaf.detach()


@dataclass
class VideoGuide(DemoPipeline):
    """Lee et al., arXiv 2410.04364, with the model as its own teacher: noise the estimate anew, let the teacher denoise
    it for tau steps, and go a share 1 - beta of the way to what it says; the first 5 of 50 steps, after which the high
    frequencies are drawn anew as well. Plain CFG instead of the paper's CFG++, as in every other variant.
    """

    share: float = 5 / 50
    towards: float = 0.5
    tau: int = 10
    teacher_steps: int = 25
    stop: float = 0.125

    def sample(self, prompt: str, seed: int, *_: Any, **__: Any) -> tuple[Tensor, list[StepReport]]:
        self._generator = torch.Generator().manual_seed(seed + 1)
        return super().sample(prompt, seed)

    def _guides(self, step: int) -> bool:
        return step < round(self.share * self.steps)

    def before_step(self, step: int, t: int, x: Tensor, context: Tensor, negative: Tensor) -> Tensor:
        if step and self._guides(step - 1):
            return mix(x, torch.randn(x.shape, generator=self._generator), self.stop)
        return x

    def after_estimate(self, step: int, t: int, x0: Tensor, context: Tensor, negative: Tensor) -> Tensor:
        if not self._guides(step):
            return x0
        a, teacher = self.alphas[t], x0
        x = a.sqrt() * x0 + (1 - a).sqrt() * torch.randn(x0.shape, generator=self._generator)
        times = torch.linspace(t, 0, self.teacher_steps).round().long().tolist()
        for now, following in zip(times[: self.tau], times[1 : self.tau + 1], strict=True):
            teacher = torch.lerp(self.predict_x0(x, now, negative), self.predict_x0(x, now, context), self.cfg)
            x = self.ddim(x, teacher, now, following)
        return torch.lerp(x0, teacher, self.towards)


VARIANTS = (
    *(
        Variant(
            f"FreeInit({n})",
            f"{n} re-initialisation{'s' if n > 1 else ''}",
            guided=False,
            pipeline=FreeInit,
            options={"iterations": n},
        )
        for n in (1, 3, 5)
    ),
    Variant("FreeInit(1) + motionprompt", "the last run guided", pipeline=FreeInit),
    Variant("latent guidance", "DPS with MotionPrompt's loss", pipeline=LatentGuidance),
    Variant("FlowMo", "variance guidance of the latents", guided=False, pipeline=FlowMo),
    Variant("VideoGuide", "the model as its own teacher", guided=False, pipeline=VideoGuide),
    Variant("more steps", "2.5 times the sampling steps, about MotionPrompt's cost", guided=False, step_factor=2.5),
)
