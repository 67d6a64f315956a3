"""SEA-RAFT (Wang, Lipson and Deng, ECCV 2024, arXiv 2405.14793): RAFT that starts from a guess of its context network
and is refined in few rounds by ConvNeXt blocks. It also says of each pixel how its error is distributed.

Written from the paper and the published tensor shapes; the published weights (BSD-3) fit, as `model.safetensors` of
MemorySlices/Tartan-C-T-TSKH-spring540x960-M and its siblings holds them. The users put them where flow models are.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.optical_flow.raft import CorrBlock, make_coords_grid, upsample_flow

from ....motionprompt_core.flow.base import FlowModel, register_flow_model
from ....motionprompt_core.media.files import load_state, read_safetensors

DIM, LEVELS, RADIUS, ROUNDS = 128, 4, 4, 4
# Residual blocks of the encoders' layers: ResNet-18's and ResNet-34's. The published L is M refined in 12 rounds.
BLOCKS = {"sea_raft_s": (2, 2, 2), "sea_raft_m": (3, 4, 6)}
# The mixture's narrow distribution has a scale of 1 px, the broad one of at most e^10 px.
BROADEST = 10.0


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu((x if self.downsample is None else self.downsample(x)) + y)


class Encoder(nn.Module):
    """The first three layers of a ResNet: pictures (N, C, H, W) -> features (N, 2 DIM, H/8, W/8)."""

    def __init__(self, inputs: int, blocks: tuple[int, int, int]):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, 64, 7, 2, 3), nn.BatchNorm2d(64)
        self.layer1 = self._layer(64, 64, 1, blocks[0])
        self.layer2 = self._layer(64, 128, 2, blocks[1])
        self.layer3 = self._layer(128, 256, 2, blocks[2])
        self.final_conv = nn.Conv2d(256, 2 * DIM, 1)

    @staticmethod
    def _layer(inputs: int, outputs: int, stride: int, blocks: int) -> nn.Sequential:
        rest = (ResidualBlock(outputs, outputs, 1) for _ in range(blocks - 1))
        return nn.Sequential(ResidualBlock(inputs, outputs, stride), *rest)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return self.final_conv(self.layer3(self.layer2(self.layer1(x))))


class MotionEncoder(nn.Module):
    """What the correlations around the present flow (N, 2, h, w), and itself, say: (N, dim, h, w).

    Args:
        others: frames that there is a flow to, one after the other in the channels.
    """

    def __init__(self, dim: int = DIM, others: int = 1):
        super().__init__()
        self.convc1 = nn.Conv2d(others * LEVELS * (2 * RADIUS + 1) ** 2, 2 * dim, 1)
        self.convc2 = nn.Conv2d(2 * dim, dim + dim // 2, 3, 1, 1)
        self.convf1 = nn.Conv2d(2 * others, dim, 7, 1, 3)
        self.convf2 = nn.Conv2d(dim, dim // 2, 3, 1, 1)
        self.conv = nn.Conv2d(2 * dim, dim - 2 * others, 3, 1, 1)

    def forward(self, flow: Tensor, correlation: Tensor) -> Tensor:
        correlation = F.relu(self.convc2(F.relu(self.convc1(correlation))))
        motion = F.relu(self.convf2(F.relu(self.convf1(flow))))
        return torch.cat((F.relu(self.conv(torch.cat((correlation, motion), 1))), flow), 1)


class ConvNextBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.dwconv = nn.Conv2d(inputs, inputs, 7, 1, 3, groups=inputs)
        self.norm = nn.LayerNorm(inputs, eps=1e-6)
        self.pwconv1, self.pwconv2 = nn.Linear(inputs, 4 * outputs), nn.Linear(4 * outputs, inputs)
        self.gamma = nn.Parameter(torch.ones(inputs))
        self.final = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).movedim(1, -1))
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return self.final(x + y.movedim(-1, 1))


class UpdateBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = MotionEncoder()
        self.refine = nn.ModuleList(ConvNextBlock(3 * DIM, DIM) for _ in range(2))

    def forward(self, state: Tensor, context: Tensor, correlation: Tensor, flow: Tensor) -> Tensor:
        known = torch.cat((context, self.encoder(flow, correlation)), 1)
        for block in self.refine:
            state = block(torch.cat((state, known), 1))
        return state


class Network(nn.Module):
    """Flow (N, 2, H, W), px, and the mixture's parameters (N, 4, H, W): logits of the two, logarithms of their scales.

    Args:
        blocks: residual blocks of each layer. rounds: refinements.
    """

    def __init__(self, blocks: tuple[int, int, int], rounds: int = ROUNDS):
        super().__init__()
        self.rounds = rounds
        self.cnet, self.fnet = Encoder(6, blocks), Encoder(3, blocks)
        self.init_conv = nn.Conv2d(2 * DIM, 2 * DIM, 3, 1, 1)
        self.upsample_weight = head(64 * 9, 1)
        self.flow_head = head(2 + 4, 3)
        self.update_block = UpdateBlock()

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """`a`, `b`: (N, 3, H, W) in [-1, 1], H and W multiples of 8."""
        state, context = self.init_conv(self.cnet(torch.cat((a, b), 1))).split(DIM, 1)
        correlation = CorrBlock(num_levels=LEVELS, radius=RADIUS)
        correlation.build_pyramid(self.fnet(a), self.fnet(b))
        flow, mixture = self.flow_head(state).split((2, 4), 1)
        here = make_coords_grid(len(flow), *flow.shape[-2:], device=str(flow.device))
        for _ in range(self.rounds):
            around = correlation.index_pyramid(here + flow)
            state = self.update_block(state, context, around, flow)
            change, mixture = self.flow_head(state).split((2, 4), 1)
            flow = flow + change
        # As RAFT's: each pixel a mean of nine, and 8 times as long.
        up = upsample_flow(torch.cat((flow, mixture / 8), 1), 0.25 * self.upsample_weight(state))
        return up[:, :2], up[:, 2:]


def head(outputs: int, kernel: int, dim: int = DIM) -> nn.Sequential:
    last = nn.Conv2d(2 * dim, outputs, kernel, 1, kernel // 2)
    return nn.Sequential(nn.Conv2d(dim, 2 * dim, 3, 1, 1), nn.ReLU(), last)


def confidence(mixture: Tensor) -> Tensor:
    """The mean of 1 px over the error's scale, (N, 1, H, W) in (0, 1], of a mixture (N, 4, H, W)."""
    broad, narrow = mixture[:, :2].softmax(1).split(1, 1)
    return narrow + broad * torch.exp(-mixture[:, 2:3].clamp(0, BROADEST))


