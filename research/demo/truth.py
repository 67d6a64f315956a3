"""Reads colour, ground, shape and motion of the sprite back from frames, to hold them against what the caption said."""

from __future__ import annotations

import functools
import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from motionprompt_tools import world

WINDOW = 112  # side of the square around the sprite in which its shape is looked for, px
RADII = tuple(range(16, 41))
STILL_BELOW = 0.6  # px per frame


@dataclass(frozen=True)
class Reading:
    """What a clip shows, as measured from its frames.

    Attributes:
        colour, ground, shape, direction: the nearest of the world's words.
        speed: length of the mean velocity, px per frame.
        jitter: root mean square distance of the sprite's centre from a straight path at constant speed, px.
        area_variation: standard deviation of the sprite's area over its mean.
        permanence: share of frames in which one sprite of steady size, colour and shape is there.
        exposure: standard deviation of the ground's brightness over its mean; 0 for a steady exposure.
    """

    colour: str
    ground: str
    shape: str
    direction: str
    speed: float
    jitter: float
    area_variation: float
    permanence: float
    exposure: float

    def matches(self, clip: world.Clip) -> dict[str, bool]:
        return {key: getattr(self, key) == getattr(clip, key) for key in ("colour", "ground", "shape", "direction")}

    def to_dict(self) -> dict:
        return asdict(self)


def nearest(colour: Tensor, palette: dict[str, tuple[float, float, float]], shaded: bool) -> str:
    """Name of the nearest colour; `shaded` compares hue and saturation rather than brightness."""
    table = torch.tensor(list(palette.values()))
    if shaded:
        table, colour = F.normalize(table, dim=-1), F.normalize(colour, dim=-1)
    return list(palette)[int((table - colour).norm(dim=-1).argmin())]


def sprite_masks(video: Tensor) -> tuple[Tensor, str]:
    """Pixels that look unlike the ground, (T, H, W) bool, and the ground's name, from frames (T, 3, H, W) in [0, 1]."""
    ground = video.movedim(1, -1).flatten(0, 2).median(dim=0).values
    name = nearest(ground, world.GROUNDS, shaded=False)
    distance = (video - ground[None, :, None, None]).norm(dim=1)
    smooth = F.avg_pool2d(distance[:, None], 3, stride=1, padding=1, count_include_pad=False)[:, 0]
    # The texture of a ground grows with its brightness.
    return smooth > 0.25 + 0.12 * float(ground.norm()), name


def centroids(masks: Tensor) -> Tensor:
    """Centre of each mask, (T, 2) as x, y in px; the centre of the frame where a mask is empty."""
    mask = masks.float()
    axis = torch.arange(masks.shape[-1], dtype=torch.float32) + 0.5
    area = mask.sum(dim=(1, 2)).clamp(min=1)
    centre = torch.stack(((mask.sum(dim=1) @ axis) / area, (mask.sum(dim=2) @ axis) / area), dim=1)
    centre[mask.sum(dim=(1, 2)) == 0] = masks.shape[-1] / 2
    return centre


@functools.lru_cache(maxsize=1)
def templates() -> Tensor:
    """(shapes * radii, WINDOW * WINDOW) masks of every shape and radius, centred on their centroids."""
    axis = torch.arange(WINDOW, dtype=torch.float32) - (WINDOW - 1) / 2
    grids = []
    for shape in world.SHAPES:
        for radius in RADII:
            centre, mask = torch.zeros(2), torch.zeros(0)
            for _ in range(2):  # second round: shifted so that the centroid lies in the middle
                x, y = axis[None, :] + centre[0], axis[:, None] + centre[1]
                mask = torch.hypot(x, y) < radius * world.outline(shape, torch.atan2(y, x))
                centre = centre + centroids(mask[None])[0] - WINDOW / 2
            grids.append(mask.flatten())
    return torch.stack(grids).float()


def frame_shapes(masks: Tensor, centre: Tensor) -> tuple[list[str], Tensor]:
    """Best shape of each frame and its intersection over union with the mask."""
    half = WINDOW // 2
    padded = F.pad(masks.float(), (half, half, half, half))
    corners = (centre - 0.5).round().long().tolist()
    windows = torch.stack([padded[t, y : y + WINDOW, x : x + WINDOW].flatten() for t, (x, y) in enumerate(corners)])
    table = templates()
    overlap = windows @ table.T
    union = windows.sum(dim=1, keepdim=True) + table.sum(dim=1) - overlap
    best, index = (overlap / union.clamp(min=1)).max(dim=1)
    return [world.SHAPES[i // len(RADII)] for i in index.tolist()], best


def read(video: Tensor) -> Reading:
    """Measures frames (T, 3, 128, 128) in [0, 1] of the sprite world, T >= 3."""
    if video.ndim != 4 or video.shape[1] != 3 or len(video) < 3:
        raise ValueError(f"expected frames (T >= 3, 3, H, W), got {tuple(video.shape)}")
    video = video.float().clamp(0, 1)
    masks, ground = sprite_masks(video)
    area = masks.float().sum(dim=(1, 2))
    centre = centroids(masks)
    pixels = [
        frame[:, mask].mean(dim=1) if mask.any() else frame.mean(dim=(1, 2))
        for frame, mask in zip(video, masks, strict=True)
    ]
    colours = [nearest(pixel, world.COLOURS, shaded=True) for pixel in pixels]
    shapes, fit = frame_shapes(masks, centre)

    time = torch.arange(len(video), dtype=torch.float32)
    time = time - time.mean()
    velocity = (time[:, None] * centre).sum(dim=0) / time.square().sum()
    residual = centre - centre.mean(dim=0) - time[:, None] * velocity
    speed = float(velocity.norm())
    direction = (
        "still"
        if speed < STILL_BELOW
        else max(
            (name for name in world.DIRECTIONS if name != "still"),
            key=lambda name: float(velocity @ torch.tensor(world.DIRECTIONS[name])),
        )
    )
    brightness = torch.stack(
        [
            frame.mean(dim=0)[~mask].mean() if not mask.all() else frame.mean()
            for frame, mask in zip(video, masks, strict=True)
        ]
    )
    shape, colour = max(set(shapes), key=shapes.count), max(set(colours), key=colours.count)
    steady = (area / area.median().clamp(min=1)).log().abs() < math.log(1.5)
    there = [
        bool(s) and c == colour and n == shape and f > 0.6
        for s, c, n, f in zip(steady, colours, shapes, fit.tolist(), strict=True)
    ]
    return Reading(
        colour,
        ground,
        shape,
        direction,
        speed,
        jitter=float(residual.square().sum(dim=1).mean().sqrt()),
        area_variation=float(area.std() / area.mean().clamp(min=1)),
        permanence=sum(there) / len(there),
        exposure=float(brightness.std() / brightness.mean().clamp(min=1e-3)),
    )
