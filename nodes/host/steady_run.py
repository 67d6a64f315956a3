"""One run of a sampler whose estimates are corrected: which steps, by how much, and what the user is told of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import comfy.model_management
import torch
from torch import Tensor

from ...motionprompt_core.estimate.correct import Responses, correct, euler_responses, hand_over, responses
from ...motionprompt_core.estimate.steady import steady
from ...motionprompt_core.estimate.window import MOST, Window
from ...motionprompt_core.guidance.decoding import count_frames
from ...motionprompt_core.guidance.schedule import StepTracker
from .checks import evaluates_once_off_schedule
from .comfy_types import Guider, ModelSampling, Options, Sampler, Vae
from .correction_report import CorrectedStep, EstimateReport
from .decode import fixed_noise, frame_size
from .families import ModelFamily
from .gradients import check_interrupt, out_of_memory
from .models import ManagedModel
from .streams import Streams
from .tiny_stream import TinyStream
from .whole_schedule import part_of

NOTHING = 1e-3  # times a correction that are not worth a change
# Times a correction at most in a later step. Samplers that need more of it, in their last steps but one, throw the
# picture about: res_multistep_cfg_pp -8 times. Those with a memory of the usual kind need up to 2.4.
HELD = 3.0
# Why a step was not corrected.
UNSEEN = "its estimate never came by: the guider or the sampler evaluates the model in a way of its own"
LEAPT = "the sampler leapt over it"
OVERSHOT = "the sampler would overshoot"
UNCLEAR = "motion is not clear yet"
OTHER = "a few steps are enough"
MEMORY = "memory ran out"
BROKEN = "the VAE or the flow model gave numbers that are not finite"
LOST = "the model's own estimate is not finite"


class Correction(Protocol):
    """What corrects, see `EstimatePatch`."""

    strength: float
    vae: Vae
    flow: ManagedModel
    report: EstimateReport

    def tell(self, line: str) -> None: ...


class EstimateRun:
    """State of one run of a sampler node.

    Args:
        patch: what is attached. guider: ComfyUI's. family: the model's. decoder: the VAE, as the family has it.
        streams: what the latents hold.
    """

    def __init__(self, patch: Correction, guider: Guider, family: ModelFamily, decoder: Any, streams: Streams):
        self.patch, self.guider, self.family, self.decoder, self.streams = patch, guider, family, decoder, streams
        self.report = patch.report
        self.stream = TinyStream.of(decoder)
        self.pieces = list((self.stream or decoder).pieces)
        self.tracker = StepTracker([1.0, 0.0])

    def memory(self) -> float:
        """Bytes that a correction takes beyond the plain run, as far as ComfyUI can say."""
        if self.stream is not None:
            return self.stream.memory(*frame_size(self.patch.vae, torch.empty(self.streams.video_shape, device="meta")))
        return self.decoder.whole_memory(self.streams.video_shape)

    @contextmanager
    def one_pass(
        self, sampler: Sampler, sigmas: Tensor, noise: Tensor, latent_image: Any, mask: Tensor | None
    ) -> Iterator[None]:
        """One pass over the schedule, or over the part of it that the sampler was given."""
        levels = sigmas.tolist()
        self.tracker = StepTracker(levels, by_count=evaluates_once_off_schedule(sampler))
        continued = noise is not None and not bool(noise.any())
        self.part = part_of(levels, continued, self.guider.inner_model.model_sampling.percent_to_sigma)
        self.window = Window(self.part.total)
        self.given = None if mask is None else (latent_image, mask)
        self.evaluation = 0  # of the current step
        self.change: Tensor | None = None
        self.handed: list[tuple[Tensor, list[float]]] = []
        here = range(self.part.done, self.part.done + self.part.steps)
        self.responses = self._responses(sampler, levels)
        self.report.num_steps = self.part.total
        self.report.left = {step: UNSEEN for step in here}
        self._tell(min(MOST, self.part.steps))
        try:
            yield
        finally:
            self._conclude()
            self.report.passes += 1
            self.change, self.handed = None, []

    def _tell(self, possible: int) -> None:
        """What is about to be done, before it is."""
        if not self.part.whole:
            self.report.note(f"This sampler goes through {self.part}, by their noise levels.")
        latents = torch.empty(self.streams.video_shape, device="meta")
        frames = count_frames(self.decoder, self.decoder.frames_first(latents))
        height, width = frame_size(self.patch.vae, latents)
        if frames < 3:
            self.report.note(f"The video has {frames} frames, and shake and flicker show in three: make it longer.")
        self.patch.tell(
            f"Up to {possible} of {self.part.steps} steps are corrected. Each time {frames} frames of {width} x "
            f"{height} px are decoded ({type(self.patch.vae.first_stage_model).__name__}) and encoded twice; about "
            f"{self.memory() / 2**30:.1f} GiB are kept free for it."
        )

    def _conclude(self) -> None:
        """What the user should know of the pass."""
        if self.window.forced:
            self.report.note(
                "The estimates did not show motion clearly before the end: only the last steps were corrected. A video "
                "that hardly moves is so; else more steps would show it sooner."
            )
        steps = [step for step in self.report.steps if step.run == self.report.passes]
        if steps and not any(step.change for step in steps):
            self.report.note("Nothing in the estimates had to be steadied: the video is as it would be without.")
        if not steps:
            self.report.note(
                "No step of this sampler was corrected. Put the node on the model of the next sampler, too."
                if self.part.done + self.part.steps < self.part.total
                else "No step was corrected."
            )

    def _responses(self, sampler: Sampler, levels: list[float]) -> Responses:
        """What the sampler makes of a change at each step."""
        signal = _signal(self.guider.inner_model.model_sampling)
        try:
            return responses(
                lambda model, done, x: _dry_run(sampler, self.guider, levels, model, done, x),
                levels,
                signal,
                evaluates_once_off_schedule(sampler),
            )
        except comfy.model_management.InterruptProcessingException:
            raise
        except Exception as error:  # any sampler of any pack may need what a dry run has not
            self.report.note(
                "The sampler could not be asked what it takes over of a correction, and is taken for Euler's "
                f"({type(error).__name__}: {error})."
            )
            return euler_responses(levels, signal)

    def corrected(self, x0: Tensor, sigma: float) -> Tensor:
        """What the sampler is to see of the estimate of an evaluation at a noise level."""
        began = self.tracker.observe(sigma)
        self.report.left |= {self.part.done + leapt: LEAPT for leapt in began[:-1]}
        self.evaluation = 1 if began else self.evaluation + 1
        last = self.tracker.current == self.part.steps - 1
        if self.evaluation == (self.responses.evaluations if last else 1):
            self._decide(x0, sigma)
            self.change = self._due()
        elif last:
            return x0
        return x0 if self.change is None else self.streams.with_video(x0, self.streams.video(x0) + self.change)

    def _decide(self, x0: Tensor, sigma: float) -> None:
        """Whether the step that begins is corrected: what is to be handed over of it, or the reason."""
        step = self.part.done + self.tracker.current
        seen = self.decoder.frames_first(self.streams.video(self._with_given(x0)))
        noise = sigma / max(_signal(self.guider.inner_model.model_sampling)(sigma), 1e-3)
        reason, change = OTHER if self.window.corrected else UNCLEAR, None
        times = hand_over(self.responses.arrives, self.tracker.current)
        if max((abs(later) for later in times[self.tracker.current + 1 :]), default=0.0) > HELD:
            reason = OVERSHOT
        elif self.window.wants(step, noise, seen):
            reason, change = self._correction(seen, x0, sigma, times[self.tracker.current])
        if change is None:
            self.report.left[step] = reason
        else:
            self.handed.append((change, times))
            del self.report.left[step]

    def _due(self) -> Tensor | None:
        """What the estimates of this step are changed by: its own correction, and what earlier ones need."""
        step = self.tracker.current
        due = [times[step] * change for change, times in self.handed if abs(times[step]) > NOTHING]
        return sum(due[1:], start=due[0]) if due else None

    def _with_given(self, x0: Tensor) -> Tensor:
        """The estimate as the sampler will have it: what a mask keeps is the given latents'."""
        if self.given is None:
            return x0
        latent, mask = self.given
        return x0 * mask + latent * (1 - mask)

    @torch.no_grad()
    def _correction(self, seen: Tensor, x0: Tensor, sigma: float, times: float) -> tuple[str, Tensor | None]:
        """The change of the video in its own shape, to be added `times` now; if there is none, why."""
        step, started = self.tracker.current, time.perf_counter()
        if not seen.isfinite().all():
            self.report.note(
                f"From step {self.part.done + step + 1} on {LOST} (NaN or infinity): the video will be black or noise. "
                "Load the model in another precision, or look at what else changes it."
            )
            return LOST, None
        change = self._solved(seen, self.part.done + step)
        if change is None:
            return MEMORY, None
        if not change.isfinite().all():
            self.report.note(f"At step {self.part.done + step + 1} {BROKEN}. Load the VAE in another precision.")
            return BROKEN, None
        video = torch.zeros_like(self.streams.video(x0))
        self.decoder.frames_first(video).copy_(change)  # a view: what is no frame of the video stays as it is
        video = video * self.family.free(self.guider.conds, video)
        if self.given is not None:
            video = video * self.streams.video(self.given[1].to(x0).expand_as(x0))
        share = float(video.norm() / seen.norm().clamp(min=1e-9))
        seconds = time.perf_counter() - started
        step += self.part.done
        self.report.steps.append(CorrectedStep(step, sigma, self.report.passes, share, times, seconds))
        return "", video

    def _solved(self, seen: Tensor, step: int) -> Tensor | None:
        """E(Y*) - E(Y), in smaller pieces if memory runs out; None if it does for good."""
        while self.pieces:
            try:
                return self._solve(seen, *self.pieces[0])
            except Exception as error:
                if not out_of_memory(error):
                    raise
            # Only here, where the failed attempt's tensors are no longer held by its traceback.
            del self.pieces[0]
            comfy.model_management.soft_empty_cache()
            then = ["the video is sampled without correction", "frames are corrected one by one", "in smaller pieces"]
            self.report.note(f"Memory ran out at step {step + 1}: from there on {then[min(2, len(self.pieces))]}.")
        return None

    def _solve(self, seen: Tensor, latents: int | None, pairs: int) -> Tensor:
        flow = self.patch.flow.module
        options: Any = {"strength": self.patch.strength, "batch": pairs, "check": check_interrupt}
        if self.stream is not None:
            return self.stream.correction(seen, flow, **options)

        def decode(x0: Tensor) -> Tensor:
            check_interrupt()
            return self.decoder.pictures(x0, latents)

        def encode(pictures: Tensor) -> Tensor:
            check_interrupt()
            return self.decoder.latents(pictures, latents)

        return correct(seen, decode, encode, lambda pictures: steady(pictures, flow, **options), len(seen))


