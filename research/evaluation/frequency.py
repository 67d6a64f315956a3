"""Low frequencies of one video, high ones of another: FreeInit's noise, which VideoGuide uses as well."""

from __future__ import annotations

import torch
from torch import Tensor


def low_pass(shape: tuple[int, int, int], stop: float, order: int = 4) -> Tensor:
    """Butterworth filter over time, height and width, (F, 1, h, w), for an unshifted FFT.

    Args:
        shape: F, h, w. stop: where half is let through, as a share of the highest frequency.
    """
    axes = torch.meshgrid(*(2 * torch.fft.fftfreq(n) for n in shape), indexing="ij")
    squared = torch.stack(axes).square().sum(dim=0) / stop**2
    return (1 / (1 + squared**order)).unsqueeze(1)


def mix(low: Tensor, high: Tensor, stop: float) -> Tensor:
    """The low frequencies of `low` and the high ones of `high`, both (F, C, h, w)."""
    axes = (0, 2, 3)
    frames, _, height, width = low.shape
    keep = low_pass((frames, height, width), stop)
    spectrum = torch.fft.fftn(low, dim=axes) * keep + torch.fft.fftn(high, dim=axes) * (1 - keep)
    return torch.fft.ifftn(spectrum, dim=axes).real
