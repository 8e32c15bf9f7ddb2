"""Copy synthesis by the trained vocoders of `vocoders.py`, and by what stands before or after one in a generator.

Speech that a trained network spoke again from its own mel spectra is the fake that teaches most: Wang & Yamagishi,
"Spoofed training data for voice spoofing countermeasure can be efficiently created using neural vocoders" (2023).
Acoustic models give a vocoder a spectrum that is too smooth (Kim et al., "Glow-TTS", 2020, and all that average),
language models one that went through a few codes (Wang et al., "VALL-E", 2023), and samplers that stop early leave
noise where the speech is (Kong et al., "DiffWave", 2021).

`(waveform [S], rng) -> waveform [S]`, float32 at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from avdetect.forgeries.spectra import istft, made_consistent, random_bands, stft, through_mel
from avdetect.forgeries.vocoders import BANDS, HOP, MEL_FFT, WEIGHTS, load, names, speak
from avdetect.forgeries.voicing import sources
from avdetect.types import Floats

Rng = np.random.Generator
Change = Callable[[Tensor, Rng], Tensor]
"""What is done to log mel spectra [BANDS, T] before they are spoken."""


def fourier_vocoder(waveform: Floats, rng: Rng) -> Floats:
    """Copy synthesis by a network that filters spectra."""
    return spoken_again(waveform, rng, "fourier")


def acoustic_model(waveform: Floats, rng: Rng) -> Floats:
    """A vocoder behind a spectrum that was averaged over time, bands and, towards the mean, in its range."""
    return spoken_again(waveform, rng, change=_averaged)


def codec_model(waveform: Floats, rng: Rng) -> Floats:
    """A vocoder behind a spectrum that a few numbers in steps were left of."""
    return spoken_again(waveform, rng, change=_coded)


def diffusion_vocoder(waveform: Floats, rng: Rng) -> Floats:
    """A vocoder with noise that follows the speech and a floor that does not."""
    made = torch.from_numpy(spoken_again(waveform, rng))
    fft, hop = 1024, 256
    noise = stft(torch.from_numpy(rng.standard_normal(len(made), dtype=np.float32)), fft, hop)
    noise = noise / noise.abs().pow(2).mean().sqrt()
    magnitude = stft(made, fft, hop).abs()
    follows = through_mel(magnitude, fft, random_bands(rng, fft)) * 10 ** float(rng.uniform(-1.6, -0.6))
    floor = magnitude.pow(2).mean().sqrt() * 10 ** float(rng.uniform(-3.5, -2.0))
    tilt = torch.linspace(0, 1, len(noise))[:, None] ** float(rng.uniform(0, 1))
    return (made + istft(noise * (follows * tilt + floor), fft, hop, len(made))).numpy()


def spoken_again(waveform: Floats, rng: Rng, design: str = "", change: Change | None = None) -> Floats:
    """The waveform [S] as a shipped vocoder (one of `design`, where given) speaks it after a change of its spectrum.

    Half of the time the vocoder works at a higher rate than 16 kHz, as most do: its traces then lie lower in pitch and
    time. Some of the time magnitudes are drawn towards the true ones, as far larger networks have them.
    """
    files = [name for name in names() if name.startswith(design)]
    vocoder = load(WEIGHTS / f"{files[int(rng.integers(len(files)))]}.safetensors")
    stretch = 1.0 if rng.random() < 0.5 else float(rng.uniform(1.0, 1.3))
    least = max(round(len(waveform) * stretch), MEL_FFT)
    peak = float(np.abs(waveform).max()) + 1e-6
    level = 10 ** float(rng.uniform(-0.9, -0.1)) / peak
    heard = _at_length(torch.from_numpy(waveform) * level, least)
    excited = torch.from_numpy(sources(heard.numpy(), rng, HOP))
    altered = None if change is None else lambda mel: change(mel, rng)
    made = _at_length(speak(vocoder, heard, excited, altered), len(waveform)) / level
    if rng.random() < 0.4:
        made = _drawn_towards(torch.from_numpy(waveform), made, float(rng.uniform(0.2, 0.8)))
    return made.numpy()


def _at_length(waveform: Tensor, length: int) -> Tensor:
    """The waveform played over `length` samples; nothing above the lower of both rates' bands is left."""
    if length == len(waveform):
        return waveform
    spectrum = torch.fft.rfft(waveform)
    return torch.fft.irfft(spectrum, length) * (length / len(waveform))


def _drawn_towards(waveform: Tensor, made: Tensor, share: float) -> Tensor:
    """Speech with the phase of `made` and magnitudes `share` of the way to those of `waveform`."""
    fft, hop = 640, 160
    true, ours = stft(waveform, fft, hop).abs(), stft(made, fft, hop)
    magnitude = true.clamp_min(1e-7) ** share * ours.abs().clamp_min(1e-7) ** (1 - share)
    spectrum = torch.polar(magnitude, ours.angle())
    return istft(made_consistent(spectrum, magnitude, fft, hop, len(made), 1), fft, hop, len(made))


def _averaged(mel: Tensor, rng: Rng) -> Tensor:
    frames, bands = int(rng.choice([1, 3, 5, 7, 9])), int(rng.choice([1, 3, 5]))
    if frames == bands == 1:
        frames = 5
    pooled = avg_pool2d(
        mel[None, None], (bands, frames), 1, (bands // 2, frames // 2), count_include_pad=False
    )[0, 0]
    mel = mel + float(rng.uniform(0.4, 1.0)) * (pooled - mel)
    middle = mel.mean(1, keepdim=True)
    return middle + float(rng.uniform(0.8, 1.0)) * (mel - middle)


def _coded(mel: Tensor, rng: Rng) -> Tensor:
    kept, every = int(rng.integers(14, 48)), int(rng.choice([1, 2, 2]))
    numbers = _cosines()[:kept] @ mel
    if every == 2:  # a number for two frames
        pairs = pad(numbers[None], (0, numbers.shape[1] % 2), mode="replicate")[0]
        numbers = pairs.unflatten(1, (-1, 2)).mean(2).repeat_interleave(2, 1)[:, : mel.shape[1]]
    step = float(rng.uniform(0.3, 1.2))
    return _cosines()[:kept].T @ (torch.round(numbers / step + float(rng.uniform(-0.2, 0.2))) * step)


def _cosines() -> Tensor:
    """Orthonormal cosine transform over bands [BANDS, BANDS]."""
    at = (torch.arange(BANDS) + 0.5) * torch.pi / BANDS
    rows = torch.cos(torch.arange(BANDS)[:, None] * at) * (2 / BANDS) ** 0.5
    rows[0] /= 2**0.5
    return rows
