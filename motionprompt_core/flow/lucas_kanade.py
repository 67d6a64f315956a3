"""Lucas-Kanade flow: no weights, small, differentiable, and not deceived by the shimmer of unfinished pictures."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..media.ops import gaussian_blur, warp
from .base import FlowModel, register_flow_model


class LucasKanadeFlow(FlowModel):
    """Pyramidal Lucas-Kanade (Bouguet 2000), regularised: without weights, and a tenth of RIFE's time or less.

    A network that has learned to explain every change as motion finds large motion in the shimmer of an unfinished
    picture. This one sees motion only where there is contrast, and calls a flat region still. Up to about twelve
    pixels at three levels.
    """

    min_size = 32

    def __init__(
        self,
        name: str = "lucas_kanade",
        side: int | None = None,
        levels: int = 3,
        blur: float = 1.0,
        window: float = 3.0,
        regularisation: float = 3e-3,
    ):
        """
        Args:
            name: the identity kept in a discriminator's metadata.
            side: frames are scaled down until their shorter side has this many px, so that motion is seen up to a
                share of the frame, whatever its size; None takes them as they are.
            levels: of the pyramid; each doubles the motion that can be seen.
            blur: standard deviation of the blur before it, px.
            window: standard deviation of the window over which motion is taken as constant, px of a level.
            regularisation: added to the structure tensor; pulls regions of little contrast to their neighbours' flow
                at the coarser level, and to none at the coarsest.
        """
        super().__init__()
        self.name, self.side, self.levels = name, side, levels
        self.blur, self.window, self.regularisation = blur, window, regularisation
        self.stride = 2 ** (levels - 1)
        self.multiple, self.cost = (self.stride, 0.03) if side is None else (1, 0.006)
        self.freeze()

    def estimate(self, a: Tensor, b: Tensor) -> Tensor:
        if self.side is None:
            return self._pyramid(a, b)
        size = a.shape[-2:]
        scale = min(1.0, self.side / min(size))
        height, width = (max(self.stride, round(length * scale / self.stride) * self.stride) for length in size)
        a, b = (F.interpolate(x, size=(height, width), mode="bilinear", antialias=True) for x in (a, b))
        flow = F.interpolate(self._pyramid(a, b), size=size, mode="bilinear", align_corners=False)
        return flow * flow.new_tensor((size[1] / width, size[0] / height)).view(1, 2, 1, 1)

    def _pyramid(self, a: Tensor, b: Tensor) -> Tensor:
        pyramid = [(gaussian_blur(a, self.blur), gaussian_blur(b, self.blur))]
        while len(pyramid) < self.levels:
            finer = pyramid[-1]
            pyramid.append((F.avg_pool2d(finer[0], 2), F.avg_pool2d(finer[1], 2)))
        a, b = pyramid.pop()
        flow = lucas_kanade_step(a, b, self.window, self.regularisation)
        for a, b in reversed(pyramid):
            flow = 2 * F.interpolate(flow, size=a.shape[-2:], mode="bilinear", align_corners=False)
            flow = flow + lucas_kanade_step(a, warp(b, flow), self.window, self.regularisation)
        return flow


def lucas_kanade_step(a: Tensor, b: Tensor, window: float, regularisation: float) -> Tensor:
    """Least-squares motion (B, 2, H, W), px, that explains the change from `a` to `b` (B, C, H, W) to first order."""
    dy, dx = torch.gradient((a + b) / 2, dim=(2, 3))
    dt = b - a
    products = torch.stack([(p * q).sum(1) for p, q in ((dx, dx), (dx, dy), (dy, dy), (dx, dt), (dy, dt))], dim=1)
    xx, xy, yy, xt, yt = gaussian_blur(products, window).unbind(1)
    xx, yy = xx + regularisation, yy + regularisation
    # Cramer's rule for [xx xy; xy yy] (u, v) = -(xt, yt); the regularisation keeps the determinant positive.
    return torch.stack((xy * yt - yy * xt, xy * xt - xx * yt), dim=1) / (xx * yy - xy * xy).unsqueeze(1)


@register_flow_model("lucas_kanade_coarse", LucasKanadeFlow.min_size)
def _coarse(path: Path | None, download: bool) -> LucasKanadeFlow:
    """At 128 px and four levels: motion of up to a fifth of the frame, in a fiftieth of RIFE's time at 512 px."""
    return LucasKanadeFlow("lucas_kanade_coarse", side=128, levels=4)


@register_flow_model("lucas_kanade", LucasKanadeFlow.min_size)
def _fine(path: Path | None, download: bool) -> LucasKanadeFlow:
    return LucasKanadeFlow()
