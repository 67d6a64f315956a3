"""Latents to pictures without clamping, so that the gradient survives where a picture is too bright or too dark; and
back.

Image VAEs decode each frame for itself (AnimateDiff, the demo model). Video VAEs (Wan, LTX-Video) compress time: latent
0 is the first frame, and each later latent holds the next `factor` frames, which only come out right beside their
neighbours. Of these a short slice around the wanted frames is decoded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import comfy.model_management
import torch
from torch import Tensor

from ...motionprompt_core.guidance.decoding import VideoDecoder
from .checkpoints import checkpointed
from .comfy_types import BaseModel, Vae
from .gradients import attached
from .networks import decoder_blocks

# Latents decoded before a wanted one; Frame Guidance (arXiv 2506.07177) decodes a frame from about four latents.
LATENTS_BEFORE = 3


class _Pictures:
    """A ComfyUI VAE, differentiable and without the clamp.

    Args:
        vae: ComfyUI's VAE. model: the BaseModel whose latents are decoded.
    """

    def __init__(self, vae: Vae, model: BaseModel):
        self.vae = vae
        self.model = model
        # `process_output` maps the decoder's range to [0, 1] and clamps; both decoders and pixel models do it by a
        # line.
        low, high = (float(vae.process_output(torch.tensor([value]))[0]) for value in (0.25, 0.5))
        self.slope = (high - low) / 0.25
        self.offset = low - 0.25 * self.slope

    def __call__(self, latents: Tensor) -> Tensor:
        """Pictures, nominally in [0, 1], of latents as the model sees them."""
        raw = self.model.process_latent_out(latents).to(device=self.vae.device, dtype=self.vae.vae_dtype)
        try:
            with attached():
                pictures = self.vae.first_stage_model.decode(raw).float()
        except RuntimeError as error:
            if "Padding size" not in str(error):
                raise
            raise ValueError(
                f"MotionPrompt: the VAE cannot decode latents of {raw.shape[-1]} x {raw.shape[-2]}, which are too "
                "small for it. Make the video larger."
            ) from error
        return (pictures * self.slope + self.offset).to(latents.device)

    def encode(self, pictures: Tensor) -> Tensor:
        """Latents as the model sees them, of pictures nominally in [0, 1]."""
        raw = self.vae.process_input(pictures).to(device=self.vae.device, dtype=self.vae.vae_dtype)
        latents = self.vae.first_stage_model.encode(raw).float()
        return self.model.process_latent_in(latents).to(pictures.device)


class FrameDecoder:
    """Decodes single frames with an image VAE (or tiny autoencoder).

    Args:
        vae: ComfyUI's VAE. model: the BaseModel whose latents are decoded.

    Attributes:
        separately: one frame after the other, which takes half a pair's memory where the decoder is checkpointed.
        pieces: in which a whole video is gone through, the next if memory runs out: latents and frame pairs at a time.
    """

    pieces: tuple[tuple[int | None, int], ...] = ((2, 2), (1, 1))

    def __init__(self, vae: Vae, model: BaseModel):
        self.decode = _Pictures(vae, model)
        self.separately = False

    def frames_first(self, latents: Tensor) -> Tensor:
        """The model's latents as the guidance wants them, (F, C, h, w)."""
        return latents

    def as_model(self, x0: Tensor) -> Tensor:
        """The way back: `x0` (F, C, h, w) as the model has it."""
        return x0

    def __call__(self, latents: Tensor) -> Tensor:
        """Frames (N, 3, H, W) of latents (N, C, h, w)."""
        return torch.cat([self.decode(part) for part in latents.split(1 if self.separately else len(latents))])

    def encode(self, frames: Tensor) -> Tensor:
        """Latents (N, C, h, w) of frames (N, 3, H, W), nominally in [0, 1]."""
        return torch.cat([self.decode.encode(part) for part in frames.split(1 if self.separately else len(frames))])

    def excerpt(self, x0: Tensor, frames: list[int]) -> tuple[Tensor, list[int]]:
        """What to keep of `x0` (F, C, h, w) to `show` these frames later: some latents, and which of their frames."""
        return x0[frames], list(range(len(frames)))

    def show(self, x0: Tensor, frames: list[int]) -> Tensor:
        """Pictures (N, H, W, 3) in [0, 1] of these frames, outside of sampling: the VAE is loaded for it."""
        vae = self.decode.vae
        return vae.decode(self.decode.model.process_latent_out(x0[frames]))

    @contextmanager
    def checkpointed(self, again: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
        """Within it the VAE's decoder is checkpointed, and decodes frames one after the other; see `checkpointed`."""
        with checkpointed(decoder_blocks(self.decode.vae.first_stage_model), again):
            self.separately = True
            try:
                yield
            finally:
                self.separately = False

    def pictures(self, x0: Tensor, most: int | None = None) -> Tensor:
        """All frames (F, 3, H, W) of the video x0 (F, C, h, w), at most so many at a time."""
        return torch.cat([self(part) for part in x0.split(most or len(x0))])

    def latents(self, frames: Tensor, most: int | None = None) -> Tensor:
        """Latents (F, C, h, w) of a whole video (F, 3, H, W), at most so many at a time."""
        return torch.cat([self.encode(part) for part in frames.split(most or len(frames))])

    def whole_memory(self, noise_shape: Sequence[int]) -> float:
        """Bytes that ComfyUI reckons for decoding, or encoding, the whole video in the first of `pieces`."""
        return self.memory(noise_shape, self.pieces[0][0] or 1)

    def memory(self, noise_shape: Sequence[int], frames: int) -> float:
        """Bytes that ComfyUI reckons for decoding some frames."""
        vae = self.decode.vae
        return frames * vae.memory_used_decode([1, *list(noise_shape)[1:]], vae.vae_dtype)


class SliceDecoder(VideoDecoder):
    """Decodes chosen frames with a video VAE, from short slices of the latents (1, C, T, h, w).

    A slice begins `LATENTS_BEFORE` latents before the wanted one. The decoder takes a slice's first latent for the
    video's first, so those frames differ from what the whole video shows; the wanted ones have context and hardly do.

    Args:
        vae, model: as for `FrameDecoder`.
        appended: number of latents at the end that are no frames of the video (LTX-Video's keyframes).
        after: number of later latents that the decoder looks at.
        leading: number of latents before the video that are no frames of it (Wan VACE's and Animate's reference).

    Attributes:
        pieces: see `FrameDecoder`; None is all at once.
    """

    pieces: tuple[tuple[int | None, int], ...] = ((None, 2), (8, 1), (2, 1))

    def __init__(self, vae: Vae, model: BaseModel, appended: int = 0, after: int = 0, leading: int = 0):
        self.decode = _Pictures(vae, model)
        self.factor, _ = compression(vae)
        self.appended = appended
        self.after = after
        self.leading = leading

    def frames_first(self, latents: Tensor) -> Tensor:
        """The model's latents (1, C, T, h, w) as the guidance wants them, (T, C, h, w)."""
        return latents[0, :, self.leading : latents.shape[2] - self.appended].movedim(1, 0)

    def as_model(self, x0: Tensor) -> Tensor:
        """The way back: `x0` (T, C, h, w) as the model has it, without what is no frame of the video."""
        return x0.movedim(0, 1)[None]

    def num_frames(self, num_latents: int) -> int:
        return (num_latents - 1) * self.factor + 1

    def slices(self, num_latents: int, frames: list[int]) -> list[tuple[int, int]]:
        """First and last latent of the slices, merged where they meet, from which these frames are decoded."""
        wanted = sorted({-(-frame // self.factor) for frame in frames})
        merged: list[tuple[int, int]] = []
        for latent in wanted:
            first, last = max(0, latent - LATENTS_BEFORE), min(num_latents - 1, latent + self.after)
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], last)
            else:
                merged.append((first, last))
        return merged

    def __call__(self, x0: Tensor, frames: list[int]) -> Tensor:
        found: dict[int, Tensor] = {}
        for first, last in self.slices(len(x0), frames):
            with fixed_noise(self.decode.vae.device):
                pictures = self.decode(self.as_model(x0[first : last + 1]))[0]
            self.check_number(last + 1 - first, pictures.shape[1])
            start = first * self.factor
            found |= {f: pictures[:, f - start] for f in frames if start <= f <= last * self.factor and f not in found}
        return torch.stack([found[frame] for frame in frames])

    def check_number(self, latents: int, frames: int) -> None:
        """
        Raises:
            ValueError: so many latents give another number of frames than the VAE says.
        """
        if frames != self.num_frames(latents):
            raise ValueError(
                f"The VAE made {frames} frames of {latents} latents, where it says that it makes "
                f"{self.num_frames(latents)}, so its frames cannot be told apart. Use the model's own video VAE."
            )

    def encode(self, frames: Tensor) -> Tensor:
        """Latents (T, C, h, w) of a whole video (F, 3, H, W), nominally in [0, 1]; F as `num_frames` of some T.

        Raises:
            ValueError: another number of frames, of which the VAE would leave some out.
        """
        if (len(frames) - 1) % self.factor:
            raise ValueError(f"This video VAE encodes {self.factor} n + 1 frames, and the video has {len(frames)}.")
        with fixed_noise(self.decode.vae.device):
            return self.decode.encode(self.as_model(frames))[0].movedim(1, 0)

    def excerpt(self, x0: Tensor, frames: list[int]) -> tuple[Tensor, list[int]]:
        """What to keep to `show` these frames later: all of it, as frames need their neighbours."""
        return x0, frames

    def show(self, x0: Tensor, frames: list[int]) -> Tensor:
        """Pictures (N, H, W, 3) in [0, 1] of these frames, outside of sampling: the VAE is loaded for it."""
        comfy.model_management.load_model_gpu(self.decode.vae.patcher)
        return self(x0, frames).clamp(0, 1).movedim(1, -1)

    @contextmanager
    def checkpointed(self, again: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
        """As it is: a video VAE's blocks hand on a cache of earlier frames, which running them again would upset."""
        yield

    def pictures(self, x0: Tensor, most: int | None = None) -> Tensor:
        """All frames (F, 3, H, W) of the video x0 (T, C, h, w), at most so many latents at a time."""
        parts = []
        for first in range(0, len(x0), most or len(x0)):
            last = min(len(x0), first + (most or len(x0))) - 1
            start = (first - 1) * self.factor + 1 if first else 0
            parts.append(self(x0, list(range(start, self.num_frames(last + 1)))))
        return torch.cat(parts)

    def latents(self, frames: Tensor, most: int | None = None) -> Tensor:
        """Latents (T, C, h, w) of a whole video (F, 3, H, W), at most so many at a time, beside their neighbours."""
        count = (len(frames) - 1) // self.factor + 1
        if most is None or most >= count:
            return self.encode(frames)
        parts = []
        for first in range(0, count, most):
            last = min(count, first + most) - 1
            begin, end = max(0, first - LATENTS_BEFORE), min(count - 1, last + self.after)
            encoded = self.encode(frames[begin * self.factor : end * self.factor + 1])
            parts.append(encoded[first - begin : last - begin + 1])
        return torch.cat(parts)

    def whole_memory(self, noise_shape: Sequence[int]) -> float:
        """Bytes that ComfyUI reckons for decoding, or encoding, the whole video; and its pictures in fp32, before and
        after and once in between."""
        vae, shape = self.decode.vae, list(noise_shape)
        _, size = compression(vae)
        video = [1, 3, self.num_frames(shape[2]), shape[-2] * size, shape[-1] * size]
        coding = max(vae.memory_used_decode(shape, vae.vae_dtype), vae.memory_used_encode(video, vae.vae_dtype))
        return coding + 3 * 4.0 * math.prod(video)

    def memory(self, noise_shape: Sequence[int], frames: int) -> float:
        """Bytes that ComfyUI reckons for decoding the slices of some frames."""
        batch, channels, length, *size = list(noise_shape)
        latents = min(length, frames * (LATENTS_BEFORE + 1 + self.after))
        vae = self.decode.vae
        return latents * vae.memory_used_decode([batch, channels, 1, *size], vae.vae_dtype)


def check_vae(vae: Vae, channels: int, dimensions: int) -> None:
    """Raise ValueError unless the VAE decodes latents of so many channels: frames of 2 dimensions, or a video of 3."""
    if getattr(vae, "first_stage_model", None) is None:
        raise ValueError("The VAE is missing or invalid. Load a VAE that belongs to the model.")
    if vae.latent_dim != dimensions:
        if dimensions == 2:
            raise ValueError(
                f"The VAE is for {vae.latent_dim}-dimensional latents, but frames are decoded one by one. "
                "Use the image VAE (or TAESD) of the model that the video model is built on."
            )
        raise ValueError("The VAE decodes single pictures, but this video model's latents need its own video VAE.")
    if vae.latent_channels != channels:
        raise ValueError(
            f"The VAE has {vae.latent_channels} latent channels, but the model's latents have "
            f"{channels}. Use the VAE that belongs to the model."
        )
    if dimensions == 3 and (not isinstance(vae.upscale_ratio, tuple) or vae.upscale_ratio[0](1) != 1):
        raise ValueError(
            "The VAE does not say which latent holds which frames, so it cannot be used. Use the model's own video VAE."
        )


def compression(vae: Vae) -> tuple[int, int]:
    """Frames of a later latent, and pixels along a latent's side. Tiny video autoencoders are asked themselves: ComfyUI
    takes LTX-2's for Wan 2.2's."""
    network = vae.first_stage_model
    if hasattr(network, "t_upscale"):
        return network.t_upscale, 8 * network.patch_size
    ratio = vae.upscale_ratio
    return ratio[0](2) - 1 if isinstance(ratio, tuple) else 1, vae.spacial_compression_decode()


def frame_size(vae: Vae, latent: Tensor) -> tuple[int, int]:
    """Height and width in pixels of a decoded frame of latents (..., h, w)."""
    _, factor = compression(vae)
    return latent.shape[-2] * factor, latent.shape[-1] * factor


@contextmanager
def fixed_noise(device: torch.device) -> Iterator[None]:
    """Within it random numbers are the same each time, and none is taken from the sampler's generators: LTX-Video's
    decoder adds noise."""
    own = None if device.type == "cpu" else torch.get_device_module(device)
    states = torch.get_rng_state(), None if own is None else own.get_rng_state()
    try:
        torch.manual_seed(0)
        yield
    finally:
        torch.set_rng_state(states[0])
        if own is not None:
            own.set_rng_state(states[1])
