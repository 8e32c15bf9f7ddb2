"""One speaker's words in another's voice: pitch, formants and spectral colour, a donor's or drawn at random."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

import avdetect.compat  # noqa: F401  (must stand before torchaudio)
from avdetect.forgeries.parametric import FFT, resynthesised_with, warped
from avdetect.forgeries.spectra import envelope, istft, stft
from avdetect.forgeries.voicing import median_pitch
from avdetect.types import Floats

Rng = np.random.Generator


def voice_converted(waveform: Floats, rng: Rng, donor: Floats | None = None) -> Floats:
    """The waveform [S] in another voice, in time with itself: that of `donor` [D], or one that is drawn."""
    semitones = float(rng.uniform(1.5, 7.0)) * float(rng.choice([-1, 1]))
    ratio, formants = (
        2 ** (semitones / 12),
        float(np.clip(2 ** (semitones / 40) + rng.normal(0, 0.03), 0.8, 1.25)),
    )
    colour = _random_colour(rng)
    if donor is not None and len(donor) >= 2 * FFT:
        ratio = float(np.clip((median_pitch(donor) or 150.0) / (median_pitch(waveform) or 150.0), 0.5, 2.0))
        formants = float(np.clip(ratio**0.3, 0.82, 1.22))
        colour = (_mean_colour(donor) - _mean_colour(waveform)).clamp(-1.4, 1.4) * float(
            rng.uniform(0.5, 1.0)
        )
    if rng.random() < 0.5:
        return resynthesised_with(
            waveform, rng, ratio=ratio, formants=formants, calm=float(rng.uniform(0, 1)), colour=colour
        )
    return _filtered(waveform, rng, ratio, formants, colour)


def _random_colour(rng: Rng) -> Tensor:
    """[F] in log magnitude: smooth, up to some 8 dB."""
    knots = np.clip(rng.normal(0, 0.35, 8), -0.9, 0.9)
    curve = np.interp(np.linspace(0, 1, FFT // 2 + 1), np.linspace(0, 1, 8), knots)
    return torch.from_numpy(curve.astype(np.float32))


def _mean_colour(waveform: Floats) -> Tensor:
    """Mean log envelope [F] of the louder half of the frames, without their level."""
    magnitude = stft(torch.from_numpy(np.ascontiguousarray(waveform)), FFT, 256).abs()
    level = magnitude.mean(0)
    log = envelope(magnitude[:, level >= level.median()], 24).log().mean(1)
    return log - log.mean()


def _filtered(waveform: Floats, rng: Rng, ratio: float, formants: float, colour: Tensor) -> Floats:
    """The speech's own fine structure moved in pitch by a phase vocoder, under an envelope of the new voice."""
    from torchaudio.functional import phase_vocoder

    hop = int(rng.choice([128, 256]))
    x = torch.from_numpy(waveform)
    spectrum = stft(x, FFT, hop)
    wanted = warped(envelope(spectrum.abs(), int(rng.integers(28, 48))), formants) * colour.exp()[:, None]
    # longer by the ratio, then played faster by it: the same length at another pitch
    advance = torch.linspace(0, torch.pi * hop, FFT // 2 + 1)[:, None]
    longer = istft(phase_vocoder(spectrum, 1 / ratio, advance), FFT, hop, round(len(waveform) * ratio))
    at = np.linspace(0, len(longer) - 1, len(waveform))
    moved = stft(
        torch.from_numpy(np.interp(at, np.arange(len(longer)), longer.numpy()).astype(np.float32)), FFT, hop
    )
    fine = moved / envelope(moved.abs(), 32).clamp_min(1e-5)
    return istft(fine * wanted, FFT, hop, len(waveform)).numpy()
