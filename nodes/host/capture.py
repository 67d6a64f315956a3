"""Keeps the flow of Tweedie's estimates on the way through a sampling: what a discriminator will have to judge.

While sampling only some frames' latents are put aside. They are decoded and measured when it is over, so that VAE and
flow model need no memory beside the video model.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...motionprompt_core.discriminator.clips import to_square
from ...motionprompt_core.guidance.decoding import count_frames
from ...motionprompt_core.guidance.schedule import StepTracker, steps_between
from ...motionprompt_core.media.files import write_safetensors
from .checks import check_schedule, evaluates_once_off_schedule
from .comfy_types import Callback, Executor, Guider, Options, Patcher, Sampler, Vae
from .decode import FrameDecoder, SliceDecoder
from .families import family_of
from .models import ManagedModel, wrapped

KEY = "motionprompt_capture"


class FlowCapture:
    """What is kept of a sampler node's runs.

    Args:
        vae: ComfyUI's VAE. flow: the flow model.
        folder: gets a .safetensors for each video: "flow" (P, 2, grid, grid) in px of the grid, "sigma" (P,).
        start, end: the part of the schedule that is looked at, as shares of its steps.
        pairs: pairs of frames at each step. gaps: their distances in frames.
        grid: side of the square that flows are kept at, px.
    """

    def __init__(
        self,
        vae: Vae,
        flow: ManagedModel,
        folder: Path,
        start: float,
        end: float,
        pairs: int,
        gaps: tuple[int, ...],
        grid: int,
    ):
        self.vae, self.flow, self.folder = vae, flow, folder
        self.start, self.end, self.pairs, self.gaps, self.grid = start, end, pairs, gaps, grid
        self.decoder: FrameDecoder | SliceDecoder
        self.kept: list[tuple[float, Tensor, list[int]]] = []
        self.due: set[int] = set()
        self.tracker = StepTracker([1.0, 0.0])

    def attach(self, model: Patcher) -> Patcher:
        """A clone of a MODEL whose samplings are captured; the video stays as it is."""
        wrappers = {
            WrappersMP.OUTER_SAMPLE: self._outer_sample,
            WrappersMP.SAMPLER_SAMPLE: self._sampler_sample,
            WrappersMP.PREDICT_NOISE: self._predict_noise,
        }
        return wrapped(model, KEY, wrappers)

    def _outer_sample(
        self,
        executor: Executor,
        noise: Tensor,
        latent_image: Tensor,
        sampler: Sampler,
        sigmas: Tensor,
        *args: object,
        **kwargs: object,
    ) -> Tensor:
        check_schedule(sigmas)
        model = executor.class_obj.model_patcher.model
        family = family_of(model)
        family.check_latents(noise)
        self.decoder = family.decoder(self.vae, model, noise, executor.class_obj.conds)
        frames = count_frames(self.decoder, self.decoder.frames_first(noise))
        if frames <= min(self.gaps):
            raise ValueError(
                f"Capture Flow Estimates: the video has {frames} frames, and pairs {min(self.gaps)} apart need "
                "more. Use a longer latent batch."
            )
        self.due = set(steps_between(len(sigmas) - 1, self.start, self.end))
        if not self.due:
            raise ValueError(
                f"Capture Flow Estimates: none of the {len(sigmas) - 1} steps lies between start {self.start:g} and "
                f"stop {self.end:g}, so nothing would be kept. Move them apart, or sample with more steps."
            )
        self.kept = []
        self.generator = torch.Generator().manual_seed(_number(noise))
        try:
            result = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
            self._measure()
            return result
        finally:
            self.kept = []

    def _sampler_sample(
        self,
        executor: Executor,
        guider: Guider,
        sigmas: Tensor,
        extra_args: Options,
        callback: Callback,
        *args: object,
        **kwargs: object,
    ) -> Tensor:
        self.tracker = StepTracker(sigmas.tolist(), by_count=evaluates_once_off_schedule(executor.class_obj))

        def step_done(state: object, *more: object) -> object:
            self.tracker.step_done()
            return callback(state, *more) if callback is not None else None

        return executor(guider, sigmas, extra_args, step_done, *args, **kwargs)

    def _predict_noise(
        self, executor: Executor, x: Tensor, timestep: Tensor, *args: object, **kwargs: object
    ) -> Tensor:
        """Puts some frames of the estimate aside where a step begins; AnimateDiff-Evolved calls no other hook."""
        estimate = executor(x, timestep, *args, **kwargs)
        sigma = float(timestep.flatten()[0])
        began = self.due.intersection(self.tracker.observe(sigma))
        if began:
            self.due -= began  # FreeInit's later passes go over the same steps again
            latents = self.decoder.frames_first(estimate)
            frames = [frame for pair in self._draw(count_frames(self.decoder, latents)) for frame in pair]
            latents, frames = self.decoder.excerpt(latents, frames)
            self.kept.append((sigma, latents.float().cpu(), frames))
        return estimate

    def _draw(self, frames: int) -> list[tuple[int, int]]:
        allowed = [(i, i + gap) for gap in self.gaps for i in range(frames - gap)]
        return [allowed[i] for i in torch.randperm(len(allowed), generator=self.generator)[: self.pairs].tolist()]

    def _measure(self) -> None:
        if not self.kept:
            raise RuntimeError(
                "Capture Flow Estimates: the sampler finished, but evaluated the model at none of the steps that were "
                "to be kept. Choose another sampler, or disconnect this node."
            )
        pictures = [self.decoder.show(latents, frames) for _, latents, frames in self.kept]
        network, flows, sigmas = self.flow.load(), [], []
        for (sigma, _, _), frames in zip(self.kept, pictures, strict=True):
            square = to_square(frames.movedim(-1, 1), min(frames.shape[1:3])).to(self.flow.patcher.load_device)
            flow = network(square[0::2], square[1::2]).cpu()
            scale = self.grid / flow.shape[-1]
            size = (self.grid, self.grid)
            flows.append(F.interpolate(flow, size=size, mode="bilinear", antialias=True) * scale)
            sigmas += [sigma] * len(flow)
        name = hashlib.sha256(torch.cat(flows).numpy().tobytes()).hexdigest()[:32]
        tensors = {"flow": torch.cat(flows).half(), "sigma": torch.tensor(sigmas)}
        write_safetensors(tensors, self.folder / f"{name}.safetensors", {"flow_model": network.name})


def _number(noise: Tensor) -> int:
    """A seed for the pairs from the video's own noise: the same video, the same pairs."""
    return int.from_bytes(hashlib.sha256(noise.float().cpu().numpy().tobytes()).digest()[:6], "big")
