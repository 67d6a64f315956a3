"""High dynamic range, as phones and televisions have it, to the sRGB that video models know (ITU-R BT.2100-2)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Curve = Literal["pq", "hlg"]
HDR: dict[int, Curve] = {16: "pq", 18: "hlg"}  # FFmpeg's AVCOL_TRC_SMPTE2084 and AVCOL_TRC_ARIB_STD_B67
WHITE = 203.0  # cd/m2 of a white page (ITU-R BT.2408): 1 in sRGB, and brighter lights are cut
# Linear BT.2020 to linear BT.709 (ITU-R BT.2087).
TO_709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32)
LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)


def to_sdr(signal: NDArray[Any], curve: Curve, wide: bool = True) -> NDArray[np.uint8]:
    """A picture (H, W, 3) in [0, 1] as it is stored -> (H, W, 3) uint8, sRGB.

    Args:
        curve: what its numbers mean. wide: its primaries are BT.2020's.
    """
    light = (_pq(signal) if curve == "pq" else _hlg(signal)) / WHITE
    light = np.clip(light @ TO_709.T if wide else light, 0, 1)
    srgb = np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)
    return (srgb * 255).round().astype(np.uint8)


def _pq(signal: NDArray[Any]) -> NDArray[Any]:
    """Cd/m2 of the perceptual quantiser."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    root = signal.clip(0, 1) ** (1 / m2)
    return 10000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)


def _hlg(signal: NDArray[Any]) -> NDArray[Any]:
    """Cd/m2 of hybrid log-gamma on a display of 1000 cd/m2."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luma = (scene @ LUMA)[..., None]
    return 1000 * np.maximum(luma, 1e-9) ** 0.2 * scene
