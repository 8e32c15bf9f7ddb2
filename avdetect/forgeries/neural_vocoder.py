"""The habits of neural vocoders: a spectrum seen through mel bands and smoothed on top, phases of their own making,
and what transposed convolutions leave at the hop's rate and its multiples.

The phase designs follow those of the field: harmonics of a source signal (NSF, HiFTNet), phases that advance by
themselves (iSTFTNet, Vocos), noise that a few steps make consistent (diffusion and flow vocoders). Sun et al.,
"AI-synthesized voice detection using neural vocoder artifacts" (2023); Pons et al., "Upsampling artifacts in neural
audio synthesis" (2021).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from avdetect.forgeries.spectra import istft, made_consistent, random_bands, stft, through_mel
from avdetect.forgeries.voicing import excitation
from avdetect.types import SAMPLE_RATE, Floats

Rng = np.random.Generator
FRAMES = ((1024, 256), (1024, 200), (800, 200), (1280, 320), (640, 160), (512, 128))
"""Transform lengths and hops of published vocoders, at 16 kHz."""


def _of_source(waveform: Floats, spectrum: Tensor, rng: Rng, fft: int, hop: int) -> Tensor:
    """Phases of a harmonic source, its harmonics spread in time by a smooth random delay."""
    source = excitation(waveform, rng, hop, 1.0, float(rng.uniform(0.0, 0.3)))
    delay = np.interp(np.linspace(0, 1, spectrum.shape[0]), np.linspace(0, 1, 6), rng.normal(0, 1.5, 6))
    return (
        stft(torch.from_numpy(source), fft, hop).angle() + torch.from_numpy(delay.astype(np.float32))[:, None]
    )


def _advancing(waveform: Floats, spectrum: Tensor, rng: Rng, fft: int, hop: int) -> Tensor:
    """Each bin turns as fast as it did, from a random start: harmonics no longer meet in a pulse."""
    phase = spectrum.angle()
    start = torch.from_numpy(rng.uniform(-np.pi, np.pi, spectrum.shape[0]).astype(np.float32))
    drift = torch.from_numpy(rng.standard_normal(tuple(phase.shape), dtype=np.float32)) * float(
        rng.uniform(0, 0.3)
    )
    return phase + float(rng.uniform(0.3, 1.0)) * start[:, None] + drift.cumsum(1)


def _noisy(waveform: Floats, spectrum: Tensor, rng: Rng, fft: int, hop: int) -> Tensor:
    """Noise, with what is left of the true phase at low frequencies."""
    noise = torch.from_numpy(rng.uniform(-np.pi, np.pi, tuple(spectrum.shape)).astype(np.float32))
    ramp = (torch.linspace(0, 1, spectrum.shape[0]) / float(rng.uniform(0.05, 0.7))).clamp(0, 1)
    return spectrum.angle() + ramp[:, None] * noise


def _held(waveform: Floats, spectrum: Tensor, rng: Rng, fft: int, hop: int) -> Tensor:
    """Every bin at its own centre frequency, as if each frame began anew: a buzz at the hop's rate."""
    steps = torch.arange(spectrum.shape[1]) * hop
    turn = 2 * torch.pi * torch.arange(spectrum.shape[0])[:, None] / fft * steps
    mix = float(rng.uniform(0.25, 0.8))
    return torch.angle(
        (1 - mix) * torch.polar(torch.ones_like(turn), spectrum.angle()) + mix * torch.exp(1j * turn)
    )


PHASES: dict[Callable[[Floats, Tensor, Rng, int, int], Tensor], float] = {
    _of_source: 0.35,
    _advancing: 0.3,
    _noisy: 0.25,
    _held: 0.1,
}
"""Phase design -> share."""


def neural_vocoder(waveform: Floats, rng: Rng) -> Floats:
    """The waveform [S] as a neural vocoder of a random design would give it back."""
    fft, hop = FRAMES[int(rng.integers(len(FRAMES)))]
    spectrum = stft(torch.from_numpy(waveform), fft, hop)
    magnitude = _smooth_on_top(_seen(spectrum.abs(), fft, rng), rng)
    design = list(PHASES)[int(rng.choice(len(PHASES), p=list(PHASES.values())))]
    made = torch.polar(magnitude, design(waveform, spectrum, rng, fft, hop))
    made = made_consistent(made, magnitude, fft, hop, len(waveform), int(rng.choice([0, 0, 1, 2])))
    return _with_convolution_traces(istft(made, fft, hop, len(waveform)), hop, rng).numpy()


def _seen(magnitude: Tensor, fft: int, rng: Rng) -> Tensor:
    """Through mel bands, between the true spectrum and what they keep of it."""
    keep = float(rng.choice([0.0, rng.uniform(0.0, 0.7)]))
    seen = through_mel(magnitude, fft, random_bands(rng, fft))
    return seen ** (1 - keep) * magnitude.clamp_min(1e-7) ** keep


def _smooth_on_top(magnitude: Tensor, rng: Rng) -> Tensor:
    """High bands averaged over time and frequency, louder or fainter: what a mean-seeking loss leaves."""
    if rng.random() < 0.3:
        return magnitude
    reach, wide = int(rng.choice([3, 5, 7])), int(rng.choice([1, 3, 5]))
    log = magnitude.clamp_min(1e-7).log()
    pooled = torch.nn.functional.avg_pool2d(
        log[None, None], (wide, reach), 1, (wide // 2, reach // 2), count_include_pad=False
    )[0, 0]
    edge = float(rng.uniform(0.15, 0.7))
    ramp = ((torch.linspace(0, 1, len(log)) - edge) / 0.15).clamp(0, 1)[:, None] * float(
        rng.uniform(0.4, 1.0)
    )
    return (log + ramp * (pooled - log + float(rng.normal(0.2, 0.4)))).exp()


def _with_convolution_traces(waveform: Tensor, hop: int, rng: Rng) -> Tensor:
    """Tones and modulation at the rates of up-sampling layers, and images of the low band in the high one."""
    level = waveform.abs().mean()
    if rng.random() < 0.5:  # louder where the voice is
        level = torch.nn.functional.avg_pool1d(waveform.abs()[None, None], 801, 1, 400)[0, 0]
    time = torch.arange(len(waveform)) / SAMPLE_RATE
    if rng.random() < 0.4:
        for _ in range(int(rng.integers(1, 4))):
            hertz = SAMPLE_RATE / hop * int(rng.choice([1, 2, 4, 8, 16, 32]))
            if hertz < SAMPLE_RATE / 2:
                turn = 2 * torch.pi * hertz * time + float(rng.uniform(0, 6.28))
                waveform = waveform + level * 10 ** float(rng.uniform(-2.8, -1.6)) * torch.sin(turn)
    if rng.random() < 0.4:
        depth = float(rng.uniform(0.01, 0.1))
        waveform = waveform * (1 + depth * torch.cos(2 * torch.pi * SAMPLE_RATE / hop * time))
    if rng.random() < 0.35:
        factor = int(rng.choice([2, 4]))
        stuffed = torch.zeros_like(waveform)
        stuffed[::factor] = waveform[::factor] * factor
        waveform = waveform + 10 ** float(rng.uniform(-2.2, -1.0)) * stuffed
    return waveform
