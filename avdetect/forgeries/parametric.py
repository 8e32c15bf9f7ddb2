"""Vocoders that keep a handful of numbers per frame: linear prediction, and pitch, envelope and aperiodicity.

Makhoul, "Linear prediction" (1975); Morise et al., "WORLD" (2016), of which this is a small relative with cepstral
envelopes; Valin & Skoglund, "LPCNet" (2019) for a coarse residual.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from avdetect.forgeries.spectra import envelope, istft, stft
from avdetect.forgeries.voicing import excitation, per_sample, pitch, pulses, voiced
from avdetect.types import SAMPLE_RATE, Floats

Rng = np.random.Generator
FFT = 1024


def predictors(spectrum: Tensor, order: int) -> Tensor:
    """Inverse filters [F, T] (complex) of spectra [F, T] by linear prediction of an order."""
    power = spectrum.abs() ** 2
    lags = torch.fft.irfft(power, dim=0)[: order + 1].T  # [T, order + 1]
    lags[:, 0] = lags[:, 0] * 1.0001 + 1e-9
    index = (torch.arange(order)[:, None] - torch.arange(order)).abs()
    solution = torch.linalg.solve(lags[:, index], lags[:, 1:, None])[..., 0]
    taps = torch.cat([torch.ones(len(lags), 1), -solution], 1)
    return torch.fft.rfft(taps, 2 * (len(spectrum) - 1), dim=1).T


def linear_prediction(waveform: Floats, rng: Rng) -> Floats:
    """All-pole filters excited by pulses and noise, or by a residual of few levels."""
    hop, order = int(rng.choice([128, 160, 200])), int(rng.choice([10, 12, 16, 20, 24]))
    spectrum = stft(torch.from_numpy(waveform), FFT, hop)
    inverse = predictors(spectrum, order)
    residual = spectrum * inverse
    if rng.random() < 0.5:
        source = excitation(waveform, rng, hop, float(rng.uniform(0.98, 1.02)), float(rng.uniform(0.02, 0.3)))
        made = stft(torch.from_numpy(source), FFT, hop)
        made = made * predictors(made, 4)  # the source has no colour of its own
        gain = residual.abs().pow(2).mean(0).sqrt() / made.abs().pow(2).mean(0).sqrt().clamp_min(1e-6)
        made = made * gain
    else:
        made = stft(_few_levels(istft(residual, FFT, hop, len(waveform)), rng), FFT, hop)
    return istft(made / inverse, FFT, hop, len(waveform)).numpy()


def _few_levels(residual: Tensor, rng: Rng) -> Tensor:
    """The residual [S] in steps of its own local level, now and then sparse, as analysis-by-synthesis codes it."""
    level = torch.nn.functional.avg_pool1d(residual.abs()[None, None], 161, 1, 80)[0, 0].clamp_min(1e-7)
    step = float(rng.uniform(1.0, 2.4))
    dice = torch.from_numpy(rng.uniform(-0.5, 0.5, len(residual)).astype(np.float32)) * float(
        rng.uniform(0, 0.6)
    )
    return torch.round(residual / level / step + dice) * level * step


def world_like(waveform: Floats, rng: Rng) -> Floats:
    """Pitch, smooth envelope and band-wise aperiodicity, all of them smoothed a little, and back."""
    return resynthesised_with(
        waveform, rng, ratio=float(np.exp(rng.normal(0, 0.02))), formants=1.0, calm=float(rng.uniform(0, 1))
    )


def resynthesised_with(
    waveform: Floats, rng: Rng, *, ratio: float, formants: float, calm: float, colour: Tensor | None = None
) -> Floats:
    """As `world_like`, with the pitch times `ratio`, formants times `formants`, the envelope's log [F] plus `colour`.

    `calm` 0..1: how much pitch and envelope are smoothed over time.
    """
    hop = int(rng.choice([80, 128, 160]))
    magnitude = stft(torch.from_numpy(waveform), FFT, hop).abs()
    hertz, periodicity = pitch(waveform, hop)
    smooth = _calmed(envelope(magnitude, int(rng.integers(32, 64))), round(2 * calm))
    smooth = warped(smooth, formants)
    if colour is not None:
        smooth = smooth * colour.exp()[:, None]
    tone = pulses(np.clip(per_sample(_steadied(hertz, calm) * ratio, hop, len(waveform)), 40, 1000))
    harmonic = _whitened(stft(torch.from_numpy(tone), FFT, hop))
    noise = _whitened(stft(torch.from_numpy(rng.standard_normal(len(waveform), dtype=np.float32)), FFT, hop))
    share = _harmonic_share(periodicity, magnitude.shape[1], rng)
    made = smooth * (share.sqrt() * harmonic + (1 - share).sqrt() * noise)
    return istft(made, FFT, hop, len(waveform)).numpy()


def _whitened(spectrum: Tensor) -> Tensor:
    """Spectra [F, T] with every frame of unit power."""
    return spectrum / spectrum.abs().pow(2).mean(0).sqrt().clamp_min(1e-6)


def _steadied(hertz: Floats, calm: float) -> Floats:
    reach = 1 + 2 * round(3 * calm)
    kernel = np.ones(reach) / reach
    return np.convolve(np.pad(hertz, reach // 2, mode="edge"), kernel, "valid").astype(np.float32)


def _calmed(smooth: Tensor, reach: int) -> Tensor:
    if not reach:
        return smooth
    width = 2 * reach + 1
    log = torch.nn.functional.avg_pool1d(smooth.log()[None], width, 1, reach, count_include_pad=False)[0]
    return log.exp()


def _harmonic_share(periodicity: Floats, steps: int, rng: Rng) -> Tensor:
    """[F, T] in 0..1: the power that is harmonic, all of it at the bottom of voiced frames, less with frequency."""
    top = float(rng.uniform(2500, 9000))
    hertz = torch.linspace(0, SAMPLE_RATE / 2, FFT // 2 + 1)[:, None]
    frames = torch.from_numpy(voiced(periodicity)[:steps].astype(np.float32))
    return frames * torch.sigmoid((top - hertz) / (0.15 * top))


def warped(spectra: Tensor, factor: float) -> Tensor:
    """Spectra [F, T] with every frequency `factor` times as high; the topmost bin stands for what lies beyond."""
    if factor == 1.0:
        return spectra
    at = torch.arange(len(spectra)) / factor
    low = at.floor().clamp(0, len(spectra) - 2).long()
    share = (at - low).clamp(0, 1)[:, None]
    return spectra[low] * (1 - share) + spectra[low + 1] * share
