"""Time-delay network on linear-frequency spectra: one-dimensional convolutions, an order cheaper than a 2-D CNN.

Residual blocks with growing dilation after Snyder et al., "X-vectors" (2018), on the same front end as `lcnn`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avdetect.encoders.lcnn import HOP, LinearSpectrum
from avdetect.encoders.masking import step_mask
from avdetect.encoders.sync import TemporalBlock
from avdetect.types import SAMPLE_RATE, EncoderOutput


class TimeDelayNetwork(nn.Module):
    """Waveform [B, S] -> EncoderOutput [B, T, dim] at 25 steps per second."""

    modality = "audio"

    def __init__(
        self, bands: int = 128, width: int = 128, dim: int = 64, layers: int = 4, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.dim = dim
        self.spectrum = LinearSpectrum(bands)
        self.stem = nn.Conv1d(bands, width, 5, stride=2, padding=2)
        self.down = nn.Conv1d(width, width, 4, stride=2, padding=1)
        self.blocks = nn.ModuleList(
            TemporalBlock(width, 3, dropout, dilation=1 + k % 3) for k in range(layers)
        )
        self.project = nn.Linear(width, dim)

    def forward(self, inputs: Tensor, lengths: Tensor) -> EncoderOutput:
        """Features of speech `inputs` [B, S] at 16 kHz; `lengths` [B] in samples."""
        x, frames = self.spectrum(inputs, lengths)
        x = nn.functional.gelu(self.stem((x * 0.4).to(self.stem.weight.dtype)))
        half = torch.div(frames, 2, rounding_mode="floor")
        x = self.down(x * step_mask(x.shape[2], half)[:, None])
        steps = torch.div(half, 2, rounding_mode="floor")
        x = x.transpose(1, 2)
        mask = step_mask(x.shape[1], steps)[..., None].to(x.dtype)
        x = x * mask
        for block in self.blocks:
            x = block(x, mask)
        return EncoderOutput(torch.relu(self.project(x)) * mask, steps, SAMPLE_RATE / HOP / 4)
