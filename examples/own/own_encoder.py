"""An encoder of one's own: loudness in bands of frequency, through one layer. Any recipe may name it once installed.

    pip install ./examples/own
    python -m avdetect train audio-only data.manifest=manifest.csv 'model.streams.voice={encoder="own_bands"}'

What an encoder must do stands in avdetect.types.Encoder: a row's result hangs on nothing but that row up to its length.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avdetect.types import SAMPLE_RATE, EncoderOutput

SPAN = SAMPLE_RATE // 25
"""Samples of one step."""


class Bands(nn.Module):
    """Waveform [B, S] at 16 kHz -> features [B, T, dim], 25 steps a second."""

    modality = "audio"

    def __init__(self, bands: int = 16, dim: int = 32) -> None:
        super().__init__()
        self.bands, self.dim = bands, dim
        self.layer = nn.Sequential(nn.Linear(bands, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(self, inputs: Tensor, lengths: Tensor) -> EncoderOutput:
        """`lengths` [B] in samples; steps at or beyond a row's own are zero."""
        spans = inputs[:, : inputs.shape[1] // SPAN * SPAN].float().unflatten(1, (-1, SPAN))
        power = (
            torch.fft.rfft(spans).abs().square()[..., : SPAN // 2].unflatten(-1, (self.bands, -1)).mean(-1)
        )
        steps = lengths // SPAN
        present = torch.arange(spans.shape[1], device=inputs.device) < steps[:, None]
        return EncoderOutput(self.layer(torch.log(power + 1e-6)) * present[..., None], steps, 25.0)
