"""Where the content of each frame is in its neighbours: flows between near frames, and where they can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..flow.base import FlowModel
from ..media.ops import warp
from ..metrics.video import on_source_grid, visible

# Flow is looked for on pictures of half the size, where a step of half a pixel is a whole one of the video's, and noise
# is less; a picture that would be smaller than this, or than the flow model takes, is looked at as it is.
SMALLEST = 64
# A flow to a frame further away may differ by so many times as much from the way by the frame between them as `visible`
# allows for a way there and back (squared). What really shakes goes both ways; a flow that lost its content does not.
DETOUR = 2.0


class Reel:
    """A video whose frames come one after the other, and of which the last few are kept.

    Args:
        frames: (3, H, W) each. length: how many come. keep: how many of them stay within reach.
    """

    def __init__(self, frames: Iterator[Tensor], length: int, keep: int):
        self._coming, self._length = enumerate(frames), length
        self._kept: dict[int, Tensor] = {}
        self._keep = keep

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, frame: int) -> Tensor:
        while frame not in self._kept:
            number, picture = next(self._coming)
            self._kept[number] = picture
            self._kept.pop(number - self._keep, None)
        return self._kept[frame]


class Paths:
    """Flows between frames up to `radius` apart, estimated when they are needed and forgotten when they are not.

    Each is estimated once, so that going through the video costs the same in small pieces and large, and at no time
    are more kept than one piece and its neighbourhood need.

    Args:
        frames: (F, 3, H, W), or a `Reel`; nominally in [0, 1].
        flow: the flow model.
        radius: in frames. Near the video's ends, as many as the nearer end is away, but at least `least`.
        batch: pairs at a time.
        check: called between batches; may raise to stop.
    """

    def __init__(
        self,
        frames: Reel | Tensor,
        flow: FlowModel,
        radius: int,
        least: int = 1,
        batch: int = 8,
        check: Callable[[], None] = lambda: None,
    ):
        self.frames, self.size = frames, frames[0].shape[-2:]
        self.half = min(self.size) >= 2 * max(SMALLEST, flow.min_size)
        self.flow, self.radius, self.least, self.batch, self.check = flow, radius, min(least, radius), batch, check
        self._known: dict[tuple[int, int], Tensor] = {}
        self._sure: dict[tuple[int, int], Tensor] = {}
        self._small: dict[int, Tensor] = {}

    def small(self, frame: int) -> Tensor:
        """A frame as flow is looked for on it."""
        if frame not in self._small:
            whole = self.frames[frame]
            self._small[frame] = F.avg_pool2d(whole, 2, ceil_mode=True, count_include_pad=False) if self.half else whole
        return self._small[frame]

    def reach(self, frame: int) -> int:
        """How far a frame looks either way."""
        return min(self.radius, max(self.least, min(frame, len(self.frames) - 1 - frame)))

    def neighbours(self, frame: int) -> list[int]:
        """Frames at most so far away, in their order."""
        reach = self.reach(frame)
        first, last = max(0, frame - reach), min(len(self.frames) - 1, frame + reach)
        return [other for other in range(first, last + 1) if other != frame]

    def look(self, first: int, stop: int) -> None:
        """Estimate the flows that frames `first` .. `stop` - 1 need, and forget those that only earlier ones did."""
        self._known = {pair: f for pair, f in self._known.items() if max(pair) >= first - 1}
        self._sure = {pair: sure for pair, sure in self._sure.items() if pair in self._known}
        self._small = {frame: small for frame, small in self._small.items() if frame >= first - self.radius}
        needed = [pair for i in range(first, stop) for j in self.neighbours(i) for pair in ((i, j), (j, i))]
        needed += [(_towards(i, j), j) for i in range(first, stop) for j in self.neighbours(i) if abs(i - j) > 1]
        missing = [pair for pair in dict.fromkeys(needed) if pair not in self._known]
        if self.flow.three:  # each once, whichever of its two flows is missing
            missing = list(dict.fromkeys((here, abs(other - here)) for here, other in missing))
        for start in range(0, len(missing), self.batch):
            self.check()
            estimate = self._estimate_both if self.flow.three else self._estimate
            estimate(missing[start : start + self.batch])

    def _estimate(self, pairs: list[tuple[int, int]]) -> None:
        """The flows of pairs of frames, from the first to the second."""
        a, b = (torch.stack([self.small(pair[end]) for pair in pairs]) for end in (0, 1))
        flow, sure = self.flow.with_confidence(a, b)
        self._keep(pairs, flow, sure)

    def _estimate_both(self, places: list[tuple[int, int]]) -> None:
        """From a model of three frames, the flows from a frame to those so far before and after it. Where the video
        ends the frame itself stands for what is not there."""
        last = len(self.frames) - 1
        before, here = [h - d if h >= d else h for h, d in places], [h for h, _ in places]
        after = [h + d if h + d <= last else h for h, d in places]
        triple = (torch.stack([self.small(frame) for frame in frames]) for frames in (before, here, after))
        flows, sure = self.flow.to_both(*triple)
        for way, others in enumerate((before, after)):
            for number, pair in enumerate(zip(here, others, strict=True)):
                if pair[0] != pair[1]:
                    self._keep(
                        [pair], flows[number : number + 1, way], None if sure is None else sure[number, way][None]
                    )

    def _keep(self, pairs: list[tuple[int, int]], flow: Tensor, sure: Tensor | None) -> None:
        self._known |= zip(pairs, on_source_grid(flow, self.flow), strict=True)
        if sure is not None:
            self._sure |= zip(pairs, sure, strict=True)

    def from_frame(self, frame: int) -> tuple[Tensor, Tensor]:
        """The flows (N, 2, H, W; px) from a frame to its neighbours, and how surely each pixel is seen there, (N, 1, H,
        W) in [0, 1]."""
        others = self.neighbours(frame)
        there = torch.stack([self._known[frame, other] for other in others])
        back = torch.stack([self._known[other, frame] for other in others])
        seen = visible(there, back) & self._confirmed(frame, others)
        seen = F.avg_pool2d(seen.float(), 3, 1, 1, count_include_pad=False)
        if self._sure:
            seen = seen * torch.stack([self._sure[frame, other] for other in others])
        if there.shape[-2:] == self.size:
            return there, seen
        scale = there.new_tensor([whole / small for whole, small in zip(self.size, there.shape[-2:], strict=True)])
        there, seen = (F.interpolate(x, size=self.size, mode="bilinear", align_corners=False) for x in (there, seen))
        return there * scale.flip(0).view(1, 2, 1, 1), seen

    def _confirmed(self, frame: int, others: list[int]) -> Tensor:
        """Where each flow (N, 1, h, w) leads to the same place as the way by the frame next to this one. A nearest
        neighbour's is believed with that of the one behind it."""
        checked = {}
        for other in others:
            if abs(other - frame) > 1:
                via, direct = _towards(frame, other), self._known[frame, other][None]
                first = self._known[frame, via][None]
                error = first + warp(self._known[via, other][None], first) - direct
                allowed = DETOUR * (0.01 * direct.square().sum(1, keepdim=True) + 0.5)
                checked[other] = error.square().sum(1, keepdim=True) < allowed
        every = torch.ones_like(self.small(frame)[None, :1], dtype=torch.bool)
        return torch.cat([checked.get(other, checked.get(2 * other - frame, every)) for other in others])


def _towards(frame: int, other: int) -> int:
    """The frame next to `frame` on the way to another."""
    return frame + (1 if other > frame else -1)
