"""Pitch and periodicity of speech, and the sources that vocoders excite their filters with."""

from __future__ import annotations

import numpy as np
from scipy import fft as fourier
from scipy.ndimage import median_filter

from avdetect.types import SAMPLE_RATE, Floats

Rng = np.random.Generator
LOWEST, HIGHEST = 65.0, 420.0
"""Hz."""
BETWEEN_SEXES = 165.0
"""Hz, between the mean pitch of men (132 Hz) and of women (223 Hz) in Peterson & Barney, "Control methods used in a
study of the vowels" (1952)."""

_RATE = SAMPLE_RATE // 2
_FRAME = 512  # of that: 64 ms, three periods of the lowest voice and more


def pitch(waveform: Floats, hop: int) -> tuple[Floats, Floats]:
    """Hz [T] and periodicity [T] in 0..1 of a waveform [S], a value per `hop` samples, centred on it.

    The highest peak of the autocorrelation of a windowed frame over that of the window (Boersma, "Accurate
    short-term analysis of the fundamental frequency", 1993), low lags preferred, median over five frames.
    """
    half = waveform[: len(waveform) // 2 * 2].reshape(-1, 2).mean(1)
    steps = 1 + len(waveform) // hop
    padded = np.pad(half, _FRAME // 2 + 1).astype(np.float32)
    starts = np.minimum(np.arange(steps) * hop // 2, len(padded) - _FRAME)
    window = np.hanning(_FRAME).astype(np.float32)
    frames = padded[starts[:, None] + np.arange(_FRAME)]
    frames = (frames - frames.mean(1, keepdims=True)) * window
    lags = np.arange(int(_RATE / HIGHEST), int(_RATE / LOWEST) + 2)
    ours, shape = (_autocorrelation(x) for x in (frames, window[None]))
    curve = ours[:, lags] / np.maximum(ours[:, :1], 1e-7) * (shape[:, :1] / shape[:, lags])
    best = (curve * (1 - 0.15 * np.linspace(0, 1, len(lags)))).argmax(1)
    at = np.clip(best, 1, len(lags) - 2)
    rows = np.arange(steps)
    before, here, after = (curve[rows, at + step] for step in (-1, 0, 1))
    bend = before - 2 * here + after
    offset = np.clip(0.5 * (before - after) / np.where(np.abs(bend) < 1e-6, 1e-6, bend), -0.5, 0.5)
    hertz = median_filter(_RATE / (lags[at] + offset), 5)
    loud = frames.std(1) > 0.02 * max(float(np.quantile(frames.std(1), 0.95)), 1e-6)
    return hertz.astype(np.float32), (np.clip(here, 0, 1) * loud).astype(np.float32)


def median_pitch(waveform: Floats) -> float | None:
    """Hz, of the clearly voiced speech in a waveform [S]; None where there is too little of it."""
    hertz, periodicity = pitch(waveform, 256)
    clear = hertz[periodicity > 0.6]
    return float(np.median(clear)) if len(clear) > 4 else None


def same_sex(one: Floats, other: Floats) -> bool:
    """Whether two voices [S] are of one sex as far as pitch tells: both medians below BETWEEN_SEXES, or both above.

    False where either has no pitch. Children count as women.
    """
    ours, theirs = median_pitch(one), median_pitch(other)
    return ours is not None and theirs is not None and (ours < BETWEEN_SEXES) == (theirs < BETWEEN_SEXES)


def _autocorrelation(frames: Floats) -> Floats:
    spectrum = fourier.rfft(frames, 2 * _FRAME)
    return np.asarray(fourier.irfft(np.abs(spectrum) ** 2), np.float32)


def voiced(periodicity: Floats) -> Floats:
    """[T] in 0..1: how much of a frame a pitch explains; a soft step about a periodicity of 0.55."""
    return np.clip((periodicity - 0.4) / 0.3, 0, 1)


def per_sample(values: Floats, hop: int, length: int) -> Floats:
    """A value per hop -> a value per sample [length]."""
    return np.interp(np.arange(length) / hop, np.arange(len(values)), values).astype(np.float32)


def pulses(hertz: Floats) -> Floats:
    """A pulse train [S] of unit power with all harmonics below 7.8 kHz, for a pitch [S] in Hz (Dirichlet's kernel)."""
    turn = np.cumsum(hertz.astype(np.float64) / SAMPLE_RATE) % 1.0
    count = np.floor(7800 / hertz)
    low = np.sin(np.pi * turn)
    kernel = np.where(
        np.abs(low) < 1e-5,
        count,
        0.5 * (np.sin((2 * count + 1) * np.pi * turn) / np.where(low == 0, 1, low) - 1),
    )
    return (kernel / np.sqrt(count / 2)).astype(np.float32)


def sources(waveform: Floats, rng: Rng, hop: int) -> Floats:
    """Pulses, as loud as the speech is voiced, and noise of unit power: [2, S] for speech [S]."""
    hertz, periodicity = pitch(waveform, hop)
    share = per_sample(voiced(periodicity), hop, len(waveform))
    tone = pulses(np.clip(per_sample(hertz, hop, len(waveform)), 40, 1000))
    return np.stack([share * tone, rng.standard_normal(len(waveform), dtype=np.float32)]).astype(np.float32)


def excitation(waveform: Floats, rng: Rng, hop: int, ratio: float = 1.0, breath: float = 0.1) -> Floats:
    """What a vocoder's source gives [S] for this speech: pulses where it is voiced, noise of unit power elsewhere.

    `ratio` raises the pitch, `breath` is the share of noise under the pulses.
    """
    hertz, periodicity = pitch(waveform, hop)
    share = per_sample(voiced(periodicity), hop, len(waveform))
    tone = pulses(np.clip(per_sample(hertz, hop, len(waveform)) * ratio, 40, 1000))
    noise = rng.standard_normal(len(waveform), dtype=np.float32)
    return np.asarray(share * tone + np.sqrt(1 - share + breath**2) * noise, np.float32)
