"""Guidance of the estimate as a patch of ComfyUI's MODEL: denoised in, denoised out, and no gradient anywhere.

- OUTER_SAMPLE, once per sampler node: checks the input and makes a run, which lives in the transformer options.
- PREPARE_SAMPLING: has VAE and flow model loaded with the model.
- SAMPLER_SAMPLE, once per pass: fresh step counting, and the sampler is asked what it takes over of a change.
- PREDICT_NOISE, the outermost: what comes back from everything else, context windows and CFG included, is corrected.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...motionprompt_core.estimate.correct import carried, correct, euler_share, factor
from ...motionprompt_core.estimate.report import CorrectedStep, EstimateReport
from ...motionprompt_core.estimate.steady import steady
from ...motionprompt_core.estimate.window import Window
from ...motionprompt_core.guidance.decoding import count_frames, decode_frames
from ...motionprompt_core.guidance.schedule import StepTracker
from .checks import check_sampler, evaluates_once_off_schedule
from .comfy_types import Callback, Conds, Executor, Guider, ModelSampling, Options, Patcher, Sampler, Vae
from .decode import fixed_noise, frame_size
from .families import family_of
from .gradients import check_interrupt, out_of_memory
from .memory import loaded_beside
from .models import ManagedModel

KEY = "motionprompt_estimate"
# Frames and frame pairs at a time: more hardly gain time. When memory runs out, one by one.
BATCHES = (2, 1)


def without_guides(model: Patcher) -> Patcher:
    """The clone `model` without the correction that an earlier MotionPrompt patch brought; one of its own stays."""
    for wrappers in model.wrappers.values():
        if any(getattr(getattr(each, "__self__", None), "guide", False) for each in wrappers.get(KEY, ())):
            del wrappers[KEY]
    return model


class EstimatePatch:
    """Corrects the estimates of whatever samples the model.

    Args:
        strength: share of the correction, 0..1. 0 attaches nothing.
        vae: ComfyUI's VAE of the model; a tiny one will do, as its losses cancel.
        flow: the flow model.
        report: filled while sampling.
        guide: it is a part of a MotionPrompt patch (its setting *guide*), and goes with it.
    """

    def __init__(self, strength: float, vae: Vae, flow: ManagedModel, report: EstimateReport, guide: bool = False):
        self.strength, self.vae, self.flow, self.report, self.guide = strength, vae, flow, report, guide

    def attach(self, model: Patcher) -> Patcher:
        """A clone of a MODEL whose estimates are corrected; an earlier patch of this kind on it is replaced."""
        model = model.clone()
        wrappers = {
            WrappersMP.OUTER_SAMPLE: self._outer_sample,
            WrappersMP.PREPARE_SAMPLING: self._prepare_sampling,
            WrappersMP.SAMPLER_SAMPLE: self._sampler_sample,
            WrappersMP.PREDICT_NOISE: self._predict_noise,
        }
        for kind, wrapper in wrappers.items():
            model.remove_wrappers_with_key(kind, KEY)
            if self.strength > 0:
                # Outermost, whoever came before: the tokens' optimiser evaluates the model, too, and wants it bare.
                model.wrappers[kind] = {KEY: [wrapper], **model.wrappers.get(kind, {})}
        return model

    def _outer_sample(
        self,
        executor: Executor,
        noise: Tensor,
        latent_image: Tensor,
        sampler: Sampler,
        sigmas: Tensor,
        *args: object,
        **kwargs: object,
    ) -> Tensor:
        guider = executor.class_obj
        original = guider.model_options
        run = self._begin(guider, noise, sampler)
        transformer_options = {**original.get("transformer_options", {}), KEY: run}
        guider.model_options = {**original, "transformer_options": transformer_options}
        try:
            return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        finally:
            guider.model_options = original

    def _begin(self, guider: Guider, noise: Tensor, sampler: Sampler) -> EstimateRun:
        """Check what can be checked before any work."""
        model = guider.model_patcher.model
        check_sampler(sampler)
        family = family_of(model)
        family.check_latents(noise)
        decoder = family.decoder(self.vae, model, noise, guider.conds)
        self.flow.module.check_size(*frame_size(self.vae, noise))
        self.report.begin()
        return EstimateRun(self, guider, decoder, noise.shape)

    def _prepare_sampling(
        self, executor: Executor, model: Patcher, noise_shape: Sequence[int], conds: Conds, *args: object, **kwargs: Any
    ) -> object:
        run = _run_of(kwargs.get("model_options"))
        if run is None:
            return executor(model, noise_shape, conds, *args, **kwargs)
        with loaded_beside(model, KEY, [self.vae.patcher, self.flow.patcher], run.memory()):
            return executor(model, noise_shape, conds, *args, **kwargs)

    def _sampler_sample(
        self,
        executor: Executor,
        guider: Guider,
        sigmas: Tensor,
        extra_args: Options,
        callback: Callback,
        *args: Any,
        **kwargs: object,
    ) -> Tensor:
        run = _run_of(extra_args["model_options"])
        if run is None:
            return executor(guider, sigmas, extra_args, callback, *args, **kwargs)
        _, latent_image, mask = (*args, None, None, None)[:3]
        with run.one_pass(executor.class_obj, sigmas, latent_image, mask):

            def report_step(state: object, *more: object) -> object:
                run.tracker.step_done()
                return callback(state, *more) if callback is not None else None

            return executor(guider, sigmas, extra_args, report_step, *args, **kwargs)

    def _predict_noise(
        self,
        executor: Executor,
        x: Tensor,
        timestep: Tensor,
        model_options: Options | None = None,
        seed: int | None = None,
    ) -> Tensor:
        x0 = executor(x, timestep, model_options or {}, seed)
        run = _run_of(model_options)
        return x0 if run is None else run.corrected(x0, float(timestep.flatten()[0]))


def _run_of(model_options: Options | None) -> EstimateRun | None:
    return ((model_options or {}).get("transformer_options") or {}).get(KEY)


class EstimateRun:
    """State of one run of a sampler node.

    Args:
        patch: what is attached. guider: ComfyUI's. decoder: the VAE, as the model's family has it. shape: of the
            latents.
    """

    def __init__(self, patch: EstimatePatch, guider: Guider, decoder: Any, shape: Sequence[int]):
        self.patch, self.guider, self.decoder, self.shape = patch, guider, decoder, shape
        self.report = patch.report
        self.batches = list(BATCHES)
        self.tracker = StepTracker([1.0, 0.0])

    def memory(self) -> float:
        """Bytes that a correction takes beyond the plain run, as far as ComfyUI can say."""
        return self.decoder.memory(self.shape, self.decoder.at_once(self.shape[2], BATCHES[0]))

    @contextmanager
    def one_pass(self, sampler: Sampler, sigmas: Tensor, latent_image: Any, mask: Tensor | None) -> Iterator[None]:
        """One pass over the schedule."""
        levels = sigmas.tolist()
        self.tracker = StepTracker(levels, by_count=evaluates_once_off_schedule(sampler))
        self.window = Window(self.tracker.num_steps)
        self.given = None if mask is None else (latent_image, mask)
        self.change: Tensor | None = None
        self.factors = dict(zip(self.window.possible, self._factors(sampler, levels), strict=True))
        self.report.num_steps = self.tracker.num_steps
        try:
            yield
            if self.window.forced:
                self.report.note(
                    "The estimates did not show motion clearly before the end: only the last step that could be "
                    "corrected was. A video that hardly moves is so; else more steps would show it sooner."
                )
            if not self.window.corrected:
                self.report.note("No step was corrected: the schedule is too short, or the sampler leapt over them.")
        finally:
            self.report.passes += 1
            self.change = None

    def _factors(self, sampler: Sampler, levels: list[float]) -> list[float]:
        steps, signal = self.window.possible, _signal(self.guider.inner_model.model_sampling)
        try:
            shares = carried(
                lambda model, done, x: _dry_run(sampler, self.guider, levels, model, done, x),
                levels,
                steps,
                signal,
                evaluates_once_off_schedule(sampler),
            )
        except Exception as error:  # any sampler of any pack may need what a dry run has not
            self.report.note(
                "The sampler could not be asked what it takes over of a correction, and is taken for Euler's "
                f"({type(error).__name__}: {error})."
            )
            shares = [euler_share(levels[i], levels[i + 1], signal) for i in steps]
        return [factor(share) for share in shares]

    def corrected(self, x0: Tensor, sigma: float) -> Tensor:
        """What the sampler is to see of the estimate of an evaluation at a noise level."""
        began = self.tracker.observe(sigma)
        step = self.tracker.current
        if began:
            seen = self.decoder.frames_first(self._with_given(x0))
            noise = sigma / max(_signal(self.guider.inner_model.model_sampling)(sigma), 1e-3)
            self.change = self._correction(seen, x0, step, sigma) if self.window.wants(step, noise, seen) else None
        return x0 if self.change is None else x0 + self.change

    def _with_given(self, x0: Tensor) -> Tensor:
        """The estimate as the sampler will have it: what a mask keeps is the given latents'."""
        if self.given is None:
            return x0
        latent, mask = self.given
        return x0 * mask + latent * (1 - mask)

    @torch.no_grad()
    def _correction(self, seen: Tensor, x0: Tensor, step: int, sigma: float) -> Tensor | None:
        """The change of `x0` at a step, in its own shape; None if memory ran out for good."""
        started = time.perf_counter()
        while self.batches:
            try:
                change = self._solve(seen, self.batches[0])
                break
            except Exception as error:
                if not out_of_memory(error):
                    raise
            # Only here, where the failed attempt's tensors are no longer held by its traceback.
            del self.batches[0]
            comfy.model_management.soft_empty_cache()
            then = "frames are corrected one by one" if self.batches else "the video is sampled without correction"
            self.report.note(f"Memory ran out at step {step + 1}: from there on {then}.")
        else:
            return None
        share = float(change.norm() / seen.norm().clamp(min=1e-9))
        seconds = time.perf_counter() - started
        factor = self.factors[step]
        self.report.steps.append(CorrectedStep(step, sigma, self.report.passes, share, factor, seconds))
        whole = torch.zeros_like(x0)
        self.decoder.frames_first(whole).copy_(change * factor)  # a view: what is no frame of the video stays as it is
        whole = whole * self.decoder.free(self.guider.conds, x0)
        return whole if self.given is None else whole * self.given[1].to(x0)

    def _solve(self, seen: Tensor, batch: int) -> Tensor:
        def decode(latents: Tensor) -> Tensor:
            check_interrupt()
            return decode_frames(self.decoder, latents, list(range(count_frames(self.decoder, latents))))

        def encode(pictures: Tensor) -> Tensor:
            check_interrupt()
            return self.decoder.encode(pictures)

        def improve(pictures: Tensor) -> Tensor:
            return steady(
                pictures, self.patch.flow.module, strength=self.patch.strength, batch=batch, check=check_interrupt
            )

        return correct(seen, decode, encode, improve, self.decoder.at_once(len(seen), batch))


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
