"""Light CNN on linear-frequency spectra of speech, the classic strong baseline of ASVspoof.

Max-feature-map activations and the layer plan follow Lavrentyeva et al., "STC antispoofing systems for the ASVspoof2019
challenge" (2019), narrowed. The front end removes what only tells recordings apart: it has no DC and no rumble
(bands start at 60 Hz), and the mean spectrum of the clip is subtracted, so neither level nor a fixed colouring counts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avdetect.encoders.masking import step_mask
from avdetect.encoders.spectra import FFT, hann, linear_bands
from avdetect.errors import ConfigError
from avdetect.types import SAMPLE_RATE, EncoderOutput

HOP = 160
WINDOW, LONGEST_WINDOW = 400, 4096
SHORTEST = 8 * HOP
"""Samples of one step: strides and pools need as many."""
LOW, HIGH = 60.0, 7800.0
"""Hertz: no DC, no rumble, and nothing near the band's end, where resamplers differ."""


class LinearSpectrum(nn.Module):
    """Log energies in linear bands: waveform [B, S] -> [B, bands, frames], 100 frames per second.

    `floor`: what is added to energies before the logarithm, `gate`: the energy of frames below which they are blanked;
    both as shares of the mean energy. `window`: samples of a frame; a long one tells a voice's harmonics apart. `high`:
    Hertz of the last band.
    """

    def __init__(
        self,
        bands: int = 96,
        floor: float = 1e-5,
        gate: float = 0.0,
        window: int = WINDOW,
        high: float = HIGH,
    ) -> None:
        super().__init__()
        if not HOP <= window <= LONGEST_WINDOW or not LOW < high <= HIGH:
            raise ConfigError(
                f"window = {window} samples, high = {high:g} Hz: they go from {HOP} to {LONGEST_WINDOW}, and from over "
                f"{LOW:g} to {HIGH:g}"
            )
        self.bands, self.floor, self.gate, self.window, self.high = bands, floor, gate, window, high
        self.points = max(FFT, 1 << (window - 1).bit_length())

    @torch.autocast("cpu", enabled=False)
    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Also gives the number of valid frames [B]; frames beyond it are zero."""
        waveform = waveform.float() * step_mask(waveform.shape[1], lengths)
        window = hann(self.window, waveform.device)
        spectrum = torch.stft(
            *(waveform, self.points, HOP, self.window, window),
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        energy = spectrum.abs().square().transpose(1, 2) @ linear_bands(
            self.bands, LOW, self.high, waveform.device, self.points
        )
        frames = torch.div(lengths, HOP, rounding_mode="floor").clamp(1, energy.shape[1])
        mask = torch.arange(energy.shape[1], device=energy.device)[None] < frames[:, None]
        level = (energy * mask[..., None]).sum((1, 2)) / (frames * energy.shape[2])
        energy = energy / level.clamp_min(1e-10)[:, None, None]
        kept = (mask & (energy.mean(2) > self.gate))[..., None]
        energy = (energy + self.floor).log()
        mean = (energy * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp_min(1)
        return ((energy - mean) * kept).transpose(1, 2), frames


class MaxFeatureMap(nn.Module):
    """Convolution whose two halves of channels compete: [B, C, F, T] -> [B, out, F', T']."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, 2 * outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(2 * outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, C, F, T] -> [B, outputs, F', T']."""
        left, right = self.norm(self.conv(inputs)).chunk(2, 1)
        return right + torch.relu(left - right)  # the maximum; its own gradient costs half as much again


class LightCNN(nn.Module):
    """Waveform [B, S] -> EncoderOutput [B, T, dim] at 12.5 steps per second."""

    modality = "audio"

    def __init__(
        self,
        bands: int = 96,
        width: int = 24,
        dim: int = 64,
        dropout: float = 0.3,
        gate: float = 0.0,
        window: int = WINDOW,
        high: float = HIGH,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.spectrum = LinearSpectrum(bands, gate=gate, window=window, high=high)
        # the first block strides instead of pooling: most of the cost would lie there otherwise
        self.blocks = nn.ModuleList(
            [
                MaxFeatureMap(1, width, 5, (2, 2)),
                nn.Sequential(MaxFeatureMap(width, width, 3), nn.MaxPool2d(2)),
                nn.Sequential(MaxFeatureMap(width, 2 * width, 3), nn.MaxPool2d(2)),
                nn.Sequential(MaxFeatureMap(2 * width, 2 * width, 3), nn.MaxPool2d((2, 1))),
            ]
        )
        self.project = nn.Linear(2 * width * (bands // 16), dim)
        self.mix = nn.Conv1d(dim, dim, 3, padding=1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Tensor, lengths: Tensor) -> EncoderOutput:
        """Features of speech `inputs` [B, S] at 16 kHz; `lengths` [B] in samples."""
        short = max(0, SHORTEST - inputs.shape[1])
        x, frames = self.spectrum(nn.functional.pad(inputs, (0, short)), lengths)
        x = x[:, None].to(self.project.weight.dtype)
        steps = frames
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index < 3:  # the last block keeps the time axis
                steps = torch.div(steps, 2, rounding_mode="floor")
            x = x * step_mask(x.shape[-1], steps)[:, None, None]
        x = self.dropout(self.project(x.flatten(1, 2).transpose(1, 2)))
        mask = step_mask(x.shape[1], steps)[..., None].to(x.dtype)
        x = torch.relu(x) * mask
        x = (x + torch.relu(self.mix(x.transpose(1, 2)).transpose(1, 2))) * mask
        return EncoderOutput(x, steps, SAMPLE_RATE / HOP / 8)
