"""What Flow Dataset hands to Train Flow Discriminator: flows of real and of generated clips, measured alike."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ...motionprompt_core.discriminator.cache import FlowClips
from ...motionprompt_core.discriminator.clips import ClipSettings


@dataclass(frozen=True)
class FlowDataset:
    """What `train_discriminator` needs.

    Attributes:
        real, generated: flows in the cache.
        flow_model: `FlowModel.name` of the model that measured them.
        settings: how the clips were read.
        captured: how many of the generated clips are Tweedie estimates.
    """

    real: FlowClips
    generated: FlowClips
    flow_model: str
    settings: ClipSettings
    captured: int = 0

    def digest(self) -> str:
        """A hash of all its flows: the cache's files are named by content."""
        names = [[file.name for file in side.files] for side in (self.real, self.generated)]
        return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]

    def summary(self, most: int = 20) -> str:
        """Counts, and the clips that were skipped with the reasons, `most` of them."""
        lines = []
        for name, side in (("real", self.real), ("generated", self.generated)):
            lines.append(f"{name}: {len(side)} clips, {len(side.skipped)} skipped")
        if self.captured:
            lines.append(f"of the generated ones, {self.captured} are estimates captured while sampling")
        skipped = [*self.real.skipped.items(), *self.generated.skipped.items()]
        lines += [f"skipped {Path(clip).name}: {reason}" for clip, reason in skipped[:most]]
        if len(skipped) > most:
            lines.append(f"... and {len(skipped) - most} more")
        return "\n".join(lines)


def captured_flows(folder: str | Path, flow_model: str, grid: int) -> FlowClips:
    """Flows of Tweedie estimates that were captured while sampling, a file for each video.

    Raises:
        ValueError: there are none, or another flow model measured them.
    """
    folder, found = Path(folder), FlowClips()
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as content:
                measured = (content.metadata() or {}).get("flow_model", "")
                shape = content.get_slice("flow").get_shape()
        except (SafetensorError, OSError) as error:
            found.skipped[str(file)] = f"it cannot be read ({error})"
            continue
        if measured != flow_model:
            raise ValueError(
                f"captured estimates in {folder} were measured by {measured or 'an unknown flow model'}, but the clips "
                f"are by {flow_model}. Use one flow model for both, or capture again under another name."
            )
        if shape[1:] != [2, grid, grid]:
            found.skipped[str(file)] = f"its flow has shape {shape}, expected (P, 2, {grid}, {grid})"
            continue
        found.names.append(str(file))
        found.files.append(file)
    if not found.files:
        raise ValueError(
            f"captured estimates: {folder} holds none. Sample with Capture Flow Estimates under this name first, or "
            "leave captured empty."
        )
    return found


def joined(parts: Sequence[FlowClips]) -> FlowClips:
    """Several sources of one side."""
    whole = FlowClips()
    for part in parts:
        whole.names += part.names
        whole.files += part.files
        whole.skipped |= part.skipped
    return whole
