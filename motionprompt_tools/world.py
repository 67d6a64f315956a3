"""The sprite world: short captioned clips with exact optical flow.

One textured sprite (4 shapes, 6 colours) moves in one of 4 directions, or stands still, over one of 4 grounds. Like
footage from the web, more than half of it is not clean: the sprite jitters or pulsates, or the exposure flickers, and
captions mention it now and then. That is what makes a text-to-video model trained on it imperfect in motion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

FRAMES, SIZE = 16, 128
SHAPES = ("circle", "square", "triangle", "star")
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.90, 0.10, 0.10),
    "green": (0.05, 0.80, 0.20),
    "blue": (0.10, 0.30, 0.95),
    "yellow": (1.00, 0.90, 0.05),
    "purple": (0.65, 0.15, 0.85),
    "orange": (1.00, 0.50, 0.05),
}
GROUNDS: dict[str, tuple[float, float, float]] = {
    "sand": (0.80, 0.68, 0.48),
    "grass": (0.28, 0.45, 0.24),
    "night": (0.08, 0.09, 0.18),
    "snow": (0.88, 0.91, 0.95),
}
DIRECTIONS: dict[str, tuple[float, float]] = {
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
    "still": (0.0, 0.0),
}
# Words that say something about the quality of the footage, with the share of clean and of faulty clips so captioned.
# As on the web, praise is cheap, and many a fault goes without a word.
QUALITY_WORDS = {"smooth": (0.15, 0.10), "steady": (0.15, 0.10), "shaky": (0.02, 0.35), "flickering": (0.02, 0.35)}
# Words that say nothing: captions carry some, so that an appended token is not a foreign body.
FILLER_WORDS = ("authentic", "realistic", "beautiful", "natural", "detailed", "vivid", "clear", "cinematic")


@dataclass(frozen=True)
class Clip:
    """What a clip shows. Lengths are pixels of a 128 px frame, speeds pixels per frame."""

    shape: str
    colour: str
    ground: str
    direction: str
    radius: float
    start: tuple[float, float]
    speed: float
    jitter: float = 0.0  # standard deviation of the sprite's per-frame displacement, px
    pulse: float = 0.0  # standard deviation of the sprite's per-frame relative size
    flicker: float = 0.0  # standard deviation of the picture's per-frame brightness gain
    seed: int = 0

    @property
    def faulty(self) -> bool:
        return max(self.jitter, self.pulse, self.flicker) > 0


def choose(options, generator: torch.Generator):
    options = tuple(options)
    return options[int(torch.randint(len(options), (1,), generator=generator))]


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def random_clip(generator: torch.Generator, fault_share: float = 0.6, **fixed: str) -> Clip:
    """Draws a clip; `fixed` pins any of shape, colour, ground, direction. The sprite never leaves the frame."""
    shape = fixed.get("shape") or choose(SHAPES, generator)
    colour = fixed.get("colour") or choose(COLOURS, generator)
    ground = fixed.get("ground") or choose(GROUNDS, generator)
    direction = fixed.get("direction") or choose(DIRECTIONS, generator)
    radius = uniform(25, 29, generator)
    step = DIRECTIONS[direction]
    speed = uniform(2.2, 3.0, generator) if any(step) else 0.0
    # Half-way through, the sprite is near the middle: a direction then says much about every frame.
    travel = [axis * speed * (FRAMES - 1) for axis in step]
    start = [SIZE / 2 - d / 2 + uniform(-5, 5, generator) * (1 if d else 2) for d in travel]
    clip = Clip(
        shape,
        colour,
        ground,
        direction,
        radius,
        (start[0], start[1]),
        speed,
        seed=int(torch.randint(2**31, (1,), generator=generator)),
    )
    if float(torch.rand((), generator=generator)) >= fault_share:
        return clip
    jitter, pulse, flicker = (
        uniform(*span, generator) if float(torch.rand((), generator=generator)) < 0.6 else 0.0
        for span in ((1.5, 4.0), (0.04, 0.10), (0.04, 0.10))
    )
    return replace(clip, jitter=jitter or 2.0, pulse=pulse, flicker=flicker)


def caption(clip: Clip, generator: torch.Generator | None = None) -> str:
    """The plain caption; with a generator, a training caption: words dropped, quality and filler words added."""
    motion = "standing still" if clip.direction == "still" else f"moving {clip.direction}"
    place = {"night": "at night", "grass": "on grass", "sand": "on sand", "snow": "on snow"}[clip.ground]
    parts = [f"a {clip.colour} {clip.shape}", motion, place]
    if generator is None:
        return " ".join(parts)

    def chance() -> float:
        return float(torch.rand((), generator=generator))

    parts = [part for part in parts if chance() > 0.02]
    words = [word for word, shares in QUALITY_WORDS.items() if chance() < shares[clip.faulty]]
    words += [word for word in FILLER_WORDS if chance() < 0.05]
    order = torch.randperm(len(words), generator=generator).tolist()
    words = [words[i] for i in order]
    return " ".join(words + parts) if chance() < 0.3 else " ".join(parts + words)


def outline(shape: str, angle: Tensor) -> Tensor:
    """Radius of the shape's outline in the direction `angle`, relative to a circle of the same visual size."""
    if shape == "circle":
        return torch.full_like(angle, 0.95)
    if shape == "star":  # five points: straight edges between an outer and an inner radius
        outer, inner = 1.25, 0.52
        sector = (angle + math.pi / 2) % (2 * math.pi / 5)
        sector = torch.minimum(sector, 2 * math.pi / 5 - sector)
        height = math.sin(math.pi / 5)
        return outer * inner * height / (inner * torch.sin(math.pi / 5 - sector) + outer * torch.sin(sector))
    corners, size = (4, 0.86) if shape == "square" else (3, 0.62)
    start = math.pi / 4 if shape == "square" else -math.pi / 2
    half = math.pi / corners
    return size / torch.cos((angle - start) % (2 * half) - half)


