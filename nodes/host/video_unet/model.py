"""What ComfyUI holds of a video family: configuration, and the model around the network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.supported_models_base
import torch
from torch import Tensor

from ..comfy_types import Cond, Device
from .resampler import Resampler
from .sampling import ScaledSampling, ScaledVSampling
from .unet import LAYOUT, VideoUNet

# Keys of a conditioning that these models read.
IMAGE_STATES = "dynamicrafter_image"  # CLIP's last hidden states of the image, (1, 257, 1280)
ENDS = "dynamicrafter_ends"  # whether the image is followed by zeros and a last one
FPS_KEYS = ("fps", "frame_rate")  # the second is what core's LTXVConditioning sets


@dataclass(frozen=True)
class Variant:
    """One model of a family.

    Attributes:
        family: name of its family in nodes/host/families. name: what users choose it by. title: in a sentence.
        sampling: ComfyUI's sampling_settings, and `latent_scale`. v_prediction: it predicts v, not eps.
        fps: the number that its conditioning has by default; None if it takes none. fps_range: what it was trained on.
        fps_is_stride: the number is a stride between frames: larger makes more motion, where a larger rate makes less.
        image: it animates an image. between: it needs two, and fills in what is between.
        size: width and height in pixels that it was trained on.
        memory: ComfyUI's memory_usage_factor.
    """

    family: str
    name: str
    title: str
    sampling: dict[str, float | str] = field(default_factory=dict)
    v_prediction: bool = False
    fps: int | None = None
    fps_range: tuple[int, int] = (1, 60)
    fps_is_stride: bool = False
    image: bool = False
    between: bool = False
    size: tuple[int, int] = (512, 320)
    memory: float = 1.15


class VideoConfig(comfy.supported_models_base.BASE):
    """ComfyUI's configuration of a variant with these arguments for its `VideoUNet`."""

    unet_extra_config: dict[str, object] = {}
    latent_format = comfy.latent_formats.SD15

    def __init__(self, variant: Variant, unet_config: dict[str, object], resampler: dict[str, Any] | None = None):
        super().__init__({**LAYOUT, **unet_config})
        self.variant = variant
        self.resampler = resampler
        self.sampling_settings = dict(variant.sampling)
        self.memory_usage_factor = variant.memory


class VideoModel(comfy.model_base.BaseModel):
    """The network with its schedule, and what the prompts' conditioning turns into for it.

    Attributes:
        variant: see there. image_proj_model: DynamiCrafter's resampler, or None.
    """

    def __init__(self, config: VideoConfig, device: Device = None):
        kinds = comfy.model_base.ModelType
        kind = kinds.V_PREDICTION if config.variant.v_prediction else kinds.EPS
        super().__init__(config, kind, device=device, unet_model=VideoUNet)
        self.variant = config.variant
        self.model_sampling = (ScaledVSampling if self.variant.v_prediction else ScaledSampling)(config)
        self.concat_keys = ("concat_image",) if self.variant.image else ()
        self.image_proj_model: Any = None
        if config.resampler is not None:
            operations = config.custom_operations or comfy.ops.pick_operations(self.get_dtype(), self.manual_cast_dtype)
            resampler = Resampler(**config.resampler, operations=operations, dtype=self.get_dtype(), device=device)
            self.image_proj_model = resampler.eval().requires_grad_(False)

    def extra_conds(self, **kwargs: Any) -> dict[str, object]:
        """ComfyUI's, with the frame rate and the image's tokens.

        Raises:
            ValueError: an image model has no image, or one for another number of frames.
        """
        if self.variant.image:
            self._check_image(kwargs)
        conds = super().extra_conds(**kwargs)
        if self.variant.fps is not None:
            given = [kwargs[key] for key in FPS_KEYS if kwargs.get(key) is not None]
            fps = float(given[0]) if given else self.variant.fps
            conds["fps"] = comfy.conds.CONDRegular(torch.tensor([fps]))
        if self.image_proj_model is not None:
            conds["image_tokens"] = comfy.conds.CONDRegular(self._image_tokens(kwargs[IMAGE_STATES], kwargs["device"]))
        return conds

    def _check_image(self, conditioning: Cond) -> None:
        latent, noise = conditioning.get("concat_latent_image"), conditioning["noise"]
        if latent is None or IMAGE_STATES not in conditioning:
            raise ValueError(
                f"MotionPrompt: {self.variant.title} animates an image, but a prompt came without one. Send the "
                "positive and the negative prompt through DynamiCrafter Image to Video."
            )
        if bool(conditioning.get(ENDS)) != self.variant.between:
            wanted = "two images: connect end_image (the first one again for a loop)"
            wanted = wanted if self.variant.between else "one image: disconnect end_image"
            raise ValueError(
                f"MotionPrompt: {self.variant.title} goes by {wanted}. If the file is another DynamiCrafter, set "
                "variant in Load Video Checkpoint."
            )
        states, width = conditioning[IMAGE_STATES], self.image_proj_model.proj_in.in_features
        if states.shape[-1] != width:
            raise ValueError(
                f"MotionPrompt: the CLIP vision model makes states of width {states.shape[-1]}, and "
                f"{self.variant.title} needs {width}: use CLIP-ViT-H-14-laion2B-s32B-b79K, or the loader's own."
            )
        if len(latent) not in (1, len(noise)):
            raise ValueError(
                f"MotionPrompt: the prompt's images are placed in a video of {len(latent)} frames, but the latent has "
                f"{len(noise)}. Use the latent that DynamiCrafter Image to Video puts out."
            )

    @torch.no_grad()
    def _image_tokens(self, states: Tensor, device: Device) -> Tensor:
        return self.image_proj_model(states.to(device=device, dtype=self.get_dtype_inference()))

    def get_dtype_inference(self) -> torch.dtype:
        """The type that the network computes in (ComfyUI has this method since 0.12)."""
        return self.manual_cast_dtype or self.get_dtype()
