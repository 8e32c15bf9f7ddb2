"""Filter banks and windows, made once per device.

They are no buffers of a model, which is built on the meta device when it is loaded.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

import avdetect.compat  # noqa: F401  (must stand before torchaudio)
from avdetect.types import SAMPLE_RATE

FFT = 512
"""Points of a short-time transform at 16 kHz: 32 ms; of longer windows it has more."""


@cache
@torch.inference_mode(False)  # what is first made for a verdict can be trained with too
def linear_bands(bands: int, low: float, high: float, device: torch.device, points: int = FFT) -> Tensor:
    """Triangular filters [points // 2 + 1, bands] of a transform, evenly spaced from `low` to `high` Hz."""
    from torchaudio.functional import linear_fbanks

    filters: Tensor = linear_fbanks(points // 2 + 1, low, high, bands, SAMPLE_RATE)
    return filters.to(device)


@cache
@torch.inference_mode(False)
def mel_bands(bands: int, low: float, high: float, device: torch.device) -> Tensor:
    """Triangular filters [FFT // 2 + 1, bands], evenly spaced on the mel scale from `low` to `high` Hz."""
    from torchaudio.functional import melscale_fbanks

    filters: Tensor = melscale_fbanks(FFT // 2 + 1, low, high, bands, SAMPLE_RATE)
    return filters.to(device)


@cache
@torch.inference_mode(False)
def hann(length: int, device: torch.device) -> Tensor:
    """A Hann window [length]."""
    return torch.hann_window(length, device=device)
