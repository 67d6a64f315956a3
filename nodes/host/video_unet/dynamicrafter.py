"""DynamiCrafter (arXiv 2310.12190): VideoCrafter2's network that animates an image, with attention to it and its latent
beside the noise."""

from __future__ import annotations

from dataclasses import replace

from . import videocrafter
from .file_family import Shapes, VideoFamily
from .model import Variant
from .videocrafter import FIRST, IMAGE_KEY, TEMPORAL_CONV

ALPHA = "input_blocks.1.1.transformer_blocks.0.attn2.alpha"

_512 = Variant(
    family="dynamicrafter",
    name="512",
    title="DynamiCrafter 512",
    sampling={"zsnr": True, "latent_scale": 0.7},
    v_prediction=True,
    fps=24,
    fps_range=(15, 30),
    image=True,
)
VARIANTS = {
    "512": _512,
    "512-interp": replace(
        _512, name="512-interp", title="DynamiCrafter 512 interpolation", fps=5, fps_range=(5, 30), between=True
    ),
    "1024": replace(
        _512,
        name="1024",
        title="DynamiCrafter 1024",
        sampling={"zsnr": True, "latent_scale": 0.3},
        fps=10,
        fps_range=(5, 15),
        size=(1024, 576),
    ),
    "256": Variant(
        family="dynamicrafter",
        name="256",
        title="DynamiCrafter 256",
        fps=3,
        fps_range=(1, 6),
        fps_is_stride=True,
        image=True,
        size=(256, 256),
    ),
}
_LOWEST = {0.7: ("512", "512-interp"), 0.3: ("1024",), 1.0: ("256",)}


def matches(shapes: Shapes) -> bool:
    return shapes.get(FIRST, (0, 0))[1] == 8 and (IMAGE_KEY in shapes or TEMPORAL_CONV in shapes)


def refusal(shapes: Shapes) -> str | None:
    return None


def renamed(key: str) -> str | None:
    return key.replace("framestride_embed.", "fps_embedding.", 1) if key.startswith("framestride_embed.") else key


def unet_config(shapes: Shapes) -> dict[str, object]:
    """Arguments of `VideoUNet` for renamed keys and their shapes."""
    return {
        **videocrafter.unet_config(shapes),
        "image_attention": True,
        "learned_image_scale": ALPHA in shapes,
    }


def variant(shapes: Shapes, chosen: str, lowest_scale: float | None, file_name: str) -> Variant:
    """The variant that the file is, or the one that the user chose.

    Args:
        shapes: of the network's keys. chosen: "auto" or a name of VARIANTS. lowest_scale: the last of the file's
            `scale_arr`, if it has one. file_name: read only where nothing else tells.

    Raises:
        ValueError: the file cannot tell, or is another one than the chosen.
    """
    possible = _possible(shapes, lowest_scale)
    if chosen != "auto":
        if chosen not in possible:
            raise ValueError(
                f"Load Video Checkpoint: variant is {chosen}, but {file_name} is DynamiCrafter "
                f"{' or '.join(possible)}. Set variant to auto."
            )
        return VARIANTS[chosen]
    named = [name for name in possible if name in file_name.lower().replace("_", "-")]
    if named:
        return VARIANTS[max(named, key=len)]
    if len(possible) == 1 or lowest_scale is not None:
        return VARIANTS[possible[0]]
    raise ValueError(
        f"Load Video Checkpoint: {file_name} does not say which DynamiCrafter it is, and the noise schedules of the "
        "512 and 1024 models differ. Set variant to the one that you downloaded."
    )


def _possible(shapes: Shapes, lowest_scale: float | None) -> tuple[str, ...]:
    if ALPHA in shapes:
        return ("256",)
    if lowest_scale is None:
        return ("512", "512-interp", "1024")
    nearest = min(_LOWEST, key=lambda known: abs(known - lowest_scale))
    return _LOWEST[nearest]


FAMILY = VideoFamily(
    "DynamiCrafter", matches, refusal, renamed, unet_config, variant, tuple(VARIANTS.values()), image_text="SD 2.1"
)
