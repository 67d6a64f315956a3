"""The formulas that are called VBench's give VBench's numbers.

The expected numbers came from running VBench's own functions (Vchitect/VBench 45e79ec of 2026-03-23: cal_score in
temporal_flickering.py, on lossless FFV1 files of these clips; DynamicDegree.infer in dynamic_degree.py, with these
flows in place of RAFT's). Clips and flows are integer formulas, so that they are the same everywhere.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.functional import to_pil_image

from motionprompt_core.flow.base import FlowModel
from motionprompt_core.media.video import read_video
from motionprompt_core.metrics.measure import measure_video
from motionprompt_core.metrics.video import top_speed, video_flow

FLICKERING = {0: 0.993856208932166, 1: 0.9918954241509531, 9: 0.9624836603800456, 100: 0.5183453428979014}
# (frames, frames a second, size of the flow) -> whether VBench says that it moves, and its mean speed over the pairs
DYNAMIC = {
    (16, 8, 0.3): (False, 0.458007),
    (16, 8, 0.55): (False, 0.839679),
    (16, 8, 0.65): (True, 0.992348),
    (48, 24, 0.55): (False, 0.839679),
    (48, 24, 0.65): (True, 0.992348),
    (45, 30, 0.55): (False, 0.795211),
    (45, 30, 0.65): (True, 0.939795),
}


def clip(change: int, frames: int = 6, height: int = 20, width: int = 24) -> torch.Tensor:
    axes = (np.arange(n) for n in (frames, height, width, 3))
    t, y, x, c = np.meshgrid(*axes, indexing="ij")
    pixels = (x * 3 + y * 5 + c * 11 + t * change + (t * t * x) % 7) % 256
    return torch.from_numpy(pixels).movedim(-1, 1).float() / 255


class FormulaFlow(FlowModel):
    """The n-th pair that it is asked for gets the n-th flow."""

    name, min_size, multiple = "formula", 1, 1

    def __init__(self, scale: float):
        super().__init__()
        self.scale, self.asked = scale, 0

    def estimate(self, a, b):
        t, y, x = np.meshgrid(
            np.arange(self.asked, self.asked + len(a)), *(np.arange(n) for n in a.shape[-2:]), indexing="ij"
        )
        self.asked += len(a)
        u = ((x * 7 + y * 3 + t * 13) % 31 / 31.0 - 0.5) * self.scale * (1 + t % 5)
        v = ((x * 2 + y * 11 + t * 5) % 29 / 29.0 - 0.5) * self.scale
        return torch.from_numpy(np.stack([u, v], 1)).float()


@pytest.mark.parametrize("change", FLICKERING)
def test_temporal_flickering_is_vbenchs(change, tmp_path):
    def temporal_flickering(video: torch.Tensor) -> float:
        return measure_video(video, FormulaFlow(1.0)).metrics.temporal_flickering

    assert temporal_flickering(clip(change)) == pytest.approx(FLICKERING[change], abs=1e-7)
    for number, frame in enumerate(clip(change)):
        to_pil_image(frame).save(tmp_path / f"{number}.png")
    assert temporal_flickering(read_video(tmp_path)[0]) == pytest.approx(FLICKERING[change], abs=1e-7)


@pytest.mark.parametrize("case", DYNAMIC)
def test_dynamic_degree_is_vbenchs(case):
    frames, fps, scale = case
    moves, speed = DYNAMIC[case]
    video = torch.zeros(frames, 3, 48, 64)
    assert measure_video(video, FormulaFlow(scale), fps=fps).metrics.dynamic_degree == moves
    flow = video_flow(video[:: max(1, round(fps / 8))], FormulaFlow(scale))
    assert top_speed(flow).mean().item() == pytest.approx(speed, abs=2e-6)
