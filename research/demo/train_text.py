"""Teaches the demo's text encoder what its words are about, before any picture is drawn, as CLIP's was.

python -m research.demo.train_text --run runs/demo
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from motionprompt_core.demo import text
from motionprompt_tools import world

from .networks import TextEncoder, tokenize

ANSWERS: dict[str, tuple[str, ...]] = {
    "shape": world.SHAPES,
    "colour": tuple(world.COLOURS),
    "ground": tuple(world.GROUNDS),
    "direction": tuple(world.DIRECTIONS),
    "faulty": ("False", "True"),
}
HALF_WAY = 0.3  # a moving sprite's way in half a clip, in half frames


def batch(size: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Training captions as ids (B, L), for each question the index of the right answer (B,), directions (B, 2)."""
    clips = [world.random_clip(generator) for _ in range(size)]
    ids = tokenize([world.caption(clip, generator) for clip in clips])
    labels = {
        key: torch.tensor([options.index(str(getattr(clip, key))) for clip in clips])
        for key, options in ANSWERS.items()
    }
    return ids, labels, torch.tensor([world.DIRECTIONS[clip.direction] for clip in clips])


def train(steps: int, size: int = 128, lr: float = 2e-3) -> tuple[TextEncoder, nn.Linear]:
    """Each answer is read off the mean of the context by one linear layer, so every word must reach the context.

    Returns:
        The encoder, and the layer that reads the direction: where the UNet's `velocity` begins.
    """
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(11)
    encoder = TextEncoder()
    heads = nn.ModuleDict({key: nn.Linear(text.TextConfig().hidden_size, len(v)) for key, v in ANSWERS.items()})
    velocity = nn.Linear(text.TextConfig().hidden_size, 2)
    parameters = [*encoder.parameters(), *heads.parameters(), *velocity.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps)
    for step in range(steps):
        ids, labels, directions = batch(size, generator)
        pooled = encoder(ids).mean(dim=1)
        losses = {key: F.cross_entropy(heads[key](pooled), label) for key, label in labels.items()}
        losses["velocity"] = F.mse_loss(velocity(pooled), HALF_WAY * directions)
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
        schedule.step()
        if (step + 1) % 50 == 0:
            print(step + 1, " ".join(f"{key} {loss.item():.3f}" for key, loss in losses.items()), flush=True)
    return encoder, velocity


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--steps", type=int, default=400)
    args = parser.parse_args()
    args.run.mkdir(parents=True, exist_ok=True)
    encoder, velocity = train(args.steps)
    layers = {f"text.{key}": value for key, value in encoder.state_dict().items()}
    layers |= {f"unet.velocity.{key}": value for key, value in velocity.state_dict().items()}
    save_file(layers, args.run / "text.safetensors")


if __name__ == "__main__":
    main()
