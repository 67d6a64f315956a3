"""Trains the demo's autoencoder on 64 px crops of the sprite world.

python -m research.demo.train_autoencoder --run runs/demo
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from motionprompt_core.demo.autoencoder import Autoencoder
from motionprompt_tools import world

CROP = 64


def crop(video: Tensor, mask: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`count` crops, two of three centred near the sprite: in whole frames the ground would hide its faults."""
    crops, weights = [], []
    for _ in range(count):
        t = int(torch.randint(len(video), (1,), generator=generator))
        corner = torch.randint(world.SIZE - CROP + 1, (2,), generator=generator)
        if float(torch.rand((), generator=generator)) < 0.67:
            centre = mask[t].nonzero().float().mean(dim=0)
            shift = torch.randint(-24, 25, (2,), generator=generator)
            corner = (centre - CROP / 2 + shift).round().long().clamp(0, world.SIZE - CROP)
        y, x = corner.tolist()
        crops.append(video[t, :, y : y + CROP, x : x + CROP])
        weights.append(1 + 4 * mask[t, y : y + CROP, x : x + CROP])
    return torch.stack(crops) * 2 - 1, torch.stack(weights)[:, None]


def train(run: Path, steps: int, batch: int, lr: float) -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    model = Autoencoder()
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps, pct_start=0.05)
    start = time.time()
    for step in range(steps):
        clips = [world.render(world.random_clip(generator, fault_share=0.3), frames=2) for _ in range(batch // 4)]
        pairs = [crop(video, mask, 4, generator) for video, _, mask in clips]
        frames, weight = torch.cat([p[0] for p in pairs]), torch.cat([p[1] for p in pairs])
        latents = model.encode(frames)
        # A little noise makes the decoder forgiving; the penalty keeps the learnt channel from shouting it down.
        decoded = model.decode(latents + 0.03 * torch.randn(latents.shape, generator=generator))
        error = decoded - frames
        loss = (weight * (error.abs() + 4 * error.square())).mean() + 0.05 * latents[:, 3].square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            psnr = -10 * math.log10(float(error.detach().square().mean()) / 4)
            print(
                f"{step} loss {float(loss.detach()):.4f} psnr {psnr:.2f} std {float(latents.detach().std()):.2f} "
                f"{time.time() - start:.0f} s",
                flush=True,
            )
    with torch.no_grad():
        frames = torch.cat([world.render(world.random_clip(generator), frames=1)[0] for _ in range(64)])
        latents = model.encode(frames * 2 - 1)
        model.scale.fill_(1 / float(latents.std()))
    save_file(model.state_dict(), run / "autoencoder.safetensors")


def load(run: Path) -> Autoencoder:
    model = Autoencoder()
    model.load_state_dict(load_file(run / "autoencoder.safetensors"))
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2e-3)
    args = parser.parse_args()
    args.run.mkdir(parents=True, exist_ok=True)
    train(args.run, args.steps, args.batch, args.lr)


if __name__ == "__main__":
    main()
