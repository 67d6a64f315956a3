"""Layers of the three video UNets that an image UNet does not have; all else is ComfyUI's own.

Activations keep the frames in the batch, (B * F, C, h, w). `transformer_options` carries the number of frames under
FRAMES and DynamiCrafter's image tokens under IMAGE_TOKENS. Names of submodules are those of the official weights, their
spelling included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.model_management
import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import (
    BasicTransformerBlock,
    CrossAttention,
    SpatialTransformer,
    optimized_attention,
)
from torch import Tensor, nn

from ..comfy_types import Operations, Options
from .positions import RelativeTimeBias, attend_with_bias, rotate

FRAMES = "video_frames"
IMAGE_TOKENS = "image_tokens"
FRAMES_OF_IMAGE_TOKENS = 16  # DynamiCrafter's image tokens are this many frames' worth


def over_frames(layer: Callable[[Tensor], Tensor], x: Tensor, frames: int) -> Tensor:
    """A layer for videos (B, C, F, h, w), on frames in the batch (B * F, C, h, w)."""
    video = x.unflatten(0, (-1, frames)).transpose(1, 2)
    return layer(video).transpose(1, 2).flatten(0, 1)


def plain(transformer_options: Options) -> Options:
    """Options for attention over frames: patches of other nodes are meant for attention within a picture."""
    return {key: value for key, value in transformer_options.items() if key not in ("patches", "patches_replace")}


class TemporalConvolution(nn.Module):
    """Four convolutions over time, each with a GroupNorm over all frames before it, and a residual connection. The
    zero-padded ends are the network's only sense of a frame's position."""

    def __init__(self, channels: int, groups: int, operations: Operations, **where: object):
        super().__init__()

        def layers(*dropout: nn.Module) -> nn.Sequential:
            convolution = operations.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0), **where)
            return nn.Sequential(operations.GroupNorm(groups, channels, **where), nn.SiLU(), *dropout, convolution)

        self.conv1 = layers()
        self.conv2 = layers(nn.Identity())  # in the place of dropout, which counts in the names of the weights
        self.conv3 = layers(nn.Identity())
        self.conv4 = layers(nn.Identity())

    def forward(self, video: Tensor) -> Tensor:
        return video + self.conv4(self.conv3(self.conv2(self.conv1(video))))


class ResBlock(nn.Module):
    """Two convolutions per frame, with the time embedding between them.

    Args:
        channels, out_channels: of the activations. embedding: width of the time embedding.
        joint_norm: GroupNorms see all frames of a clip together (LaVie).
        temporal_conv: followed by a `TemporalConvolution` (VideoCrafter2, DynamiCrafter).
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        embedding: int,
        groups: int,
        joint_norm: bool,
        temporal_conv: bool,
        operations: Operations,
        **where: object,
    ):
        super().__init__()
        self.joint_norm = joint_norm

        def convolution(channels: int, size: int) -> nn.Module:
            return operations.Conv2d(channels, out_channels, size, padding=size // 2, **where)

        self.in_layers = nn.Sequential(
            operations.GroupNorm(groups, channels, **where), nn.SiLU(), convolution(channels, 3)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), operations.Linear(embedding, out_channels, **where))
        norm = operations.GroupNorm(groups, out_channels, **where)
        self.out_layers = nn.Sequential(norm, nn.SiLU(), nn.Identity(), convolution(out_channels, 3))
        self.skip_connection = nn.Identity() if channels == out_channels else convolution(channels, 1)
        self.temopral_conv = TemporalConvolution(out_channels, groups, operations, **where) if temporal_conv else None

    def forward(self, x: Tensor, emb: Tensor, frames: int) -> Tensor:
        h = self._normed(self.in_layers, x, frames)
        h = h + self.emb_layers(emb).to(h.dtype)[:, :, None, None]
        h = self.skip_connection(x) + self._normed(self.out_layers, h, frames)
        return over_frames(self.temopral_conv, h, frames) if self.temopral_conv is not None else h

    def _normed(self, layers: nn.Sequential, x: Tensor, frames: int) -> Tensor:
        return layers[1:](over_frames(layers[0], x, frames) if self.joint_norm else layers[0](x))


