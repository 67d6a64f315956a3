"""One pass over the schedule: the tokens are optimised when a guided step begins, and the step is sampled with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import comfy.model_management
import torch
from torch import Tensor, nn

from ...motionprompt_core.guidance.autograd import constant_layers, not_a_leaf, save_copies
from ...motionprompt_core.guidance.modes import ComputeMode, describe
from ...motionprompt_core.guidance.optimise import PromptOptimiser
from ...motionprompt_core.guidance.record import guide_step
from ...motionprompt_core.guidance.report import StepReport
from ...motionprompt_core.guidance.schedule import StepTracker
from ...motionprompt_core.guidance.tokens import LearnableTokens
from ...motionprompt_core.guidance.view import GuidedModel
from .activity import speaks
from .caches import notes_kept, suspects, uncached
from .checkpoints import checkpointed, random_numbers_kept
from .checks import evaluates_once_off_schedule
from .comfy_types import Conds, Executor, Options, Sampler, cfg_of, set_cfg
from .conds import SwappableConds, without_gradient
from .gradients import (
    computes_in_half,
    differentiable,
    gradient_options,
    normal_tensors,
    out_of_memory,
)
from .guidance_run import GuidedRun
from .hooks import HookedWeights, weights_change
from .memory import gradient_memory
from .models import free_memory, modules_of
from .progress import Progress, previewer_of
from .remembered import remembered


class StepPass:
    """One pass over the schedule of a run: its tokens, and how far it is.

    Args:
        run: of the sampler node. sampler: ComfyUI's SAMPLER. sigmas: the schedule. seed: of the frame pairs.
        noise, latent_image, denoise_mask: as ComfyUI's samplers are given them.
    """

    def __init__(
        self,
        run: GuidedRun,
        sampler: Sampler,
        sigmas: Tensor,
        seed: int | None,
        noise: Tensor,
        latent_image: Tensor | None,
        denoise_mask: Tensor | None,
    ):
        self.run, self.settings, self.report, self.guider = run, run.settings, run.report, run.guider
        context = {"noise": noise, "device": noise.device, "latent_image": latent_image, "denoise_mask": denoise_mask}
        self.swap = SwappableConds(run.guider, {**context, "seed": seed})
        self.sigmas = sigmas
        self.inpaint = None if denoise_mask is None or latent_image is None else (latent_image, denoise_mask)
        tokens = LearnableTokens(run.initial_tokens())
        self.optimiser = PromptOptimiser(tokens, run.settings, seed or 0, run.guidance.on_gradient)
        self.tracker = StepTracker(sigmas.tolist(), by_count=evaluates_once_off_schedule(sampler))
        self.due = set(run.report.planned)
        previewer = previewer_of(run.guider.model_patcher)
        self.progress = Progress(run.report, run.settings.iterations, previewer, run.guidance.view)
        # ControlNets' outputs are added to skip connections in place. Other models that change what was kept for the
        # backward pass are found out by the error that it raises.
        self.copies = any("control" in cond for entries in run.guider.conds.values() for cond in entries)
        self.hooked = HookedWeights(run.guider.inner_model) if weights_change(run.guider.conds) else None

    def __enter__(self) -> StepPass:
        self._conds, self.run.now = self.guider.conds, self
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Restores the guider's conds, whatever happened."""
        self.guider.conds, self.run.now = self._conds, None
        if kind is None:
            self.report.missed += sorted(self.due)
        self.report.passes += 1

    def begin_steps(
        self, executor: Executor, x: Tensor, timestep: Tensor, model_options: Options, seed: int | None
    ) -> None:
        """Called before each evaluation: if a step begins with it, put the step's prompt in place."""
        began = self.tracker.observe(float(timestep.flatten()[0]))
        if not began:
            return
        due = sorted(self.due.intersection(began))
        if due:
            self.due.discard(due[-1])
            with random_numbers_kept(x.device):
                self._guide(due[-1], executor, x, timestep, model_options, seed)
        elif self.settings.outside_window == "tokens":
            self._show_tokens()
        else:
            self.guider.conds = self.swap.plain

    def _guide(
        self, step: int, executor: Executor, x: Tensor, timestep: Tensor, model_options: Options, seed: int | None
    ) -> None:
        checkpointing = self._wants_checkpoints()
        while True:
            report = StepReport(step, float(timestep.flatten()[0]), self.report.passes)
            try:
                checkpoints = self._checkpoints(checkpointing)
                with self._guider_kept(), differentiable(self._modules()), checkpoints:
                    options = gradient_options(model_options)
                    evaluation = _Evaluation(self, executor, x.clone(), timestep.clone(), options, seed)
                    model, last = evaluation.as_guided_model(), step == max(self.report.planned)
                    self.ready(model)
                    flow = guide_step(self.optimiser, model, report, last, self.progress.iteration)
                if report.fallback is None or self.settings.outside_window == "tokens":
                    self._show_tokens()
                else:
                    self.guider.conds = self.swap.plain
                break
            except Exception as error:
                remedy = self._remedy(error, checkpointing, report)
                if remedy is None:
                    raise
                checkpointing = remedy
            # Only here, where the failed attempt's tensors are no longer held by its traceback.
            comfy.model_management.soft_empty_cache()
            if report.fallback is not None:
                self.guider.conds, flow = self.swap.plain, None
                break
        if report.fallback is not None:
            self.report.note("MotionPrompt Self-Check shows which part of the model makes no usable gradient here.")
        self.report.steps.append(report)
        self.report.flow += [flow] if flow is not None else []
        comfy.model_management.soft_empty_cache()

    def ready(self, model: GuidedModel) -> None:
        """All is ready to differentiate at a step that is about to be guided; may raise to end the sampling."""

    def _remedy(self, error: Exception, checkpointing: bool, report: StepReport) -> bool | None:
        """Change what can be changed so that a failed step may be tried again.

        Returns:
            Whether to use checkpoints from now on, or None if the error has to be raised. If memory ran out and
            nothing is left to save, the report's `fallback` is set: the step goes without guidance.
        """
        if not self.copies and "modified by an inplace operation" in str(error):
            self.copies = True
            return checkpointing
        if not out_of_memory(error):
            return None
        found = oom_fallback(self.optimiser.mode, checkpointing)
        if found is None:
            report.fallback = f"out of memory with {describe(self.optimiser.mode, checkpointing)}"
            return checkpointing
        self.optimiser.mode, self.run.short_of_memory = found[0], True
        self.report.note(f"Memory ran out at step {report.step + 1}: from there on {describe(*found)}.")
        return found[1]

    @contextmanager
    def _guider_kept(self) -> Iterator[None]:
        conds, cfg = self.guider.conds, cfg_of(self.guider)
        try:
            yield
        finally:
            self.guider.conds = conds
            set_cfg(self.guider, cfg)

    @torch.no_grad()
    def _show_tokens(self) -> None:
        texts = {key: without_gradient(text) for key, text in self.run.encode(self.optimiser.tokens.detached()).items()}
        self.guider.conds = self.swap.with_text(texts)

    def _wants_checkpoints(self) -> bool:
        mode = self.settings.checkpointing
        if mode == "auto" and not self.run.short_of_memory:
            needed = gradient_memory(self.guider.model_patcher, self.run, False)
            return needed > free_memory(self.guider.model_patcher)
        return mode == "on" or self.run.short_of_memory

    @contextmanager
    def _checkpoints(self, on: bool) -> Iterator[None]:
        with ExitStack() as stack:
            if on:
                network = self.guider.inner_model.diffusion_model
                blocks, hooked = self.run.family.blocks(network), self.hooked
                in_place = self.run.family.in_place
                stack.enter_context(checkpointed(blocks, normal_tensors, in_place=in_place, hooked=hooked))
                if self.run.windows is not None:  # else the blocks of all windows are kept
                    stack.enter_context(checkpointed([network], normal_tensors, whole=True, hooked=hooked))
                stack.enter_context(self.run.decoder.checkpointed(normal_tensors))
            yield

    def saving(self) -> AbstractContextManager[None]:
        """Autograd keeps copies of what changes before the backward pass."""
        if self.hooked is None:
            return save_copies() if self.copies else nullcontext()
        changes, copies = self.hooked.among(), self.copies
        return save_copies(lambda tensor: changes(tensor) or (copies and not_a_leaf(tensor)))

    def _modules(self) -> list[nn.Module]:
        modules = modules_of(
            [self.guider.model_patcher, *getattr(self.guider, "loaded_models", []), *self.run.patchers()]
        )
        for entries in self.swap.plain.values():
            for cond in entries:
                control = cond.get("control")
                while control is not None:
                    network = getattr(control, "control_model", None)
                    modules += [network] if isinstance(network, nn.Module) else []
                    control = getattr(control, "previous_controlnet", None)
        return modules

    def step_done(self) -> None:
        """The sampler has finished a step."""
        self.tracker.step_done()
        self.progress.step_done()


