"""What the host has to know of a family of video models, and the registry of those that it knows.

Everything that differs between AnimateDiff, Wan, LTX-Video and the others stands in one file a family in this folder.
The rest of nodes/host asks `family_of(model)` and never looks at a class, at a number of dimensions or for an attribute
to find out what it holds.

To add a family, write three files; none that exists has to be changed:

1. nodes/host/families/<name>.py, which is found by itself:

       @register_family
       class LTXVideo(LatentVideoFamily):          # or FramesFamily; both have defaults for everything
           name = "ltx"
           title = "LTX-Video"

           def matches(self, model):
               return isinstance(model, comfy.model_base.LTXV)

   and what is not as the defaults have it: `text_encoders`, `tokens`, `blocks`, `in_place`, `early_layers`, `windows`,
   `memory`, `costs`, `pair_costs`, `check_latents`, `decoder`, `free`, `tiny_autoencoder`.
2. tests/comfyui/packs/tiny_models/<name>.py: a tiny random model, CLIP and VAE of the family.
3. tests/comfyui/test_<name>.py: what only this family has to show. tests/comfyui/test_families.py runs over the
   registry and asks of every family what all must do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from comfy.clip_model import CLIPTextModel
from comfy.text_encoders.t5 import T5
from torch import Tensor, nn

from ..comfy_types import BaseModel, CondLists, Options, Patcher, Vae
from ..core_functions import newer
from ..decode import FrameDecoder, SliceDecoder


class Windows(NamedTuple):
    """Frames (or latents of a video model) are evaluated in windows of `length`, one after the other, which share
    `overlap` with their neighbours; `dim` of the latents is time."""

    length: int
    overlap: int
    dim: int


@dataclass(frozen=True)
class DenoiserCosts:
    """What gradients cost with a denoiser, in forward passes of it; truncated as mode "fast" has it.

    The defaults were counted for SD1.5 with a motion module (`python -m research bench`).

    Attributes:
        backward, truncated_backward: a backward pass.
        again, truncated_again: running checkpointed blocks once more.
    """

    backward: float = 1.11
    again: float = 0.85
    truncated_backward: float = 0.70
    truncated_again: float = 0.55


@dataclass(frozen=True)
class GradientMemory:
    """Memory for gradients, as multiples of what ComfyUI's `memory_required` says that inference takes.

    The defaults are SD1.5's with a motion module (v2) in fp16 at 512 px and 16 frames, with fused attention: counted
    are 18.3 GiB at the backward pass's peak, or 2.84 GiB with checkpoints, where inference is said to take 1.28 GiB.
    """

    saved: float = 14.3
    checkpointed: float = 2.25


class ModelFamily(ABC):
    """A family of video models, as the guidance handles it. It has no state: models, latents and VAEs are arguments.

    Derive from `FramesFamily` or `LatentVideoFamily`, which know where the frames are.

    Attributes:
        name: identifier, unique. title: what people call it, for messages.
        generic: handles any model of its latent layout; asked only when no other family knows the model, and said in
            the report.
        time: dimension of the latents along which the video goes on.
        text_encoders: networks inside of ComfyUI's CLIP that take embeddings in place of tokens.
        tokens: learnable tokens can guide it. Else it is guided by its estimate alone.
        in_place: the denoiser's blocks change their input in place (transformers do).
        memory, costs: constants of the denoiser.
        pair_costs: decoding one frame pair forwards and backwards, by the autoencoder's class, in evaluations of one
            frame by the denoiser; 1 for others.
    """

    name: str
    title: str
    generic: bool = False
    time: int
    text_encoders: tuple[type[nn.Module], ...] = (CLIPTextModel, T5)
    tokens: bool = True
    in_place: bool = False
    memory: GradientMemory = GradientMemory()
    costs: DenoiserCosts = DenoiserCosts()
    pair_costs: Mapping[str, float] = {"AutoencoderKL": 9.2, "AutoencodingEngine": 9.2, "TAESD": 0.5}

    @abstractmethod
    def matches(self, model: BaseModel) -> bool:
        """Whether a ComfyUI BaseModel is of this family; no two families that are not generic may say so."""

    @abstractmethod
    def check_latents(self, latents: Tensor) -> None:
        """Raise ValueError unless these are the latents of one video of at least two frames, as the family has them."""

    @abstractmethod
    def decoder(
        self, vae: Vae, model: BaseModel, latents: Tensor, conds: CondLists | None = None
    ) -> FrameDecoder | SliceDecoder:
        """From the model's latents to pictures, and back.

        Args:
            vae: ComfyUI's VAE. model: the BaseModel. latents: of the video, for their shape.
            conds: of the guider, which may say that some latents are no frames of the video.

        Raises:
            ValueError: the VAE does not fit the family's latents.
        """

    def free(self, conds: CondLists, video: Tensor) -> Tensor | float:
        """What of a correction may be added to the video's latents: 0 in those that hold frames which were given to the
        model beside them (a start image) and stay as they are, else 1."""
        return 1.0

    def tiny_autoencoder(self, model: BaseModel) -> str | None:
        """What the name of the tiny autoencoder for the model's latents begins with, as ComfyUI knows it."""
        return newer(model.latent_format, "taesd_decoder_name", None)

    @abstractmethod
    def blocks(self, network: nn.Module) -> Iterable[nn.Module]:
        """The parts of the denoiser that are checkpointed when memory is short: none inside of another, together nearly
        all of it."""

    def early_layers(self, network: nn.Module) -> list[nn.Module]:
        """The layers that mode "fast" takes as given, such as a UNet's down-blocks; none if there is no such split."""
        return []

    def windows(self, patcher: Patcher, model_options: Options, shape: Iterable[int]) -> Windows | None:
        """The context windows in which latents of this shape are evaluated; None if all are at once. By default those
        of ComfyUI's own Context Windows nodes.

        Args:
            patcher: the ModelPatcher. model_options: of the guider.
        """
        handler = model_options.get("context_handler")
        if handler is None or not hasattr(handler, "context_length"):
            return None
        found = Windows(handler.context_length, handler.context_overlap, handler.dim)
        return found if list(shape)[found.dim] > found.length else None

    def remark(self, model: BaseModel) -> str:
        """What the report says of a model that only a generic family handles."""
        return (
            f"MotionPrompt has no file for models of the kind {type(model).__name__}: it is treated as {self.title}, "
            "and the cost and memory that are told are another model's."
        )

    def pair_cost(self, vae: Vae) -> float:
        """Decoding one frame pair forwards and backwards, in evaluations of one frame by the denoiser."""
        return self.pair_costs.get(type(vae.first_stage_model).__name__, 1.0)


