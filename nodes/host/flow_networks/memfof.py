"""MEMFOF (Bargatin et al., ICCV 2025, arXiv 2506.23151): the motion from the middle one of three frames to both others,
in one pass at a sixteenth of the size, with what SEA-RAFT is made of and attention over the middle frame.

Written from the paper and the published tensor shapes; the published weights (BSD-3) fit, as `model.safetensors` of
egorchistov/optical-flow-MEMFOF-Tartan-T-TSKH holds them. The users put them where flow models are.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import resnet34
from torchvision.models.optical_flow.raft import CorrBlock, make_coords_grid, upsample_flow

from ....motionprompt_core.flow.base import FlowModel, register_flow_model
from ....motionprompt_core.media.files import load_state, read_safetensors
from .sea_raft import LEVELS, RADIUS, ConvNextBlock, MotionEncoder, confidence, head

NAME, DIM, STRIDE, ROUNDS = "memfof", 512, 16, 8


class Encoder(nn.Module):
    """The first three layers of ResNet-34 without its pooling: pictures (N, C, H, W) -> (N, 2 DIM, H/16, W/16)."""

    def __init__(self, inputs: int):
        super().__init__()
        self.resnet = resnet34()
        self.resnet.conv1 = nn.Conv2d(inputs, 64, 7, 2, 3, bias=False)
        del self.resnet.layer4, self.resnet.fc
        self.final_conv = nn.Conv2d(256, 2 * DIM, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        net = self.resnet
        x = net.relu(net.bn1(net.conv1(x)))
        return self.final_conv(net.layer3(net.layer2(net.layer1(x))))


class Attention(nn.Module):
    """How much each place of the middle frame is like each other, (N, h w, h w), from its features (N, DIM, h, w)."""

    def __init__(self):
        super().__init__()
        self.to_qk = nn.Conv2d(DIM, 2 * DIM, 1, bias=False)

    def forward(self, context: Tensor) -> Tensor:
        query, key = self.to_qk(context).flatten(2).chunk(2, 1)
        places = query.shape[-1]
        return (query.transpose(1, 2) @ key * DIM**-0.5 * math.log(places, 3)).softmax(-1)


class Aggregate(nn.Module):
    """Motion (N, DIM, h, w) and what similar places have of it."""

    def __init__(self):
        super().__init__()
        self.to_v = nn.Conv2d(DIM, DIM, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, attention: Tensor, motion: Tensor) -> Tensor:
        found = self.to_v(motion).flatten(2) @ attention.transpose(1, 2)
        return motion + self.gamma * found.view_as(motion)


class UpdateBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = MotionEncoder(DIM, others=2)
        self.refine = nn.ModuleList(ConvNextBlock(4 * DIM, DIM) for _ in range(2))
        self.aggregator = Aggregate()

    def forward(self, state: Tensor, context: Tensor, correlation: Tensor, flow: Tensor, attention: Tensor) -> Tensor:
        motion = self.encoder(flow, correlation)
        known = torch.cat((context, motion, self.aggregator(attention, motion)), 1)
        for block in self.refine:
            state = block(torch.cat((state, known), 1))
        return state


class Network(nn.Module):
    """For the frame before and the one after: flow (N, 2, 2, H, W), px, and mixture (N, 2, 4, H, W); as SEA-RAFT's."""

    def __init__(self):
        super().__init__()
        self.cnet, self.fnet = Encoder(9), Encoder(3)
        self.init_conv = nn.Conv2d(2 * DIM, 2 * DIM, 3, 1, 1)
        self.upsample_weight = head(2 * 9 * STRIDE**2, 1, DIM)
        self.flow_head = head(2 * (2 + 4), 3, DIM)
        self.update_block = UpdateBlock()
        self.att = Attention()

    def forward(self, before: Tensor, here: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (N, 3, H, W) in [-1, 1], H and W multiples of 16."""
        state, context = self.init_conv(self.cnet(torch.cat((before, here, after), 1))).split(DIM, 1)
        attention, features, around = self.att(context), self.fnet(here), []
        for other in (before, after):
            around.append(CorrBlock(num_levels=LEVELS, radius=RADIUS))
            around[-1].build_pyramid(features, self.fnet(other))
        found = self._split(state)
        flow, mixture = found[:, :, :2], found[:, :, 2:]
        grid = make_coords_grid(len(flow), *flow.shape[-2:], device=str(flow.device))
        for _ in range(ROUNDS):
            seen = [around[way].index_pyramid(grid + flow[:, way]) for way in range(2)]
            state = self.update_block(state, context, torch.cat(seen, 1), flow.flatten(1, 2), attention)
            found = self._split(state)
            flow, mixture = flow + found[:, :, :2], found[:, :, 2:]
        weights = 0.25 * self.upsample_weight(state)
        small = torch.cat((flow, mixture / STRIDE), 2)
        up = [upsample_flow(small[:, way], part, STRIDE) for way, part in enumerate(weights.chunk(2, 1))]
        both = torch.stack(up, 1)
        return both[:, :, :2], both[:, :, 2:]

    def _split(self, state: Tensor) -> Tensor:
        """(N, 2, 2 + 4, h, w): what the head says for each of both ways."""
        return self.flow_head(state).unflatten(1, (2, 6))


class MemfofFlow(FlowModel):
    """MEMFOF, 76 M parameters. Where only two frames are at hand the first stands for the one before it, as at the
    beginning of a video. In float32 only, as its positions are."""

    min_size, multiple, cost, three = 256, STRIDE, 4.0, True

    def __init__(self):
        super().__init__()
        self.name, self.network = NAME, Network()
        self.freeze()

    def estimate(self, a: Tensor, b: Tensor) -> Tensor:
        return self.estimate_both(a, a, b)[:, 1]

    def estimate_both(self, before: Tensor, here: Tensor, after: Tensor) -> Tensor:
        if here.dtype != torch.float32:
            raise ValueError(f"flow model {NAME}: weights are {here.dtype}, expected torch.float32. Do not cast it.")
        flow, mixture = self.network(2 * before - 1, 2 * here - 1, 2 * after - 1)
        return torch.cat((flow, confidence(mixture.flatten(0, 1)).unflatten(0, (-1, 2))), 2)


@register_flow_model(NAME, MemfofFlow.min_size, installed=lambda: False)  # offered only where a file of its name lies
def load_memfof(path: Path | None, download: bool = False) -> MemfofFlow:
    """MEMFOF with the weights of a .safetensors in the published names; see `load_flow_model`."""
    if path is None:
        raise FileNotFoundError(
            f"The weights of the flow model {NAME} are not on this machine. Put model.safetensors of egorchistov/"
            f"optical-flow-MEMFOF-Tartan-T-TSKH (Hugging Face, BSD-3) as {NAME}.safetensors where flow models are, or "
            "choose lucas_kanade."
        )
    model, what = MemfofFlow(), f"weights of flow model {NAME}"
    load_state(model.network, read_safetensors(path, what)[0], path, what)
    return model
