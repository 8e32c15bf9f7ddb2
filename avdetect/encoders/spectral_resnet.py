"""Residual CNN on linear-frequency spectra of speech, blind to pauses.

Linear rather than mel bands after the LFCC baselines of ASVspoof (Sahidullah et al., 2015): vocoders leave their traces
high up. Frames far below the speech's own level are blanked, so that a clean or a noisy silence says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from avdetect.encoders.lcnn import HIGH, HOP, WINDOW, LinearSpectrum
from avdetect.encoders.masking import step_mask
from avdetect.encoders.residual import Tower
from avdetect.types import SAMPLE_RATE, EncoderOutput


class SpectralResNet(nn.Module):
    """Waveform [B, S] -> EncoderOutput [B, T, dim], 100 / 2**len(widths) steps per second."""

    modality = "audio"

    def __init__(
        self,
        bands: int = 96,
        widths: Sequence[int] = (24, 32, 48, 64),
        dim: int = 64,
        dropout: float = 0.4,
        masked: int = 20,
        floor: float = 1e-4,
        gate: float = 0.02,
        window: int = WINDOW,
        high: float = HIGH,
    ) -> None:
        super().__init__()
        self.dim, self.halvings, self.masked = dim, len(widths), masked
        self.spectrum = LinearSpectrum(bands, floor, gate, window, high)
        self.tower = Tower(1, widths, kernel=5)
        height = bands
        for _ in widths:
            height = -(-height // 2)
        self.mix = nn.Conv1d(widths[-1] * height, dim, 3, padding=1)
        self.dropout = nn.Dropout(dropout)

    def _picture(self, x: Tensor) -> Tensor:
        """[B, F, T] -> [B, 1, F, T]; in training half of the rows lose up to `masked` neighbouring bands."""
        if self.training:
            batch, bands, _ = x.shape
            start = torch.randint(0, bands, (batch, 1), device=x.device)
            width = torch.randint(0, self.masked + 1, (batch, 1), device=x.device)
            width = width * torch.randint(0, 2, (batch, 1), device=x.device)
            place = torch.arange(bands, device=x.device)[None]
            x = x * ((place < start) | (place >= start + width))[:, :, None]
        return (0.4 * x)[:, None].contiguous(memory_format=torch.channels_last)

    def forward(self, inputs: Tensor, lengths: Tensor) -> EncoderOutput:
        """Features of speech `inputs` [B, S] at 16 kHz; `lengths` [B] in samples."""
        short = max(0, HOP * 2**self.halvings - inputs.shape[1])
        x, frames = self.spectrum(nn.functional.pad(inputs, (0, short)), lengths)
        x = self.tower(self._picture(x).to(self.mix.weight.dtype), frames)
        steps = torch.div(frames, 2**self.halvings, rounding_mode="floor").clamp_min(1)
        x = self.dropout(x.flatten(1, 2))
        x = torch.relu(self.mix(x)).transpose(1, 2)
        steps = steps.clamp_max(x.shape[1])
        mask = step_mask(x.shape[1], steps)[..., None].to(x.dtype)
        return EncoderOutput(x * mask, steps, SAMPLE_RATE / HOP / 2**self.halvings)