class _Evaluation:
    """The model at one step's noise, as the core wants to see it."""

    def __init__(
        self, now: StepPass, executor: Executor, x: Tensor, timestep: Tensor, options: Options, seed: int | None
    ):
        self.now, self.run, self.executor = now, now.run, uncached(executor)
        self.x, self.timestep, self.seed = x, timestep, seed
        self.options = options
        others = [options.get("model_function_wrapper"), options.get("transformer_options")]
        self.others = [*getattr(executor, "wrappers", ()), *others, now.guider.model_patcher]
        self.scale: float = cfg_of(now.guider)

    def as_guided_model(self) -> GuidedModel:
        guidance = self.run.guidance
        self.apply_cfg = self._with_cfg() if self.run.settings.loss_on == "cfg" else None
        return GuidedModel(
            encode=lambda rows: self.now.swap.with_text(self.run.encode(rows)),
            predict_x0=self.predict_x0,
            decode=self.run.decoder,
            flow=guidance.flow.module,
            discriminator=None if guidance.discriminator is None else guidance.discriminator.module,
            check=self.run.check,
            half=computes_in_half(self.run.guider.inner_model),
        )

    def predict_x0(self, conds: Conds) -> Tensor:
        """Tweedie's estimate from the conds, with CFG if the loss is to see it."""
        network = self.run.guider.inner_model.diffusion_model
        early = self.run.family.early_layers(network) if self.now.optimiser.mode.truncated else ()
        with constant_layers(early):
            x0 = self._evaluate(conds)
        return x0 if self.apply_cfg is None else self.apply_cfg(x0)

    def _evaluate(self, conds: Conds, cfg: float = 1.0) -> Tensor:
        """The estimate from the conds alone; the negative prompt is not evaluated at cfg 1."""
        guider, self.wanted = self.run.guider, cfg
        guider.conds = conds
        set_cfg(guider, cfg)
        network = guider.inner_model.diffusion_model
        windows = self.run.windows
        # AnimateDiff-Evolved looks at no frame in windows that overlap by all of their length.
        none = windows is not None and windows.overlap >= windows.length
        layers = nullcontext() if none else self.run.layers.run(network, self.others)
        with notes_kept(network), remembered(self.others, network), layers, self.now.saving():
            # Not kept on self: in a circle it would keep the model's patchers until the garbage collector comes by, and
            # AnimateDiff-Evolved's take their motion modules out of the network when they end.
            options = {**self.options, "sampler_post_cfg_function": [self._alone]}
            x0 = self.executor(self.x, self.timestep, options, self.seed)
        linked = x0.requires_grad or not torch.is_grad_enabled()
        if not linked and speaks(self.now.swap.plain, self.timestep, guider):
            self.now.report.note(
                f"{suspects(network, self.others)} cut off the gradient, so no token learned: what comes out has no "
                "link to the prompt. Switch that node off for guided videos, or set guide to estimate."
            )
        self.now.progress.x0 = x0.detach()
        if self.now.inpaint is not None:
            latent, mask = self.now.inpaint
            mask = self._step_mask(mask)
            x0 = x0 * mask + latent * (1 - mask)
        return self.run.decoder.frames_first(x0)

    def _alone(self, args: Options) -> Tensor:
        """The prediction without CFG, where another node mixes with a scale of its own (AnimateDiff-Evolved's Custom
        CFG), which is remembered."""
        scale = args.get("cond_scale")
        if isinstance(scale, (int, float)) and scale == self.wanted:
            return args["denoised"]
        if scale is not None:  # who mixes in ComfyUI's place (Automatic CFG) need not say how
            self.scale = scale
        return args["uncond_denoised" if self.wanted == 0 else "cond_denoised"]

    def _step_mask(self, mask: Tensor) -> Tensor:
        """The part that is sampled, at this step (Differential Diffusion lets it grow)."""
        function = self.options.get("denoise_mask_function")
        if function is None:
            return mask
        return function(self.timestep, mask, extra_options={"model": self.now.guider, "sigmas": self.now.sigmas})

    def _with_cfg(self) -> Callable[[Tensor], Tensor] | None:
        """x0 of the prompt -> classifier-free guidance with the negative prompt, which is evaluated once, here."""
        if self.scale == 1.0:
            return None
        with torch.no_grad():
            uncond = self._evaluate(self.now.swap.plain, cfg=0.0)
        scale = self.scale
        return lambda x0: uncond + scale * (x0 - uncond)


def oom_fallback(mode: ComputeMode, checkpointed: bool) -> tuple[ComputeMode, bool] | None:
    """What to try when memory ran out, and whether with checkpoints; None if nothing is left to save."""
    if not checkpointed:
        return mode, True
    if not mode.truncated or mode.chunk_size != 1:
        return ComputeMode(mode.accumulate, truncated=True, chunk_size=1), True
    return None
