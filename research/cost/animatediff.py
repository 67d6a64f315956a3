"""Stable Diffusion 1.5 with AnimateDiff as shapes without weights, for `python -m research bench`.

ComfyUI's and AnimateDiff-Evolved's own networks, made on PyTorch's `meta` device: they count operations and bytes as
the real ones would, need no checkpoint, and no memory.
"""

from __future__ import annotations

import functools
import importlib
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from motionprompt_core.discriminator.model import DiscriminatorConfig, FlowDiscriminator
from motionprompt_core.flow.raft import RaftFlow
from motionprompt_core.flow.rife import RifeFlow
from motionprompt_core.guidance.autograd import constant_layers, save_copies
from scripts.locate import animatediff

ROOT = Path(__file__).resolve().parents[2]
PACK = "motionprompt_bench_pack"
UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": (1, 2, 4, 4),
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": 768,
    "num_heads": 8,
    "num_head_channels": -1,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "adm_in_channels": None,
    "use_temporal_attention": False,
    "legacy": False,
}
CLIP = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "hidden_act": "quick_gelu",
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "eos_token_id": 49407,
}
VAE = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}
# Frames up to which a motion model goes, and whether it has a middle block: how AnimateDiff-Evolved tells versions.
MOTION = {"v1": (24, False), "v2": (32, True), "v3": (32, False)}
# Of context windows, for longer videos.
WINDOW, OVERLAP = 16, 4


