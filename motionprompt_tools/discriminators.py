"""The commands train-discriminator and evaluate-discriminator."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from motionprompt_core.discriminator.cache import STILL, FlowClips, cached_flows, check_distinct
from motionprompt_core.discriminator.clips import ClipSettings, check_apart, find_clips
from motionprompt_core.discriminator.model import (
    DiscriminatorConfig,
    FlowDiscriminator,
    load_discriminator,
    save_discriminator,
)
from motionprompt_core.discriminator.state import EpochResult
from motionprompt_core.discriminator.train import ROBUST, SIZES, judge_clips, train_discriminator
from motionprompt_core.flow import load_flow_model
from motionprompt_core.flow.base import FlowModel

from .commandline import add_command, add_network_options

CACHE = Path("output/flow_cache")
READING = ("fps", "folder_fps", "max_frames", "frame_size", "gaps", "pairs")


def add_to(commands: Any) -> None:
    """Adds both commands to an argparse parser's subparsers."""
    train = add_command(
        commands,
        "train-discriminator",
        run_train,
        "train a flow discriminator for your video model",
        "Learns to tell the motion of real clips from that of generated ones. Flows are kept in a cache, "
        "and the training's state beside the file: stopped at any moment, the same command goes on.",
    )
    _clip_options(train)
    train.add_argument("--out", type=Path, required=True, help="the .safetensors to write")
    train.add_argument("--epochs", type=int, default=20, help="passes over the clips, at most")
    train.add_argument("--size", choices=SIZES, default="small", help="of the network")
    train.add_argument("--pretrained", type=Path, help="weights for the network's ViT to begin with, timm's names")
    train.add_argument("--family", default="any", help="the video model that the generated clips are from")
    train.add_argument("--trained-on", default="", help="what the clips are and their terms, for the file's metadata")
    train.add_argument(
        "--flows",
        type=int,
        default=1,
        help="in a row that are judged together; 2 also shows how motion changes from one frame to the next",
    )
    train.add_argument("--keep-stills", action="store_true", help="train on clips that do not move as well")
    train.add_argument("--seed", type=int, default=0, help="of split, first weights and order")

    evaluate = add_command(
        commands,
        "evaluate-discriminator",
        run_evaluate,
        "how well a discriminator tells clips apart",
        "Clips are read, and their motion measured, as for the file's training unless told otherwise.",
    )
    evaluate.add_argument("file", type=Path, help="a discriminator's .safetensors")
    _clip_options(evaluate)
    evaluate.set_defaults(flow_model=None, **dict.fromkeys(READING))
    evaluate.add_argument("--json", type=Path, help="write the numbers here as well")


def _clip_options(parser: argparse.ArgumentParser) -> None:
    d = ClipSettings()
    parser.add_argument("--real", type=Path, required=True, help="folder of real clips: videos or folders of frames")
    parser.add_argument("--generated", type=Path, required=True, help="folder of clips made by the video model")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder in which flows are kept")
    add_network_options(parser)
    parser.add_argument("--fps", type=float, default=d.fps, help="frames a second that all clips are thinned out to")
    parser.add_argument("--folder-fps", type=float, default=d.folder_fps, help="frames a second of folders of frames")
    parser.add_argument("--max-frames", type=int, default=d.max_frames, help="frames of a clip that are looked at")
    parser.add_argument("--frame-size", type=int, default=d.size, help="clips are scaled and cut to this square, px")
    parser.add_argument("--gaps", type=int, nargs="+", default=list(d.gaps), help="distances of a pair of frames")
    parser.add_argument("--pairs", type=int, default=d.pairs, help="pairs of frames per clip, or rows of them")
    parser.add_argument("--as-compressed", action="store_true", help="leave frames as the files' compression made them")


