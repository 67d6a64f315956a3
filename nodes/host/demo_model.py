"""The demo's text-to-video model as an ordinary ComfyUI MODEL, CLIP and VAE."""

from __future__ import annotations

import inspect
from pathlib import Path

import comfy.clip_model
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...motionprompt_core.demo import text
from ...motionprompt_core.demo.autoencoder import DOWNSCALE, LATENT_CHANNELS, Autoencoder
from ...motionprompt_core.demo.checkpoint import DemoWeights, load_demo_weights
from ...motionprompt_core.demo.unet import VideoUNet
from .comfy_types import Device, Operations, Options


class DemoLatents(comfy.latent_formats.LatentFormat):
    def __init__(self, weights: DemoWeights):
        self.scale_factor = float(weights.autoencoder.scale)
        self.latent_channels = LATENT_CHANNELS
        self.latent_rgb_factors = weights.preview[:-1].tolist()
        self.latent_rgb_factors_bias = weights.preview[-1].tolist()


class DemoConfig(comfy.supported_models_base.BASE):
    """Noise schedule of Stable Diffusion 1.5 with zero terminal SNR; the network is made by us, not by ComfyUI."""

    sampling_settings = {"beta_schedule": "linear", "linear_start": 0.00085, "linear_end": 0.012, "zsnr": True}
    memory_usage_factor = 0.2

    def __init__(self, weights: DemoWeights):
        super().__init__({"in_channels": LATENT_CHANNELS})
        self.latent_format = DemoLatents(weights)


class DemoUNet(torch.nn.Module):
    """VideoUNet behind the signature that ComfyUI calls: frames, and prompts, come as one batch."""

    def __init__(self, unet: VideoUNet):
        super().__init__()
        self.unet = unet

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.conv_in.weight.dtype

    def early_layers(self) -> list[torch.nn.Module]:
        """The down-blocks, which mode "fast" takes as given."""
        return [self.unet.down0, self.unet.down1, self.unet.down2]

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor, transformer_options: Options, **_: object
    ) -> Tensor:
        frames = len(x) // len(transformer_options.get("cond_or_uncond", (0,)))
        return self.unet(x, timesteps, context, frames)


class WordTokenizer:
    """The demo's vocabulary behind the few calls that ComfyUI makes of a Hugging Face tokenizer."""

    @classmethod
    def from_pretrained(cls, *_: object, **__: object) -> WordTokenizer:
        return cls()

    def __call__(self, line: str) -> dict[str, list[int]]:
        return {"input_ids": [text.VOCABULARY[text.START], *text.word_ids(line), text.VOCABULARY[text.END]]}

    def get_vocab(self) -> dict[str, int]:
        return text.VOCABULARY


class DemoTokenizer(comfy.sd1_clip.SD1Tokenizer):
    def __init__(self, embedding_directory: object = None, tokenizer_data: dict[str, object] | None = None):
        def tokenizer(**keywords: object) -> comfy.sd1_clip.SDTokenizer:
            return comfy.sd1_clip.SDTokenizer(
                tokenizer_path="",
                max_length=text.MAX_LENGTH,
                embedding_size=text.TextConfig().hidden_size,
                tokenizer_class=WordTokenizer,
                **keywords,
            )

        super().__init__(embedding_directory, tokenizer_data or {}, tokenizer=tokenizer)


class DemoTransformer(comfy.clip_model.CLIPTextModel):
    """ComfyUI's CLIP text model with a vocabulary of its own size."""

    def __init__(self, config: dict[str, object], dtype: torch.dtype | None, device: Device, operations: Operations):
        super().__init__(config, dtype, device, operations)
        self.text_model.embeddings.token_embedding = operations.Embedding(
            config["vocab_size"], config["hidden_size"], dtype=dtype, device=device
        )


class DemoClip(comfy.sd1_clip.SDClipModel):
    def __init__(self, device: Device = "cpu", dtype: torch.dtype | None = None, model_options: Options | None = None):
        end = text.VOCABULARY[text.END]
        super().__init__(
            device=device,
            dtype=dtype,
            model_options=model_options or {},
            model_class=DemoTransformer,
            textmodel_json_config=vars(text.TextConfig()),
            max_length=text.MAX_LENGTH,
            return_projected_pooled=False,
            special_tokens={"start": text.VOCABULARY[text.START], "end": end, "pad": end},
        )


class DemoTextEncoder(comfy.sd1_clip.SD1ClipModel):
    def __init__(self, **keywords: object):
        super().__init__(clip_model=DemoClip, **keywords)


def demo_model(weights: DemoWeights) -> ModelPatcher:
    network = DemoUNet(weights.unet).requires_grad_(False)
    kind = comfy.model_base.ModelType.V_PREDICTION
    model = comfy.model_base.BaseModel(DemoConfig(weights), kind, unet_model=lambda **_: network)
    offload = comfy.model_management.unet_offload_device()
    model.to(offload)
    return ModelPatcher(model, load_device=comfy.model_management.get_torch_device(), offload_device=offload)


def demo_clip(weights: DemoWeights) -> comfy.sd.CLIP:
    target = comfy.supported_models_base.ClipTarget(DemoTokenizer, DemoTextEncoder)
    state = weights.text
    parameters = sum(weight.numel() for weight in state.values())
    # With dynamic VRAM the layers have no weights until they are given some, and CLIP may load itself when it is made.
    takes_weights = "state_dict" in inspect.signature(comfy.sd.CLIP.__init__).parameters  # since ComfyUI 0.8
    given: dict[str, object] = {"state_dict": [state]} if takes_weights else {}
    clip = comfy.sd.CLIP(target, parameters=parameters, **given)
    if not given:
        clip.load_sd(state)
    # text_projection is ComfyUI's own, an identity
    wanted = {key for key in clip.cond_stage_model.clip_l.transformer.state_dict() if "text_projection" not in key}
    if wanted != set(state):
        missing, extra = sorted(wanted - set(state)), sorted(set(state) - wanted)
        raise RuntimeError(f"the demo's text encoder does not fit this ComfyUI: missing {missing}, extra {extra}")
    return clip


def demo_vae(weights: DemoWeights) -> comfy.sd.VAE:
    # VAE's constructor knows its networks by their keys; this key gives one without weights, which ours replaces.
    vae = comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)})
    module: Autoencoder = weights.autoencoder.eval().requires_grad_(False)
    vae.first_stage_model = module.to(vae.vae_dtype)
    vae.latent_channels, vae.output_channels = LATENT_CHANNELS, 3
    vae.downscale_ratio = vae.upscale_ratio = DOWNSCALE
    vae.process_input = lambda image: image * 2 - 1
    # In place: ComfyUI since 0.18 does not look at what it returns.
    vae.process_output = lambda image: image.add_(1).div_(2).clamp_(0, 1)
    # Measured: about 1,200 values per latent pixel are alive at once.
    size = comfy.model_management.dtype_size
    vae.memory_used_decode = lambda shape, dtype: 1200 * 16 * shape[2] * shape[3] * size(dtype)
    vae.memory_used_encode = lambda shape, dtype: 40 * shape[2] * shape[3] * size(dtype)
    vae.size = None
    vae.patcher = ModelPatcher(
        module, load_device=vae.device, offload_device=comfy.model_management.vae_offload_device()
    )
    return vae


def load_demo(path: Path) -> tuple[ModelPatcher, comfy.sd.CLIP, comfy.sd.VAE]:
    """MODEL, CLIP and VAE from the demo's weight file."""
    weights = load_demo_weights(path)
    return demo_model(weights), demo_clip(weights), demo_vae(weights)
