"""RawNet2: raw waveforms through fixed sinc filters, one-dimensional residual blocks and a recurrent layer.

Tak et al., "End-to-end anti-spoofing with RawNet2" (2021). The filters are those of `raw_res`, evenly spaced in mel
as theirs, but 69 where the paper has 128. The widths are smaller by default; `narrow=128, wide=512, hidden=1024,
layers=3` are those of the paper, with 25 million weights.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from avdetect.encoders.masking import step_mask
from avdetect.encoders.raw_res import BANDS, CELLS, POOL, TAPS, SincBands, filter_bank
from avdetect.types import SAMPLE_RATE, EncoderOutput

SLOPE = 0.3
"""What leaky ReLUs keep of negative values."""
CHANNELS = BANDS * POOL
"""Filters that are heard, the highest of all is not."""
BLOCKS = 6
"""Residual blocks: two narrow ones, four wide ones. Each pools by POOL, as the filters do."""
STEP = POOL ** (BLOCKS + 1)
"""Samples of one step: 0.14 s."""


class FilterBank(SincBands):
    """Waveform [B, S] -> [B, CHANNELS, S // POOL]: the largest magnitude of every POOL outputs of each filter.

    In training up to `masked` neighbouring filters are silent.
    """

    def forward(self, waveform: Tensor) -> Tensor:
        """`waveform` of at least POOL samples."""
        samples = waveform.shape[1]
        bank = filter_bank(waveform.device)
        hop, width, rows = POOL * CELLS, bank.shape[-1], -(-(samples // POOL) // CELLS)
        after = (rows - 1) * hop + width - TAPS // 2 - samples
        frames = functional.pad(waveform, (TAPS // 2, after)).unfold(1, width, hop)
        if self.training:
            bank = bank * self._kept(bank.device)
        # Waveforms suffer most from lower precision, and this product is cheap.
        with torch.autocast(waveform.device.type, enabled=False):
            heard = frames.float() @ bank.flatten(0, 3).T
        strongest = heard.unflatten(2, bank.shape[:-1]).abs().amax(2)  # [B, rows, filter in band, cell, band]
        return strongest.permute(0, 4, 2, 1, 3).flatten(3).flatten(1, 2)[..., : samples // POOL]


class FeatureMapScaling(nn.Module):
    """[B, C, T] times and plus a weight in 0..1 per channel, which is read from the channels' means over time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weigh = nn.Linear(channels, channels)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`mask` [B, 1, T]; `x` is zero outside it."""
        weight = torch.sigmoid(self.weigh(x.sum(2) / mask.sum(2)))[..., None]
        return (x * weight + weight) * mask


class ResidualBlock(nn.Module):
    """Two convolutions over 3 steps, a shortcut, pooling and scaling: [B, C, T] -> [B, outputs, T // POOL]."""

    def __init__(self, inputs: int, outputs: int, first: bool) -> None:
        super().__init__()
        self.before = None if first else nn.BatchNorm1d(inputs)  # the filters' outputs are normed already
        self.first = nn.Conv1d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm1d(outputs)
        self.second = nn.Conv1d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.scaling = FeatureMapScaling(outputs)

    def forward(self, x: Tensor, mask: Tensor, pooled: Tensor) -> Tensor:
        """`mask` [B, 1, T] of `x`, `pooled` [B, 1, T // POOL] of the result: what is padding stays zero."""
        y = x if self.before is None else functional.leaky_relu(self.before(x), SLOPE) * mask
        y = functional.leaky_relu(self.norm(self.first(y)), SLOPE) * mask
        y = functional.max_pool1d(self.second(y) + self.shortcut(x), POOL)
        return self.scaling(y * pooled, pooled)


class RawNet2(nn.Module):
    """Waveform [B, S] -> EncoderOutput [B, T, dim], a step every STEP samples: 7.3 per second.

    `narrow`, `wide`: channels of the residual blocks; `hidden`, `layers`: of the recurrent part, whose state after each
    step is what that step says. The authors keep the last state alone.
    """

    modality = "audio"

    def __init__(
        self,
        narrow: int = 32,
        wide: int = 96,
        hidden: int = 128,
        layers: int = 1,
        dim: int = 64,
        dropout: float = 0.2,
        masked: int = 20,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.bands = FilterBank(masked)
        self.norm = nn.BatchNorm1d(CHANNELS)
        widths = (CHANNELS, narrow, narrow, wide, wide, wide, wide)
        self.blocks = nn.ModuleList(
            ResidualBlock(i, o, first=number == 0) for number, (i, o) in enumerate(pairwise(widths))
        )
        self.last_norm = nn.BatchNorm1d(wide)
        self.recurrent = nn.GRU(wide, hidden, layers, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(hidden, dim)

    def forward(self, inputs: Tensor, lengths: Tensor) -> EncoderOutput:
        """Features of speech `inputs` [B, S] at 16 kHz; `lengths` [B] in samples."""
        inputs = inputs * step_mask(inputs.shape[1], lengths)
        inputs = functional.pad(inputs, (0, max(0, STEP - inputs.shape[1])))
        x = self.bands(inputs).to(self.project.weight.dtype)
        mask, steps = _pooled(x.shape[2], lengths)
        x = functional.leaky_relu(self.norm(x), SLOPE) * mask
        for block in self.blocks:
            shorter, steps = _pooled(x.shape[2] // POOL, steps)
            x, mask = block(x, mask, shorter), shorter
        x = functional.leaky_relu(self.last_norm(x), SLOPE) * mask
        # Forward in time, so that what is beyond a row's end cannot reach into it.
        x, _ = self.recurrent(x.transpose(1, 2))
        x = functional.leaky_relu(self.project(self.dropout(x)), SLOPE) * mask.transpose(1, 2)
        return EncoderOutput(x, steps, SAMPLE_RATE / STEP)


def _pooled(width: int, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Mask [B, 1, width] and lengths [B] of rows of `lengths` after pooling; every row keeps a step."""
    steps = torch.div(lengths, POOL, rounding_mode="floor").clamp(1, width)
    return step_mask(width, steps)[:, None], steps
