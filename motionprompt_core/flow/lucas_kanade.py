"""Lucas-Kanade flow: no weights, small, differentiable, and not deceived by the shimmer of unfinished pictures."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..media.ops import gaussian_blur, warp
from .base import FlowModel, register_flow_model


class GradientFlow(FlowModel):
    """A stand-in without weights: one regularised Lucas-Kanade step on blurred luma, smooth in both frames.

    Sees only motion of up to about three pixels and underestimates it where there is little texture. For tests of
    gradients, and for trying things where no weights are installed; not for judging videos.
    """

    name, min_size, multiple = "gradient", 16, 1

    def __init__(self, blur: float = 1.5, window: float = 3.0, regularisation: float = 1e-4):
        """
        Args:
            blur: standard deviation of the blur before differentiation, px; more sees larger motion.
            window: standard deviation of the window over which motion is taken as constant, px.
            regularisation: added to the structure tensor; pulls flat regions to zero flow.
        """
        super().__init__()
        self.blur, self.window, self.regularisation = blur, window, regularisation
        self.freeze()

    def estimate(self, a: Tensor, b: Tensor) -> Tensor:
        luma = a.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)
        a, b = (gaussian_blur((x * luma).sum(1, keepdim=True), self.blur) for x in (a, b))
        return lucas_kanade_step(a, b, self.window, self.regularisation)


class LucasKanadeFlow(FlowModel):
    """Pyramidal Lucas-Kanade (Bouguet 2000), regularised: without weights, and a tenth of RIFE's time.

    A network that has learned to explain every change as motion finds large motion in the shimmer of an unfinished
    picture. This one sees motion only where there is contrast, and calls a flat region still. Up to about twelve
    pixels at three levels.
    """

    name, min_size = "lucas_kanade", 32

    def __init__(self, levels: int = 3, blur: float = 1.0, window: float = 3.0, regularisation: float = 3e-3):
        """
        Args:
            levels: of the pyramid; each doubles the motion that can be seen.
            blur: standard deviation of the blur before it, px.
            window: standard deviation of the window over which motion is taken as constant, px of a level.
            regularisation: added to the structure tensor; pulls regions of little contrast to their neighbours' flow
                at the coarser level, and to none at the coarsest.
        """
        super().__init__()
        self.levels, self.blur, self.window, self.regularisation = levels, blur, window, regularisation
        self.multiple = 2 ** (levels - 1)
        self.freeze()

    def estimate(self, a: Tensor, b: Tensor) -> Tensor:
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


class CoarseLucasKanadeFlow(LucasKanadeFlow):
    """The same on frames scaled down to 128 px, whatever their size, and at four levels: sees motion of up to a fifth
    of the frame, and takes a fiftieth of RIFE's time at 512 px.
    """

    name = "lucas_kanade_coarse"
    side = 128

    def __init__(self):
        super().__init__(levels=4)
        self.step, self.multiple = self.multiple, 1

    def estimate(self, a: Tensor, b: Tensor) -> Tensor:
        size = a.shape[-2:]
        scale = min(1.0, self.side / min(size))
        height, width = (max(self.step, round(length * scale / self.step) * self.step) for length in size)
        a, b = (F.interpolate(x, size=(height, width), mode="bilinear", antialias=True) for x in (a, b))
        flow = F.interpolate(super().estimate(a, b), size=size, mode="bilinear", align_corners=False)
        return flow * flow.new_tensor((size[1] / width, size[0] / height)).view(1, 2, 1, 1)


def lucas_kanade_step(a: Tensor, b: Tensor, window: float, regularisation: float) -> Tensor:
    """Least-squares motion (B, 2, H, W), px, that explains the change from `a` to `b` (B, C, H, W) to first order."""
    dy, dx = torch.gradient((a + b) / 2, dim=(2, 3))
    dt = b - a
    products = torch.stack([(p * q).sum(1) for p, q in ((dx, dx), (dx, dy), (dy, dy), (dx, dt), (dy, dt))], dim=1)
    xx, xy, yy, xt, yt = gaussian_blur(products, window).unbind(1)
    xx, yy = xx + regularisation, yy + regularisation
    # Cramer's rule for [xx xy; xy yy] (u, v) = -(xt, yt); the regularisation keeps the determinant positive.
    return torch.stack((xy * yt - yy * xt, xy * xt - xx * yt), dim=1) / (xx * yy - xy * xy).unsqueeze(1)


@register_flow_model("lucas_kanade", LucasKanadeFlow.min_size)
def _lucas_kanade(path: Path | None, download: bool) -> FlowModel:
    return LucasKanadeFlow()


@register_flow_model("lucas_kanade_coarse", CoarseLucasKanadeFlow.min_size)
def _lucas_kanade_coarse(path: Path | None, download: bool) -> FlowModel:
    return CoarseLucasKanadeFlow()


@register_flow_model("gradient", GradientFlow.min_size)
def _gradient(path: Path | None, download: bool) -> FlowModel:
    return GradientFlow()
