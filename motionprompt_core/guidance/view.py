"""What the guidance sees: a text-to-video model at one sampling step, and some of its frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from .decoding import Decoder, decode_frames
from .pairs import Pair, ends


class Discriminator(Protocol):
    """Judges motion: flow (B, 2 * num_flows, H, W) -> logits (B,), positive for real videos' motion."""

    @property
    def num_flows(self) -> int:
        """How many successive flows are judged together."""
        ...

    def __call__(self, flow: Tensor, /) -> Tensor: ...


@dataclass
class GuidedModel:
    """A text-to-video model at one sampling step, as functions that its host (ComfyUI, a test) supplies.

    Attributes:
        encode: rows T per text encoder -> conditioning, of any type, differentiable in T.
        predict_x0: conditioning -> clean latents (F, C, h, w) of the video, differentiable in the conditioning. With
            CFG if the loss is to see it.
        decode: some frames' latents (N, C, h, w) -> pictures (N, 3, H, W), nominally in [0, 1] but not clamped (a
            clamp would stop the gradient); a `VideoDecoder` where one latent stands for several frames.
        flow: pictures a, b (B, 3, H, W) -> motion from a to b (B, 2, H, W) in pixels.
        discriminator: None to go without.
        check: called between the parts of an iteration; may raise to stop (a user's interrupt).
        half: the denoiser computes in half precision, so that an overflow in the backward pass is worth a second try.
    """

    encode: Callable[[Mapping[str, Tensor]], Any]
    predict_x0: Callable[[Any], Tensor]
    decode: Decoder
    flow: Callable[[Tensor, Tensor], Tensor]
    discriminator: Discriminator | None = None
    check: Callable[[], None] = lambda: None
    half: bool = False

    @property
    def num_flows(self) -> int:
        """Flows between the frames that are drawn together: more than one if the discriminator judges more."""
        return 1 if self.discriminator is None else self.discriminator.num_flows


@dataclass
class View:
    """Some frame pairs of an estimate. Each part is computed when a loss first asks for it.

    Attributes:
        x0: clean latents (F, C, h, w). pairs: N pairs of the frames that they decode to.
        x0_initial: the estimate with the tokens as they were initialised, for losses that compare with it.
    """

    model: GuidedModel
    x0: Tensor
    pairs: list[Pair]
    x0_initial: Tensor | None = None

    def _graph(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.x0.requires_grad else torch.no_grad()

    @cached_property
    def frames(self) -> Tensor:
        """Pictures (N * (num_flows + 1), 3, H, W), nominally in [0, 1]."""
        with self._graph():
            frames = decode_frames(self.model.decode, self.x0, [frame for pair in self.pairs for frame in pair])
        self.model.check()
        return frames

    @cached_property
    def flow(self) -> Tensor:
        """Motion (N * num_flows, 2, H, W), px."""
        with self._graph():
            flow = self.model.flow(*ends(self.frames, self.pairs))
        self.model.check()
        return flow

    @cached_property
    def logits(self) -> Tensor | None:
        """The discriminator's (N,), if there is one."""
        judge = self.model.discriminator
        return None if judge is None else judge(self.flow.reshape(len(self.pairs), -1, *self.flow.shape[-2:]))

    @cached_property
    def initial(self) -> View | None:
        """The same frames as the initial tokens would have made them, without gradient, if `x0_initial` is known."""
        return None if self.x0_initial is None else View(self.model, self.x0_initial, self.pairs)