class SeaRaftFlow(FlowModel):
    """SEA-RAFT, S or M, which says how sure it is of each pixel. In float32 only, as its positions are.

    Args:
        name: "sea_raft_s" (8 M parameters) or "sea_raft_m" (20 M).
        rounds: refinements.
    """

    min_size, multiple = 128, 8

    def __init__(self, name: str = "sea_raft_m", rounds: int = ROUNDS):
        super().__init__()
        self.name, self.cost = name, {"sea_raft_s": 1.0, "sea_raft_m": 1.5}[name]
        self.network = Network(BLOCKS[name], rounds)
        self.freeze()

    def estimate(self, a: Tensor, b: Tensor) -> Tensor:
        """The flow and, as a third channel, `confidence`."""
        if a.dtype != torch.float32:
            raise ValueError(f"flow model {self.name}: weights are {a.dtype}, expected torch.float32. Do not cast it.")
        flow, mixture = self.network(2 * a - 1, 2 * b - 1)
        return torch.cat((flow, confidence(mixture)), 1)


def load_sea_raft(name: str, path: Path | None, download: bool = False) -> SeaRaftFlow:
    """SEA-RAFT with the weights of a .safetensors in the published names; see `load_flow_model`."""
    if path is None:
        raise FileNotFoundError(
            f"The weights of the flow model {name} are not on this machine. Put model.safetensors of MemorySlices/"
            f"Tartan-C-T-TSKH-spring540x960-{name[-1].upper()} (Hugging Face, BSD-3) as {name}.safetensors where flow "
            "models are, or choose lucas_kanade."
        )
    model, what = SeaRaftFlow(name), f"weights of flow model {name}"
    # The last norm of a block has two names there, of which a file may leave one out.
    state = {key.replace(".bn3.", ".downsample.1."): value for key, value in read_safetensors(path, what)[0].items()}
    load_state(model.network, state, path, what)
    return model


for _name in BLOCKS:  # offered only where a file of its name lies
    register_flow_model(_name, SeaRaftFlow.min_size, installed=lambda: False)(partial(load_sea_raft, _name))
