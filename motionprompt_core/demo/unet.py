"""The demo's video model: an image UNet on 16 x 16 latents with motion modules, AnimateDiff in miniature.

Like AnimateDiff, it takes frames as the batch dimension: (clips * frames, 4, h, w). `frames = 1` skips every motion
module, and what is left is the image model that was trained first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class UNetConfig:
    channels: tuple[int, int, int] = (48, 96, 160)  # at 16 x 16, 8 x 8 and 4 x 4
    context_dim: int = 128
    latent_channels: int = 4
    heads: int = 4
    max_frames: int = 16


def sinusoid(position: Tensor, dim: int, period: float = 10000.0) -> Tensor:
    """(N,) positions -> (N, dim) sines and cosines."""
    frequency = torch.exp(-math.log(period) * torch.arange(dim // 2, device=position.device) / (dim // 2))
    angle = position[:, None].float() * frequency
    return torch.cat((angle.cos(), angle.sin()), dim=-1)


def surroundings(x: Tensor, centre: Tensor) -> Tensor:
    """What every pixel of `x` (N, C, h, w) is told of its place, (N, 5, h, w).

    x and y, -1 to 1 from edge to edge; both from `centre` (N, 2); and nearness to `centre`, at most 1.
    """
    axes = [torch.linspace(-1, 1, side, device=x.device, dtype=x.dtype) for side in x.shape[-2:]]
    fixed = torch.stack(torch.meshgrid(*axes, indexing="ij")).flip(0).expand(len(x), -1, -1, -1)
    moving = fixed - centre.to(x.dtype)[:, :, None, None]
    return torch.cat((fixed, moving, torch.exp(-2.5 * moving.square().sum(dim=1, keepdim=True))), dim=1)


def zero(layer: nn.Linear | nn.Conv1d | nn.Conv2d) -> None:
    """A layer that begins as nothing leaves a residual block an identity, and a motion module without effect."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def feed_forward(dim: int) -> nn.Sequential:
    last = nn.Linear(2 * dim, dim)
    zero(last)
    return nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), last)


