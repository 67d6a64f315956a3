"""What is used of ComfyUI's objects, which have no types of their own.

Where `Any` stands here, and in the rest of nodes/host, nobody promises a type: entries of dictionaries that any node
may fill, attributes that every network has otherwise, and arguments that are handed on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypedDict

import torch
from torch import Tensor, nn

Cond = dict[str, Any]  # one entry of a guider's conds, or of a conditioning
Conds = dict[str, list[Cond]]  # by list ("positive", "negative", ...)
CondLists = Mapping[str, list[Cond]]  # the same, to be read
Conditioning = list[list[Any]]  # CONDITIONING: pairs [text (B, L, D), entries]
Options = dict[str, Any]  # model options, or the transformer options within them
Device = torch.device | str | None
Callback = Callable[..., object] | None  # of a sampler, after each step


class Latent(TypedDict):
    """LATENT: the samples, and what other nodes add."""

    samples: Tensor


class LatentFormat(Protocol):
    """comfy.latent_formats.LatentFormat"""

    latent_channels: int
    latent_dimensions: int

    def process_out(self, latent: Tensor) -> Tensor: ...


class ModelSampling(Protocol):
    """comfy.model_sampling: what the model predicts, and its noise schedule."""

    def percent_to_sigma(self, percent: float) -> float: ...
    def timestep(self, sigma: Tensor) -> Tensor: ...
    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor: ...
    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor: ...
    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, max_denoise: bool = ...) -> Tensor: ...
    def inverse_noise_scaling(self, sigma: Tensor, latent: Tensor) -> Tensor: ...


class BaseModel(Protocol):
    """comfy.model_base.BaseModel: a denoiser with its latent format and its noise schedule."""

    diffusion_model: nn.Module
    latent_format: LatentFormat
    model_sampling: ModelSampling
    manual_cast_dtype: torch.dtype | None
    device: torch.device
    current_patcher: Any  # the ModelPatcher that samples, with its hooks

    def extra_conds(self, **kwargs: object) -> dict[str, object]: ...
    def get_dtype(self) -> torch.dtype: ...
    def memory_required(self, input_shape: list[int], *args: object, **kwargs: object) -> float: ...
    def process_latent_in(self, latent: Tensor) -> Tensor: ...
    def process_latent_out(self, latent: Tensor) -> Tensor: ...


class ModulePatcher(Protocol):
    """comfy.model_patcher.ModelPatcher of any network, and where it is."""

    load_device: torch.device
    patches: Mapping[str, object]

    @property
    def model(self) -> Any: ...
    def model_size(self) -> int: ...
    def loaded_size(self) -> int: ...


class Patcher(ModulePatcher, Protocol):
    """comfy.model_patcher.ModelPatcher of a denoiser: MODEL."""

    wrappers: dict[str, dict[str, list[Callable[..., object]]]]
    model_options: Options

    @property
    def model(self) -> BaseModel: ...
    def clone(self) -> Patcher: ...
    def get_attachment(self, key: str) -> object: ...
    def get_model_object(self, name: str) -> Any: ...
    def add_wrapper_with_key(self, wrapper_type: str, key: str, wrapper: Callable[..., object]) -> None: ...
    def remove_wrappers_with_key(self, wrapper_type: str, key: str) -> None: ...
    def set_model_sampler_cfg_function(self, function: Callable[[Options], Tensor]) -> None: ...
    def set_additional_models(self, key: str, models: Sequence[object]) -> None: ...
    def remove_additional_models(self, key: str) -> None: ...


class Guider(Protocol):
    """comfy.samplers.CFGGuider; CFG is absent from the guiders that do without."""

    model_patcher: Patcher
    model_options: Options
    inner_model: BaseModel
    conds: Conds


class Sampler(Protocol):
    """comfy.samplers.KSAMPLER: SAMPLER. Others, which other packs make, lack the function and its options."""

    sampler_function: Callable[..., Tensor]
    extra_options: dict[str, object]


class Vae(Protocol):
    """comfy.sd.VAE"""

    first_stage_model: Any  # of each VAE another network
    device: torch.device
    upscale_ratio: Any  # a number, or a tuple of a function and two numbers
    vae_dtype: torch.dtype
    patcher: ModulePatcher
    latent_channels: int
    latent_dim: int

    def encode(self, pixels: Tensor) -> Tensor: ...
    def decode(self, samples: Tensor) -> Tensor: ...
    def spacial_compression_decode(self) -> int: ...
    def process_input(self, pixels: Tensor) -> Tensor: ...
    def process_output(self, pixels: Tensor) -> Tensor: ...
    def memory_used_decode(self, shape: Sequence[int], dtype: torch.dtype) -> float: ...
    def memory_used_encode(self, shape: Sequence[int], dtype: torch.dtype) -> float: ...


class ClipPatcher(ModulePatcher, Protocol):
    """The ModelPatcher of a CLIP."""

    forced_hooks: object


class Clip(Protocol):
    """comfy.sd.CLIP"""

    patcher: ClipPatcher
    cond_stage_model: Any  # of each family another class
    tokenizer: object
    layer_idx: int | None
    use_clip_schedule: bool

    def tokenize(self, text: str, return_word_ids: bool = False) -> dict[str, Any]: ...
    def load_model(self) -> object: ...
    def encode_from_tokens_scheduled(self, tokens: Mapping[str, object]) -> Conditioning: ...


class ClipVision(Protocol):
    """comfy.clip_vision.ClipVisionModel"""

    model: nn.Module
    patcher: ModulePatcher

    def encode_image(self, image: Tensor, crop: bool = ...) -> Mapping[str, Tensor]: ...


class Operations(Protocol):
    """comfy.ops: the layers that ComfyUI casts and moves."""

    @property
    def Linear(self) -> Callable[..., nn.Module]: ...
    @property
    def Conv1d(self) -> Callable[..., nn.Module]: ...
    @property
    def Conv2d(self) -> Callable[..., nn.Module]: ...
    @property
    def Conv3d(self) -> Callable[..., nn.Module]: ...
    @property
    def GroupNorm(self) -> Callable[..., nn.Module]: ...
    @property
    def LayerNorm(self) -> Callable[..., nn.Module]: ...
    @property
    def Embedding(self) -> Callable[..., nn.Module]: ...


class ContextHandler(Protocol):
    """comfy.context_windows.ContextHandlerABC, as ComfyUI's own nodes make it: `dim` is gone over in windows."""

    dim: int
    context_length: int
    context_overlap: int

    def set_step(self, timestep: Tensor, model_options: Options) -> None: ...


class Executor(Protocol):
    """comfy.patcher_extension.WrapperExecutor: the next wrapper of a sampling function, or the function itself."""

    class_obj: Any
    original: Callable[..., object]
    wrappers: list[Callable[..., object]]
    idx: int

    def __call__(self, *args: object, **kwargs: object) -> Any: ...


def cfg_of(guider: Guider) -> float:
    """The guider's CFG scale; 1, the prompt alone, if it has none."""
    return getattr(guider, "cfg", 1.0)


def set_cfg(guider: Any, cfg: float) -> None:
    """Set the guider's CFG scale, if it has one."""
    if hasattr(guider, "cfg"):
        guider.cfg = cfg


class Previewer(Protocol):
    """latent_preview.LatentPreviewer"""

    def decode_latent_to_preview_image(self, preview_format: str, x0: Tensor) -> object: ...