def _signal(model_sampling: ModelSampling) -> Callable[[float], float]:
    """a of x = a x0 + sigma eps at a noise level, as a ComfyUI ModelSampling has it."""

    def signal(sigma: float) -> float:
        one = torch.ones(1, 1)
        return float(model_sampling.noise_scaling(torch.tensor([sigma]), torch.zeros(1, 1), one, False).flatten()[0])

    return signal


def _dry_run(
    sampler: Sampler,
    guider: Guider,
    levels: list[float],
    model: Callable[[Tensor, Tensor], Tensor],
    done: Callable[[], object],
    x: Tensor,
) -> Tensor:
    """A sampler's whole schedule on a few numbers, with `model` in place of the guider's."""

    class Stand:
        inner_model, sigmas = guider, torch.tensor(levels)

        def __call__(self, x: Tensor, sigma: Tensor, model_options: Options | None = None, **_: object) -> Tensor:
            check_interrupt()
            changed, level = model(x, sigma), float(sigma.flatten()[0])
            plain = x / max(_signal(guider.inner_model.model_sampling)(level), 1e-3)
            for function in (model_options or {}).get("sampler_post_cfg_function", ()):
                function({"denoised": changed, "uncond_denoised": plain, "cond_denoised": changed, "input": x})
            return changed

    with fixed_noise(torch.device("cpu")):
        return sampler.sampler_function(
            Stand(),
            x,
            torch.tensor(levels),
            extra_args={"model_options": {}, "seed": 0},
            callback=lambda _: done(),
            disable=True,
            **sampler.extra_options,
        )
