"""Flow that is varied stays as real as it was; flow that is disturbed differs from it, somewhere and not evenly."""

from __future__ import annotations

import torch

from research.general.variety import disturb, prepare, vary


def pans(count: int = 32, size: int = 64) -> torch.Tensor:
    """Uniform motion, a direction and speed for each flow."""
    return 3 * torch.randn(count, 2, 1, 1, generator=torch.Generator().manual_seed(1)).expand(-1, -1, size, size)


def bend(flow: torch.Tensor) -> torch.Tensor:
    """Second differences (B,), px: 0 for every camera that pans, turns or zooms."""
    return torch.stack([flow.diff(n=2, dim=dim).abs().amax(dim=(1, 2, 3)) for dim in (2, 3)]).amax(0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_varied_pans_are_still_motion_of_a_camera():
    varied = vary(pans(), generator())
    assert bend(varied).max() < 1e-3
    assert not torch.allclose(varied, pans())


def test_no_motion_stays_none():
    assert vary(torch.zeros(16, 2, 64, 64), generator()).abs().max() == 0


def uneven(flow: torch.Tensor) -> torch.Tensor:
    """By how many px pixels of a flow move differently (B,); 0 for a pan."""
    return flow.std(dim=(2, 3)).amax(1)


def test_a_disturbed_pan_is_uneven_and_repeats():
    faulty = disturb(pans(), generator())
    assert uneven(pans()).max() < 1e-4 and uneven(faulty).min() > 0.01
    assert torch.equal(faulty, disturb(pans(), generator()))
    assert not torch.equal(faulty, disturb(pans(), generator(1)))


def test_some_faults_leave_most_of_the_picture_alone():
    touched = ((disturb(pans(), generator()) - pans()).norm(dim=1) > 0.05).float().mean(dim=(1, 2))
    assert touched.min() < 0.5 < touched.max()


def test_half_of_the_generated_side_is_made_of_the_batch_s_real_flow():
    still = torch.zeros(8, 2, 64, 64)
    real, fake = prepare(pans(8), still, generator())
    assert real.shape == fake.shape == still.shape
    assert bend(real).max() < 1e-3 and bend(fake[4:]).max() < 1e-3 and uneven(fake[:4]).min() > 0.01


def test_rows_of_flows_are_varied_alike():
    """Both flows of a row are mirrored, zoomed and sped up together: what was the same stays nearly the same."""
    rows = pans().repeat(1, 2, 1, 1)
    varied = vary(rows, generator())
    first, second = varied[:, :2], varied[:, 2:]
    assert bend(first).max() < 1e-3 and bend(second).max() < 1e-3
    shake = (second - first).flatten(1).norm(dim=1) / first.flatten(1).norm(dim=1)
    assert shake.median() < 0.05 < shake.max()


def test_a_disturbed_row_changes_its_motion():
    rows = pans().repeat(1, 2, 1, 1)
    change = disturb(rows, generator()) - rows
    assert (change[:, :2] - change[:, 2:]).abs().amax(dim=(1, 2, 3)).min() > 0.01
    taken_back = (change[:, :2] + change[:, 2:]).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert 0 < taken_back.float().mean() < 0.6
