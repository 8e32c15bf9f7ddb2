"""Voices put together again from what a vocoder sees of them: real speech in, the same words re-synthesised out.

Copy synthesis leaves what any vocoder leaves (phase that was guessed, harmonics too clean or too noisy, a spectrum seen
through mel bands) and nothing else: same words, speaker, room and level. `(waveform [S], rng) -> waveform [S]`,
float32 at 16 kHz. Griffin & Lim, "Signal estimation from modified short-time Fourier transform" (1984); Makhoul,
"Linear prediction" (1975).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

import avdetect.compat  # noqa: F401  (must stand before torchaudio)
from avdetect.types import SAMPLE_RATE, Floats, Label, Window

Rng = np.random.Generator


def _stft(x: Tensor, fft: int, hop: int) -> Tensor:
    return torch.stft(x, fft, hop, window=torch.hann_window(fft), return_complex=True)


def _istft(spectrum: Tensor, fft: int, hop: int, length: int) -> Tensor:
    return torch.istft(spectrum, fft, hop, window=torch.hann_window(fft), length=length)


def _mel_bands(fft: int, bands: int) -> Tensor:
    from torchaudio.functional import melscale_fbanks

    return melscale_fbanks(fft // 2 + 1, 0.0, SAMPLE_RATE / 2, bands, SAMPLE_RATE, norm="slaney")


def _through_mel(magnitude: Tensor, fft: int, bands: int) -> Tensor:
    """Magnitude [F, T] as it comes back from `bands` mel bands (least squares, clipped at zero)."""
    filters = _mel_bands(fft, bands)
    return (torch.linalg.pinv(filters.T) @ (filters.T @ magnitude)).clamp_min(1e-7)


def _random_frame(rng: Rng) -> tuple[int, int]:
    fft = int(rng.choice([512, 800, 1024]))
    return fft, fft // int(rng.choice([4, 4, 5, 8])) if fft != 800 else 200


def _random_bands(rng: Rng, fft: int) -> int:
    """As vocoders have them; no more than the transform's bins can fill."""
    return int(rng.choice([48, 64, 80] if fft <= 512 else [64, 80, 80, 100]))


def griffin_lim(waveform: Floats, rng: Rng) -> Floats:
    """Phase thrown away and found again by a few to many Griffin-Lim turns; from mel bands half of the time."""
    from torchaudio.functional import griffinlim

    fft, hop = _random_frame(rng)
    magnitude = _stft(torch.from_numpy(waveform), fft, hop).abs()
    if rng.random() < 0.6:
        magnitude = _through_mel(magnitude, fft, _random_bands(rng, fft))
    turns = int(rng.choice([4, 8, 16, 32]))
    window = torch.hann_window(fft)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        out: Tensor = griffinlim(magnitude, window, fft, hop, fft, 1.0, turns, 0.9, len(waveform), True)
    return out.numpy()


def mel_inversion(waveform: Floats, rng: Rng) -> Floats:
    """Magnitude through mel bands, phase kept below a random frequency and blurred above it, as GAN vocoders do."""
    fft, hop = _random_frame(rng)
    spectrum = _stft(torch.from_numpy(waveform), fft, hop)
    magnitude = _through_mel(spectrum.abs(), fft, _random_bands(rng, fft))
    blur = torch.from_numpy(rng.normal(0, 1, tuple(spectrum.shape)).astype(np.float32))
    edge = rng.uniform(0.0, 0.6) * spectrum.shape[0]
    ramp = ((torch.arange(spectrum.shape[0]) - edge) / (0.2 * spectrum.shape[0])).clamp(0, 1)[:, None]
    phase = spectrum.angle() + ramp * blur * float(rng.uniform(0.3, 3.0))
    mix = float(rng.uniform(0.5, 1.0))
    magnitude = magnitude**mix * spectrum.abs().clamp_min(1e-7) ** (1 - mix)
    return _istft(torch.polar(magnitude, phase), fft, hop, len(waveform)).numpy()