class ResBlock(nn.Module):
    """Two convolutions, modulated by the embedding of noise level and prompt, which know where in the picture they are.

    They know it from the frame's edges and from a point that travels as the prompt says: "left" moves it to the left.
    """

    def __init__(self, channels: int, out_channels: int, emb_dim: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.emb = nn.Linear(emb_dim, 2 * out_channels)
        self.norm2 = nn.GroupNorm(8, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.place = nn.Conv2d(5, out_channels, 1, bias=False)
        nn.init.normal_(self.place.weight, std=0.1)
        self.skip = nn.Conv2d(channels, out_channels, 1) if channels != out_channels else nn.Identity()
        zero(self.conv2)

    def forward(self, x: Tensor, emb: Tensor, centre: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.emb(emb)[:, :, None, None].chunk(2, dim=1)
        h = self.norm2(h) * (1 + scale) + shift + self.place(surroundings(h, centre))
        return self.skip(x) + self.conv2(F.silu(h))


class Attention(nn.Module):
    def __init__(self, dim: int, context_dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(context_dim, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim)
        zero(self.to_out)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = self.to_q(x), *self.to_kv(context).chunk(2, dim=-1)
        q, k, v = (rearrange(t, "b n (h d) -> b h n d", h=self.heads) for t in (q, k, v))
        return self.to_out(rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)"))


class SpatialTransformer(nn.Module):
    """Self-attention within a frame, then cross-attention to the prompt, then an MLP."""

    def __init__(self, dim: int, config: UNetConfig):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn1 = Attention(dim, dim, config.heads)
        self.attn2 = Attention(dim, config.context_dim, config.heads)
        self.ff = feed_forward(dim)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        _, _, h, w = x.shape
        x = rearrange(x, "b c h w -> b (h w) c")
        y = self.norm1(x)
        x = x + self.attn1(y, y)
        x = x + self.attn2(self.norm2(x), context)
        x = x + self.ff(self.norm3(x))
        return rearrange(x, "b (h w) c -> b c h w", h=h, w=w)


class MotionModule(nn.Module):
    """Lets frames talk: a temporal convolution and the mean over all frames, then, below full resolution, attention.

    The mean is what ties still grounds together: sixteen noisy views of the same pixel. `joint` attends over time and
    space at once, else over time alone.
    """

    def __init__(self, dim: int, size: int, joint: bool, config: UNetConfig, attention: bool = True):
        super().__init__()
        self.joint, self.attention = joint, attention
        self.conv = nn.Conv1d(dim, dim, 3, padding=1)
        self.conv_norm = nn.GroupNorm(8, dim)
        self.mean = nn.Conv2d(dim, dim, 1)
        zero(self.conv)
        zero(self.mean)
        if not attention:
            return
        self.norm = nn.LayerNorm(dim)
        self.attn = Attention(dim, dim, config.heads)
        self.ff_norm = nn.LayerNorm(dim)
        self.ff = feed_forward(dim)
        self.frame_position = nn.Parameter(0.1 * sinusoid(torch.arange(config.max_frames), dim, period=100.0))
        self.pixel_position = nn.Parameter(0.02 * torch.randn(dim, size, size))

    def forward(self, x: Tensor, frames: int, places: Tensor) -> Tensor:
        _, _, h, w = x.shape
        y = rearrange(F.silu(self.conv_norm(x)), "(b t) c h w -> b t c h w", t=frames)
        line = rearrange(y, "b t c h w -> (b h w) c t")
        x = x + rearrange(self.conv(line), "(b h w) c t -> (b t) c h w", h=h, w=w)
        x = x + self.mean(y.mean(dim=1)).repeat_interleave(frames, dim=0)
        if not self.attention:
            return x
        position = self.pixel_position
        if position.shape[-2:] != (h, w):  # another frame size than in training
            position = F.interpolate(position[None], size=(h, w), mode="bilinear")[0]
        position = position.flatten(1).T[None] + self.frame_position[places][:, None]  # (t, hw, c)
        pattern = "(b t) c h w -> b (t h w) c" if self.joint else "(b t) c h w -> (b h w) t c"
        tokens = rearrange(x, pattern, t=frames)
        if self.joint:
            position = rearrange(position, "t n c -> (t n) c")
        else:
            position = rearrange(position, "t n c -> n t c").repeat(len(x) // frames, 1, 1)
        y = self.norm(tokens) + position
        tokens = tokens + self.attn(y, y)
        tokens = tokens + self.ff(self.ff_norm(tokens))
        back = "b (t h w) c -> (b t) c h w" if self.joint else "(b h w) t c -> (b t) c h w"
        return rearrange(tokens, back, t=frames, h=h, w=w)


class Stage(nn.Module):
    """ResBlock, spatial transformer (not at full resolution), motion module."""

    def __init__(
        self, channels: int, out_channels: int, level: int, emb_dim: int, config: UNetConfig, joint: bool = False
    ):
        super().__init__()
        self.res = ResBlock(channels, out_channels, emb_dim)
        self.attn = SpatialTransformer(out_channels, config) if level else None
        self.motion = MotionModule(out_channels, 16 >> level, joint, config, attention=level > 0)

    def forward(self, x: Tensor, emb: Tensor, centre: Tensor, context: Tensor, frames: int, places: Tensor) -> Tensor:
        x = self.res(x, emb, centre)
        if self.attn is not None:
            x = self.attn(x, context)
        return self.motion(x, frames, places) if frames > 1 else x


class VideoUNet(nn.Module):
    """Predicts v from noisy latents.

    Args of forward:
        x: (clips * frames, 4, h, w), scaled to unit variance; h and w are multiples of 4.
        timesteps: (clips * frames,), 0 (clean) to 999 (noise).
        context: (clips * frames, L, 128), the prompt.
        frames: frames in each clip, 1 to 16.
        places: (frames,) which of the 16 frames these are, for training on parts of clips; None: the first ones.
    """

    def __init__(self, config: UNetConfig | None = None):
        super().__init__()
        self.config = config = config or UNetConfig()
        c0, c1, c2 = config.channels
        emb_dim = 4 * c0
        self.time_dim = c0
        self.time_embed = nn.Sequential(nn.Linear(c0, emb_dim), nn.SiLU(), nn.Linear(emb_dim, emb_dim))
        self.prompt_query = nn.Parameter(0.1 * torch.randn(4, config.context_dim))
        self.prompt_embed = nn.Linear(4 * config.context_dim, emb_dim)
        self.velocity = nn.Linear(config.context_dim, 2)
        self.conv_in = nn.Conv2d(config.latent_channels, c0, 3, padding=1)

        def stage(channels: int, out_channels: int, level: int, joint: bool = False) -> Stage:
            return Stage(channels, out_channels, level, emb_dim, config, joint)

        # Attention over time and space at once is what lets a sprite be followed from cell to cell; at 8 x 8 it is
        # dear, so one such stage has to do there.
        self.down0, self.shrink0 = stage(c0, c0, 0), nn.Conv2d(c0, c1, 3, stride=2, padding=1)
        self.down1, self.shrink1 = stage(c1, c1, 1), nn.Conv2d(c1, c2, 3, stride=2, padding=1)
        self.down2 = stage(c2, c2, 2, joint=True)
        self.mid = stage(c2, c2, 2, joint=True)
        self.up2, self.grow1 = stage(2 * c2, c2, 2, joint=True), nn.Conv2d(c2, c1, 3, padding=1)
        self.up1a = stage(2 * c1, c1, 1, joint=True)
        self.up1b, self.grow0 = stage(c1, c1, 1), nn.Conv2d(c1, c0, 3, padding=1)
        self.up0a, self.up0b = stage(2 * c0, c0, 0), stage(c0, c0, 0)
        self.norm_out = nn.GroupNorm(8, c0)
        self.conv_out = nn.Conv2d(c0, config.latent_channels, 3, padding=1)
        zero(self.conv_out)

    def embed(self, timesteps: Tensor, context: Tensor) -> Tensor:
        """Noise level and a few attention-pooled views of the prompt, as one vector per frame."""
        time = self.time_embed(sinusoid(timesteps, self.time_dim).to(context.dtype))
        weight = (self.prompt_query @ context.transpose(1, 2) / context.shape[-1] ** 0.5).softmax(dim=-1)
        emb = time + self.prompt_embed((weight @ context).flatten(1))
        return F.silu(emb)

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor, frames: int, places: Tensor | None = None
    ) -> Tensor:
        if not 1 <= frames <= self.config.max_frames:
            raise ValueError(
                f"The demo model got {frames} frames, but makes 1 to {self.config.max_frames}. Set the batch size "
                f"of the empty latent to {self.config.max_frames} or less."
            )
        if x.shape[-2] % 4 or x.shape[-1] % 4:
            raise ValueError(
                f"The demo model got latents of {x.shape[-1]}x{x.shape[-2]}, but makes pictures whose sides are "
                "multiples of 32 px. Set width and height of the empty latent to such (it was trained at 128)."
            )
        order: Tensor = torch.arange(frames, device=x.device) if places is None else places
        emb = self.embed(timesteps, context)
        centre = torch.zeros(len(x), 2, device=x.device)
        if frames > 1:  # an image has no time
            time = 2 * order / (self.config.max_frames - 1) - 1
            centre = self.velocity(context.mean(dim=1)) * time.repeat(len(x) // frames)[:, None]

        def grow(x: Tensor) -> Tensor:
            return F.interpolate(x, scale_factor=2.0, mode="nearest")

        h0 = self.down0(self.conv_in(x), emb, centre, context, frames, order)
        h1 = self.down1(self.shrink0(h0), emb, centre, context, frames, order)
        h2 = self.down2(self.shrink1(h1), emb, centre, context, frames, order)
        h = self.mid(h2, emb, centre, context, frames, order)
        h = self.up2(torch.cat((h, h2), dim=1), emb, centre, context, frames, order)
        h = self.up1a(torch.cat((self.grow1(grow(h)), h1), dim=1), emb, centre, context, frames, order)
        h = self.up1b(h, emb, centre, context, frames, order)
        h = self.up0a(torch.cat((self.grow0(grow(h)), h0), dim=1), emb, centre, context, frames, order)
        h = self.up0b(h, emb, centre, context, frames, order)
        return self.conv_out(F.silu(self.norm_out(h)))
