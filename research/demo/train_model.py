"""Trains the demo's text-to-video model: images first, then motion in parts of clips, then whole clips.

    python -m research.demo.train_model --run runs/demo --stage image --steps 2500
    python -m research.demo.train_model --run runs/demo --stage motion --steps 1500
    python -m research.demo.train_model --run runs/demo --stage video --steps 1500

Each stage writes a checkpoint every few minutes and goes on from it when started again.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from motionprompt_tools import world

from . import dataset
from .networks import TextToVideo, alphas_cumprod, tokenize


@dataclass(frozen=True)
class Stage:
    frames: int
    batch: int
    lr: float
    noise_shift: float


# Redundant frames make a given sigma easier than it is for one image, so videos are trained at noisier levels.
STAGES = {
    "image": Stage(frames=1, batch=64, lr=1.5e-3, noise_shift=1.5),
    "motion": Stage(frames=8, batch=8, lr=1.2e-3, noise_shift=3.0),
    "video": Stage(frames=world.FRAMES, batch=4, lr=8e-4, noise_shift=3.0),
}
BEFORE = {"motion": "image", "video": "motion"}
EMA_DECAY = 0.99
PROMPT_DROPOUT = 0.1


def random_timesteps(count: int, shift: float, generator: torch.Generator) -> Tensor:
    """(count,) integers in 0..999, stratified, moved towards noise by `shift`."""
    u = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    return (1000 * shift * u / (1 + (shift - 1) * u)).long().clamp(0, 999)


def v_loss(
    model: nn.Module, x0: Tensor, weight: Tensor, ids: Tensor, t: Tensor, places: Tensor, generator: torch.Generator
) -> Tensor:
    """Per-clip weighted error of the predicted v = alpha eps - sigma x0 (Salimans & Ho 2022, eq. 12); (clips,)."""
    a = alphas_cumprod()[t].view(-1, 1, 1, 1, 1)
    noise = torch.randn(x0.shape, generator=generator)
    x_t = a.sqrt() * x0 + (1 - a).sqrt() * noise
    v = a.sqrt() * noise - (1 - a).sqrt() * x0
    error = (model(x_t, t, ids, places) - v).square().mean(dim=2)
    return (weight * error).flatten(1).sum(dim=1) / weight.flatten(1).sum(dim=1)


class Trainer:
    def __init__(self, run: Path, stage: str, steps: int, start: Path | None = None):
        self.run, self.stage, self.steps = run, stage, steps
        settings = STAGES[stage]
        self.frames, self.batch, self.lr, self.shift = (
            settings.frames,
            settings.batch,
            settings.lr,
            settings.noise_shift,
        )
        torch.manual_seed(0)
        self.model = TextToVideo()
        self.average = TextToVideo()
        self.step = 0
        # The text encoder has learned its words (train_text.py) and stays: images alone would make it forget motion.
        self.model.text.requires_grad_(False)
        self.optimiser = torch.optim.AdamW(
            self.model.unet.parameters(), lr=self.lr, weight_decay=0.01, betas=(0.9, 0.98)
        )
        self.resume(start)
        self.latents, self.masks, self.clips = dataset.read_shards(run)

    @property
    def checkpoint(self) -> Path:
        return self.run / f"{self.stage}.pt"

    def resume(self, start: Path | None) -> None:
        """Go on from this stage's checkpoint; else begin with `start`'s weights, or those of the stage before."""
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step = state["step"]
            return
        if start is None and self.stage in BEFORE:
            start = self.run / f"{BEFORE[self.stage]}.safetensors"
        if start is not None:
            self.model.load_state_dict(load_file(start))
        else:
            self.model.load_state_dict(load_file(self.run / "text.safetensors"), strict=False)
        self.average.load_state_dict(self.model.state_dict())

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
        }
        torch.save(state, self.checkpoint.with_suffix(".part"))
        self.checkpoint.with_suffix(".part").rename(self.checkpoint)
        save_file(self.average.state_dict(), self.run / f"{self.stage}.safetensors")

    def draw(self, generator: torch.Generator, words: random.Random) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A batch: x0 (B, T, 4, 16, 16), loss weights (B, T, 16, 16), prompt ids (B, L), which frames (T,)."""
        index = torch.randint(len(self.clips), (self.batch,), generator=generator)
        x0, mask = self.latents[index].float(), self.masks[index].float() / 255
        # Parts of clips: frames in a row, or every second one, which moves as far as a whole clip does.
        step = 1 if 2 * self.frames > world.FRAMES or words.random() < 0.3 else 2
        first = int(torch.randint(world.FRAMES - step * (self.frames - 1), (), generator=generator))
        places = first + step * torch.arange(self.frames)
        if self.frames == 1:
            frame = torch.randint(world.FRAMES, (self.batch,), generator=generator)
            x0, mask = (t[torch.arange(self.batch), frame][:, None] for t in (x0, mask))
        else:
            x0, mask = (t[:, places] for t in (x0, mask))
        captions = []
        for i in index.tolist():
            line = world.caption(self.clips[i], generator)
            if words.random() < 0.1:  # an unknown word means nothing
                line += f" x{words.randrange(1000)}"
            captions.append("" if words.random() < PROMPT_DROPOUT else line)
        # Sprites are a tenth of the picture but most of what one looks at; the emphasis fades away at the end.
        emphasis = 3 * min(1.0, 4 * (1 - self.step / self.steps))
        return x0, 1 + emphasis * mask, tokenize(captions), places

    def learning_rate(self) -> float:
        progress = self.step / self.steps
        return self.lr * min(1.0, (self.step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))

    def train(self) -> None:
        generator = torch.Generator().manual_seed(7919 + self.step)
        words = random.Random(self.step)
        start, saved, log = time.time(), time.time(), []
        while self.step < self.steps:
            x0, weight, ids, places = self.draw(generator, words)
            t = random_timesteps(self.batch, self.shift, generator)
            loss = v_loss(self.model, x0, weight, ids, t, places, generator)
            for group in self.optimiser.param_groups:
                group["lr"] = self.learning_rate()
            self.optimiser.zero_grad()
            loss.mean().backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimiser.step()
            self.step += 1
            decay = min(EMA_DECAY, (self.step + 1) / (self.step + 10))
            for mean, p in zip(self.average.parameters(), self.model.parameters(), strict=True):
                mean.data.lerp_(p.data, 1 - decay)
            log += list(zip(t.tolist(), loss.tolist(), strict=True))
            if self.step % 50 == 0:
                print(self.summary(log, start), flush=True)
                log = []
            if time.time() - saved > 180:
                self.save()
                saved = time.time()
        self.save()

    def summary(self, log: list[tuple[int, float]], start: float) -> str:
        """Mean loss in five ranges of noise: what is wrong with shape shows in the middle, motion further up."""
        parts = []
        for low in range(0, 1000, 200):
            values = [loss for t, loss in log if low <= t < low + 200]
            parts.append(f"{sum(values) / max(len(values), 1):.3f}")
        return f"{self.stage} {self.step}/{self.steps} v-loss by t {' '.join(parts)} {time.time() - start:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--stage", choices=STAGES, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--start", type=Path, help="weights to begin with, instead of random or the image stage's")
    args = parser.parse_args()
    Trainer(args.run, args.stage, args.steps, args.start).train()


if __name__ == "__main__":
    main()
