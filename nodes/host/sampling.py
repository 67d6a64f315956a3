"""MotionPrompt as a patch of ComfyUI's MODEL: wrappers around sampling, added to a clone and never overwriting others.

- OUTER_SAMPLE, once per sampler node: checks the input, shows the plain prompt to everything else, keeps the report.
- PREPARE_SAMPLING: has text encoder, VAE, flow model and discriminator loaded with the model, and memory set aside.
- SAMPLER_SAMPLE, once per pass over the schedule (FreeInit makes several): fresh tokens, fresh step counting.
- PREDICT_NOISE, at each evaluation: optimises the tokens when a guided step begins, then lets the sampler go on.

A run lives in the guider's model options, so that a patched model that is kept and used again starts afresh.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Sequence
from typing import Any

import comfy.model_management
import torch
from comfy.patcher_extension import WrappersMP

from ...motionprompt_core.guidance.decoding import count_frames
from ...motionprompt_core.guidance.presets import describe, remark
from ...motionprompt_core.guidance.schedule import guided_steps
from .activity import check_activity
from .checks import (
    all_kept,
    check_cfg,
    check_discriminator,
    check_finite,
    check_losses,
    check_sampler,
    check_schedule,
    check_tokens,
    empty_window,
    finite,
    mixed_otherwise,
    own_mixture,
)
from .comfy_types import Callback, Conds, Executor, Guider, Options, Patcher, Sampler
from .conds import find_prompts, plain_conds, resolved
from .core_functions import check_core
from .correction_report import EstimateReport
from .decode import frame_size
from .estimate import cost_line
from .families import family_of
from .guidance import Guidance
from .guidance_run import GuidedRun
from .machine import untested
from .memory import reserved
from .models import wrapped
from .progress import curves
from .status import queued_run, video_identity
from .steadying import EstimatePatch, without_guides
from .step_pass import StepPass

KEY = "motionprompt"
# Set in the conds of a sampling, which live as long as it does.
MARK = "motionprompt_seen"
NOT_FINITE = (
    "The latents that were sampled hold NaN or infinity. If they do with strength 0 as well, it is the model's, the "
    "sampler's or the input's (a cfg that is far too high, fp16); else lower learning_rate or strength."
)


class MotionPromptPatch:
    """Guidance as a patch of ComfyUI's MODEL; `step_pass` makes the passes over the schedule."""

    def __init__(self, guidance: Guidance, step_pass: type[StepPass] = StepPass):
        self.guidance, self.step_pass = guidance, step_pass
        settings = guidance.settings
        # What guides the estimate of the same model writes here.
        self.correction = EstimateReport() if settings.guide != "tokens" and settings.strength > 0 else None
        self._queued: str | None = None

    def attach(self, model: Patcher) -> Patcher:
        """A clone of a MODEL that is guided wherever it is sampled; an earlier MotionPrompt patch on it is replaced."""
        wrappers = {
            WrappersMP.OUTER_SAMPLE: self._outer_sample,
            WrappersMP.PREPARE_SAMPLING: self._prepare_sampling,
            WrappersMP.SAMPLER_SAMPLE: self._sampler_sample,
            WrappersMP.PREDICT_NOISE: self._predict_noise,
        }
        model = wrapped(model, KEY, wrappers)
        guidance, correction = self.guidance, self.correction
        if correction is None:
            return without_guides(model)
        share = min(guidance.settings.strength, 1.0)
        return EstimatePatch(
            share, guidance.vae, guidance.flow, correction, guide=True, say=self._correction_says
        ).attach(model)

    def _outer_sample(
        self,
        executor: Executor,
        noise: torch.Tensor,
        latent_image: torch.Tensor,
        sampler: Sampler,
        sigmas: torch.Tensor,
        *args: object,
        **kwargs: object,
    ) -> torch.Tensor:
        guider, report = executor.class_obj, self.guidance.report
        if not _seen_before(guider.conds):
            queued, self._queued = self._queued, queued_run()
            report.begin(self.guidance.settings.to_dict(), same_run=queued == self._queued)
        report.num_steps = len(sigmas) - 1
        report.planned = guided_steps(report.num_steps, self.guidance.settings)
        for said in (empty_window(self.guidance.settings, report), all_kept(args, kwargs)):
            if said:
                report.note(said)
        started = time.perf_counter()
        original_options, original_conds = guider.model_options, guider.conds
        try:
            conds = resolved(original_conds)
            guided = bool(report.planned) or (self.correction is not None and report.num_steps > 0)
            if guided:
                check_finite(latent_image, conds)
            if report.planned:
                check_schedule(sigmas)
            run = self._begin(guider, conds, noise, sampler) if report.planned else None
            if run is not None:
                schedule = guider.model_patcher.get_model_object("model_sampling")
                check_activity(conds, sigmas, report.planned, schedule, report)
                self._tell(cost_line(run, report.num_steps))
            elif self.correction is not None:
                applies = describe(self.guidance.settings)
                self._tell(f"MotionPrompt, {applies}: the estimate is guided, without gradients.")
            # Not in the transformer options: torch.compile watches those, and would compile anew for each run.
            guider.model_options = {**original_options, KEY: run}
            guider.conds = plain_conds(conds)
            result = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
            report.look_for_effect()
            if guided and not finite(result):
                report.note(NOT_FINITE)
            report.state, report.video = "done" if guided else "off", video_identity(result)
            return result
        except comfy.model_management.InterruptProcessingException:
            report.state = "interrupted"
            raise
        except BaseException as error:
            report.state = "failed"
            report.note(f"{type(error).__name__}: {error}")
            raise
        finally:
            guider.model_options = original_options
            guider.conds = original_conds
            report.sampling_seconds = time.perf_counter() - started
            report.correction = copy.deepcopy(self.correction)
            report.settle()
            if self.guidance.view is not None:
                self.guidance.view.show(report.brief(), curves(report))

    def _begin(self, guider: Guider, conds: Conds, noise: torch.Tensor, sampler: Sampler) -> GuidedRun:
        """Check everything that can be checked before any work, and make a run."""
        check_core()
        model = guider.model_patcher.model
        family = family_of(model)
        check_tokens(family)
        prompts = find_prompts(conds)
        check_sampler(sampler)
        check_cfg(guider)
        check_losses(self.guidance)
        family.check_latents(noise)
        decoder = family.decoder(self.guidance.vae, model, noise, conds)
        self.guidance.flow.module.check_size(*frame_size(self.guidance.vae, noise))
        frames = count_frames(decoder, decoder.frames_first(noise))
        check_discriminator(self.guidance, frames)
        if family.generic:
            self.guidance.report.note(family.remark(model))
        if said := remark(self.guidance.settings, family.name):
            self.guidance.report.note(said)
        if said := own_mixture(guider):
            self.guidance.report.note(said)
        if self.guidance.settings.loss_on == "cfg" and (said := mixed_otherwise(guider.model_options)):
            self.guidance.report.note(said)
        if said := untested(guider.model_patcher.load_device):
            self.guidance.report.note(said)
        return GuidedRun(self.guidance, guider, prompts, family, decoder, noise.shape)

    def _tell(self, line: str) -> None:
        """Before sampling: what applies, and what it will cost."""
        self.guidance.report.estimate = line
        logging.info(line)
        if self.guidance.view is not None:
            self.guidance.view.show(line)

    def _correction_says(self, text: str) -> None:
        """While it samples, what the correction is about to do stands below what applies; the report has the rest."""
        report, view = self.guidance.report, self.guidance.view
        if view is not None and report.state == "running":
            view.show(f"{report.estimate}\n{text}")

    def _prepare_sampling(
        self, executor: Executor, model: Patcher, noise_shape: Sequence[int], conds: Conds, *args: object, **kwargs: Any
    ) -> object:
        run = _run_of(kwargs.get("model_options"))
        if run is None:
            return executor(model, noise_shape, conds, *args, **kwargs)
        with reserved(model, run):
            return executor(model, noise_shape, conds, *args, **kwargs)

    def _sampler_sample(
        self,
        executor: Executor,
        guider: Guider,
        sigmas: torch.Tensor,
        extra_args: Options,
        callback: Callback,
        *args: Any,
        **kwargs: object,
    ) -> torch.Tensor:
        run = _run_of(extra_args["model_options"])
        if run is None:
            return executor(guider, sigmas, extra_args, callback, *args, **kwargs)
        padded: tuple[Any, ...] = (*args, None, None, None)
        noise, latent_image, denoise_mask = padded[:3]
        seed = extra_args.get("seed")
        with self.step_pass(run, executor.class_obj, sigmas, seed, noise, latent_image, denoise_mask) as now:

            def report_step(state: object, *more: object) -> object:
                now.step_done()
                return callback(state, *more) if callback is not None else None

            return executor(guider, sigmas, extra_args, report_step, *args, **kwargs)

    def _predict_noise(
        self,
        executor: Executor,
        x: torch.Tensor,
        timestep: torch.Tensor,
        model_options: Options | None = None,
        seed: int | None = None,
    ) -> torch.Tensor:
        model_options = model_options or {}
        run = _run_of(model_options)
        if run is not None and run.now is not None:
            run.now.begin_steps(executor, x, timestep, model_options, seed)
        return executor(x, timestep, model_options, seed)


def _run_of(model_options: Options | None) -> GuidedRun | None:
    return (model_options or {}).get(KEY)


def _seen_before(conds: Conds) -> bool:
    """Whether these are the conds of a sampling that this patch has been called in before (FreeInit's next pass)."""
    marks = [cond for entries in conds.values() for cond in entries]
    seen = any(MARK in cond for cond in marks)
    for cond in marks:
        cond[MARK] = True
    return seen