def trajectory(clip: Clip, frames: int = FRAMES) -> Tensor:
    """Centre of the sprite in every frame, (frames, 2) as x, y in px, faults included."""
    time = torch.arange(frames, dtype=torch.float32)[:, None]
    path = torch.tensor(clip.start) + time * clip.speed * torch.tensor(DIRECTIONS[clip.direction])
    noise = torch.randn(frames, 2, generator=torch.Generator().manual_seed(clip.seed))
    return path + clip.jitter * noise


def _texture(cells: int, generator: torch.Generator) -> Tensor:
    noise = torch.randn(1, 1, cells, cells, generator=generator)
    return F.interpolate(noise, size=(SIZE, SIZE), mode="bicubic", align_corners=False)[0, 0]


def render(clip: Clip, frames: int = FRAMES) -> tuple[Tensor, Tensor, Tensor]:
    """Draws the clip.

    Returns:
        video (frames, 3, 128, 128) in [0, 1]; flow (frames - 1, 2, 128, 128), the exact forward flow in px;
        mask (frames, 128, 128), the sprite's coverage in [0, 1].
    """
    generator = torch.Generator().manual_seed(clip.seed + 1)
    ground = torch.tensor(GROUNDS[clip.ground])[:, None, None] * (
        1 + 0.04 * _texture(5, generator) + 0.02 * _texture(16, generator)
    )
    gain = 1 + clip.flicker * torch.randn(frames, generator=generator)
    scale = clip.radius * (1 + clip.pulse * torch.randn(frames, generator=generator)).clamp(0.7, 1.2)
    centre = trajectory(clip, frames)

    axis = torch.arange(SIZE, dtype=torch.float32) + 0.5
    x = axis[None, None, :] - centre[:, 0, None, None]
    y = axis[None, :, None] - centre[:, 1, None, None]
    distance = torch.hypot(x, y)
    edge = scale[:, None, None] * outline(clip.shape, torch.atan2(y, x))
    mask = (edge - distance + 0.5).clamp(0, 1)
    # Shading that travels with the sprite, so that its inside has a motion that can be seen.
    shade = 1 - 0.2 * (distance / scale[:, None, None]) ** 2 + 0.08 * torch.sin(4 * (x + y) / scale[:, None, None])
    sprite = torch.tensor(COLOURS[clip.colour])[None, :, None, None] * shade[:, None]
    video = torch.lerp(ground[None].expand(frames, -1, -1, -1), sprite, mask[:, None])
    video = (video * gain[:, None, None, None]).clamp(0, 1)

    # A point of the sprite moves with its centre and its scale; the ground stands still.
    step = centre[1:] - centre[:-1]
    growth = (scale[1:] / scale[:-1] - 1)[:, None, None]
    offset = torch.stack(torch.broadcast_tensors(x, y), dim=1)[:-1]
    flow = step[:, :, None, None] + growth[:, None] * offset
    return video, flow * (mask[:-1, None] > 0.5), mask
