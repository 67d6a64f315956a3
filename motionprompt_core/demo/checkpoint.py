"""The demo's weight file: text encoder, UNet and autoencoder in one .safetensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from .autoencoder import Autoencoder
from .text import TextEncoder
from .unet import VideoUNet

FORMAT = "motionprompt-demo-video-model-1"


@dataclass
class DemoWeights:
    """The demo model's networks. `preview` (5, 3) maps 4 latent channels and a constant to RGB, for live previews."""

    text: TextEncoder
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
    weights = DemoWeights(TextEncoder(), VideoUNet(), Autoencoder(), tensors.pop("preview"))
    for name in ("text", "unet", "autoencoder"):
        module: nn.Module = getattr(weights, name)
        prefix = name + "."
        module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        module.eval().requires_grad_(False)
    return weights
