"""MotionPrompt (Nam et al., arXiv 2411.15540): move the learnable tokens until the motion about to be drawn looks real.

    at a guided sampling step, repeat K times:
        c      = encode(P + S)                          gradient flows to the rows T of S only
        x0     = predict_x0(c)                          Tweedie's estimate of the clean latents
        frames = decode(x0[a random pair of frames])
        f      = flow(frames)
        loss   = l1 * disc(f) + l2 * TV(f) + l3 * ||T - T0||^2
        T      = Adam(T, dloss/dT)

`PromptOptimiser.step` is this loop; `view.View` has the frames and f, `losses.TERMS` the loss.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from .autograd import backward_scaled
from .decoding import count_frames
from .modes import COMPUTE_MODES
from .objective import evaluate, needs_initial, regularise, require_finite
from .pairs import Pair, draw_pairs
from .report import IterationReport
from .settings import GuidanceSettings
from .tokens import LearnableTokens
from .view import GuidedModel

OnGradient = Callable[["PromptOptimiser", GuidedModel, list[list[Pair]], list[Tensor]], None]


class PromptOptimiser:
    """Optimises the learnable tokens at one sampling step after the other; one per sampling run.

    Args:
        tokens: the learnable tokens S, changed in place.
        settings: see `GuidanceSettings`.
        seed: of the frame pairs, the only thing drawn at random; the global generators are left alone.
        on_gradient: called before each update with this optimiser, the model, the groups of pairs that were looked
            at, and the gradients for the rows T, which it may change in place.

    Attributes:
        mode: what is left out to save time and memory; that of the settings unless changed.
    """

    def __init__(
        self, tokens: LearnableTokens, settings: GuidanceSettings, seed: int, on_gradient: OnGradient | None = None
    ):
        self.tokens, self.settings, self.on_gradient = tokens, settings, on_gradient
        # Not the seed itself, whose numbers have already become the video's noise.
        self.generator = torch.Generator("cpu").manual_seed((seed ^ 0x6D6F74696F6E) & 0x7FFFFFFFFFFFFFFF)
        self.mode = COMPUTE_MODES[settings.mode]
        self.adam = self._new_adam()

    def step(self, model: GuidedModel) -> Iterator[IterationReport]:
        """One guided sampling step, iteration by iteration. `load_state_dict` undoes one that failed.

        Raises:
            NonFiniteError: a loss or gradient is NaN or infinite.
        """
        settings, tokens, rows = self.settings, self.tokens, self.tokens.parameters()
        if settings.fresh_adam:
            self.adam = self._new_adam()
        x0_initial = self._initial_estimate(model) if needs_initial(settings) else None
        for update in range(self.mode.updates(settings)):
            x0 = model.predict_x0(model.encode(tokens.rows))
            model.check()
            groups = self._draw(count_frames(model.decode, x0), model.num_flows)
            # The backward pass stops at x0 and goes on from there: the decoder's and the flow's memory is free again
            # when the denoiser's backward pass begins, and its gradient can be scaled to what half precision holds.
            found = evaluate(model, x0.detach(), groups, settings, x0_initial)
            gradients = backward_scaled(x0, found.gradient, rows, retries=2 if model.half else 0)
            del x0
            reg, on_tokens = regularise(tokens, gradients, settings)
            for row, gradient in zip(rows, gradients, strict=True):
                row.grad = require_finite(gradient, "gradient of the loss for the tokens")
            if self.on_gradient is not None:
                self.on_gradient(self, model, groups, gradients)
            norm = torch.nn.utils.clip_grad_norm_(rows, settings.grad_clip or math.inf)
            self.adam.step()
            self.adam.zero_grad()
            loss, losses = found.loss + reg, {**found.losses, **on_tokens}
            pairs, flow = [pair for group in groups for pair in group], found.flow if update == 0 else None
            yield IterationReport(loss, losses, found.phi, float(norm), *tokens.drift(), pairs, flow)
            model.check()

    def _new_adam(self) -> torch.optim.Adam:
        settings = self.settings
        lr = settings.strength * settings.learning_rate * self.mode.lr_factor(settings)
        return torch.optim.Adam(self.tokens.parameters(), lr=lr, betas=(0.9, settings.beta2))

    def _draw(self, num_frames: int, num_flows: int) -> list[list[Pair]]:
        """Pairs in the groups that are decoded together."""
        draws = [
            draw_pairs(num_frames, self.settings, self.generator, num_flows)
            for _ in range(self.mode.draws(self.settings))
        ]
        return [chunk for pairs in draws for chunk in self.mode.chunks(pairs)]

    @torch.no_grad()
    def _initial_estimate(self, model: GuidedModel) -> Tensor:
        x0 = model.predict_x0(model.encode(self.tokens.initial))
        model.check()
        return x0

    def state_dict(self) -> dict[str, Any]:
        """All that a step changes, copied."""
        adam, generator = copy.deepcopy(self.adam.state_dict()), self.generator.get_state()
        return {"tokens": self.tokens.detached(), "adam": adam, "generator": generator}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.tokens.load(state["tokens"])
        self.adam.load_state_dict(copy.deepcopy(state["adam"]))
        self.generator.set_state(state["generator"])
