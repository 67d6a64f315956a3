"""The closed form: every frame's content put onto the smoothed path of its own flow, in the colour averaged along it.

For frame i with neighbours j up to r away, tau = j - i and w = exp(-tau^2 / (2 r^2)):

    f_ij = flow(Y_i, Y_j)                                 where what frame i shows at a pixel is in frame j
    m_ij = 1 where f_ij and f_ji cancel and f_ij leads to where the flow by way of the next frame does, else 0
                                                          hidden, out of the picture, behind a cut, lost: not asked
    C_i  = (Y_i + sum_j w m_ij Y_j(x + f_ij)) / (1 + sum_j w m_ij)                                 r = 3 at most
    d_i  = value at tau = 0 of the parabola through (0, 0) and (tau, f_ij), by least squares with the weights w
    Y*_i = Y_i + a (C_i - Y_i), looked up at x - b d_i

A parabola, not a line: whatever curves or speeds up evenly stays as it is. Acceleration is never penalised. Towards the
video's ends r shrinks: parabolas that look further one way than the other made the demo model's sprites 1 % faster.

What moves by itself is no fault. a and b are 0 where flow cannot tell what is there from what the frame's own past, its
own future, or its nearest neighbours lead to, and rise to 1 beyond that:

    e = min(|C_i - Y_i|, and |P - Y_i| of P from straight lines through two frames on one side, and from parabolas
            fitted to one, two or three frames on either side), all along the path
    a = max(0, 1 - (tolerance / e)^2)

and b likewise, with |d_i| and the same of the paths. A ball that bounces is led to by its past up to the bounce and by
its future from there; a light that is switched on likewise; a quick wave by its nearest neighbours; a jolt, a flash or
flicker by none. What most of the picture does alike is the camera's, and stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..flow.base import FlowModel
from ..media.ops import warp
from .paths import Paths, Reel

# Frames before and after that are asked for the path, and for the colour: an average over more is softer.
RADIUS, COLOURS = 5, 3
# Frames that are asked for the path even where the video ends sooner on one side.
LEAST = 2
# What flow cannot tell: motion below this share of the shorter side, ...
LEAST_MOTION = 1 / 384
# ... light (0..1) within this, and the colour of detail within that and what a shift by so many pixels would explain.
LEAST_LIGHT = 0.002
LEAST_COLOUR = 0.004
SHIFT = 1.0
# Frames whose parabola is believed, however many are asked.
NEAREST = ((-2.0, -1.0, 1.0, 2.0), (-1.0, 1.0, 2.0), (-2.0, -1.0, 1.0))
# Light and exposure are told from detail by averages over this share of the shorter side.
BLOCK = 1 / 16


@torch.no_grad()
def steady(
    frames: Tensor,
    flow: FlowModel,
    *,
    radius: int = RADIUS,
    strength: float = 1.0,
    batch: int = 8,
    check: Callable[[], None] = lambda: None,
) -> Tensor:
    """The video without what shakes and flickers in it.

    Args:
        frames: (F, 3, H, W), RGB, nominally in [0, 1] but not clamped.
        flow: the flow model, which looks at them at half their size.
        radius: how many frames before and after are asked. More are steadier, and cost more.
        strength: share of the way, 0..1. 0 returns the frames themselves.
        batch: frame pairs at a time; fewer take less memory and give the same.
        check: called between pieces of work; may raise to stop.

    Raises:
        ValueError: a parameter is out of its range.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"steady: strength is {strength}, expected 0 to 1.")
    if radius < 1:
        raise ValueError(f"steady: radius is {radius}, expected at least 1 frame.")
    if strength == 0 or len(frames) < 3:
        return frames
    steadied = torch.empty_like(frames)
    for number, frame in enumerate(steady_frames(frames, flow, radius, strength, batch, check)):
        steadied[number] = frame
    return steadied


def steady_frames(
    frames: Reel | Tensor,
    flow: FlowModel,
    radius: int = RADIUS,
    strength: float = 1.0,
    batch: int = 8,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Tensor]:
    """What `steady` makes, frame by frame: also of a `Reel` that keeps 2 `radius` + 1 frames."""
    paths = Paths(frames, flow, radius, COLOURS, batch, check)
    for frame in range(len(frames)):
        check()
        paths.look(frame, frame + 1)
        yield torch.lerp(frames[frame], _steady_frame(frames, paths, frame), strength)


def margin(flow: FlowModel, radius: int = RADIUS) -> int:
    """How many frames before and after one are looked at to steady it."""
    return 2 * radius if flow.three else radius


def _steady_frame(frames: Reel | Tensor, paths: Paths, frame: int) -> Tensor:
    """Frame i (3, H, W) with its content on its smoothed path, in the averaged colour."""
    others = paths.neighbours(frame)
    motion, seen = paths.from_frame(frame)
    tau = torch.tensor([float(other - frame) for other in others])
    near, far = tau.abs() <= COLOURS, tau.abs() <= max(LEAST, min(frame, len(frames) - 1 - frame))
    own = frames[frame][None]

    around = torch.stack([frames[other] for other, is_near in zip(others, near, strict=True) if is_near])
    change = warp(around, motion[near], "bicubic") - own
    share = _weights(tau[near]).to(seen).view(-1, 1, 1, 1) * seen[near]
    average = (share * change).sum(0, keepdim=True) / (1 + share.sum(0, keepdim=True))
    own = own + _colour_change(own, average, _ways(change, seen[near], tau[near]))

    slope, least = _slope(own), LEAST_MOTION * min(paths.size)
    move = _beside_camera(_parabola(motion[far], tau[far]), slope, least) * seen[far].prod(0, keepdim=True)
    ways = [*_ways(motion, seen, tau), (_parabola(motion[near], tau[near]), seen[near].prod(0, keepdim=True))]
    deviations = [(_length(_beside_camera(to, slope, least)), sure) for to, sure in ways]
    return warp(own, -move * _gate(_length(move), deviations, least), "bicubic")[0]