def clip_settings(options: argparse.Namespace, flows: int, others: Mapping[str, Any] | None = None) -> ClipSettings:
    """Settings from the options; those that were not given from `others`."""
    known = {field.name for field in fields(ClipSettings)}
    others = others if isinstance(others, Mapping) else {}  # files of other trainings have a number there
    values = {name: value for name, value in others.items() if name in known}
    given = {name: getattr(options, name) for name in READING if getattr(options, name) is not None}
    values |= {"size" if name == "frame_size" else name: value for name, value in given.items()}
    values |= {"flows": flows, **({"recompress": False} if options.as_compressed else {})}
    gaps = values.get("gaps", ClipSettings.gaps)
    return ClipSettings(**{**values, "gaps": tuple(gaps) if isinstance(gaps, list) else gaps})


def both_sides(
    options: argparse.Namespace, flow_model: FlowModel, settings: ClipSettings, min_motion: float
) -> tuple[FlowClips, FlowClips]:
    """Flows of the real and of the generated clips; names the clips that had to be skipped."""
    sides = []
    folders = {"real": options.real, "generated": options.generated}
    clips = {side: find_clips(folder) for side, folder in folders.items()}  # both, before any long work
    check_apart(clips["real"], clips["generated"])
    for side, paths in clips.items():
        with tqdm(total=len(paths), desc=f"flow of {side} clips", unit="clip", disable=None) as bar:
            found = cached_flows(
                paths,
                options.cache,
                flow_model,
                settings,
                device=options.device,
                min_motion=min_motion,
                on_clip=lambda *_, bar=bar: bar.update(),
            )
        for clip, reason in found.skipped.items():
            print(f"skipped {clip}: {reason}", file=sys.stderr)
        print(f"{side}: {len(found)} clips, {len(found.skipped)} skipped")
        sides.append(found)
    check_distinct(*sides)
    return sides[0], sides[1]


def run_train(options: argparse.Namespace) -> None:
    if options.out.suffix != ".safetensors":
        raise ValueError(f"--out is {options.out}, but discriminators are .safetensors files: change its ending.")
    config = DiscriminatorConfig(
        flow_model=options.flow_model,
        trained_on=options.trained_on,
        family=options.family,
        flows=options.flows,
        **SIZES[options.size],
    )
    settings = clip_settings(options, config.flows)
    flow_model = load_flow_model(options.flow_model, options.flow_weights).to(options.device)
    real, generated = both_sides(options, flow_model, settings, 0 if options.keep_stills else STILL)
    state = options.out.with_suffix(".training.pt")
    with tqdm(total=options.epochs, desc="training", unit="epoch", disable=None) as bar:

        def show(epoch: EpochResult) -> None:
            bar.update(epoch.epoch + 1 - bar.n)
            bar.set_postfix(loss=f"{epoch.val_loss:.3f}", auroc=f"{epoch.auroc:.3f}")

        result = train_discriminator(
            real,
            generated,
            config,
            epochs=options.epochs,
            seed=options.seed,
            pretrained=options.pretrained or False,
            device=options.device,
            checkpoint=state,
            on_epoch=show,
            **ROBUST,
        )
    save_discriminator(
        result.model,
        options.out,
        **result.best.to_dict(),
        real_clips=len(real),
        generated_clips=len(generated),
        clips=settings.to_dict(),
    )
    state.unlink(missing_ok=True)
    best = result.best
    print(
        f"{options.out}: on clips held out, AUROC {best.auroc:.3f}, accuracy {best.accuracy:.3f}, calibration error "
        f"{best.calibration_error:.3f} (epoch {best.epoch + 1})"
    )


def run_evaluate(options: argparse.Namespace) -> None:
    model: FlowDiscriminator = load_discriminator(options.file).to(torch.device(options.device))
    name = options.flow_model or model.config.flow_model
    if model.config.flow_model != name:
        print(
            f"warning: {options.file} was trained with flow model {model.config.flow_model}, this is {name}",
            file=sys.stderr,
        )
    flow_model = load_flow_model(name, options.flow_weights).to(options.device)
    settings = clip_settings(options, model.config.flows, model.metadata.get("clips"))
    real, generated = both_sides(options, flow_model, settings, 0)
    result = {
        "real_clips": len(real),
        "generated_clips": len(generated),
        "skipped": {**real.skipped, **generated.skipped},
        **judge_clips(model, real, generated),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text + "\n", encoding="utf-8")
