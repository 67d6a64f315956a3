"""One guided sampling run: what happens between the first step and the last."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import comfy.model_management
import torch
from torch import Tensor, nn

from ...motionprompt_core.guidance.autograd import constant_layers, save_copies
from ...motionprompt_core.guidance.modes import describe, oom_fallback
from ...motionprompt_core.guidance.optimise import PromptOptimiser
from ...motionprompt_core.guidance.record import guide_step
from ...motionprompt_core.guidance.report import StepReport
from ...motionprompt_core.guidance.schedule import StepTracker
from ...motionprompt_core.guidance.tokens import LearnableTokens
from ...motionprompt_core.guidance.view import GuidedModel
from .checkpoints import checkpointed
from .checks import evaluates_once_off_schedule
from .conds import Conds, SwappableConds, without_gradient
from .decode import FrameDecoder, SliceDecoder
from .families import ModelFamily
from .gradients import (
    check_interrupt,
    computes_in_half,
    differentiable,
    gradient_options,
    normal_tensors,
    out_of_memory,
)
from .memory import PeakMemory, gradient_memory
from .models import free_memory, modules_of
from .progress import Progress, previewer_of
from .tokens import Encoded, LearnablePrompt


class GuidedRun:
    """State of one run of a sampler node.

    Args:
        patch: the MotionPromptPatch. guider: ComfyUI's guider. prompts: the learnable prompts among its conds.
        family: of the model. decoder: latents to pictures. shape: of the latents.
    """

    def __init__(
        self,
        patch: Any,
        guider: Any,
        prompts: list[LearnablePrompt],
        family: ModelFamily,
        decoder: FrameDecoder | SliceDecoder,
        shape: Iterable[int],
    ):
        self.patch = patch
        self.settings = patch.settings
        self.report = patch.report
        self.guider = guider
        self.prompts = prompts
        self.family = family
        self.decoder = decoder
        self.shape = list(shape)
        self.windows = family.windows(guider.model_patcher, guider.model_options, self.shape)
        self.tracker = StepTracker([1.0, 0.0])
        self.short_of_memory = False
        self.progress: Progress | None = None
        self.memory = PeakMemory(guider.model_patcher.load_device)

    def patchers(self) -> list[Any]:
        """Everything that must be loaded beside the model."""
        ours = [self.patch.flow, self.patch.discriminator]
        found = [self.patch.vae.patcher, *(clip.patcher for prompt in self.prompts for clip in prompt.clips)]
        found += [model.patcher for model in ours if model is not None]
        return list({id(patcher.model): patcher for patcher in found}.values())

    @contextmanager
    def one_pass(
        self, sampler: Any, sigmas: Tensor, seed: int | None, noise: Tensor, latent_image: Any, denoise_mask: Any
    ) -> Iterator[None]:
        """One pass over the schedule; restores the guider's conds afterwards, whatever happens."""
        conds = self.guider.conds
        context = {"noise": noise, "device": noise.device, "latent_image": latent_image, "denoise_mask": denoise_mask}
        self.swap = SwappableConds(self.guider, {**context, "seed": seed})
        self.inpaint = None if denoise_mask is None else (latent_image, denoise_mask)
        initial = {
            f"{number}.{key}": rows
            for number, prompt in enumerate(self.prompts)
            for key, rows in prompt.initial.items()
        }
        tokens = LearnableTokens(initial)
        self.optimiser = PromptOptimiser(tokens, self.settings, seed or 0, self.patch.on_gradient)
        self.tracker = StepTracker(sigmas.tolist(), by_count=evaluates_once_off_schedule(sampler))
        self.due = set(self.report.planned)
        previewer = previewer_of(self.guider.model_patcher)
        self.progress = Progress(self.report, self.settings.iterations, previewer, self.patch.view)
        # ControlNets' outputs are added to skip connections in place. Other models that change what was kept for the
        # backward pass are found out by the error that it raises.
        self.copies = any("control" in cond for entries in conds.values() for cond in entries)
        try:
            yield
            self.report.missed += sorted(self.due)
        finally:
            self.guider.conds = conds
            self.progress = None
            self.report.passes += 1

    def begin_steps(self, executor: Any, x: Tensor, timestep: Tensor, model_options: dict[str, Any], seed: Any) -> None:
        """Called before each evaluation: if a step begins with it, put the step's prompt in place."""
        began = self.tracker.observe(float(timestep.flatten()[0]))
        if not began:
            return
        due = sorted(self.due.intersection(began))
        if due:
            self.due.discard(due[-1])
            self._guide(due[-1], executor, x, timestep, model_options, seed)
        elif self.settings.outside_window == "tokens":
            self._show_tokens()
        else:
            self.guider.conds = self.swap.plain

    def _guide(
        self, step: int, executor: Any, x: Tensor, timestep: Tensor, model_options: dict[str, Any], seed: Any
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
                    flow = guide_step(self.optimiser, model, report, last, self._iteration_done)
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
        self.report.steps.append(report)
        self.report.flow += [flow] if flow is not None else []
        comfy.model_management.soft_empty_cache()

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
        self.optimiser.mode, self.short_of_memory = found[0], True
        self.report.note(f"Memory ran out at step {report.step + 1}: from there on {describe(*found)}.")
        return found[1]

    @contextmanager
    def _guider_kept(self) -> Iterator[None]:
        conds, cfg = self.guider.conds, getattr(self.guider, "cfg", None)
        try:
            yield
        finally:
            self.guider.conds = conds
            if cfg is not None:
                self.guider.cfg = cfg

    def check(self) -> None:
        """Between the parts of an iteration: stop if asked to, and see how much memory is in use."""
        check_interrupt()
        self.report.peak_memory = self.memory.look()

    def encode(self, rows: Mapping[str, Tensor]) -> dict[int, Encoded]:
        """Every learnable prompt encoded with its rows, by id."""
        texts = {}
        for number, prompt in enumerate(self.prompts):
            check_interrupt()
            texts[id(prompt)] = prompt.encode({key: rows[f"{number}.{key}"] for key in prompt.initial})
        return texts

    @torch.no_grad()
    def _show_tokens(self) -> None:
        texts = {key: without_gradient(text) for key, text in self.encode(self.optimiser.tokens.detached()).items()}
        self.guider.conds = self.swap.with_text(texts)

    def _wants_checkpoints(self) -> bool:
        mode = self.settings.checkpointing
        if mode == "auto" and not self.short_of_memory:
            needed = gradient_memory(self.guider.model_patcher, self, False)
            return needed > free_memory(self.guider.model_patcher)
        return mode == "on" or self.short_of_memory

    @contextmanager
    def _checkpoints(self, on: bool) -> Iterator[None]:
        with ExitStack() as stack:
            if on:
                network = self.guider.inner_model.diffusion_model
                blocks = self.family.blocks(network)
                stack.enter_context(checkpointed(blocks, normal_tensors, in_place=self.family.in_place))
                if self.windows is not None:  # else the blocks of all windows are kept
                    stack.enter_context(checkpointed([network], normal_tensors, whole=True))
                stack.enter_context(self.decoder.checkpointed(normal_tensors))
            yield

    def _modules(self) -> list[nn.Module]:
        modules = modules_of([self.guider.model_patcher, *getattr(self.guider, "loaded_models", []), *self.patchers()])
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
        if self.progress is not None:
            self.progress.step_done()

    def _iteration_done(self, step: StepReport) -> None:
        if self.progress is not None:
            self.progress.iteration(step)


class _Evaluation:
    """The model at one step's noise, as the core wants to see it."""

    def __init__(self, run: GuidedRun, executor: Any, x: Tensor, timestep: Tensor, options: dict[str, Any], seed: Any):
        self.run = run
        self.executor = executor
        self.x, self.timestep, self.options, self.seed = x, timestep, options, seed

    def as_guided_model(self) -> GuidedModel:
        patch = self.run.patch
        self.mix = self._mixer() if self.run.settings.loss_on == "cfg" else None
        return GuidedModel(
            encode=lambda rows: self.run.swap.with_text(self.run.encode(rows)),
            predict_x0=self.predict_x0,
            decode=self.run.decoder,
            flow=patch.flow.module,
            discriminator=None if patch.discriminator is None else patch.discriminator.module,
            check=self.run.check,
            half=computes_in_half(self.run.guider.inner_model),
        )

    def predict_x0(self, conds: Conds) -> Tensor:
        """Tweedie's estimate from the conds, with CFG if the loss is to see it."""
        network = self.run.guider.inner_model.diffusion_model
        early = self.run.family.early_layers(network) if self.run.optimiser.mode.truncated else ()
        with constant_layers(early):
            x0 = self._evaluate(conds)
        return x0 if self.mix is None else self.mix(x0)

    def _evaluate(self, conds: Conds, cfg: float = 1.0) -> Tensor:
        """The estimate from the conds alone; the negative prompt is not evaluated at cfg 1."""
        guider = self.run.guider
        guider.conds = conds
        if hasattr(guider, "cfg"):
            guider.cfg = cfg
        with save_copies() if self.run.copies else nullcontext():
            x0 = self.executor(self.x, self.timestep, self.options, self.seed)
        if self.run.progress is not None:
            self.run.progress.x0 = x0.detach()
        if self.run.inpaint is not None:
            latent, mask = self.run.inpaint
            x0 = x0 * mask + latent * (1 - mask)
        return self.run.decoder.frames_first(x0)

    def _mixer(self) -> Any:
        """x0 of the prompt -> classifier-free guidance with the negative prompt, which is evaluated once, here."""
        scale = getattr(self.run.guider, "cfg", 1.0)
        if scale == 1.0:
            return None
        with torch.no_grad():
            uncond = self._evaluate(self.run.swap.plain, cfg=0.0)
        return lambda x0: uncond + scale * (x0 - uncond)
