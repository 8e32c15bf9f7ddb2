"""Small neural vocoders of the project's own: log mel spectra in, speech out.

Two designs that the field is full of: a trunk at the frame rate whose output goes through an inverse Fourier transform
(Siuzdak, "Vocos", 2023), and transposed convolutions with residual dilated blocks (Kong et al., "HiFi-GAN", 2020).
Both start from pulses and noise, as Wang et al., "Neural source-filter waveform models" (2020) and Li et al.,
"HiFTNet" (2023) do: so they learn in minutes what takes days without.
`examples/train_vocoder.py` trains them; what it wrote lies in `weights/`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from avdetect import stored
from avdetect.forgeries.spectra import mel_filters

WEIGHTS = Path(__file__).parent / "weights"
"""Where the trained vocoders lie, one file each."""
BANDS, HOP, MEL_FFT = 80, 160, 1024
"""Mel bands, samples per frame, and length of the transform below them."""
FLOOR = 1e-5
"""Smallest mel magnitude."""


def log_mel(waveform: Tensor) -> Tensor:
    """Log mel spectra [B, BANDS, S / HOP + 1] of waveforms [B, S] at 16 kHz, brought to about -2..2."""
    window = torch.hann_window(MEL_FFT, device=waveform.device)
    spectrum = torch.stft(waveform, MEL_FFT, HOP, window=window, return_complex=True).abs()
    mel = mel_filters(MEL_FFT, BANDS).to(waveform) @ spectrum
    return (mel.clamp_min(FLOOR).log() + 5.0) / 3.0


class _Block(nn.Module):
    """ConvNeXt block over time: depthwise convolution, then a wide layer per frame."""

    def __init__(self, dim: int, wide: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.up, self.down = nn.Linear(dim, wide), nn.Linear(wide, dim)
        self.scale = nn.Parameter(torch.full((dim,), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        return x + self.scale * self.down(nn.functional.gelu(self.up(self.norm(y))))


class FourierVocoder(nn.Module):
    """Complex filters per frame for a pulse train and for noise, and an inverse transform back.

    `(mel [B, BANDS, T + 1], sources [B, 2, T * HOP]) -> [B, T * HOP]`.
    """

    fft = 640

    def __init__(self, dim: int, wide: int, blocks: int) -> None:
        super().__init__()
        self.embed = nn.Conv1d(BANDS, dim, 5, padding=2)
        self.norm = nn.LayerNorm(dim)
        self.blocks = nn.Sequential(*(_Block(dim, wide) for _ in range(blocks)))
        self.out_norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 2 * (self.fft + 2))

    def forward(self, mel: Tensor, sources: Tensor) -> Tensor:
        """Waveforms of mel spectra, spoken by their sources."""
        window = torch.hann_window(self.fft, device=mel.device)
        excited = torch.stft(sources.flatten(0, 1), self.fft, HOP, window=window, return_complex=True)
        x = self.norm(self.embed(mel).transpose(1, 2))
        given = self.head(self.out_norm(self.blocks(x))).float().transpose(1, 2)
        log, turn = given.unflatten(1, (2, 2, -1)).unbind(2)
        filters = torch.polar((log - 5.0).clamp(max=4.0).exp(), turn)
        spectrum = (filters * excited.unflatten(0, (-1, 2))).sum(1)
        return torch.istft(spectrum, self.fft, HOP, window=window, length=sources.shape[-1])


class _Residual(nn.Module):
    """Dilated convolutions of one kernel length, each added to what it was given."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, dilation=d, padding=d * (kernel // 2)) for d in dilations
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(nn.functional.leaky_relu(x, 0.1))
        return x


class _Stage(nn.Module):
    """One up-sampling by `rate`, to a step of `stride` samples: half as many channels, the sources, residual blocks."""

    def __init__(self, width: int, rate: int, stride: int) -> None:
        super().__init__()
        half = width // 2
        self.up = nn.ConvTranspose1d(width, half, 2 * rate + rate % 2, rate, padding=(rate + 1) // 2)
        reach = (2 * stride, stride // 2) if stride > 1 else (7, 3)
        self.enter = nn.Conv1d(2, half, reach[0], stride, padding=reach[1])
        self.short, self.long = _Residual(half, 3, (1, 3)), _Residual(half, 7, (1, 5))

    def forward(self, x: Tensor, sources: Tensor) -> Tensor:
        x = self.up(nn.functional.leaky_relu(x, 0.1)) + self.enter(sources)
        return 0.5 * (self.short(x) + self.long(x))


class ConvolutionVocoder(nn.Module):
    """Transposed convolutions from frames to samples; the sources enter at every rate, and widths halve with it.

    `(mel [B, BANDS, T + 1], sources [B, 2, T * HOP]) -> [B, T * HOP]`.
    """

    rates = (8, 5, 4)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(BANDS, width, 7, padding=3)
        self.stages = nn.ModuleList()
        stride = HOP
        for rate in self.rates:
            stride //= rate
            self.stages.append(_Stage(width, rate, stride))
            width //= 2
        self.last = nn.Conv1d(width, 1, 7, padding=3)

    def forward(self, mel: Tensor, sources: Tensor) -> Tensor:
        """Waveforms of mel spectra, spoken by their sources."""
        x = self.first(mel[..., :-1])
        for stage in self.stages:
            x = stage(x, sources)
        waveforms: Tensor = self.last(nn.functional.leaky_relu(x, 0.1))[:, 0].float()
        return waveforms


DESIGNS: dict[str, type[FourierVocoder] | type[ConvolutionVocoder]] = {
    "fourier": FourierVocoder,
    "convolution": ConvolutionVocoder,
}
"""Name -> class."""

Vocoder = FourierVocoder | ConvolutionVocoder


def save(model: Vocoder, design: str, settings: dict[str, int], path: Path) -> None:
    """Write a vocoder's weights in half precision, with what `load` needs to build it."""
    stored.save(model, {"design": design, "settings": json.dumps(settings)}, path)


@cache
def load(path: Path) -> Vocoder:
    """The vocoder that `save` wrote, ready to speak; ModelError where the file is none."""
    return stored.load(
        path, lambda about: DESIGNS[about["design"]](**json.loads(about["settings"])), "a vocoder"
    )


def names() -> list[str]:
    """The vocoders that ship with the package."""
    return sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))


def speak(
    model: Vocoder, waveform: Tensor, sources: Tensor, change: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Speech [S] as a vocoder says it, with its `voicing.sources` [2, S]; S is at least MEL_FFT.

    `change` is done to the log mel spectrum [BANDS, T] on the way.
    """
    length = len(waveform)
    spare = (0, -length % HOP)
    mel = log_mel(nn.functional.pad(waveform, spare)[None])
    if change is not None:
        mel = change(mel[0])[None]
    with torch.inference_mode():
        made = model(mel, nn.functional.pad(sources, spare)[None])
    return made[0, :length].clone()
