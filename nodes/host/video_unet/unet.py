"""One UNet in three configurations: LaVie's, VideoCrafter2's and DynamiCrafter's, in the layout of latent diffusion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import comfy.patcher_extension
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import TimestepEmbedSequential, apply_control
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from torch import Tensor, nn

from ..comfy_types import Device, Operations, Options
from .layers import (
    FRAMES,
    IMAGE_TOKENS,
    Downsample,
    ResBlock,
    SpatioTemporalBlock,
    TemporalTransformer,
    TextAndImageAttention,
    Upsample,
    image_tokens_of_frames,
    over_frames,
    spatial_transformer,
)

INIT_HEADS = 8  # of the temporal transformer after the first convolution, whatever the others have
# Stable Diffusion's stages. ComfyUI reads them in a model's configuration, for the names in LoRAs.
LAYOUT: dict[str, Any] = {
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
}
LAVIE, LVDM = "lavie", "lvdm"  # kinds of temporal layers; LVDM's are VideoCrafter2's and DynamiCrafter's


class VideoUNet(nn.Module):
    """Noise prediction for the frames of a clip, which come as the batch.

    Args:
        in_channels: 4, or 8 with the latents of DynamiCrafter's image appended. model_channels: 320.
        context_dim: of the text. num_heads: of attention, or -1 for as many as have `num_head_channels` each.
        temporal: "lavie" or "lvdm". norm_groups: of GroupNorm.
        image_attention: attention to image tokens beside the text's. learned_image_scale: see TextAndImageAttention.
        num_res_blocks, channel_mult, transformer_depth, transformer_depth_output, transformer_depth_middle: see LAYOUT.

    Attributes:
        dtype: of the weights, as ComfyUI wants to know it.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        model_channels: int,
        context_dim: int,
        num_heads: int,
        num_head_channels: int,
        temporal: str,
        norm_groups: int = 32,
        image_attention: bool = False,
        learned_image_scale: bool = False,
        out_channels: int = 4,
        num_res_blocks: Sequence[int] = LAYOUT["num_res_blocks"],
        channel_mult: Sequence[int] = LAYOUT["channel_mult"],
        transformer_depth: Sequence[int] = LAYOUT["transformer_depth"],
        transformer_depth_output: Sequence[int] = LAYOUT["transformer_depth_output"],
        transformer_depth_middle: int = LAYOUT["transformer_depth_middle"],
        dtype: torch.dtype | None = None,
        device: Device = None,
        operations: Operations,
    ):
        super().__init__()
        self.dtype = dtype
        self.model_channels = model_channels
        self.temporal = temporal
        self.groups = norm_groups
        self.context_dim = context_dim
        self.heads, self.head_width = num_heads, num_head_channels
        self.image_attention, self.learned_image_scale = image_attention, learned_image_scale
        self.make = {"operations": operations, "dtype": dtype, "device": device}
        self.time_embed = self._embedding_mlp(model_channels)
        if temporal == LVDM:
            self.fps_embedding = self._embedding_mlp(model_channels)
            first = TemporalTransformer(
                model_channels, INIT_HEADS, num_head_channels, norm_groups, convolutional=True, **self.make
            )
            self.init_attn = TimestepEmbedSequential(first)
        widths = self._input_blocks(in_channels, list(channel_mult), list(num_res_blocks), list(transformer_depth))
        width = model_channels * channel_mult[-1]
        self.middle_block = TimestepEmbedSequential(
            self._res_block(width, width),
            *(self._transformers(width) if transformer_depth_middle else ()),
            self._res_block(width, width),
        )
        self._output_blocks(widths, list(channel_mult), list(num_res_blocks), list(transformer_depth_output))
        norm = operations.GroupNorm(norm_groups, model_channels, dtype=dtype, device=device)
        last = operations.Conv2d(model_channels, out_channels, 3, padding=1, dtype=dtype, device=device)
        self.out = nn.Sequential(norm, nn.SiLU(), last)
        del self.make

    # -- building ----------------------------------------------------------------------------------------------------

    def _linear(self, inputs: int, outputs: int) -> nn.Module:
        make = self.make
        return make["operations"].Linear(inputs, outputs, dtype=make["dtype"], device=make["device"])

    def _embedding_mlp(self, channels: int) -> nn.Sequential:
        return nn.Sequential(self._linear(channels, 4 * channels), nn.SiLU(), self._linear(4 * channels, 4 * channels))

    def _res_block(self, channels: int, out_channels: int) -> ResBlock:
        lavie = self.temporal == LAVIE
        embedding = 4 * self.model_channels
        return ResBlock(channels, out_channels, embedding, self.groups, lavie, not lavie, **self.make)

    def _transformers(self, channels: int) -> Iterator[nn.Module]:
        heads = self.heads if self.heads > 0 else channels // self.head_width
        width = channels // heads
        lavie = self.temporal == LAVIE
        spatial = spatial_transformer(
            channels, heads, width, self.context_dim, linear=not lavie, groups=self.groups, **self.make
        )
        if lavie:
            spatial.transformer_blocks[0] = SpatioTemporalBlock(channels, heads, width, self.context_dim, **self.make)
        elif self.image_attention:
            attention = TextAndImageAttention(
                channels, self.context_dim, heads, width, self.learned_image_scale, **self.make
            )
            spatial.transformer_blocks[0].attn2 = attention
        yield spatial
        if not lavie:
            yield TemporalTransformer(channels, heads, width, self.groups, convolutional=False, **self.make)

    def _input_blocks(self, inputs: int, mult: list[int], blocks: list[int], depth: list[int]) -> list[int]:
        """Makes `input_blocks`; returns the channels of their outputs, which are the skip connections."""
        make, width = self.make, self.model_channels
        first = make["operations"].Conv2d(inputs, width, 3, padding=1, dtype=make["dtype"], device=make["device"])
        self.input_blocks = nn.ModuleList([TimestepEmbedSequential(first)])
        widths = [width]
        for level, factor in enumerate(mult):
            for _ in range(blocks[level]):
                layers: list[nn.Module] = [self._res_block(width, self.model_channels * factor)]
                width = self.model_channels * factor
                layers += self._transformers(width) if depth.pop(0) else ()
                self.input_blocks.append(TimestepEmbedSequential(*layers))
                widths.append(width)
            if level < len(mult) - 1:
                self.input_blocks.append(TimestepEmbedSequential(Downsample(width, **make)))
                widths.append(width)
        return widths

    def _output_blocks(self, widths: list[int], mult: list[int], blocks: list[int], depth: list[int]) -> None:
        width = widths[-1]
        self.output_blocks = nn.ModuleList()
        for level, factor in reversed(list(enumerate(mult))):
            for number in range(blocks[level] + 1):
                layers: list[nn.Module] = [self._res_block(width + widths.pop(), self.model_channels * factor)]
                width = self.model_channels * factor
                layers += self._transformers(width) if depth.pop() else ()
                if level and number == blocks[level]:
                    layers.append(Upsample(width, **self.make))
                self.output_blocks.append(TimestepEmbedSequential(*layers))

    # -- running -----------------------------------------------------------------------------------------------------

    def early_layers(self) -> list[nn.Module]:
        """The down-blocks, which mode "fast" takes as given."""
        stages = [*([self.init_attn] if self.temporal == LVDM else []), *self.input_blocks]
        return [layer for stage in stages for layer in stage.children()]

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        control: dict[str, list[Tensor]] | None = None,
        transformer_options: Options | None = None,
        **extra: object,
    ) -> Tensor:
        """See `_forward`; wrappers of other nodes go around it, as around ComfyUI's own UNets."""
        options = dict(transformer_options or {})
        wrappers = comfy.patcher_extension.get_all_wrappers(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, options)
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        return executor.execute(x, timesteps, context, control, options, **extra)

    def _forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        control: dict[str, list[Tensor]] | None,
        transformer_options: Options,
        fps: Tensor | None = None,
        image_tokens: Tensor | None = None,
        **_: object,
    ) -> Tensor:
        """The prediction (B * F, 4, h, w).

        Args:
            x: (B * F, C, h, w); B is the number of conds that ComfyUI evaluates together, F the clip's frames.
            timesteps: (B * F,). context: text (B * F, L, D). control: a ControlNet's residuals.
            fps: frames a second, or DynamiCrafter 256's frame stride, (B * F,).
            image_tokens: (B * F, 256, D).
        """
        options = transformer_options
        frames = len(x) // len(options.get("cond_or_uncond", (0,)))
        options |= {FRAMES: frames, "original_shape": list(x.shape), "transformer_index": 0}
        if image_tokens is not None:
            options[IMAGE_TOKENS] = image_tokens_of_frames(image_tokens, frames)
        patches = options.get("patches", {})
        emb = self.time_embed(timestep_embedding(timesteps, self.model_channels).to(x.dtype))
        for patch in patches.get("emb_patch", ()):
            emb = patch(emb, self.model_channels, options)
        if fps is not None:
            emb = emb + self.fps_embedding(timestep_embedding(fps.float(), self.model_channels).to(x.dtype))

        h, skips = x, []
        for number, stage in enumerate(self.input_blocks):
            options["block"] = ("input", number)
            h = self._run(stage, h, emb, context, options)
            if number == 0 and self.temporal == LVDM:
                h = self._run(self.init_attn, h, emb, context, options)
            h = apply_control(h, control, "input")
            for patch in patches.get("input_block_patch", ()):
                h = patch(h, options)
            skips.append(h)
            for patch in patches.get("input_block_patch_after_skip", ()):
                h = patch(h, options)
        options["block"] = ("middle", 0)
        h = apply_control(self._run(self.middle_block, h, emb, context, options), control, "middle")
        for patch in patches.get("middle_block_after_patch", ()):
            seen = {"h": h, "x": x, "emb": emb, "context": context, "y": None, "timesteps": timesteps}
            h = patch({**seen, "transformer_options": options})["h"]
        for number, stage in enumerate(self.output_blocks):
            options["block"] = ("output", number)
            skip = apply_control(skips.pop(), control, "output")
            for patch in patches.get("output_block_patch", ()):
                h, skip = patch(h, skip, options)
            h = torch.cat((h, skip), dim=1)
            size = skips[-1].shape[-2:] if skips else h.shape[-2:]
            h = self._run(stage, h, emb, context, options, size)
        return self._final(h.to(x.dtype), frames)

    def _run(
        self,
        stage: nn.Module,
        h: Tensor,
        emb: Tensor,
        context: Tensor,
        options: Options,
        size: Sequence[int] | None = None,
    ) -> Tensor:
        for layer in stage.children():
            if isinstance(layer, ResBlock):
                h = layer(h, emb, options[FRAMES])
            elif isinstance(layer, SpatialTransformer):
                h = layer(h, context, options)
                options["transformer_index"] += 1
            elif isinstance(layer, TemporalTransformer):
                h = layer(h, options)
            elif isinstance(layer, Upsample):
                h = layer(h, size)
            else:
                h = layer(h)
        return h

    def _final(self, h: Tensor, frames: int) -> Tensor:
        norm = self.out[0]
        h = over_frames(norm, h, frames) if self.temporal == LAVIE else norm(h)  # as in the ResBlocks
        return self.out[1:](h)
