"""Keeps the flow of Tweedie's estimates on the way through a sampling: what a discriminator will have to judge.

While sampling only some frames' latents are put aside. They are decoded and measured when it is over, so that VAE and
flow model need no memory beside the video model.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...motionprompt_core.discriminator.clips import to_square
from ...motionprompt_core.guidance.decoding import count_frames
from ...motionprompt_core.media.files import write_safetensors
from .decode import FrameDecoder, SliceDecoder
from .families import family_of
from .models import ManagedModel

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
        vae: Any,
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

    def attach(self, model: Any) -> Any:
        """A clone of a MODEL whose samplings are captured; the video stays as it is."""
        model = model.clone()
        model.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
        model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, self._outer_sample)
        model.set_model_sampler_pre_cfg_function(self._look)
        return model

    def _outer_sample(self, executor: Any, noise: Any, *args: Any, **kwargs: Any) -> Any:
        model = executor.class_obj.model_patcher.model
        family = family_of(model)
        family.check_latents(noise)
        self.decoder = family.decoder(self.vae, model, noise)
        frames = count_frames(self.decoder, self.decoder.frames_first(noise))
        if frames <= min(self.gaps):
            raise ValueError(
                f"Capture Flow Estimates: the video has {frames} frames, and pairs {min(self.gaps)} apart need "
                "more. Use a longer latent batch."
            )
        self.kept = []
        self.generator = torch.Generator().manual_seed(_number(noise))
        try:
            result = executor(noise, *args, **kwargs)
            self._measure()
            return result
        finally:
            self.kept = []

    def _look(self, args: dict[str, Any]) -> list[Tensor]:
        """Called with the estimates of each evaluation; puts some frames of the prompt's own aside."""
        schedule = args["model_options"].get("transformer_options", {}).get("sample_sigmas")
        sigma = float(args["sigma"].flatten()[0])
        if schedule is not None and len(schedule) > 1:
            step = int((schedule[:-1].cpu() - sigma).abs().argmin()) / (len(schedule) - 1)
            seen = any(sigma == other for other, _, _ in self.kept)  # second-order samplers look twice
            if self.start <= step < self.end and not seen:
                estimate = self.decoder.frames_first(args["conds_out"][0])
                frames = [frame for pair in self._draw(count_frames(self.decoder, estimate)) for frame in pair]
                estimate, frames = self.decoder.excerpt(estimate, frames)
                self.kept.append((sigma, estimate.float().cpu(), frames))
        return args["conds_out"]

    def _draw(self, frames: int) -> list[tuple[int, int]]:
        allowed = [(i, i + gap) for gap in self.gaps for i in range(frames - gap)]
        return [allowed[i] for i in torch.randperm(len(allowed), generator=self.generator)[: self.pairs].tolist()]

    def _measure(self) -> None:
        if not self.kept:
            return
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
