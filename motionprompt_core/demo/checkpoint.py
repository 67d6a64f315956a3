"""The demo's weight file: text encoder, UNet and autoencoder in one .safetensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from .autoencoder import Autoencoder
from .unet import VideoUNet

FORMAT = "motionprompt-demo-video-model-1"


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
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: restore it from the pack, or train it (see weights/README.md)")
    try:
        with safe_open(str(path), framework="pt") as file:
            found = (file.metadata() or {}).get("format")
            tensors = {key: file.get_tensor(key).float() for key in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path.name} is damaged ({error}): restore it from the pack") from error
    if found != FORMAT:
        raise ValueError(f"{path.name} is not the demo model: its format is {found!r}, expected {FORMAT!r}")
    parts: dict[str, dict[str, Tensor]] = {"text": {}, "unet": {}, "autoencoder": {}}
    preview = tensors.pop("preview")
    for key, tensor in tensors.items():
        part, _, name = key.partition(".")
        parts.setdefault(part, {})[name] = tensor
    weights = DemoWeights(parts["text"], VideoUNet(), Autoencoder(), preview)
    for module, part in ((weights.unet, "unet"), (weights.autoencoder, "autoencoder")):
        module.load_state_dict(parts[part])
        module.eval().requires_grad_(False)
    return weights