def _pitch(waveform: Floats, hop: int) -> Floats:
    import librosa

    pitch: Floats = librosa.yin(
        waveform, fmin=70, fmax=400, sr=SAMPLE_RATE, frame_length=1024, hop_length=hop
    )
    return pitch.astype(np.float32)


def _periodicity(waveform: Floats, hop: int) -> Floats:
    """Share of energy that is voiced-like per frame, from the zero-crossing rate and level: 0..1."""
    import librosa

    crossing = librosa.feature.zero_crossing_rate(waveform, frame_length=1024, hop_length=hop)[0]
    level = librosa.feature.rms(y=waveform, frame_length=1024, hop_length=hop)[0]
    loud = level > 0.1 * np.quantile(level, 0.95)
    return (loud * np.clip((0.25 - crossing) / 0.15, 0, 1)).astype(np.float32)


def source_filter(waveform: Floats, rng: Rng) -> Floats:
    """Pulses and noise through the speech's own smooth spectrum, as WORLD-like and LPC vocoders do."""
    fft, hop = 1024, int(rng.choice([80, 128, 160]))
    spectrum = _stft(torch.from_numpy(waveform), fft, hop)
    envelope = _through_mel(spectrum.abs(), fft, int(rng.choice([24, 32, 40, 60])))
    voiced = np.interp(
        np.arange(len(waveform)) / hop,
        np.arange(spectrum.shape[1]),
        _fit(_periodicity(waveform, hop), spectrum.shape[1]),
    )
    pitch = np.interp(
        np.arange(len(waveform)) / hop,
        np.arange(spectrum.shape[1]),
        _fit(_pitch(waveform, hop), spectrum.shape[1]),
    )
    turns = np.cumsum(pitch * float(rng.uniform(0.97, 1.03)) / SAMPLE_RATE)
    pulses = np.diff(np.floor(turns), prepend=0.0) * np.sqrt(SAMPLE_RATE / np.maximum(pitch, 50))
    noise = rng.normal(0, 1, len(waveform))
    breath = float(rng.uniform(0.02, 0.3))
    source = voiced * pulses + np.sqrt(1 - voiced + breath**2) * noise
    excitation = _stft(torch.from_numpy(source.astype(np.float32)), fft, hop)
    flat = _through_mel(excitation.abs(), fft, 24)
    # bins that no band covers would be raised without bound, and drown the speech in hum
    flat = torch.maximum(flat, 0.1 * excitation.abs().mean(0))
    return _istft(excitation / flat * envelope, fft, hop, len(waveform)).numpy()


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


def _fit(values: Floats, length: int) -> Floats:
    return np.pad(values, (0, max(0, length - len(values))), mode="edge")[:length]


RESYNTHESES: dict[str, Callable[[Floats, Rng], Floats]] = {
    "griffin_lim": griffin_lim,
    "mel_inversion": mel_inversion,
    "source_filter": source_filter,
    "upsampling_traces": upsampling_traces,
}


def resynthesise(waveform: Floats, rng: Rng, kind: str | None = None) -> tuple[Floats, str]:
    """The same speech from a vocoder, at the same level; `kind` as in RESYNTHESES, or drawn."""
    name = kind or str(rng.choice(list(RESYNTHESES)))
    out = np.nan_to_num(RESYNTHESES[name](waveform, rng)).astype(np.float32)
    level = float(np.sqrt(np.mean(waveform**2)) / (np.sqrt(np.mean(out**2)) + 1e-8))
    return out * np.float32(level), name


def resynthesised(window: Window, rng: Rng) -> tuple[Window, Label]:
    """The window with its sound from a vocoder of a random kind; needs `waveform`."""
    if window.waveform is None:
        raise ValueError("re-synthesis needs sound")
    return replace(window, waveform=resynthesise(window.waveform, rng)[0]), Label(voice_cloning=True)
