"""The demo's weight file: text encoder, UNet and autoencoder in one .safetensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..media.files import load_state, read_safetensors
from .autoencoder import Autoencoder
from .unet import VideoUNet

FORMAT = "motionprompt-demo-video-model-1"
_WHAT = "demo model"


@dataclass
class DemoWeights:
    """The demo model's networks; of the text encoder, whose layers ComfyUI brings, the weights by CLIP's names.

    `preview` (5, 3) maps 4 latent channels and a constant to RGB, for live previews.
    """

    text: dict[str, Tensor]
    unet: VideoUNet
    autoencoder: Autoencoder
    preview: Tensor


def load_demo_weights(path: str | Path) -> DemoWeights:
    """Reads the demo's weight file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or holds something else.
    """
    tensors, header = read_safetensors(path, _WHAT)
    if header.get("format") != FORMAT:
        found = header.get("format")
        raise ValueError(
            f"{_WHAT} {path} is something else: its format is {found!r}, expected {FORMAT!r}. Restore it from the pack."
        )
    parts: dict[str, dict[str, Tensor]] = {"text": {}, "unet": {}, "autoencoder": {}}
    preview = tensors.pop("preview").float()
    for key, tensor in tensors.items():
        part, _, name = key.partition(".")
        parts.setdefault(part, {})[name] = tensor.float()
    weights = DemoWeights(parts["text"], VideoUNet(), Autoencoder(), preview)
    for module, part in ((weights.unet, "unet"), (weights.autoencoder, "autoencoder")):
        load_state(module, parts[part], path, _WHAT)
        module.eval().requires_grad_(False)
    return weights
