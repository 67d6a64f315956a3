"""The building blocks of RIFE's flow network."""

from __future__ import annotations

import pytest
import torch

from motionprompt_core.flow.rife import IFNet
from motionprompt_core.media.ops import warp


def test_warp_looks_up_where_the_flow_points():
    image = torch.rand(2, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    flow = torch.tensor((4.0, -3.0)).view(1, 2, 1, 1).expand(2, 2, 20, 30)
    warped = warp(image, flow)
    assert torch.allclose(warped[:, :, 3:, :-4], image[:, :, :-3, 4:], atol=1e-5)
    assert torch.allclose(warped[:, :, :3, :-4], image[:, :, :1, 4:].expand(-1, -1, 3, -1), atol=1e-5)  # border


def test_warp_is_exact_in_half_precision_images():
    """Positions must not be rounded to the image's precision: half a pixel would be lost at 512."""
    ramp = torch.arange(512.0).div(511).view(1, 1, 1, 512).expand(1, 1, 4, 512)
    flow = torch.zeros(1, 2, 4, 512)
    flow[:, 0] = 0.5
    error = (warp(ramp.half(), flow).float() - ramp).mul(511)[..., :-1]
    assert error.mean().item() == pytest.approx(0.5, abs=0.02)


def test_has_the_published_number_of_flow_parameters():
    assert sum(parameter.numel() for parameter in IFNet().parameters()) == pytest.approx(5.16e6, rel=2e-3)
