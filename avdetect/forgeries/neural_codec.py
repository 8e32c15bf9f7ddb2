"""Speech through a few codes per frame, as neural codecs have it and the models that speak in their codes.

Envelopes become the nearest of a small book of them, fine structure and phase keep a few levels, and the top of the
band is made up. Zeghidour et al., "SoundStream" (2021); Défossez et al., "High fidelity neural audio
compression" (2022).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from avdetect.forgeries.spectra import envelope, istft, made_consistent, stft
from avdetect.types import Floats

Rng = np.random.Generator
FRAMES = ((640, 160), (853, 213), (1280, 320))
"""Transform lengths and hops: 100, 75 and 50 frames a second."""
COEFFICIENTS = 28


def neural_codec(waveform: Floats, rng: Rng) -> Floats:
    """The waveform [S] through a random codec of that kind."""
    fft, hop = FRAMES[int(rng.integers(len(FRAMES)))]
    spectrum = stft(torch.from_numpy(waveform), fft, hop)
    magnitude = spectrum.abs().clamp_min(1e-6)
    smooth = envelope(magnitude, COEFFICIENTS)
    fine = (magnitude / smooth).log()
    coded = _from_book(smooth.log(), rng) + _in_steps(fine, float(rng.uniform(0.5, 1.6)), rng)
    edge = float(rng.uniform(0.25, 0.9)) * len(coded)
    above = torch.arange(len(coded))[:, None] > edge
    noise = torch.from_numpy(rng.standard_normal(tuple(fine.shape), dtype=np.float32))
    coded = torch.where(above, coded - _in_steps(fine, 1.0, rng) + 0.55 * noise, coded)
    phase = torch.where(
        above, 3.1 * noise, _in_steps(spectrum.angle(), 2 * np.pi / int(rng.choice([4, 6, 8])), rng)
    )
    made = made_consistent(
        torch.polar(coded.exp(), phase), coded.exp(), fft, hop, len(waveform), int(rng.choice([0, 1, 2]))
    )
    return istft(made, fft, hop, len(waveform)).numpy()


def _in_steps(values: Tensor, step: float, rng: Rng) -> Tensor:
    return torch.round(values / step + float(rng.uniform(-0.2, 0.2))) * step


def _from_book(log: Tensor, rng: Rng) -> Tensor:
    """Log envelopes [F, T] as the nearest of a few of their own, in one or two stages, levels kept in 1.5 dB steps."""
    level = log.mean(0, keepdim=True)
    left, total = (log - level).T, torch.zeros_like(log.T)
    for stage in range(int(rng.choice([1, 2, 2, 3]))):
        size = min(len(left), int(rng.choice([12, 24, 48])) // (stage + 1))
        entries = _book(left, size, rng)
        nearest = torch.cdist(left, entries).argmin(1)
        total, left = total + entries[nearest], left - entries[nearest]
    return total.T + _in_steps(level, 0.17, rng)


def _book(rows: Tensor, size: int, rng: Rng) -> Tensor:
    """`size` rows that stand for all of `rows` [T, F]: drawn, then moved to the middle of their neighbours once."""
    entries = rows[torch.from_numpy(rng.permutation(len(rows))[:size])]
    nearest = torch.cdist(rows, entries).argmin(1)
    member = torch.nn.functional.one_hot(nearest, size).float()
    return (member.T @ rows) / member.sum(0)[:, None].clamp_min(1.0)
