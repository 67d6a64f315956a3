"""Where a frame is in the clip, for LaVie's attention over frames: rotary embedding, and a bias by distance."""

from __future__ import annotations

import math

import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor, nn

from ..comfy_types import Operations

ROTARY_WIDTH = 32  # of each head's dimensions
NUM_BUCKETS, MAX_EXACT, MAX_DISTANCE = 32, 8, 32


def rotate(x: Tensor) -> Tensor:
    """Rotary embedding (Su et al., arXiv 2104.09864) of q or k (B, heads, F, d) by the frame's index: pairs of
    neighbours among the first 32 dimensions are turned."""
    frames = x.shape[2]
    powers = torch.arange(0, ROTARY_WIDTH, 2, device=x.device, dtype=torch.float32) / ROTARY_WIDTH
    angle = torch.arange(frames, device=x.device, dtype=torch.float32)[:, None] * 10000.0**-powers
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    even, odd = x[..., :ROTARY_WIDTH:2], x[..., 1:ROTARY_WIDTH:2]
    turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2)
    return torch.cat((turned, x[..., ROTARY_WIDTH:]), dim=-1)


def buckets(frames: int) -> Tensor:
    """T5's buckets (arXiv 1910.10683) for the distances q - k of frames, (F, F): one a frame up to 7, then
    logarithmic."""
    distance = torch.arange(frames)[:, None] - torch.arange(frames)[None, :]
    size = distance.abs()
    scale = (NUM_BUCKETS // 2 - MAX_EXACT) / math.log(MAX_DISTANCE / MAX_EXACT)
    far = MAX_EXACT + (torch.log(size.clamp(min=1).float() / MAX_EXACT) * scale).long()
    far = far.clamp(max=NUM_BUCKETS // 2 - 1)
    return torch.where(size < MAX_EXACT, size, far) + NUM_BUCKETS // 2 * (distance < 0)


class RelativeTimeBias(nn.Module):
    """A learned bias for each head and distance of two frames."""

    def __init__(self, heads: int, operations: Operations, **where: object):
        super().__init__()
        self.relative_attention_bias = operations.Embedding(NUM_BUCKETS, heads, **where)

    def forward(self, frames: int, like: Tensor) -> Tensor:
        """(1, heads, F, F), added to the logits of attention; dtype and device of `like`."""
        table = self.relative_attention_bias(buckets(frames).to(like.device))
        return table.to(like.dtype).permute(2, 0, 1)[None]


def attend_with_bias(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attention of (B, heads, F, d) with a bias per head, (B, F, heads * d). PyTorch's, whatever ComfyUI is set to: the
    other kernels take no such bias."""
    return attention_pytorch(q, k, v, q.shape[1], mask=bias, skip_reshape=True)
