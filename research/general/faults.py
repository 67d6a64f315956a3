"""Faults of video models, simulated on real clips: what a general discriminator learns from, and is tested on.

Each fault takes a clip (T, 3, H, W) in [0, 1], a severity above 0 (1 is plain to see, 0.25 is subtle) and a generator,
and returns a clip of the same shape, made of the same frames. Some kinds are never trained on, so that a test says what
a network makes of faults that it does not know.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from motionprompt_core.media.ops import gaussian_blur

Fault = Callable[[Tensor, float, Generator], Tensor]


def swim(clip: Tensor, severity: float, generator: Generator) -> Tensor:
    """Textures that crawl over what they belong to: a smooth warp that changes from frame to frame."""
    cells = _between(4, 10, generator)
    field = _smooth_noise(clip, round(cells), generator, memory=0.5)
    return displace(clip, field * (0.016 * severity * _side(clip)) * _region(clip, generator, whole=0.5))


def boil(clip: Tensor, severity: float, generator: Generator) -> Tensor:
    """Fine detail that is drawn anew in every frame, over coarse shapes that move as they should."""
    coarse = gaussian_blur(clip, _side(clip) / 40)
    field = _smooth_noise(clip, 20, generator) * (0.03 * severity * _side(clip))
    return coarse + displace(clip - coarse, field)


def pop(clip: Tensor, severity: float, generator: Generator) -> Tensor:
    """A thing that appears and disappears."""
    other = clip.flip(3).roll(round(_between(0.2, 0.8, generator) * clip.shape[2]), 2)
    region = _region(clip, generator, radius=0.08 + 0.14 * severity)
    hold = 1 + int(3 * torch.rand((), generator=generator))
    start = int(hold * torch.rand((), generator=generator))
    shown = ((torch.arange(len(clip)) + start) // hold % 2).view(-1, 1, 1, 1)
    return torch.lerp(clip, other, region * shown * (0.5 + severity / 2))


def colour_jitter(clip: Tensor, severity: float, generator: Generator) -> Tensor:
    """Light and colour that change from frame to frame, differently in different places."""
    gain = 0.16 * severity * torch.randn(len(clip), 3, 1, 1, generator=generator)
    shade = 0.30 * severity * _smooth_noise(clip, 4, generator)[:, :1]
    return clip * (gain + shade).exp()


def geometry_jitter(clip: Tensor, severity: float, generator: Generator) -> Tensor:
    """A part of the picture that shakes, turns and shears on its own."""
    matrix = 0.05 * severity * torch.randn(len(clip), 2, 2, generator=generator)
    shift = 0.02 * severity * torch.randn(len(clip), 2, 1, 1, generator=generator)
    x, y = _positions(clip)
    field = torch.einsum("tij,jhw->tihw", matrix, torch.stack((x, y))) + shift
    return displace(clip, field * _side(clip) * _region(clip, generator, whole=0.2))


def pulse(clip: Tensor, severity: float, generator: Generator) -> Tensor:
    """A part of the picture that breathes: it swells and shrinks."""
    region, centre = _region_at(clip, generator)
    period = _between(2.2, 5, generator)
    phase = 2 * math.pi * (torch.arange(len(clip)) / period + torch.rand((), generator=generator))
    x, y = _positions(clip)
    away = torch.stack((x - centre[0], y - centre[1]))
    return displace(clip, 0.22 * severity * phase.sin().view(-1, 1, 1, 1) * away * _side(clip) * region)


def warp(clip: Tensor, severity: float, generator: Generator) -> Tensor:
    """A warp that is drawn anew in every frame, of any fineness: what swimming, shaking and melting have in common."""
    cells = 3 * 8 ** _between(0, 1, generator)
    field = _smooth_noise(clip, round(cells), generator, memory=_between(0, 0.8, generator))
    return displace(clip, field * (0.03 * severity * cells**-0.4 * _side(clip)) * _region(clip, generator, whole=0.3))


def tear(clip: Tensor, severity: float, generator: Generator) -> Tensor:
    """The picture breaks along lines, and the pieces shift against each other."""
    x, y = _positions(clip)
    angle = _between(0, math.pi, generator)
    bands = round(_between(2, 7, generator))
    along = (x * math.cos(angle) + y * math.sin(angle) + 0.75) / 1.5 * bands
    piece = along.long().clamp(0, bands - 1)
    shift = 0.03 * severity * torch.randn(len(clip), 2, bands, generator=generator)
    return displace(clip, shift[:, :, piece] * _side(clip) * _region(clip, generator, whole=0.6))


def shatter(clip: Tensor, severity: float, generator: Generator) -> Tensor:
    """Blocks, some of which jump for a frame."""
    cells = round(_between(5, 14, generator))
    noise = torch.randn(len(clip), 2, cells, cells, generator=generator)
    jump = torch.rand(len(clip), 1, cells, cells, generator=generator) < 0.2 + 0.3 * severity
    field = F.interpolate(noise * jump, size=clip.shape[-2:], mode="nearest")
    return displace(clip, field * (0.03 * severity * _side(clip)) * _region(clip, generator, whole=0.6))


def lag(clip: Tensor, severity: float, generator: Generator) -> Tensor:
    """A part of the picture that falls behind and catches up."""
    behind = (torch.rand(len(clip), generator=generator) * (1.5 + 3 * severity)).long()
    late = clip[(torch.arange(len(clip)) - behind).clamp(min=0)]
    return torch.lerp(clip, late, _region(clip, generator, radius=0.2 + 0.15 * severity))


def ghost(clip: Tensor, severity: float, generator: Generator) -> Tensor:
    """A second picture that shows through at another place in every frame."""
    shift = (0.04 + 0.06 * severity) * torch.randn(len(clip), 2, 1, 1, generator=generator)
    share = 0.2 + 0.3 * severity * torch.rand(len(clip), 1, 1, 1, generator=generator)
    return torch.lerp(clip, displace(clip, shift * _side(clip)), share * _region(clip, generator, whole=0.3))


def melt(clip: Tensor, severity: float, generator: Generator) -> Tensor:
    """A part of the picture that loses its shape more and more, running down as it does."""
    field = _smooth_noise(clip[:1], 6, generator)
    field[:, 1] -= 1  # what is seen comes from above
    time = torch.arange(len(clip)).view(-1, 1, 1, 1)
    return displace(clip, 0.02 * severity * time * field * _side(clip) * _region(clip, generator))


def identity_jump(clip: Tensor, severity: float, generator: Generator) -> Tensor:
    """A thing that becomes another from one frame to the next, and stays so; more often the more severe."""
    region = _region(clip, generator, radius=0.15 + 0.15 * severity)
    jumps = 1 + round(2 * severity)
    at = torch.randperm(len(clip) - 1, generator=generator)[:jumps] + 1
    faces = [clip, clip.flip(3), clip.flip(2), clip.flip(2, 3)]
    state = (torch.arange(len(clip)).view(-1, 1) >= at).sum(1)
    changed = torch.stack([faces[int(s) % 4][t] for t, s in enumerate(state)])
    return torch.lerp(clip, changed, region)


def wobble(clip: Tensor, severity: float, generator: Generator) -> Tensor:
    """Rows that slide against each other, differently in every frame, as in jelly."""
    across = int(2 * torch.rand((), generator=generator))
    waves = _between(1, 4, generator)
    phase = 2 * math.pi * torch.rand(len(clip), 1, 1, generator=generator)
    shift = 0.02 * severity * (2 * math.pi * waves * _positions(clip)[1 - across] + phase).sin() * _side(clip)
    still = torch.zeros_like(shift)
    return displace(clip, torch.stack((still, shift) if across else (shift, still), dim=1))


def dissolve(clip: Tensor, severity: float, generator: Generator) -> Tensor:
    """Things that fade from one place to the next instead of going there."""
    every = 2 + round(3 * severity)
    start = int(every * torch.rand((), generator=generator))
    time = torch.arange(len(clip))
    before = ((time + start) // every * every - start).clamp(0, len(clip) - 1)
    after = (before + every).clamp(max=len(clip) - 1)
    share = ((time - before) / every).clamp(0, 1).view(-1, 1, 1, 1)
    return torch.lerp(clip[before], clip[after], share)


def stutter(clip: Tensor, severity: float, generator: Generator) -> Tensor:
    """Frames that are held, and made up for by a jump."""
    hold = 2 + round(2 * severity)
    start = int(hold * torch.rand((), generator=generator))
    return clip[((torch.arange(len(clip)) + start) // hold * hold - start).clamp(min=0)]


def wrong_order(clip: Tensor, severity: float, generator: Generator) -> Tensor:
    """Frames in the wrong order, displaced by up to a few places."""
    noise = torch.rand(len(clip), generator=generator) * (1 + 4 * severity)
    return clip[(torch.arange(len(clip)) + noise).argsort()]


# The kinds that are only tested were chosen before the network of docs/discriminators.md was trained, and none of the
# others is made as they are. Both sides have kinds of each family: warps, replaced things, mixed frames, time. Held,
# shuffled and dissolved frames are trained on: a judge of single flows sees them by how much moves, or not at all.
TEST_ONLY: dict[str, Fault] = {
    "melt": melt,
    "wobble": wobble,
    "identity_jump": identity_jump,
    "ghost": ghost,
    "lag": lag,
}
# A kind's place is in the seeds of the tests: new ones go to the end.
FAULTS: dict[str, Fault] = {
    "swim": swim,
    "boil": boil,
    "pop": pop,
    "colour_jitter": colour_jitter,
    "geometry_jitter": geometry_jitter,
    "pulse": pulse,
    "melt": melt,
    "identity_jump": identity_jump,
    "wobble": wobble,
    "dissolve": dissolve,
    "stutter": stutter,
    "wrong_order": wrong_order,
    "warp": warp,
    "tear": tear,
    "shatter": shatter,
    "lag": lag,
    "ghost": ghost,
}
TRAINED = {name: fault for name, fault in FAULTS.items() if name not in TEST_ONLY}
# Each frame pair of these is a pair of real frames.
OF_ORDER = ("stutter", "wrong_order")
SEVERITIES = (0.25, 0.5, 1.0)


def apply_fault(name: str, clip: Tensor, severity: float, generator: Generator) -> Tensor:
    """The clip with a fault of this name, in [0, 1].

    Args:
        name: one of `FAULTS`.
        clip: (T, 3, H, W) in [0, 1], T at least 3.
        severity: above 0; `SEVERITIES` are those of the tables.
    """
    if name not in FAULTS:
        raise ValueError(f"fault {name!r} is unknown, expected one of {', '.join(FAULTS)}.")
    if clip.ndim != 4 or clip.shape[1] != 3 or len(clip) < 3:
        raise ValueError(f"fault {name}: the clip has shape {tuple(clip.shape)}, expected (T, 3, H, W), T at least 3.")
    if not severity > 0:
        raise ValueError(f"fault {name}: severity is {severity}, expected more than 0.")
    return FAULTS[name](clip, severity, generator).clamp(0, 1)


def _side(clip: Tensor) -> int:
    return max(clip.shape[-2:])


def _between(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def _positions(clip: Tensor) -> tuple[Tensor, Tensor]:
    """x and y (H, W) of the pixels, in sides of the frame from its middle."""
    height, width = clip.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return (x - width / 2) / _side(clip), (y - height / 2) / _side(clip)


def _smooth_noise(clip: Tensor, cells: int, generator: Generator, memory: float = 0.0) -> Tensor:
    """Noise (T, 2, H, W) of variance about 1 in cells of 1/cells of the frame; `memory` of the frame before."""
    noise = torch.randn(len(clip), 2, cells + 1, cells + 1, generator=generator)
    for before, now in zip(noise[:-1], noise[1:], strict=True):
        now.mul_(math.sqrt(1 - memory**2)).add_(before, alpha=memory)
    return 1.4 * F.interpolate(noise, size=clip.shape[-2:], mode="bicubic", align_corners=True)


def _region(clip: Tensor, generator: Generator, *, radius: float = 0.0, whole: float = 0.0) -> Tensor:
    """Mask (H, W) in [0, 1] of a soft, uneven blob, as large as a thing; with chance `whole` the whole frame."""
    if torch.rand((), generator=generator) < whole:
        return torch.ones(clip.shape[-2:])
    return blob(clip, generator, radius)


def blob(clip: Tensor, generator: Generator, radius: float = 0.0) -> Tensor:
    """Mask (H, W) in [0, 1] of a soft, uneven blob of about this radius, in sides of the frame; 0 draws one."""
    return _region_at(clip, generator, radius)[0]


def _region_at(clip: Tensor, generator: Generator, radius: float = 0.0) -> tuple[Tensor, tuple[float, float]]:
    """The same, and its centre in sides of the frame from the middle."""
    radius = radius or _between(0.18, 0.4, generator)
    centre = _between(-0.25, 0.25, generator), _between(-0.25, 0.25, generator)
    x, y = _positions(clip)
    squash = _between(0.7, 1.4, generator)
    distance = (((x - centre[0]) * squash) ** 2 + ((y - centre[1]) / squash) ** 2).sqrt()
    uneven = 0.25 * radius * _smooth_noise(clip[:1], 5, generator)[0, 0]
    return torch.sigmoid((radius - distance + uneven) / 0.02), centre


def displace(clip: Tensor, field: Tensor) -> Tensor:
    """Each frame looked up at every pixel plus `field` (T or 1, 2, H, W), px; the border mirrored."""
    height, width = clip.shape[-2:]
    x, y = _positions(clip)
    scale = clip.new_tensor((2 / width, 2 / height))
    base = torch.stack((x * 2 * _side(clip) / width, y * 2 * _side(clip) / height), dim=-1)
    grid = base + field.movedim(1, -1) * scale
    grid = grid.expand(len(clip), -1, -1, -1)
    return F.grid_sample(clip, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
