"""Sound degraded: `(waveform [S], setting, rng) -> waveform`, float32 at 16 kHz."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from scipy import signal

from avdetect.degradations.family import Coding, Rng
from avdetect.errors import MediaError
from avdetect.media import open_clip
from avdetect.speech import speech_mask, speech_segments
from avdetect.types import SAMPLE_RATE, Floats
from avdetect.writing import write_clip

FADE = SAMPLE_RATE // 200
"""Samples (5 ms) over which pieces are faded where they were cut."""
VOICES = 8
"""Voices in a babble."""
GRID = 100
"""Steps per second on which speech is marked."""


def coded(waveform: Floats, setting: Coding, rng: Rng) -> Floats:
    """Written through a real encoder and read back, cut or padded to its length."""
    given = waveform
    if setting.rate != SAMPLE_RATE:
        given = signal.resample_poly(waveform, setting.rate, SAMPLE_RATE)
    with tempfile.TemporaryDirectory(prefix="avdetect-") as folder:
        path = write_clip(
            Path(folder, f"sound{setting.suffix}"),
            waveform=np.asarray(given, np.float32),
            sample_rate=setting.rate,
            audio_codec=setting.encoder,
            audio_bit_rate=setting.bit_rate,
        )
        heard = open_clip(path).waveform
    if heard is None:
        raise MediaError(path, f"{setting.encoder} left no sound of it", "leave the clip out")
    return _fit(heard, waveform.size)


def chained(waveform: Floats, setting: tuple[Coding, ...], rng: Rng) -> Floats:
    """Several encoders, one after the other, as a message that is forwarded."""
    for coding in setting:
        waveform = coded(waveform, coding, rng)
    return waveform


def trimmed(waveform: Floats, setting: str, rng: Rng) -> Floats:
    """Without what silero-vad calls no speech: before the first and after the last word ("edges"), or all of it."""
    spans = [
        (round(s.start * SAMPLE_RATE), round(s.end * SAMPLE_RATE)) for s in speech_segments(waveform).segments
    ]
    if not spans:
        return waveform
    if setting == "edges":
        spans = [(spans[0][0], spans[-1][1])]
    return np.concatenate([_faded(waveform[first:end]) for first, end in spans])


def shortened(waveform: Floats, setting: float, rng: Rng) -> Floats:
    """The `setting` seconds with the most speech in them; a shorter clip as it is."""
    size = round(setting * SAMPLE_RATE)
    if waveform.size <= size:
        return waveform
    step = SAMPLE_RATE // GRID
    mask = speech_mask(speech_segments(waveform).segments, 0.0, waveform.size // step, GRID)
    total = np.concatenate([[0], np.cumsum(mask)])
    length = size // step
    first = int(np.argmax(total[length:] - total[:-length])) * step
    return waveform[first : first + size]


def noisy(waveform: Floats, setting: tuple[str, float], rng: Rng) -> Floats:
    """Noise of a colour ("white", "pink", "babble"), so many dB below the level of the speech."""
    colour, decibels = setting
    noise = babble(waveform, rng) if colour == "babble" else _coloured(waveform.size, colour, rng)
    gain = speech_level(waveform) / max(float(np.std(noise)), 1e-9) * 10 ** (-decibels / 20)
    return np.clip(waveform + noise * np.float32(gain), -1, 1).astype(np.float32)


def speech_level(waveform: Floats) -> float:
    """RMS of the loudest half of the clip's 20 ms frames: pauses do not count."""
    frame = SAMPLE_RATE // 50
    whole = waveform[: max(1, waveform.size // frame) * frame]
    parts = np.array_split(whole, max(1, whole.size // frame))
    power = [float(np.mean(np.square(part, dtype=np.float64))) for part in parts]
    return float(np.sqrt(np.mean(sorted(power)[len(power) // 2 :])))


def babble(waveform: Floats, rng: Rng) -> Floats:
    """Other people talking, made of the clip's own voice: reversed, rolled and re-pitched copies, summed [S]."""
    total = np.zeros(waveform.size, np.float32)
    for _ in range(VOICES):
        pitched = _resampled(waveform[::-1], float(rng.uniform(0.85, 1.15)))
        total += np.roll(np.resize(pitched, waveform.size), int(rng.integers(waveform.size)))
    return total


def _coloured(size: int, colour: str, rng: Rng) -> Floats:
    white = rng.standard_normal(size, dtype=np.float32)
    if colour == "white":
        return white
    spectrum = np.fft.rfft(white) / np.sqrt(np.maximum(np.arange(size // 2 + 1), 1))
    return np.fft.irfft(spectrum, size).astype(np.float32)


def reverberant(waveform: Floats, setting: float, rng: Rng) -> Floats:
    """A synthetic room: noise that decays by 60 dB in `setting` seconds, as loud as the direct sound before it.

    The model of Polack for late reverberation; real rooms also have early reflections.
    """
    size = round(setting * SAMPLE_RATE)
    tail = rng.standard_normal(size) * 10 ** (-3 * np.arange(size) / size)
    response = np.concatenate([[1.0], tail / np.linalg.norm(tail)])
    wet = signal.fftconvolve(waveform, response)[: waveform.size]
    return _no_louder(wet.astype(np.float32), waveform)


def band_limited(waveform: Floats, setting: float, rng: Rng) -> Floats:
    """Nothing above `setting` Hz: an eighth-order Butterworth filter, forwards and backwards."""
    filters = signal.butter(8, setting, fs=SAMPLE_RATE, output="sos")
    padding = min(waveform.size - 1, 3 * 2 * len(filters))
    return signal.sosfiltfilt(filters, waveform, padlen=padding).astype(np.float32)


def sped(waveform: Floats, setting: float, rng: Rng) -> Floats:
    """Played `setting` times as fast, its pitch with it."""
    return _resampled(waveform, setting)


def levelled(waveform: Floats, setting: float, rng: Rng) -> Floats:
    """`setting` dB louder, clipped at full scale as a microphone does it, and rounded to 16 bits."""
    louder = np.clip(waveform * np.float32(10 ** (setting / 20)), -1, 1)
    return (np.round(louder * 32767) / 32767).astype(np.float32)


def _resampled(waveform: Floats, speed: float) -> Floats:
    up = 100
    return signal.resample_poly(waveform, up, round(speed * up)).astype(np.float32)


def _no_louder(waveform: Floats, reference: Floats) -> Floats:
    """At the reference's level."""
    gain = np.std(reference) / max(float(np.std(waveform)), 1e-9)
    return np.clip(waveform * np.float32(gain), -1, 1)


def _faded(piece: Floats) -> Floats:
    fade = min(FADE, piece.size // 2)
    ramp = np.linspace(0, 1, fade + 2, dtype=np.float32)[1:-1]
    out = piece.copy()
    out[:fade] *= ramp
    out[out.size - fade :] *= ramp[::-1]
    return out


def _fit(waveform: Floats, size: int) -> Floats:
    return np.pad(waveform[:size], (0, max(0, size - waveform.size)))