class TemporalTransformer(nn.Module):
    """Each pixel attends to itself in all frames, twice (VideoCrafter2, DynamiCrafter).

    Args:
        convolutional: the projections are 1-D convolutions, as in the network's first temporal transformer; then the
            inner width may differ from the channels.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        head_width: int,
        groups: int,
        convolutional: bool,
        operations: Operations,
        **where: object,
    ):
        super().__init__()
        inner = heads * head_width
        self.convolutional = convolutional
        self.norm = operations.GroupNorm(groups, channels, eps=1e-6, **where)
        if convolutional:
            self.proj_in = operations.Conv1d(channels, inner, 1, **where)
            self.proj_out = operations.Conv1d(inner, channels, 1, **where)
        else:
            self.proj_in = operations.Linear(channels, inner, **where)
            self.proj_out = operations.Linear(inner, channels, **where)
        block = BasicTransformerBlock(
            inner, heads, head_width, switch_temporal_ca_to_sa=True, operations=operations, **where
        )
        self.transformer_blocks = nn.ModuleList([block])

    def forward(self, x: Tensor, transformer_options: Options) -> Tensor:
        options = plain(transformer_options)
        return x + over_frames(lambda video: self._attend(video, options), x, options[FRAMES])

    def _attend(self, video: Tensor, options: Options) -> Tensor:
        batch, _, _, height, width = video.shape
        pixels = self.norm(video).permute(0, 3, 4, 1, 2).flatten(0, 2)  # (B * h * w, C, F)
        if self.convolutional:
            tokens = self.proj_in(pixels).transpose(1, 2)
        else:
            tokens = self.proj_in(pixels.transpose(1, 2))
        for block in self.transformer_blocks:
            tokens = block(tokens, transformer_options=options)
        if self.convolutional:
            pixels = self.proj_out(tokens.transpose(1, 2))
        else:
            pixels = self.proj_out(tokens).transpose(1, 2)
        return pixels.unflatten(0, (batch, height, width)).permute(0, 3, 4, 1, 2)


class FrameAttention(CrossAttention):
    """LaVie's attention over frames: rotary positions, and a learned bias for the distance of two frames."""

    def __init__(self, width: int, heads: int, head_width: int, operations: Operations, **where: object):
        super().__init__(width, None, heads, head_width, operations=operations, **where)
        self.time_rel_pos_bias = RelativeTimeBias(heads, operations, **where)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B * h * w, F, width)."""
        q, k, v = (
            project(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        bias = self.time_rel_pos_bias(tokens.shape[1], q)
        return self.to_out(attend_with_bias(rotate(q), rotate(k), v, bias))


class SpatioTemporalBlock(BasicTransformerBlock):
    """LaVie's transformer block: an image model's, with attention over frames between the text and the feed-forward
    layer."""

    def __init__(self, width: int, heads: int, head_width: int, context: int, operations: Operations, **where: object):
        super().__init__(width, heads, head_width, context_dim=context, operations=operations, **where)
        self.attn_temp = FrameAttention(width, heads, head_width, operations, **where)
        self.norm_temp = operations.LayerNorm(width, **where)

    def forward(self, x: Tensor, context: Tensor | None = None, transformer_options: Options | None = None):
        """The image block as ComfyUI runs it, with other nodes' patches; two patches of our own, the last of their
        kind, add the attention over frames where it belongs."""
        options = transformer_options or {}
        frames = options[FRAMES]
        before: list[Tensor] = []

        def keep(x: Tensor, _: object) -> Tensor:
            before.append(x)
            return x

        def add_frames(text: Tensor, _: object) -> Tensor:
            y = before.pop() + text
            return text + self._over_frames(y, frames)

        patches = dict(options.get("patches", {}))
        patches["middle_patch"] = [*patches.get("middle_patch", []), keep]
        patches["attn2_output_patch"] = [*patches.get("attn2_output_patch", []), add_frames]
        return super().forward(x, context, {**options, "patches": patches})

    def _over_frames(self, y: Tensor, frames: int) -> Tensor:
        batch, pixels = len(y) // frames, y.shape[1]
        tokens = self.norm_temp(y).unflatten(0, (batch, frames)).transpose(1, 2).flatten(0, 1)
        return self.attn_temp(tokens).unflatten(0, (batch, pixels)).transpose(1, 2).flatten(0, 1)


class TextAndImageAttention(CrossAttention):
    """DynamiCrafter's cross-attention: to the text and, apart from it, to the image's tokens; the two are added.

    Args:
        learned_scale: the image's part has a learned strength (the 256 px model).
    """

    def __init__(
        self,
        width: int,
        context: int,
        heads: int,
        head_width: int,
        learned_scale: bool,
        operations: Operations,
        **where: Any,
    ):
        super().__init__(width, context, heads, head_width, operations=operations, **where)
        self.to_k_ip = operations.Linear(context, heads * head_width, bias=False, **where)
        self.to_v_ip = operations.Linear(context, heads * head_width, bias=False, **where)
        self.alpha = nn.Parameter(torch.empty((), **where)) if learned_scale else None

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        value: Tensor | None = None,
        mask: Tensor | None = None,
        transformer_options: Options | None = None,
    ) -> Tensor:
        options = transformer_options or {}
        image: Tensor = options[IMAGE_TOKENS]
        q = self.to_q(x)
        text = optimized_attention(
            q,
            self.to_k(context),
            self.to_v(context if value is None else value),
            self.heads,
            mask,
            transformer_options=options,
        )
        seen = optimized_attention(q, self.to_k_ip(image), self.to_v_ip(image), self.heads, transformer_options=options)
        if self.alpha is not None:
            seen = seen * (1 + comfy.model_management.cast_to(self.alpha, q.dtype, q.device).tanh())
        return self.to_out(text + seen)


class Upsample(nn.Module):
    """Nearest neighbour to the size of the next skip connection, then a convolution."""

    def __init__(self, channels: int, operations: Operations, **where: object):
        super().__init__()
        self.conv = operations.Conv2d(channels, channels, 3, padding=1, **where)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return self.conv(F.interpolate(x, size=size, mode="nearest"))


class Downsample(nn.Module):
    def __init__(self, channels: int, operations: Operations, **where: object):
        super().__init__()
        self.op = operations.Conv2d(channels, channels, 3, stride=2, padding=1, **where)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


def image_tokens_of_frames(tokens: Tensor, frames: int) -> Tensor:
    """Image tokens (B * F, 256, D) as each frame sees them.

    Of a clip of exactly 16 frames each frame sees its own 16 tokens, as in training; in any other every frame sees all.
    """
    if frames != FRAMES_OF_IMAGE_TOKENS:
        return tokens
    own = tokens.unflatten(1, (frames, -1)).unflatten(0, (-1, frames))  # (B, F, F, 16, D)
    return own.diagonal(dim1=1, dim2=2).movedim(-1, 1).flatten(0, 1)


def spatial_transformer(
    channels: int,
    heads: int,
    head_width: int,
    context: int,
    linear: bool,
    groups: int,
    operations: Operations,
    **where: object,
) -> SpatialTransformer:
    """ComfyUI's transformer within a frame."""
    made = SpatialTransformer(
        channels, heads, head_width, context_dim=context, use_linear=linear, operations=operations, **where
    )
    if groups != made.norm.num_groups:
        made.norm = operations.GroupNorm(groups, channels, eps=1e-6, **where)
    return made
