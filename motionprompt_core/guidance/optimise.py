"""The paper's algorithm: at a sampling step, move the learnable tokens until the motion about to be drawn looks real.

    repeat K times:
        c      = encode(P + S)                          gradient flows to the rows T of S only
        x0     = predict_x0(c)                          Tweedie's estimate of the clean latents
        frames = decode(x0[a random pair of frames])
        f      = flow(frames)
        loss   = l1 * disc(f) + l2 * TV(f) + l3 * ||T - T0||^2
        T      = Adam(T, dloss/dT)

The model is seen through the five functions of `GuidedModel`; whoever hosts it (ComfyUI, a test) supplies them.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .autograd import backward_scaled
from .decoding import Decoder, count_frames, decode_frames
from .losses import adversarial_loss, detail_floor, embedding_regulariser, motion_floor, total_variation
from .modes import ECONOMIES
from .pairs import draw_pairs, ends
from .report import FlowSample, IterationReport, StepReport
from .settings import GuidanceSettings
from .tokens import LearnableTokens


def _do_nothing() -> None:
    pass


@dataclass
class GuidedModel:
    """A text-to-video model at one sampling step, as the guidance sees it.

    Attributes:
        encode: rows T per text encoder -> conditioning, of any type, differentiable in T.
        predict_x0: conditioning -> clean latents (F, C, h, w) of the video, differentiable in the conditioning.
        decode: some frames' latents (N, C, h, w) -> pictures (N, 3, H, W), nominally in [0, 1] but not clamped (a
            clamp would stop the gradient); a `VideoDecoder` where one latent stands for several frames.
        flow: pictures a, b (B, 3, H, W) -> motion from a to b (B, 2, H, W) in pixels.
        discriminator: flow (B, 2 * flows, H, W) -> logits (B,), positive for real videos' motion; None to go without.
        mix: clean latents from the prompt alone -> mixed with the negative prompt's (CFG); None to take them as they
            are.
        check: called between the parts of an iteration; may raise to stop (a user's interrupt).
        half: the denoiser computes in half precision, so that an overflow in the backward pass is worth a second try.
        late: makes a context in which `predict_x0` takes what the denoiser's early layers make as given, for mode
            "fast"; None if the denoiser has no such layers.
        flows: how many flows in a row the discriminator judges together.
    """

    encode: Callable[[Mapping[str, Tensor]], Any]
    predict_x0: Callable[[Any], Tensor]
    decode: Decoder
    flow: Callable[[Tensor, Tensor], Tensor]
    discriminator: Callable[[Tensor], Tensor] | None = None
    mix: Callable[[Tensor], Tensor] | None = None
    check: Callable[[], None] = _do_nothing
    half: bool = False
    late: Callable[[], AbstractContextManager[None]] | None = None
    flows: int = 1

    def mixed(self, x0: Tensor) -> Tensor:
        """The estimate as the loss is to see it: mixed with the negative prompt's, if there is a `mix`."""
        return x0 if self.mix is None else self.mix(x0)


@dataclass
class MotionLoss:
    """l1 * disc + l2 * TV of some pairs' flow (and the floors), its parts, and the flow (N, 2, H, W) itself."""

    total: Tensor
    disc: Tensor | None
    tv: Tensor | None
    phi: Tensor | None
    flow: Tensor
    floor: Tensor | None = None
    detail: Tensor | None = None

    def detached(self) -> MotionLoss:
        """The same numbers, cut off from their graph."""
        parts: dict[str, Any] = {key: None if part is None else part.detach() for key, part in self.__dict__.items()}
        return MotionLoss(**parts)

    @staticmethod
    def mean(losses: list[MotionLoss]) -> MotionLoss:
        """Means of the numbers, and the first flow."""
        columns = {key: [loss.__dict__[key] for loss in losses] for key in losses[0].__dict__ if key != "flow"}
        means: dict[str, Any] = {
            key: None if parts[0] is None else torch.stack(parts).mean() for key, parts in columns.items()
        }
        return MotionLoss(**means, flow=losses[0].flow)


class NonFiniteError(ArithmeticError):
    """A loss or a gradient is NaN or infinite."""


def motion_loss(
    model: GuidedModel,
    x0: Tensor,
    pairs: list[tuple[int, ...]],
    settings: GuidanceSettings,
    unguided: Tensor | None = None,
) -> MotionLoss:
    """The part of the loss that looks at the video (paper: L_disc and L_TV).

    Args:
        x0: clean latents (F, C, h, w). pairs: which frames to look at, of those that the latents decode to; rows of
            `model.flows` + 1.
        unguided: the same from the tokens as they began, whose motion `preserve_motion` keeps, and whose detail
            `preserve_detail` does.
    """
    frames = decode_frames(model.decode, x0, [frame for pair in pairs for frame in pair])
    model.check()
    flow = model.flow(*ends(frames, pairs))
    model.check()
    total = flow.new_zeros((), dtype=torch.float32)
    disc = tv = phi = None
    if model.discriminator is not None and settings.lambda_disc > 0:
        logits = model.discriminator(flow.reshape(len(pairs), -1, *flow.shape[-2:]))
        phi = torch.sigmoid(logits.detach()).mean()
        disc = adversarial_loss(logits, form=settings.adversarial)
        total = total + settings.lambda_disc * disc
    if settings.lambda_tv > 0:
        tv = total_variation(flow)
        total = total + settings.lambda_tv * tv
    floor = detail = None
    if unguided is not None:
        with torch.no_grad():
            as_begun = decode_frames(model.decode, unguided, [frame for pair in pairs for frame in pair])
            reference = model.flow(*ends(as_begun, pairs)) if settings.preserve_motion > 0 else None
        model.check()
        if reference is not None:
            floor = motion_floor(flow, reference)
            total = total + settings.preserve_motion * floor
        if settings.preserve_detail > 0:
            detail = detail_floor(frames, as_begun)
            total = total + settings.preserve_detail * detail
    return MotionLoss(total, disc, tv, phi, flow, floor, detail)


class PromptOptimiser:
    """Optimises the learnable tokens at one sampling step after the other; one per sampling run.

    Args:
        tokens: the learnable tokens S, changed in place.
        settings: see `GuidanceSettings`.
        seed: of the frame pairs, the only thing drawn at random; the global generators are left alone.

    Attributes:
        economy: what is left out to save time and memory; that of the settings' mode unless changed.
    """

    def __init__(self, tokens: LearnableTokens, settings: GuidanceSettings, seed: int):
        self.tokens = tokens
        self.settings = settings
        # Not the seed itself, whose numbers have already become the video's noise.
        self.generator = torch.Generator("cpu").manual_seed((seed ^ 0x6D6F74696F6E) & 0x7FFFFFFFFFFFFFFF)
        self.economy = ECONOMIES[settings.mode]
        self._adam: torch.optim.Adam | None = None

    def optimise(
        self,
        model: GuidedModel,
        step: StepReport,
        compare: bool = False,
        on_iteration: Callable[[StepReport], None] | None = None,
    ) -> FlowSample | None:
        """Run K iterations at one sampling step and write them into `step`.

        A loss or gradient that is not finite ends the step: the tokens go back to what they were before it,
        `step.fallback` says why, and nothing is raised. Any other error also leaves the tokens as they were, and the
        step can be tried again.

        Args:
            compare: look at one pair's flow again afterwards (one more evaluation, without gradient) and return it,
                as it was at the first iteration's tokens and as it has become.
            on_iteration: called after each iteration, for a progress line.
        """
        started = time.perf_counter()
        before, state = self.tokens.detached(), self._state()
        adam = self._optimiser()
        first: tuple[tuple[int, ...], Tensor] | None = None
        try:
            unguided = self._unguided(model) if self.settings.needs_unguided else None
            for _ in range(1 if self.economy.pooled else self.settings.iterations):
                loss, pairs = self._iterate(model, step, adam, None, unguided)
                first = first or (pairs[0][0], loss.flow[0].detach().float().cpu())
                if on_iteration is not None:
                    on_iteration(step)
            return self._compare(model, step.step, *first) if compare and first else None
        except NonFiniteError as error:
            self._undo(before)
            step.fallback = str(error)
            return None
        except BaseException:
            self.tokens.load(before)
            self._adam, momentum, drawn = state
            self.generator.set_state(drawn)
            if self._adam is not None:
                self._adam.load_state_dict(momentum)
            raise
        finally:
            step.seconds = time.perf_counter() - started

    def _iterate(
        self,
        model: GuidedModel,
        step: StepReport,
        adam: torch.optim.Adam,
        pairs: list[list[tuple[int, ...]]] | None = None,
        unguided: Tensor | None = None,
    ) -> tuple[MotionLoss, list[list[tuple[int, ...]]]]:
        rows = self.tokens.parameters()
        cond = model.encode(self.tokens.rows)
        model.check()
        with model.late() if self.economy.late and model.late is not None else nullcontext():
            x0 = model.predict_x0(cond)
        model.check()
        pairs = pairs or self._draw(count_frames(model.decode, x0), model.flows)
        # The backward pass stops at x0 and goes on from there: the decoder's and the flow's memory is free again
        # when the denoiser's backward pass begins, and its gradient can be scaled to what half precision holds.
        loss, x0_gradient = self._look(model, x0.detach(), pairs, unguided)
        gradients = [torch.zeros_like(row) for row in rows]
        if x0_gradient is not None and x0.requires_grad:
            model.check()
            gradients = backward_scaled(x0, x0_gradient, rows, retries=2 if model.half else 0)
        del x0, cond

        total, reg = loss.total.detach(), None
        if self.settings.lambda_reg > 0:
            initial = self.tokens.initial
            reg = torch.stack(
                [embedding_regulariser(rows, initial[key]) for key, rows in self.tokens.rows.items()]
            ).sum()
            _require_finite(reg, "embedding regulariser")
            total = total + self.settings.lambda_reg * reg.detach().to(total.device)
            for gradient, part in zip(gradients, torch.autograd.grad(reg, rows), strict=True):
                gradient.add_(part, alpha=self.settings.lambda_reg)
        for gradient in gradients:
            _require_finite(gradient, "gradient of the loss for the tokens")
        norm = self._move(adam, gradients)
        drift, cosine = self.tokens.drift()
        parts = (loss.disc, loss.tv, reg, loss.phi, loss.floor, loss.detail)
        disc, tv, reg, phi, *floors = (None if part is None else float(part.detach()) for part in parts)
        seen = [pair for group in pairs for pair in group]
        step.iterations.append(IterationReport(float(total), disc, tv, reg, phi, norm, drift, cosine, seen, *floors))
        model.check()
        return loss, pairs

    def _draw(self, num_frames: int, flows: int) -> list[list[tuple[int, ...]]]:
        """Pairs in the groups that are decoded together; as many as the iterations would draw if they are pooled."""
        draws = self.settings.iterations if self.economy.pooled else 1
        groups = [draw_pairs(num_frames, self.settings, self.generator, flows) for _ in range(draws)]
        return [[pair] for group in groups for pair in group] if self.economy.one_by_one else groups

    def _look(
        self, model: GuidedModel, x0: Tensor, groups: list[list[tuple[int, ...]]], unguided: Tensor | None
    ) -> tuple[MotionLoss, Tensor | None]:
        """The groups' mean loss, without a graph, and its gradient for x0; one group after the other."""
        losses, gradient = [], None
        for pairs in groups:
            leaf = x0.requires_grad_()
            loss = motion_loss(model, model.mixed(leaf), pairs, self.settings, unguided)
            _require_finite(loss.total, "loss")
            if loss.total.requires_grad:
                (found,) = torch.autograd.grad(loss.total, leaf)
                _require_finite(found, "gradient of the loss for the latents")
                gradient = found if gradient is None else gradient.add_(found)
            losses.append(loss.detached())
        return MotionLoss.mean(losses), None if gradient is None else gradient / len(groups)

    def _move(self, adam: torch.optim.Adam, gradients: list[Tensor]) -> float:
        """One Adam update; returns the gradients' norm before clipping."""
        norm = float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients])))
        clip = self.settings.grad_clip
        shrink = clip / norm if 0 < clip < norm else 1.0
        for row, gradient in zip(self.tokens.parameters(), gradients, strict=True):
            row.grad = gradient * shrink
        adam.step()
        adam.zero_grad(set_to_none=True)
        return norm

    def _optimiser(self) -> torch.optim.Adam:
        settings = self.settings
        lr = settings.strength * settings.learning_rate
        if self.economy.pooled:  # K moves by one pair add up; those by different pairs partly cancel
            lr *= settings.iterations**0.5
        adam = self._adam
        if adam is None or settings.fresh_adam:
            adam = self._adam = torch.optim.Adam(self.tokens.parameters(), lr=lr, betas=(0.9, settings.beta2))
        for group in adam.param_groups:
            group["lr"] = lr
        return adam

    def _state(self) -> tuple[torch.optim.Adam | None, Any, Tensor]:
        """What a step changes beside the tokens, so that one that failed can be tried again as if nothing had been."""
        momentum = None if self._adam is None else copy.deepcopy(self._adam.state_dict())
        return self._adam, momentum, self.generator.get_state()

    def _undo(self, rows: Mapping[str, Tensor]) -> None:
        self.tokens.load(rows)
        self._adam = None

    @torch.no_grad()
    def _unguided(self, model: GuidedModel) -> Tensor:
        """Clean latents from the tokens as they began."""
        x0 = model.predict_x0(model.encode(self.tokens.initial))
        model.check()
        return model.mixed(x0)

    @torch.no_grad()
    def _compare(self, model: GuidedModel, step: int, row: tuple[int, ...], before: Tensor) -> FlowSample:
        pair = row[0], row[1]
        x0 = model.predict_x0(model.encode(self.tokens.rows))
        model.check()
        x0 = model.mixed(x0)
        frames = decode_frames(model.decode, x0, list(pair))
        model.check()
        return FlowSample(step, pair, before, model.flow(frames[:1], frames[1:])[0].float().cpu())


def _require_finite(values: Tensor, what: str) -> None:
    if not bool(torch.isfinite(values).all()):
        raise NonFiniteError(f"The {what} was not finite (NaN or infinity).")
