"""Are gradients right on this machine? One guided step of the user's own models, taken apart."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...motionprompt_core.guidance.decoding import count_frames, decode_frames
from ...motionprompt_core.guidance.losses import TERMS
from ...motionprompt_core.guidance.objective import NonFiniteError, objective
from ...motionprompt_core.guidance.optimise import PromptOptimiser
from ...motionprompt_core.guidance.pairs import Pair, draw_pairs, ends
from ...motionprompt_core.guidance.schedule import guided_steps
from ...motionprompt_core.guidance.settings import GuidanceSettings
from ...motionprompt_core.guidance.tokens import LearnableTokens
from ...motionprompt_core.guidance.view import GuidedModel, View
from . import machine
from .comfy_types import Conditioning, Patcher, Vae, cfg_of
from .conds import find_prompts, plain_conds, resolved
from .gradient_check import Agreement, check_gradient, check_part
from .guidance import Guidance
from .guidance_run import GuidedRun
from .models import ManagedModel
from .report import GuidanceReport
from .sampling import MotionPromptPatch
from .step_pass import StepPass
from .tokens import PAYLOAD, Encoded

WHOLE = "whole"
Sample = Callable[[Patcher, Conditioning, int], Tensor]  # MODEL, positive, number of steps -> latents
_HALF = (torch.float16, torch.bfloat16)


class _Checked(Exception):
    """Ends the sampling: what was to be seen has been seen."""


@dataclasses.dataclass
class SelfCheck:
    """What the self-check found.

    Attributes:
        parts: how well each part's gradient agrees, the whole's first. identity: whether strength 0 changes nothing, in
            words; empty if nothing is amiss. facts: lines about the machine. seconds: of everything.
    """

    parts: dict[str, Agreement] = dataclasses.field(default_factory=dict)
    identity: str = ""
    identical_steps: int = 0
    facts: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    @property
    def verdict(self) -> str:
        """agrees, disagrees: PARTS, or cannot tell (why)."""
        whole = self.parts[WHOLE]
        others = {name: found for name, found in self.parts.items() if name != WHOLE}
        wrong = [name for name, found in others.items() if found.verdict == "disagrees"]
        wrong += ["strength 0"] if self.identity else []
        if wrong:
            return f"disagrees: {', '.join(wrong)}"
        if whole.verdict == "disagrees":
            return "disagrees: all parts together, though none of them alone"
        # Each part alone is seen more sharply than all together; either proves the gradient.
        if whole.verdict == "agrees" or (others and all(found.verdict == "agrees" for found in others.values())):
            return "agrees"
        return f"cannot tell ({whole.remark or 'rounding'})"

    def text(self) -> str:
        """The block for a bug report."""
        lines = [f"MotionPrompt Self-Check: {self.verdict}", "", "slopes by autograd and by differences:"]
        lines += [_line(name, found) for name, found in self.parts.items()]
        same = f"exactly the stock sampler's latents ({self.identical_steps} steps)"
        lines += [f"strength 0: {self.identity or same}", "", *self.facts, f"{self.seconds:.1f} s"]
        return "\n".join(lines)


def _line(name: str, found: Agreement) -> str:
    apart = f"apart by {100 * found.error:.2g} %, known to {100 * found.resolution:.2g} %"
    return f"  {name:<15}{found.verdict:<13}{found.remark or apart}"


def self_check(
    model: Patcher,
    positive: Conditioning,
    vae: Vae,
    flow: ManagedModel,
    discriminator: ManagedModel | None,
    settings: GuidanceSettings,
    steps: int,
    sample: Sample,
) -> SelfCheck:
    """Compare gradients at the first guided step, and strength 0 with the stock sampler.

    Args:
        model, vae, flow, discriminator: as for `Guidance`. positive: CONDITIONING with learnable tokens.
        settings: as for a guided run. steps: length of the schedule. sample: ComfyUI's sampler.

    Raises:
        ValueError: what a guided run would refuse as well.
    """
    started, found = time.perf_counter(), SelfCheck()
    settings = dataclasses.replace(settings, guide="tokens", strength=settings.strength or 1.0)
    checked = min([*guided_steps(steps, settings), steps - 1]) + 1
    found.identical_steps = min(2, checked)
    plain = _plain(positive)

    before = sample(model, plain, found.identical_steps)
    settings = _as_checked(settings, checked)
    guidance = Guidance(settings, vae, flow, discriminator, GuidanceReport())

    class CheckedPass(StepPass):
        def ready(self, model: GuidedModel) -> None:
            _check_step(found, self, model)

    try:
        sample(MotionPromptPatch(guidance, CheckedPass).attach(model), positive, checked)
        why = next((step.fallback for step in guidance.report.steps if step.fallback), None)
        found.parts = {WHOLE: _unknown(why or "the sampler leapt over the guided step")}
    except _Checked:
        pass
    off = dataclasses.replace(settings, strength=0.0)
    patched = MotionPromptPatch(Guidance(off, vae, flow, discriminator, GuidanceReport())).attach(model)
    after = sample(patched, positive, found.identical_steps)
    if not torch.equal(before, after):
        again = sample(model, plain, found.identical_steps)
        found.identity = _difference(before, after, again)
    found.seconds = time.perf_counter() - started
    found.facts += [note for note in guidance.report.notes if not note.startswith(_Checked.__name__)]
    if found.verdict == "agrees":
        machine.proved.add(model.load_device.type)
    return found


def _plain(positive: Conditioning) -> Conditioning:
    """CONDITIONING with the prompts P in place of P + S, for a stock sampler.

    Raises:
        ValueError: there are no learnable tokens in it.
    """
    conds = resolved({"positive": [{**more, "cross_attn": cond} for cond, more in positive]})
    find_prompts(conds)
    plain = [{key: value for key, value in cond.items() if key != PAYLOAD} for cond in plain_conds(conds)["positive"]]
    return [[cond.pop("cross_attn"), cond] for cond in plain]


def _as_checked(settings: GuidanceSettings, steps: int) -> GuidanceSettings:
    """The last of `steps` steps alone is guided, once, by losses that have a slope where the tokens start: those that
    compare with the initial tokens have a kink there."""
    without = {term.weight: 0.0 for term in TERMS if term.needs == "initial"}
    start = max(0.0, (steps - 1.5) / steps)  # half a step early, for schedulers that make one step less
    return dataclasses.replace(
        settings, start=start, stop=1.0, every=1, iterations=1, mode="exact", guide="tokens", **without
    )


def _difference(before: Tensor, after: Tensor, again: Tensor) -> str:
    apart = float((before - after).abs().max())
    if not torch.equal(before, again):
        moved = float((before - again).abs().max())
        if apart <= 4 * moved:
            return ""  # the sampler does not repeat itself exactly either
        return f"the stock sampler gives other latents after a guided step than before (by up to {moved:.2g})"
    return f"other latents than the stock sampler's, by up to {apart:.2g}"


def _check_step(found: SelfCheck, now: StepPass, model: GuidedModel) -> None:
    """At a guided step, where models are loaded and gradients flow."""
    found.parts, found.facts = {}, _facts(now.run)
    if now.optimiser.mode.truncated:
        remark = "memory is enough for a part of the gradient only: fewer or smaller frames"
        found.parts[WHOLE] = _unknown(remark)
        raise _Checked
    parts = _Parts(now, model)
    found.parts[WHOLE] = parts.whole()
    for name, check in parts.each().items():
        found.parts[name] = check()
    found.facts.append(f"peak memory {now.run.memory.look() / 2**30:.2f} GiB")
    raise _Checked


def _unknown(why: str) -> Agreement:
    return Agreement("cannot tell", math.inf, math.inf, why)


class _Parts:
    """The parts of a guided step as functions of tensors alone."""

    def __init__(self, now: StepPass, model: GuidedModel):
        run = now.run
        self.now, self.run, self.model, self.settings = now, run, model, run.settings
        self.tokens = now.optimiser.tokens
        self.generator = torch.Generator("cpu").manual_seed(0)
        with torch.no_grad():
            self.texts = run.encode(self.tokens.rows)
            self.x0 = model.predict_x0(now.swap.with_text(self.texts))
        count = count_frames(model.decode, self.x0)
        self.pairs: list[Pair] = draw_pairs(count, self.settings, self.generator, model.num_flows)
        guidance, inner = run.guidance, run.guider.inner_model
        # ComfyUI's text encoders compute in fp32, whatever their weights are kept in.
        self.half = {
            "denoiser": (inner.manual_cast_dtype or inner.get_dtype()) in _HALF,
            "decoder": guidance.vae.vae_dtype in _HALF,
        }

    def whole(self) -> Agreement:
        """The gradient that the optimiser makes, of the loss for the tokens."""
        seen: list[Any] = []

        def keep(_: object, __: object, groups: list[list[Pair]], gradients: list[Tensor]) -> None:
            seen.extend([groups, [gradient.clone() for gradient in gradients]])

        state = self.now.optimiser.state_dict()
        optimiser = PromptOptimiser(self.tokens, self.settings, 0, keep)
        try:
            next(optimiser.step(self.model))
        except NonFiniteError as error:
            return Agreement("disagrees", math.inf, 0.0, str(error))
        finally:
            self.now.optimiser.load_state_dict(state)
        ([self.pairs], gradients) = seen
        rows = list(self.tokens.rows.values())
        return check_gradient(self._loss_of_rows, rows, gradients, self.generator, any(self.half.values()))

    def each(self) -> dict[str, Callable[[], Agreement]]:
        """The checks of the parts by name, in the order in which the prompt goes through them."""
        frames = self._frames()
        with torch.no_grad():
            flow = self.model.flow(*ends(frames, self.pairs))
        rows, text, x0 = list(self.tokens.rows.values()), self._tensors(self.texts), [self.x0]
        checks: dict[str, Callable[[], Agreement]] = {
            "text encoder": lambda: self._check("text encoder", self._encode, rows),
            "denoiser": lambda: self._check("denoiser", self._denoise, text),
            "decoder": lambda: self._check("decoder", self._decode, x0),
            "flow": lambda: self._check("flow", lambda at: [self.model.flow(*ends(at[0], self.pairs))], [frames]),
        }
        if self.model.discriminator is not None:
            checks["discriminator"] = lambda: self._check("discriminator", self._judge, [flow])
        return checks

    def _check(self, name: str, function: Callable[[list[Tensor]], list[Tensor]], at: list[Tensor]) -> Agreement:
        def watched(moved: list[Tensor]) -> list[Tensor]:
            self.model.check()
            return function(moved)

        # One line where evaluations are dear: the whole's is another one through the same denoiser.
        lines = 1 if name == "denoiser" else 2
        return check_part(watched, at, self.generator, self.half.get(name, False), lines)

    def _loss_of_rows(self, moved: list[Tensor]) -> Tensor:
        self.model.check()
        rows = dict(zip(self.tokens.rows, moved, strict=True))
        x0 = self.model.predict_x0(self.model.encode(rows))
        total = objective(View(self.model, x0, self.pairs), self.settings)[0]
        return total + self._regulariser(rows)

    def _regulariser(self, rows: dict[str, Tensor]) -> float:
        """The losses on the tokens alone, at these rows."""
        moved, settings = LearnableTokens(self.tokens.initial), self.settings
        moved.load(rows)
        terms = [term for term in TERMS if term.needs == "tokens" and term.weight_in(settings) > 0]
        return sum(term.weight_in(settings) * float(term.loss(moved, settings)) for term in terms)

    def _frames(self) -> Tensor:
        with torch.no_grad():
            return self._decode([self.x0])[0]

    def _encode(self, moved: list[Tensor]) -> list[Tensor]:
        return self._tensors(self.run.encode(dict(zip(self.tokens.rows, moved, strict=True))))

    def _denoise(self, moved: list[Tensor]) -> list[Tensor]:
        return [self.model.predict_x0(self.now.swap.with_text(self._with_tensors(moved)))]

    def _decode(self, moved: list[Tensor]) -> list[Tensor]:
        return [decode_frames(self.model.decode, moved[0], [frame for pair in self.pairs for frame in pair])]

    def _judge(self, moved: list[Tensor]) -> list[Tensor]:
        view = View(self.model, self.x0, self.pairs)
        vars(view)["flow"] = moved[0]  # in place of what it would compute
        assert view.logits is not None
        return [view.logits]

    def _tensors(self, texts: dict[int, Encoded]) -> list[Tensor]:
        """What the text encoder makes: embeddings and pooled outputs."""
        return [tensor for text in texts.values() for tensor in [text.cond, *_pooled(text).values()]]

    def _with_tensors(self, tensors: list[Tensor]) -> dict[int, Encoded]:
        rest = iter(tensors)
        texts = {}
        for key, text in self.texts.items():
            cond = next(rest)
            texts[key] = Encoded(cond, {**text.extras, **{name: next(rest) for name in _pooled(text)}})
        return texts


def _pooled(text: Encoded) -> dict[str, Tensor]:
    return {
        name: value for name, value in text.extras.items() if isinstance(value, Tensor) and value.is_floating_point()
    }


def _facts(run: GuidedRun) -> list[str]:
    """The lines about the machine and the run."""
    guider, guidance, settings = run.guider, run.guidance, run.settings
    inner = guider.inner_model
    lines = [machine.versions(), f"device {machine.device_line(guider.model_patcher.load_device)}"]
    lines.append(f"model {run.family.title}, {machine.model_line(guider.model_patcher, inner.manual_cast_dtype)}")
    for clip in {id(clip.patcher.model): clip for prompt in run.prompts for clip in prompt.clips}.values():
        lines.append(f"text encoder {machine.model_line(clip.patcher, torch.float32)}")  # whatever it is kept in
    lines.append(f"VAE {machine.model_line(guidance.vae.patcher, guidance.vae.vae_dtype)}")
    windows = "none" if run.windows is None else f"{run.windows.length} frames"
    judge = (
        "none" if guidance.discriminator is None else f"trained on {guidance.discriminator.module.config.flow_model}"
    )
    lines.append(
        f"latents {run.shape}, step {run.report.num_steps}, cfg {cfg_of(guider)}, context windows "
        f"{windows}, checkpointing {settings.checkpointing}, loss on {settings.loss_on}, "
        f"flow {guidance.flow.module.name}, discriminator {judge}"
    )
    return lines