_REGISTRY: dict[str, ModelFamily] = {}


def register_family(family: type[ModelFamily]) -> type[ModelFamily]:
    """Class decorator: the host knows this family from now on."""
    if family.name in _REGISTRY:
        raise ValueError(f"There is a model family {family.name!r} already. Register yours under another name.")
    _REGISTRY[family.name] = family()
    return family


def available_families() -> list[ModelFamily]:
    """All that are registered, the generic ones last."""
    return sorted(_REGISTRY.values(), key=lambda family: family.generic)


def text_encoder_types() -> tuple[type[nn.Module], ...]:
    """The networks that take learnable tokens, of all families."""
    return tuple(dict.fromkeys(kind for family in available_families() for kind in family.text_encoders))


def family_of(model: BaseModel) -> ModelFamily:
    """The family of a ComfyUI BaseModel; a generic one, by its latents' layout, if no other knows it.

    Raises:
        ValueError: the model is of no family, not even a generic one: it makes no video.
        RuntimeError: two families claim it.
    """
    found = [family for family in available_families() if family.matches(model)]
    known = [family for family in found if not family.generic] or found[:1]
    if not known:
        raise ValueError(
            f"MotionPrompt: a model of the kind {type(model).__name__} makes neither frames as a batch, as AnimateDiff "
            "does, nor a video, so it cannot be guided. Choose a video model."
        )
    if len(known) > 1:
        names = " and ".join(family.title for family in known)
        raise RuntimeError(f"MotionPrompt: {names} both claim a model of the kind {type(model).__name__}.")
    return known[0]
