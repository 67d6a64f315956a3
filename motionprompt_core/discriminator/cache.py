"""Flows of clips on disk: computed once, in bounded memory, found again by what is in the files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..flow.base import FlowModel
from ..media.files import write_safetensors
from ..media.sequences import frame_files
from ..media.sources import decoding
from .clips import QUALITIES, ClipSettings, Frames, compressed, read_clip
from .flows import extract_flows

BATCH = 4  # pairs at a time
STILL = 2e-4  # of the frame's side: no pixel of a still moves further, on the mean, than compression makes it seem to


@dataclass
class FlowClips(Sequence[Tensor]):
    """Flows of clips, read from the cache when asked for: clip i is (P, 2 * flows, grid, grid), px of the grid.

    Attributes:
        names: the clips' files, for messages.
        files: the cache's files.
        skipped: clip -> why it could not be used.
    """

    names: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index):  # type: ignore[override]
        with safe_open(self.files[index], framework="pt") as file:
            return file.get_tensor("flow").float()

    def pair(self, index: int, number: int) -> Tensor:
        """One example (2 * flows, grid, grid) of a clip, without reading the others."""
        with safe_open(self.files[index], framework="pt") as file:
            return file.get_slice("flow")[number].float()


def identity(flow_model: FlowModel) -> str:
    """A flow model's name and, where it has any, a hash of its weights: another file gives other flows."""
    digest = hashlib.sha256()
    tensors = flow_model.state_dict()
    for key in sorted(tensors):
        digest.update(key.encode() + tensors[key].detach().float().cpu().contiguous().numpy().tobytes())
    return f"{flow_model.name} {digest.hexdigest()[:16]}" if tensors else flow_model.name


def fingerprint(path: Path | Frames, settings: ClipSettings, flow_model: str) -> str:
    """Name of a clip's cache file: a hash of the file's content (a folder: of all its files), settings and `identity`
    of the flow model."""
    digest = hashlib.sha256(json.dumps([settings.to_dict(), flow_model], sort_keys=True).encode())
    if isinstance(path, Frames):
        digest.update(path.video.contiguous().numpy().tobytes())
        return digest.hexdigest()[:32]
    for file in frame_files(path) if path.is_dir() else [path]:
        with decoding(file):
            with file.open("rb") as content:
                while block := content.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()[:32]


def cached_flows(
    clips: Sequence[Path | Frames],
    cache: str | Path,
    flow_model: FlowModel,
    settings: ClipSettings | None = None,
    *,
    device: torch.device | str = "cpu",
    min_motion: float = 0.0,
    on_clip: Callable[[int, int, Path | Frames], object] | None = None,
) -> FlowClips:
    """Flows of all clips, from the cache or, where they are not there yet, extracted.

    Memory holds one clip at a time. A clip that cannot be read is skipped and named in the result. Stopped at any
    moment, the next call goes on with the clip that was not finished.

    Args:
        clips: from `find_clips`, or frames in memory.
        cache: a folder; made if need be.
        flow_model: on `device`.
        min_motion: clips whose pixels move less than this on the mean, in sides of the frame per pair, are skipped too:
            one side with more stills than the other would be told by them. `STILL` suits training, 0 keeps all.
        on_clip: called with (clips done, all clips, the clip) after each; may raise to stop.

    Raises:
        OSError: the cache cannot be written (a full disk); what was finished is kept.
        ValueError: no clip could be read.
    """
    settings, cache = settings or ClipSettings(), Path(cache)
    cache.mkdir(parents=True, exist_ok=True)
    found, model = FlowClips(), identity(flow_model)
    for number, clip in enumerate(clips, start=1):
        label = clip.name if isinstance(clip, Frames) else str(clip)
        try:
            name = fingerprint(clip, settings, model)
            file = cache / f"{name}.safetensors"
            if file in found.files:
                raise ValueError(f"clip {label} is the same as {found.names[found.files.index(file)]}: it counts once.")
            if not _is_whole(file):
                flow = clip_flow(clip, flow_model, settings, seed=int(name[:12], 16), device=device)
                write_safetensors({"flow": flow.half()}, file, {"flow_model": flow_model.name})
            if min_motion > 0:
                _check_motion(clip.name, file, min_motion)
        except ValueError as error:
            found.skipped[label] = str(error)
        else:
            found.names.append(label)
            found.files.append(file)
        if on_clip is not None:
            on_clip(number, len(clips), clip)
    if not found.files:
        reasons = "; ".join(list(found.skipped.values())[:3])
        raise ValueError(f"clips: none of {len(clips)} could be used. The first reasons: {reasons}")
    return found


@torch.no_grad()
def clip_flow(
    clip: Path | Frames, flow_model: FlowModel, settings: ClipSettings, *, seed: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Flows (P, 2 * flows, grid, grid) of one clip, in px of the grid."""
    video = read_clip(clip, settings)
    if settings.recompress:
        generator = torch.Generator().manual_seed(seed)
        video = compressed(video, int(torch.randint(*QUALITIES, (), generator=generator)))
    options = {"pairs": settings.pairs, "batch": BATCH, "seed": seed, "flows": settings.flows}
    flow = extract_flows(flow_model, video, settings.gaps, device=device, **options)
    size = (settings.grid, settings.grid)
    flow = F.interpolate(flow, size=size, mode="bilinear", antialias=True) * (settings.grid / settings.size)
    if not torch.isfinite(flow).all():
        raise ValueError(f"clip {clip.name}: its flow is not finite. Leave it out.")
    return flow


def check_distinct(real: FlowClips, generated: FlowClips) -> None:
    """Raise ValueError if a clip's content is on both sides, whatever its file is called."""
    both = [name for name, file in zip(real.names, real.files, strict=True) if file in generated.files]
    if both:
        raise ValueError(
            f"clips: {len(both)} clip(s) of the real side are on the generated side as well, the first is {both[0]}. "
            "Remove them from one of the two."
        )


def _check_motion(clip: str, file: Path, least: float) -> None:
    with safe_open(file, framework="pt") as content:
        flow = content.get_tensor("flow").float()
    motion = flow.unflatten(1, (-1, 2)).norm(dim=2).mean().item() / flow.shape[-1]
    if motion < least:
        raise ValueError(f"clip {clip} does not move ({motion:.1e} of the frame). Left out on either side.")


def _is_whole(file: Path) -> bool:
    """Whether a cache file is there and can be read; files are written in one step, but a disk may have failed."""
    if not file.is_file():
        return False
    try:
        with safe_open(file, framework="pt") as content:
            return content.get_slice("flow").get_shape()[1] % 2 == 0
    except (SafetensorError, OSError, IndexError):
        return False
