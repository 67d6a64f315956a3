"""Flows varied and disturbed while a general discriminator learns: endless examples for few clips.

`vary` changes what says nothing about faults: turned, nearer, faster, under another camera. `disturb` adds what
faults of video models have in common to real flow: motion drawn anew at some scale, in a part of the picture or in all.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from motionprompt_core.discriminator.cache import STILL
from motionprompt_core.media.ops import gaussian_blur

from .faults import blob

FINEST = 32  # cells of the frame; the flow model sees nothing finer


def prepare(real: Tensor, fake: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Half of the generated side is made of the batch's real flows, so that there the fault is the only difference."""
    real, fake = vary(real, generator), vary(fake, generator)
    half = len(fake) // 2
    return real, torch.cat((disturb(real[:half], generator), fake[half:]))


def vary(flow: Tensor, generator: Generator) -> Tensor:
    """Flows (B, 2n, S, S) in px, each mirrored at the diagonal, zoomed, sped up or slowed down, and panned at random.

    All flows of a row are changed alike, but for the camera's pan, which may shake a little. No motion stays no motion:
    frames that were held are not a camera's even pan.
    """
    size, rows = flow.shape[-1], flow.shape[1] // 2
    turned = torch.rand(len(flow), 1, 1, 1, generator=generator) < 0.5
    crossed = flow.transpose(2, 3).unflatten(1, (rows, 2)).flip(2).flatten(1, 2)
    flow = torch.where(turned, crossed, flow)
    flow = torch.stack([_zoomed(one, generator) for one in flow])
    flow = flow * (0.4 * torch.randn(len(flow), 1, 1, 1, generator=generator)).exp()
    flow = flow.unflatten(1, (rows, 2))
    axis = (torch.arange(size) + 0.5) / size - 0.5
    place = torch.stack((axis.expand(size, size), axis.view(-1, 1).expand(size, size)))
    shift = torch.randn(len(flow), 1, 2, 1, 1, generator=generator)
    turn = torch.randn(len(flow), 1, 2, 2, generator=generator)
    strength = torch.rand(len(flow), 1, 1, 1, 1, generator=generator).square() * size / 20
    if rows > 1:
        shake = 0.3 * torch.rand(len(flow), 1, generator=generator).square()
        shift = shift + shake.view(-1, 1, 1, 1, 1) * torch.randn(len(flow), rows, 2, 1, 1, generator=generator)
        turn = turn + shake.view(-1, 1, 1, 1) * torch.randn(len(flow), rows, 2, 2, generator=generator)
    moves = flow.abs().mean(dim=(2, 3, 4), keepdim=True) > STILL * size
    moved = moves & (torch.rand(len(flow), 1, 1, 1, 1, generator=generator) < 0.5)
    return (flow + moved * strength * (shift + torch.einsum("bnij,jhw->bnihw", turn, place))).flatten(1, 2)


def _zoomed(flow: Tensor, generator: Generator) -> Tensor:
    size = flow.shape[-1]
    side = round(size * (0.6 + 0.4 * torch.rand((), generator=generator).item()))
    top, left = ((size - side + 1) * torch.rand(2, generator=generator)).long().tolist()
    part = flow[None, :, top : top + side, left : left + side]
    return F.interpolate(part, size=(size, size), mode="bilinear")[0] * (size / side)


def disturb(flow: Tensor, generator: Generator) -> Tensor:
    """Flows (B, 2n, S, S) in px with a fault of a kind, scale, strength and place of its own in each.

    The fault is a jump between two frames of the row that stays, or that the next flow takes back, or each flow's own.
    """
    return torch.stack([_disturbed(one, generator) for one in flow])


def _disturbed(flow: Tensor, generator: Generator) -> Tensor:
    fault, rows = _fault(flow[:2], generator), len(flow) // 2
    if rows == 1:
        return flow + fault
    after, draw = int(rows * torch.rand((), generator=generator)), torch.rand((), generator=generator).item()
    change = torch.zeros_like(flow)
    change[2 * after : 2 * after + 2] = fault
    if draw < 0.6 and after + 1 < rows:
        change[2 * after + 2 : 2 * after + 4] = -fault
    elif draw > 0.8:
        change = (torch.randn(rows, 1, 1, 1, generator=generator) * fault).flatten(0, 1)
    return flow + change


def _fault(flow: Tensor, generator: Generator) -> Tensor:
    size = flow.shape[-1]
    draw, whole, kind = torch.rand(3, generator=generator).tolist()
    cells = round(2 * (FINEST / 2) ** draw)
    if kind < 0.6:
        field = _noise(cells, size, "bicubic", generator)
    elif kind < 0.75:
        octaves = [_noise(2**octave, size, "bicubic", generator) / octave for octave in range(1, 6)]
        field = torch.stack(octaves).sum(0)
    elif kind < 0.9:
        jumps = torch.rand(1, 1, cells, cells, generator=generator) < 0.6
        field = _noise(cells, size, "nearest", generator, jumps)
    else:
        field = _bands(cells, size, generator)
    strength = size / 320 * 16 ** torch.rand((), generator=generator).item()
    if whole < 0.35:
        return strength * field
    radius = 0.12 + 0.25 * torch.rand((), generator=generator).item()
    return 1.3 * strength * field * blob(flow[None], generator, radius)


def _noise(cells: int, size: int, mode: str, generator: Generator, among: Tensor | None = None) -> Tensor:
    noise = torch.randn(1, 2, cells, cells, generator=generator)
    field = F.interpolate(noise if among is None else noise * among, size=(size, size), mode=mode)
    return (field if mode == "bicubic" else gaussian_blur(field, size / 128))[0]


def _bands(cells: int, size: int, generator: Generator) -> Tensor:
    """Bands of any direction that each move on their own."""
    axis = (torch.arange(size) + 0.5) / size - 0.5
    angle = math.pi * torch.rand((), generator=generator).item()
    along = axis * math.cos(angle) + axis.view(-1, 1) * math.sin(angle)
    band = ((along + 0.75) / 1.5 * cells).long().clamp(0, cells - 1)
    shift = torch.randn(2, cells, generator=generator)
    return gaussian_blur(shift[:, band][None], size / 128)[0]