class AnimateDiffShapes:
    """Text encoder, video UNet and decoders of SD1.5 with AnimateDiff, in fp16 on the meta device.

    Args:
        comfyui, evolved: folders of ComfyUI and of AnimateDiff-Evolved.
        motion: version of the motion model.
        device: "meta", or a real one, for times; its weights are then random.
    """

    name, decoders = "animatediff", ("vae", "taesd")
    dtype = torch.float16

    def __init__(self, comfyui: Path, evolved: Path, motion: str = "v2", device: str = "meta"):
        import_comfyui(comfyui)
        self.device = device
        self._checkpoints = pack_module("nodes.host.checkpoints")
        self._networks = pack_module("nodes.host.networks")
        attention = importlib.import_module("comfy.ldm.modules.attention")
        self._options = {"optimized_attention_override": lambda f, *a, **k: attention.attention_pytorch(*a, **k)}
        operations = importlib.import_module("comfy.ops").disable_weight_init
        with torch.device(device):
            unet = importlib.import_module("comfy.ldm.modules.diffusionmodules.openaimodel").UNetModel
            self.unet: Any = unet(**UNET, dtype=self.dtype, device=device, operations=operations)
            clip = importlib.import_module("comfy.clip_model").CLIPTextModel_
            self.text: Any = clip(CLIP, self.dtype, device, operations)
            self.vae: Any = importlib.import_module("comfy.ldm.models.autoencoder").AutoencoderKL(
                ddconfig=VAE, embed_dim=4
            )
            self.tiny: Any = importlib.import_module("comfy.taesd.taesd").TAESD()
            self.motion = _motion_model(evolved, motion)
        self.motion.inject(SimpleNamespace(model=SimpleNamespace(diffusion_model=self.unet)))
        plain = importlib.import_module("comfy.ldm.modules.diffusionmodules.model").pytorch_attention
        for network in (self.unet, self.text, self.vae, self.tiny):
            network.to(device=device, dtype=self.dtype).eval().requires_grad_(False)
            if device != "meta":
                for weight in network.parameters():
                    torch.nn.init.normal_(weight, std=0.02)
            for module in network.modules():
                if hasattr(module, "actual_attention"):
                    module.actual_attention = attention.attention_pytorch
                if type(module).__name__ == "AttnBlock":
                    module.optimized_attention = plain

    def rows(self, tokens: int) -> Tensor:
        return torch.empty(tokens, 768, device=self.device, requires_grad=True)

    def encode(self, rows: Tensor, chunks: int = 1) -> Tensor:
        """(1, 77 * chunks, 768) from the learnable rows; longer prompts are encoded in chunks of 77."""
        rest = torch.empty(77 - len(rows), 768, device=self.device, dtype=self.dtype)
        words = torch.cat((rows.to(self.dtype), rest))[None]
        causal = torch.empty(77, 77, device=self.device, dtype=self.dtype)
        with save_copies():  # its layers change their input in place
            hidden = self.text.encoder(words + self.text.embeddings.position_embedding.weight, mask=causal)[0]
            encoded = self.text.final_layer_norm(hidden)
        others = torch.empty(1, 77 * (chunks - 1), 768, device=self.device, dtype=self.dtype)
        return torch.cat((encoded, others), dim=1)

    def denoise(
        self, frames: int, size: int, cond: Tensor, conds: int = 1, checkpointed: bool = False, late: bool = False
    ) -> Tensor:
        """The UNet's output for all frames, (frames, 4, h, w); `conds` prompts are evaluated in one batch. More frames
        than the motion model has places for go in windows of 16 that share 4, as AnimateDiff-Evolved's do."""
        early = [layer for block in self.unet.input_blocks for layer in block.children()] if late else ()
        found = self._networks.unet_layers(self.unet) if checkpointed else ()
        with self._checkpoints.checkpointed(found, nullcontext), constant_layers(early):
            if frames <= MOTION["v2"][0]:
                return self._window(frames, size, cond, conds)
            whole = [self.unet] if checkpointed else ()
            out = torch.zeros(frames, 4, size // 8, size // 8, device=self.device, dtype=self.dtype)
            with self._checkpoints.checkpointed(whole, self._blocks_checkpointed, whole=True):
                for start in range(0, frames - WINDOW + 1, WINDOW - OVERLAP):
                    seen = torch.arange(start, start + WINDOW, device=self.device)
                    out = out.index_add(0, seen, self._window(WINDOW, size, cond, conds))
            return out

    def _blocks_checkpointed(self) -> Any:
        return self._checkpoints.checkpointed(self._networks.unet_layers(self.unet), nullcontext)

    def _window(self, frames: int, size: int, cond: Tensor, conds: int) -> Tensor:
        self.motion.set_video_length(frames, frames)
        x = torch.empty(conds * frames, 4, size // 8, size // 8, device=self.device, dtype=self.dtype)
        t = torch.empty(conds * frames, device=self.device, dtype=self.dtype)
        context = cond.expand(conds * frames, -1, -1)
        options = {"transformer_options": dict(self._options)}
        return self.unet(x, t, context=context, **options)[:frames]

    def decode(self, latents: Tensor, decoder: str, checkpointed: bool = False) -> Tensor:
        """Pictures (N, 3, H, W) by the VAE, "vae", or a tiny autoencoder, "taesd"."""
        network = {"vae": self.vae, "taesd": self.tiny}[decoder]
        found = self._networks.decoder_blocks(network) if checkpointed else ()
        parts = latents.to(self.dtype).split(1 if checkpointed else len(latents))
        with self._checkpoints.checkpointed(found, nullcontext):
            return torch.cat([network.decode(part) for part in parts]).float()

    def encode_pictures(self, pictures: Tensor, encoder: str) -> Tensor:
        """The way back, latents (N, 4, h, w)."""
        network = {"vae": self.vae, "taesd": self.tiny}[encoder]
        return network.encode(pictures.to(self.dtype)).float()

    @functools.cache  # noqa: B019 (one subject a process)
    def flow(self, name: str) -> Any:
        """A flow model without its weights."""
        model = RifeFlow() if name == "rife_v4.0" else RaftFlow(name)
        return model.to(self.device)

    @functools.cache  # noqa: B019
    def discriminator(self) -> Any:
        return FlowDiscriminator(DiscriminatorConfig()).to(self.device).requires_grad_(False).eval()


def find(device: str) -> AnimateDiffShapes | None:
    """SD1.5 with AnimateDiff v2 from the ComfyUI that is found; None without ComfyUI or AnimateDiff-Evolved."""
    evolved = animatediff()
    return AnimateDiffShapes(evolved.parents[1], evolved, device=device) if evolved is not None else None


def _motion_model(evolved: Path, version: str) -> Any:
    """AnimateDiff-Evolved's motion model, without running the pack's own start-up code."""
    package = ModuleType("motionprompt_bench_evolved")
    package.__path__ = [str(evolved)]
    sys.modules[package.__name__] = package
    modules = importlib.import_module(f"{package.__name__}.animatediff.motion_module_ad")
    frames, middle = MOTION[version]
    keys = {
        f"{side}_blocks.{i}.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.{a}"
        ".pos_encoder.pe": torch.zeros(1, frames, 320)
        for side in ("down", "up")
        for i in range(4)
        for a in range(2)
    }
    if middle:
        keys["mid_block.motion_modules.0.temporal_transformer.norm.weight"] = torch.zeros(1280)
    state, info = modules.normalize_ad_state_dict(mm_state_dict=keys, mm_name=f"shapes_{version}")
    model: nn.Module = modules.AnimateDiffModel(mm_state_dict=state, mm_info=info)
    return model


def import_comfyui(folder: Path) -> None:
    """Have ComfyUI's modules importable, on the CPU; the first folder counts."""
    if "comfy" not in sys.modules:
        sys.path.insert(0, str(folder))
        importlib.import_module("comfy.cli_args").args.cpu = True
        importlib.import_module("utils.extra_config")  # as main.py does: a later import would find comfy's own utils
        importlib.import_module("comfy.model_management")


def pack_module(name: str) -> Any:
    """A module of the pack, without starting ComfyUI's nodes; ComfyUI must be importable."""
    for package, path in ((PACK, ROOT), (f"{PACK}.nodes", ROOT / "nodes")):
        if package not in sys.modules:
            module = ModuleType(package)
            module.__path__ = [str(path)]
            sys.modules[package] = module
    return importlib.import_module(f"{PACK}.{name}")
