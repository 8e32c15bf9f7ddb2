"""Voices put together again from what a vocoder sees of them: real speech in, the same words re-synthesised out.

Copy synthesis leaves what any vocoder leaves (phase that was guessed, harmonics too clean or too noisy, a spectrum seen
through mel bands) and nothing else: same words, speaker, room and level. `(waveform [S], rng) -> waveform [S]`,
float32 at 16 kHz. Griffin & Lim, "Signal estimation from modified short-time Fourier transform" (1984); Makhoul,
"Linear prediction" (1975).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

import avdetect.compat  # noqa: F401  (must stand before torchaudio)
from avdetect.forgeries.conversion import voice_converted
from avdetect.forgeries.family import WEIGHTS, Kind
from avdetect.forgeries.neural_codec import neural_codec
from avdetect.forgeries.neural_vocoder import neural_vocoder
from avdetect.forgeries.parametric import linear_prediction, world_like
from avdetect.forgeries.spectra import istft, levelled, random_bands, random_frame, stft, through_mel
from avdetect.forgeries.trained_vocoder import (
    acoustic_model,
    codec_model,
    diffusion_vocoder,
    fourier_vocoder,
)
from avdetect.forgeries.voicing import excitation
from avdetect.types import Floats

Rng = np.random.Generator


def griffin_lim(waveform: Floats, rng: Rng) -> Floats:
    """Phase thrown away and found again by a few to many Griffin-Lim turns; from mel bands half of the time."""
    from torchaudio.functional import griffinlim

    fft, hop = random_frame(rng)
    magnitude = stft(torch.from_numpy(waveform), fft, hop).abs()
    if rng.random() < 0.6:
        magnitude = through_mel(magnitude, fft, random_bands(rng, fft))
    turns = int(rng.choice([4, 8, 8, 16]))
    window = torch.hann_window(fft)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        out: Tensor = griffinlim(magnitude, window, fft, hop, fft, 1.0, turns, 0.9, len(waveform), True)
    return out.numpy()


def mel_inversion(waveform: Floats, rng: Rng) -> Floats:
    """Magnitude through mel bands, phase kept below a random frequency and blurred above it, as GAN vocoders do."""
    fft, hop = random_frame(rng)
    spectrum = stft(torch.from_numpy(waveform), fft, hop)
    magnitude = through_mel(spectrum.abs(), fft, random_bands(rng, fft))
    blur = torch.from_numpy(rng.normal(0, 1, tuple(spectrum.shape)).astype(np.float32))
    edge = rng.uniform(0.0, 0.6) * spectrum.shape[0]
    ramp = ((torch.arange(spectrum.shape[0]) - edge) / (0.2 * spectrum.shape[0])).clamp(0, 1)[:, None]
    phase = spectrum.angle() + ramp * blur * float(rng.uniform(0.3, 3.0))
    mix = float(rng.uniform(0.5, 1.0))
    magnitude = magnitude**mix * spectrum.abs().clamp_min(1e-7) ** (1 - mix)
    return istft(torch.polar(magnitude, phase), fft, hop, len(waveform)).numpy()


def source_filter(waveform: Floats, rng: Rng) -> Floats:
    """Pulses and noise through the speech's own smooth spectrum, as WORLD-like and LPC vocoders do."""
    fft, hop = 1024, int(rng.choice([80, 128, 160]))
    spectrum = stft(torch.from_numpy(waveform), fft, hop)
    envelope = through_mel(spectrum.abs(), fft, int(rng.choice([24, 32, 40, 60])))
    source = excitation(
        waveform, rng, hop, float(rng.uniform(0.97, 1.03)), breath=float(rng.uniform(0.02, 0.3))
    )
    excited = stft(torch.from_numpy(source), fft, hop)
    flat = through_mel(excited.abs(), fft, 24)
    # bins that no band covers would be raised without bound, and drown the speech in hum
    flat = torch.maximum(flat, 0.1 * excited.abs().mean(0))
    return istft(excited / flat * envelope, fft, hop, len(waveform)).numpy()


def upsampling_traces(waveform: Floats, rng: Rng) -> Floats:
    """What transposed convolutions leave, images and tones: a part of the band zero-stuffed and softly clipped."""
    factor = int(rng.choice([2, 2, 4]))
    x = torch.from_numpy(waveform)
    low = torch.nn.functional.avg_pool1d(x[None, None], factor, ceil_mode=True)[0, 0]
    stuffed = torch.zeros(len(low) * factor)
    stuffed[::factor] = low * factor
    kernel = torch.from_numpy(rng.normal(1, 0.25, 2 * factor + 1).astype(np.float32)).abs()
    rebuilt = torch.nn.functional.conv1d(
        stuffed[None, None], (kernel / kernel.sum())[None, None], padding=factor
    )[0, 0, : len(x)]
    drive = float(rng.uniform(1.0, 6.0)) / (float(rebuilt.abs().max()) + 1e-6)
    rebuilt = torch.tanh(rebuilt * drive) / drive
    edge = float(rng.uniform(0.25, 0.7)) / factor
    spectrum, wave = torch.fft.rfft(rebuilt, len(x)), torch.fft.rfft(x)
    ramp = ((torch.linspace(0, 1, len(wave)) - edge) / 0.1).clamp(0, 1)
    gain = (wave.abs() * ramp).norm() / (spectrum.abs() * ramp).norm().clamp_min(1e-6)
    return torch.fft.irfft(wave * (1 - ramp) + spectrum * ramp * gain, len(x)).numpy()


RESYNTHESES: dict[str, Callable[[Floats, Rng], Floats]] = {
    "griffin_lim": griffin_lim,
    "mel_inversion": mel_inversion,
    "source_filter": source_filter,
    "upsampling_traces": upsampling_traces,
    "neural_vocoder": neural_vocoder,
    "fourier_vocoder": fourier_vocoder,
    "acoustic_model": acoustic_model,
    "codec_model": codec_model,
    "diffusion_vocoder": diffusion_vocoder,
    "linear_prediction": linear_prediction,
    "world_like": world_like,
    "neural_codec": neural_codec,
    "voice_conversion": voice_converted,
}
"""All that speak a whole waveform anew, in time with itself; drawn by `family.WEIGHTS`."""


def draw_resynthesis(rng: Rng) -> str:
    """A name of RESYNTHESES."""
    weights = np.array([WEIGHTS[Kind.VOICE][name] for name in RESYNTHESES])
    return str(rng.choice(list(RESYNTHESES), p=weights / weights.sum()))


def resynthesise(
    waveform: Floats, rng: Rng, kind: str | None = None, donor: Floats | None = None
) -> tuple[Floats, str]:
    """The same speech from a vocoder, at the same level; `kind` as in RESYNTHESES, or drawn.

    A voice conversion goes towards the voice of `donor` [D] where there is one.
    """
    name = kind or draw_resynthesis(rng)
    convert = name == "voice_conversion"
    made = voice_converted(waveform, rng, donor) if convert else RESYNTHESES[name](waveform, rng)
    return levelled(made, waveform), name