def _weights(tau: Tensor) -> Tensor:
    """Of neighbours at the times tau (N,)."""
    return torch.exp(-tau.square() / (2 * tau.abs().max() ** 2))


def _parabola(values: Tensor, tau: Tensor) -> Tensor:
    """Value at 0 (1, C, H, W) of the parabola fitted to (0, 0) and values (N, C, H, W) at the times tau (N,)."""
    hat = fit_weights(tau, _weights(tau))
    return (hat.to(values).view(-1, 1, 1, 1) * values).sum(0, keepdim=True)


def _colour_change(own: Tensor, change: Tensor, ways: list[tuple[Tensor, Tensor]]) -> Tensor:
    """What of a change of colour (1, 3, H, W) is no fault of the flow.

    In averages over blocks, where what a wrong flow mixes up cancels out, light and exposure; of the rest, what a
    slightly wrong flow would not explain.
    """
    coarse = _blocks(change)
    deviations = [(_length(_blocks(to * sure) / _blocks(sure).clamp(min=0.1)), _blocks(sure)) for to, sure in ways]
    light = coarse * _gate(_length(coarse), deviations, LEAST_LIGHT)

    detail = change - coarse
    tolerance = LEAST_COLOUR + SHIFT * _slope(own)
    deviations = [(_near(_length(to - _blocks(to))), sure) for to, sure in ways]
    return light + detail * _gate(_near(_length(detail)), deviations, tolerance)


def fit_weights(tau: Tensor, weight: Tensor) -> Tensor:
    """Weights h (N,) for which sum_j h_j p_j is the value at 0 of the parabola fitted by least squares to (0, 0), of
    weight 1, and the points (tau_j, p_j). With fewer than three points in all it meets (0, 0), and h is 0."""
    tau, weight = torch.cat((tau.new_zeros(1), tau)).double(), torch.cat((weight.new_ones(1), weight)).double()
    powers = torch.stack([tau**k for k in range(3)], dim=1)
    return (torch.linalg.pinv(powers * weight.sqrt()[:, None])[0] * weight.sqrt())[1:].float()


def _ways(values: Tensor, seen: Tensor, tau: Tensor) -> list[tuple[Tensor, Tensor]]:
    """How far the frame is from where it would be if its own past or future went on, or both met, and how surely.

    Args:
        values: what neighbours at the times `tau` (N,) have that the frame has not: motion or colour (N, C, H, W).
        seen: (N, 1, H, W) in [0, 1].
    """
    at = {int(t): k for k, t in enumerate(tau)}
    ways = []
    for times in NEAREST:
        hat = fit_weights(torch.tensor(times), _weights(torch.tensor(times))).tolist()
        ways.append(dict(zip(times, hat, strict=True)))
    ways += [{side: 2.0, 2 * side: -1.0} for side in (-1, 1)]  # straight on
    found = []
    for way in ways:
        if all(t in at for t in way):
            used = [at[int(t)] for t in way]
            hat = values.new_tensor(list(way.values())).view(-1, 1, 1, 1)
            found.append(((hat * values[used]).sum(0, keepdim=True), seen[used].prod(0, keepdim=True)))
    return found


def _gate(deviation: Tensor, others: list[tuple[Tensor, Tensor]], tolerance: Tensor | float) -> Tensor:
    """max(0, 1 - (tolerance / e)^2) for the smallest deviation e of one and of those others that are seen."""
    for other, sure in others:
        deviation = torch.minimum(deviation, torch.where(sure > 0.5, other, torch.inf))
    return (1 - (tolerance / deviation.clamp(min=1e-9)).square()).clamp(min=0)


def _beside_camera(move: Tensor, slope: Tensor, tolerance: float) -> Tensor:
    """Less what most of the picture does alike: the shake of a hand that holds the camera belongs to the video. Where
    nobody would see it move, a picture counts as still."""
    shows = slope * _length(move) > LEAST_COLOUR
    camera = (move * shows).flatten(2).median(dim=2).values[..., None, None]
    alike = (shows & (_length(move - camera) < tolerance)).float().mean() > 0.5
    return move - camera * alike


def _slope(image: Tensor) -> Tensor:
    """How much the colour changes from pixel to pixel hereabouts, (N, 1, H, W)."""
    return _near(torch.stack(torch.gradient(image, dim=(2, 3))).square().sum(0).mean(1, keepdim=True).sqrt())


def _length(x: Tensor) -> Tensor:
    """Of vectors (N, 2, H, W), px; the root mean square of colours (N, 3, H, W)."""
    squares = x.square()
    return (squares.mean(1, keepdim=True) if x.shape[1] == 3 else squares.sum(1, keepdim=True)).sqrt()


def _blocks(x: Tensor) -> Tensor:
    """Averages over blocks, smoothly joined."""
    size = x.shape[-2:]
    side = max(1, round(BLOCK * min(size)))
    coarse = F.avg_pool2d(x, side, ceil_mode=True, count_include_pad=False)
    return F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)


def _near(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
