"""DynamiCrafter's image tokens: learned queries that look at CLIP's view of the image, 16 for each of 16 frames."""

from __future__ import annotations

import comfy.model_management
import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor, nn

from ..comfy_types import Device, Operations

HEAD_WIDTH = 64


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, head_width: int, operations: Operations, **where: object):
        super().__init__()
        inner = heads * head_width
        self.heads = heads
        self.norm1 = operations.LayerNorm(width, **where)
        self.norm2 = operations.LayerNorm(width, **where)
        self.to_q = operations.Linear(width, inner, bias=False, **where)
        self.to_kv = operations.Linear(width, 2 * inner, bias=False, **where)
        self.to_out = operations.Linear(inner, width, bias=False, **where)

    def forward(self, image: Tensor, latents: Tensor) -> Tensor:
        latents = self.norm2(latents)
        k, v = self.to_kv(torch.cat((self.norm1(image), latents), dim=1)).chunk(2, dim=-1)
        return self.to_out(optimized_attention(self.to_q(latents), k, v, self.heads))


class Resampler(nn.Module):
    """Perceiver resampler (as in Flamingo, arXiv 2204.14198) from CLIP's last hidden states to image tokens.

    Args:
        embedding: width of CLIP's states (1280). width, depth, heads, head_width: of the network. queries: number of
            tokens (256). output: their width, the text's (1024).
    """

    def __init__(
        self,
        embedding: int,
        width: int,
        depth: int,
        heads: int,
        head_width: int,
        queries: int,
        output: int,
        operations: Operations,
        dtype: torch.dtype | None = None,
        device: Device = None,
    ):
        super().__init__()
        where = {"dtype": dtype, "device": device}
        self.latents = nn.Parameter(torch.empty(1, queries, width, **where))
        self.proj_in = operations.Linear(embedding, width, **where)
        self.proj_out = operations.Linear(width, output, **where)
        self.norm_out = operations.LayerNorm(output, **where)

        def feed_forward() -> nn.Sequential:
            return nn.Sequential(
                operations.LayerNorm(width, **where),
                operations.Linear(width, 4 * width, bias=False, **where),
                nn.GELU(),
                operations.Linear(4 * width, width, bias=False, **where),
            )

        self.layers = nn.ModuleList(
            nn.ModuleList((_Attention(width, heads, head_width, operations, **where), feed_forward()))
            for _ in range(depth)
        )

    def forward(self, states: Tensor) -> Tensor:
        """CLIP's last hidden states (B, 257, embedding) -> tokens (B, queries, output)."""
        latents = comfy.model_management.cast_to(self.latents, states.dtype, states.device).expand(len(states), -1, -1)
        image = self.proj_in(states)
        for layer in self.layers:
            attention, feed_forward = layer.children()
            latents = latents + attention(image, latents)
            latents = latents + feed_forward(latents)
        return self.norm_out(self.proj_out(latents))
