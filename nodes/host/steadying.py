"""Guidance of the estimate as a patch of ComfyUI's MODEL: denoised in, denoised out, and no gradient anywhere.

- OUTER_SAMPLE, once per sampler node: checks the input and makes a run, which lives in the guider's model options.
- PREPARE_SAMPLING: has VAE and flow model loaded with the model.
- SAMPLER_SAMPLE, once per pass: fresh step counting, and the sampler is asked what it takes over of a change.
- PREDICT_NOISE, the outermost: what comes back from everything else, context windows and CFG included, is corrected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from comfy.patcher_extension import WrappersMP
from torch import Tensor

from .checks import all_kept, check_encodes, check_finite, check_sampler, check_schedule
from .comfy_types import Callback, Conds, Executor, Guider, Options, Patcher, Sampler, Vae
from .correction_report import EstimateReport
from .decode import frame_size
from .families import family_of
from .memory import loaded_beside
from .models import ManagedModel
from .status import queued_run
from .steady_run import EstimateRun
from .streams import Streams

KEY = "motionprompt_estimate"


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
        say: shows lines on the node: what it is about to do and what it did, for each sampler that is given the model.
    """

    def __init__(
        self,
        strength: float,
        vae: Vae,
        flow: ManagedModel,
        report: EstimateReport,
        guide: bool = False,
        say: Callable[[str], object] | None = None,
    ):
        self.strength, self.vae, self.flow, self.report, self.guide = strength, vae, flow, report, guide
        self.say = say
        self._told: list[str] = []  # of the samplers before, in the same queued run
        self._queued: str | None = None
        self._replaces = False

    def attach(self, model: Patcher) -> Patcher:
        """A clone of a MODEL whose estimates are corrected; an earlier patch of this kind on it is replaced."""
        model = model.clone()
        self._replaces = bool(model.wrappers.get(WrappersMP.OUTER_SAMPLE, {}).get(KEY))
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
        **kwargs: Any,
    ) -> Tensor:
        if len(sigmas) < 2:  # one half of Split Sigmas may have no step
            self.report.begin()
            return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        guider = executor.class_obj
        original = guider.model_options
        check_finite(latent_image, guider.conds)
        run = self._begin(guider, Streams(noise, kwargs.get("latent_shapes")), noise, sampler, sigmas)
        if said := all_kept(args, kwargs):
            self.report.note(said)
        # Not in the transformer options: torch.compile watches those, and would compile anew for each run.
        guider.model_options = {**original, KEY: run}
        try:
            return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        finally:
            guider.model_options = original
            self._told.append(self.report.summary())
            self.tell("")

    def _begin(self, guider: Guider, streams: Streams, noise: Tensor, sampler: Sampler, sigmas: Tensor) -> EstimateRun:
        """Check what can be checked before any work."""
        model = guider.model_patcher.model
        check_sampler(sampler)
        check_schedule(sigmas)
        check_encodes(self.vae)
        family = family_of(model)
        video = streams.video(noise)
        family.check_latents(video)
        decoder = family.decoder(self.vae, model, video, guider.conds)
        self.flow.module.check_size(*frame_size(self.vae, video))
        self.report.begin()
        if self._replaces:
            self.report.note(
                "The model was corrected by a node before this one, which stands in for that: once is enough."
            )
        queued, self._queued = self._queued, queued_run()
        if queued is None or queued != self._queued:
            self._told = []
        return EstimateRun(self, guider, family, decoder, streams)

    def tell(self, line: str) -> None:
        """Put a line on the node, below what the samplers before were told."""
        if self.say is not None:
            self.say("\n".join([*self._told, *([line] if line else [])]))

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
        padded: tuple[Any, ...] = (*args, None, None, None)
        noise, latent_image, mask = padded[:3]
        with run.one_pass(executor.class_obj, sigmas, noise, latent_image, mask):

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
    return (model_options or {}).get(KEY)
