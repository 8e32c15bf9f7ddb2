"""Spectra of speech as vocoders see them: short-time transforms, mel bands, envelopes, blends of two voices."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

import avdetect.compat  # noqa: F401  (must stand before torchaudio)
from avdetect.types import SAMPLE_RATE, Floats

Rng = np.random.Generator


def stft(x: Tensor, fft: int, hop: int) -> Tensor:
    """Complex spectra [F, T] of a waveform [S], Hann window."""
    return torch.stft(x, fft, hop, window=torch.hann_window(fft), return_complex=True)


def istft(spectrum: Tensor, fft: int, hop: int, length: int) -> Tensor:
    """Waveform [length] of spectra [F, T]."""
    return torch.istft(spectrum, fft, hop, window=torch.hann_window(fft), length=length)


@lru_cache(maxsize=64)
def mel_filters(fft: int, bands: int) -> Tensor:
    """Mel filters [bands, F] of unit area for the bins of a transform."""
    from torchaudio.functional import melscale_fbanks

    filters: Tensor = melscale_fbanks(fft // 2 + 1, 0.0, SAMPLE_RATE / 2, bands, SAMPLE_RATE, norm="slaney").T
    return filters


@lru_cache(maxsize=64)
def _mel_inverse(fft: int, bands: int) -> Tensor:
    """Their pseudo-inverse [F, bands]."""
    return torch.linalg.pinv(mel_filters(fft, bands))


def through_mel(magnitude: Tensor, fft: int, bands: int) -> Tensor:
    """Magnitude [F, T] as it comes back from `bands` mel bands (least squares, clipped at zero)."""
    seen = mel_filters(fft, bands) @ magnitude
    return (_mel_inverse(fft, bands) @ seen).clamp_min(1e-7)


def random_frame(rng: Rng) -> tuple[int, int]:
    """Transform length and hop, as vocoders have them at 16 kHz."""
    fft = int(rng.choice([512, 800, 1024]))
    return fft, fft // int(rng.choice([4, 4, 5, 8])) if fft != 800 else 200


def random_bands(rng: Rng, fft: int) -> int:
    """As vocoders have them; no more than the transform's bins can fill."""
    return int(rng.choice([48, 64, 80] if fft <= 512 else [64, 80, 80, 100]))


def envelope(magnitude: Tensor, coefficients: int) -> Tensor:
    """Smooth spectra [F, T] of magnitudes [F, T]: power averaged over some 200 Hz, then the first `coefficients` of the
    cepstrum; so harmonics count by their power, not by the gaps between them.
    """
    reach = max(1, round(100 / (SAMPLE_RATE / 2) * len(magnitude)))
    power = torch.nn.functional.avg_pool1d(
        magnitude.T[None] ** 2, 2 * reach + 1, 1, reach, count_include_pad=False
    )[0].T
    cepstrum = torch.fft.irfft(0.5 * power.clamp_min(1e-12).log(), dim=0)
    lifter = torch.zeros(len(cepstrum), 1)
    lifter[:coefficients] = lifter[len(cepstrum) - coefficients + 1 :] = 1.0
    return torch.fft.rfft(cepstrum * lifter, dim=0).real.exp()


def made_consistent(
    spectrum: Tensor, magnitude: Tensor, fft: int, hop: int, length: int, turns: int
) -> Tensor:
    """The spectra after `turns` steps of Griffin & Lim (1984) towards `magnitude`."""
    for _ in range(turns):
        again = stft(istft(spectrum, fft, hop, length), fft, hop)
        spectrum = magnitude * again / again.abs().clamp_min(1e-7)
    return spectrum


def towards(original: Floats, forged: Floats, strength: float) -> Floats:
    """Waveform [S] between two that say the same at the same time: `strength` 0 the one, 1 the other.

    Spectra are blended in log magnitude and in phase, so that nothing cancels.
    """
    if strength >= 1 or strength <= 0:
        return forged if strength >= 1 else original
    a, b = (stft(torch.from_numpy(np.ascontiguousarray(x)), 1024, 256) for x in (original, forged))
    magnitude = a.abs().clamp_min(1e-7) ** (1 - strength) * b.abs().clamp_min(1e-7) ** strength
    turn = (b * a.conj()).angle()
    return istft(torch.polar(magnitude, a.angle() + strength * turn), 1024, 256, len(original)).numpy()


def levelled(waveform: Floats, like: Floats) -> Floats:
    """The waveform at the other's level (RMS), finite."""
    out = np.nan_to_num(waveform).astype(np.float32)
    gain = float(np.sqrt(np.mean(like**2)) / (np.sqrt(np.mean(out**2)) + 1e-8))
    return out * np.float32(gain)
