"""The closed form on real footage, where it is at hand: clean clips come out as they were, faulty ones better."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from motionprompt_core.estimate.steady import steady
from motionprompt_core.flow import load_flow_model
from research.general.faults import apply_fault

# A folder of folders with numbered frames: DAVIS at 448x256, whose terms do not allow that it is copied here.
FOOTAGE = Path(os.environ.get("MOTIONPROMPT_FOOTAGE", "footage"))
# The last three move so fast that flow loses them.
CLEAN = ["camel", "cows", "goat", "dance-twirl", "soapbox", "bmx-trees", "horsejump-high", "libby"]
# Textures that crawl, detail drawn anew in every frame, flicker of light and colour. Of a thing that comes and goes for
# some frames hardly anything is taken away (0.1 dB).
HELPED = ["swim", "boil", "colour_jitter"]

needs_footage = pytest.mark.skipif(not FOOTAGE.is_dir(), reason="set MOTIONPROMPT_FOOTAGE to a folder of frame folders")


def clip(name: str, frames: int = 8) -> Tensor:
    files = sorted((FOOTAGE / name).glob("*.jpg"))[:frames]
    pictures = [torch.from_numpy(np.asarray(Image.open(file).convert("RGB"))) for file in files]
    return torch.stack(pictures).movedim(-1, 1) / 255


def psnr(a: Tensor, b: Tensor) -> float:
    return -10 * math.log10(float((a.clamp(0, 1) - b).square().mean()) + 1e-12)


@needs_footage
@pytest.mark.parametrize("name", CLEAN)
def test_clean_footage_comes_out_as_it_was(name: str) -> None:
    footage = clip(name)
    assert psnr(steady(footage, load_flow_model("lucas_kanade_coarse")), footage) > 40


@needs_footage
@pytest.mark.parametrize("fault", HELPED)
def test_faulty_footage_gets_nearer_to_the_truth(fault: str) -> None:
    footage = clip("camel")
    faulty = apply_fault(fault, footage, 0.5, torch.Generator().manual_seed(1))
    steadied = steady(faulty, load_flow_model("lucas_kanade_coarse"))
    assert psnr(steadied, footage) > psnr(faulty, footage) + 0.2
