"""LaVie (arXiv 2309.15103): Stable Diffusion 1.4 with attention over frames in each transformer block.

The file has the network only; text encoder and autoencoder are any Stable Diffusion 1.x checkpoint's.
"""

from __future__ import annotations

import re

from .file_family import Shapes, VideoFamily
from .model import Variant
from .unet import LAVIE

_MARK = "down_blocks.0.attentions.0.transformer_blocks.0.attn_temp.time_rel_pos_bias.relative_attention_bias.weight"

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_TOP = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.resnets.1": "middle_block.2",
    "mid_block.attentions.0": "middle_block.1",
}

LAVIE_BASE = Variant(
    family="lavie",
    name="LaVie",
    title="LaVie",
    sampling={"beta_schedule": "sqrt_linear", "linear_start": 1e-4, "linear_end": 0.02},
    memory=1.0,
)


def matches(shapes: Shapes) -> bool:
    return _MARK in shapes


def refusal(shapes: Shapes) -> str | None:
    """What else of LaVie's this file is, if it is not the base model."""
    channels = shapes["conv_in.weight"][1] if "conv_in.weight" in shapes else 4
    if channels in (8, 9):
        return f"LaVie's frame interpolation model ({channels} input channels); this pack runs the base model"
    if channels == 7:
        return "LaVie's super-resolution model (7 input channels); this pack runs the base model"
    return None if channels == 4 else f"a relative of LaVie with {channels} input channels, which is not known"


def renamed(key: str) -> str | None:
    """A name of the file (diffusers' layout) in the network's; None for what the network computes itself."""
    if ".rotary_emb." in key:
        return None
    for theirs, ours in _TOP.items():
        if key.startswith(f"{theirs}."):
            return _in_resnet(ours + key[len(theirs) :])
    found = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", key)
    if found is None:
        return key
    side, level, kind, number, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    if kind == "downsamplers":
        return f"input_blocks.{3 + 3 * level}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        return f"output_blocks.{3 * level + 2}.{1 if level == 0 else 2}.{rest}"
    stage = f"input_blocks.{1 + 3 * level + number}" if side == "down" else f"output_blocks.{3 * level + number}"
    return _in_resnet(f"{stage}.{0 if kind == 'resnets' else 1}.{rest}")


def _in_resnet(key: str) -> str:
    head, _, kind = key.rpartition(".")
    block, _, layer = head.rpartition(".")
    return f"{block}.{_RESNET[layer]}.{kind}" if layer in _RESNET and "transformer_blocks" not in key else key


def unet_config(shapes: Shapes) -> dict[str, object]:
    """Arguments of `VideoUNet` for renamed keys and their shapes."""
    block = "input_blocks.1.1.transformer_blocks.0"
    return {
        "in_channels": 4,
        "model_channels": shapes["input_blocks.0.0.weight"][0],
        "context_dim": shapes[f"{block}.attn2.to_k.weight"][1],
        "num_heads": shapes[f"{block}.attn_temp.time_rel_pos_bias.relative_attention_bias.weight"][1],
        "num_head_channels": -1,
        "temporal": LAVIE,
    }


def variant(shapes: Shapes, chosen: str, lowest_scale: float | None, file_name: str) -> Variant:
    return LAVIE_BASE


FAMILY = VideoFamily("LaVie", matches, refusal, renamed, unet_config, variant, (LAVIE_BASE,), image_text="SD 1.x")
