"""Guidance of the estimate in the gradient form: a few moves of the pictures down a loss of pictures and flow.

    repeat `moves` times, from y = Y:
        f = flow(y_i, y_(i+1))                                       all neighbours
        L = sum of terms(y, f)
        y = Adam(y, dL/dy)

Where the closed form has one answer, this takes any: the path's third difference and the colour along the flow, which
it begins with, the discriminator's opinion, total variation, whatever `losses.py` has. It leaves sharp edges alone and
needs to know nothing of what is hidden. Only the flow model is differentiated, and neither denoiser nor decoder.

Never the second difference of the path: it is lowest where everything goes straight, and flattens the wave of a hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from motionprompt_core.flow.base import FlowModel
from motionprompt_core.media.ops import warp
from motionprompt_core.metrics.video import on_source_grid, visible

# Weights of the two terms that are always there.
COLOUR, PATH = 5.0, 0.06
# Pictures (F, 3, h, w) and the flow of neighbours (F - 1, 2, h, w; px) -> a loss, differentiable in both.
Term = Callable[[Tensor, Tensor], Tensor]


def descend(
    frames: Tensor,
    flow: FlowModel,
    *,
    terms: Sequence[Term] = (),
    strength: float = 1.0,
    moves: int = 10,
    learning_rate: float = 0.01,
    batch: int = 8,
    check: Callable[[], None] = lambda: None,
) -> Tensor:
    """The video after some moves down the loss; works, and leaves no graph, in any autograd mode.

    Args:
        frames: (F, 3, H, W), RGB, nominally in [0, 1] but not clamped.
        flow: the flow model; its weights must be ordinary tensors, not made in inference mode.
        terms: added to `colour_change` and `third_difference`.
        strength: share of what the moves change that is taken over, 0..1. 0 returns the frames themselves.
        moves: steps of Adam. learning_rate: of each, in colour (0..1); a pixel goes about so far.
        batch: frame pairs at a time.
        check: called between batches; may raise to stop.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"descend: strength is {strength}, expected 0 to 1.")
    if strength == 0 or len(frames) < 3:
        return frames
    with torch.inference_mode(False), torch.enable_grad():
        start = _half(frames.detach().clone())
        pictures = start.clone().requires_grad_()
        adam = torch.optim.Adam([pictures], lr=learning_rate, betas=(0.8, 0.95))
        for _ in range(moves):
            pictures.grad = _gradient(pictures.detach(), flow, terms, batch, check)
            adam.step()
        change = pictures.detach() - start
    if change.shape != frames.shape:
        change = F.interpolate(change, size=frames.shape[-2:], mode="bilinear", align_corners=False)
    return frames.detach() + strength * change


def _half(frames: Tensor) -> Tensor:
    """Pictures of half the size, unless they are small already."""
    return F.avg_pool2d(frames, 2, ceil_mode=True, count_include_pad=False) if min(frames.shape[-2:]) >= 128 else frames


def _gradient(
    pictures: Tensor, flow: FlowModel, terms: Sequence[Term], batch: int, check: Callable[[], None]
) -> Tensor:
    """dL/dy. The terms see all flows at once as given; then the flows' share goes back through the flow model, some
    pairs at a time, so that no more than those are in memory."""
    parts = range(0, len(pictures) - 1, batch)
    forward, back = [], []
    with torch.no_grad():
        for first in parts:
            check()
            a, b = pictures[first : first + batch + 1][:-1], pictures[first + 1 : first + batch + 1]
            forward.append(on_source_grid(flow(a, b), flow))
            back.append(on_source_grid(flow(b, a), flow))
        seen = visible(torch.cat(forward), torch.cat(back)).float()
    y, f = pictures.requires_grad_(), torch.cat(forward).requires_grad_()
    loss = COLOUR * colour_change(y, f.detach(), seen) + PATH * third_difference(f)
    loss = sum((term(y, f) for term in terms), loss)
    of_pictures, of_flow = torch.autograd.grad(loss, (y, f))
    gradient = of_pictures.clone()
    for first in parts:
        check()
        piece = pictures[first : first + batch + 1].detach().requires_grad_()
        again = on_source_grid(flow(piece[:-1], piece[1:]), flow)
        (found,) = torch.autograd.grad(again, piece, of_flow[first : first + batch])
        gradient[first : first + batch + 1] += found
    return gradient


def colour_change(pictures: Tensor, flow: Tensor, seen: Tensor) -> Tensor:
    """How much the colour (0..1) changes along the flow, over pixels seen in both frames (F - 1, 1, h, w): a robust
    (Charbonnier) mean of y_(i+1)(x + f_i) - y_i."""
    difference = warp(pictures[1:], flow) - pictures[:-1]
    return (((difference.square() + 1e-6).sqrt() - 1e-3) * seen).mean()


def third_difference(flow: Tensor) -> Tensor:
    """|f_(i+2) - 2 f_(i+1) + f_i| along the path, px a frame^3: 0 for whatever speeds up or curves evenly."""
    if len(flow) < 3:
        return flow.new_zeros(())
    first = flow[:-2].detach()
    second = first + warp(flow[1:-1].detach(), first)
    change = warp(flow[2:], second) - 2 * warp(flow[1:-1], first) + flow[:-2]
    return change.square().sum(1).add(1e-6).sqrt().mean()
