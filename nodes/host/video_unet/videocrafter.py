"""VideoCrafter2 (arXiv 2401.09047): Stable Diffusion 2.1 with temporal convolutions and transformers."""

from __future__ import annotations

from .file_family import Shapes, VideoFamily
from .model import Variant
from .unet import LVDM

TEMPORAL_CONV = "input_blocks.1.0.temopral_conv.conv1.2.weight"
IMAGE_KEY = "input_blocks.1.1.transformer_blocks.0.attn2.to_k_ip.weight"
FIRST = "input_blocks.0.0.weight"

VIDEOCRAFTER2 = Variant(
    family="videocrafter2",
    name="VideoCrafter2",
    title="VideoCrafter2",
    sampling={"latent_scale": 0.7},
    fps=28,
    fps_range=(8, 30),
)


def matches(shapes: Shapes) -> bool:
    """VideoCrafter of any version; DynamiCrafter has 8 input channels."""
    lvdm = any(key.startswith("init_attn.0.") for key in shapes) or any("relative_position_k" in key for key in shapes)
    return lvdm and shapes.get(FIRST, (0, 4))[1] != 8


def refusal(shapes: Shapes) -> str | None:
    if IMAGE_KEY in shapes:
        return "VideoCrafter1's image-to-video model; DynamiCrafter does that here"
    if TEMPORAL_CONV not in shapes and any("relative_position_k" in key for key in shapes):
        return "VideoCrafter1's text-to-video model; VideoCrafter2 is its successor"
    return None


def renamed(key: str) -> str | None:
    return key


def unet_config(shapes: Shapes) -> dict[str, object]:
    """Arguments of `VideoUNet` for these keys and shapes."""
    return {
        "in_channels": shapes[FIRST][1],
        "model_channels": shapes[FIRST][0],
        "context_dim": shapes["input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"][1],
        "num_heads": -1,
        # the first temporal transformer has 8 heads, whatever their width
        "num_head_channels": shapes["init_attn.0.proj_in.weight"][0] // 8,
        "temporal": LVDM,
    }


def variant(shapes: Shapes, chosen: str, lowest_scale: float | None, file_name: str) -> Variant:
    return VIDEOCRAFTER2


FAMILY = VideoFamily(
    "VideoCrafter2", matches, refusal, renamed, unet_config, variant, (VIDEOCRAFTER2,), image_text="SD 2.1"
)
