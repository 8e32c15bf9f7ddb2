"""Raw waveforms to maps over time and frequency: fixed sinc filters and residual blocks, in the manner of RawNet2.

Tak et al., "End-to-end anti-spoofing with RawNet2" (2021), in the two-dimensional form of Jung et al., "AASIST" (2021).
Nearly all of AASIST's cost lies here, and without gradients on a CPU these layers go a faster road to the same numbers:

- The filters run as one matrix product over blocks of samples, pooling is a maximum over its columns.
- Maps lie in memory as [time, frequency, channels], so that a stretch of time is one contiguous piece. A block works
  through stretches small enough to stay in the processor's cache, from its first convolution to its pooling.
- Batch norms, SELU's factor and its constant are folded into the convolutions around them. What is left of SELU is
  written with `exp`: `expm1`, which torch's own calls, takes seven times as long.
- Convolutions of a single channel are matrix products.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

from avdetect.errors import ConfigError
from avdetect.types import SAMPLE_RATE

FILTERS = 70
TAPS = 129
POOL = 3
"""Outputs that are pooled into one, along time and, after the filters, along frequency."""
BANDS = FILTERS // POOL
CELLS = 8
"""Pooled time steps of one row of the matrix product that filters: with more of them the product holds more zeros,
with fewer its rows overlap more."""
STRETCH = 64 * POOL
"""Steps that a block takes at once per thread: 0.6 MB at 32 channels, so that three maps fit into a cache of 2 MB."""
SELU_SCALE = 1.0507009873554805
SELU_ALPHA = 1.6732632423543772
"""selu(x) = SCALE * (max(x, 0) + ALPHA * (exp(min(x, 0)) - 1)), Klambauer et al. (2017)."""


def sinc_filters() -> Tensor:
    """[FILTERS, TAPS] band-pass filters with Hamming windows; their bands are equally wide in mel, up to 8 kHz."""
    top = 2595 * torch.log10(torch.tensor(1 + SAMPLE_RATE / 2 / 700, dtype=torch.float64))
    mel = torch.linspace(0, 1, FILTERS + 1, dtype=torch.float64) * top
    edges = 700 * (10 ** (mel / 2595) - 1)
    cutoff = 2 * edges[:, None] / SAMPLE_RATE
    time = torch.arange(TAPS, dtype=torch.float64) - TAPS // 2
    low_pass = cutoff * torch.sinc(cutoff * time)
    window = torch.hamming_window(TAPS, periodic=False, dtype=torch.float64)
    return ((low_pass[1:] - low_pass[:-1]) * window).float()


@cache
def filter_bank(device: torch.device) -> Tensor:
    """[POOL, POOL, CELLS, BANDS, taps]: for (sample in cell, filter in band, cell, band), the filter where it stands.

    Not a module's buffer: transformers leaves buffers that are not saved empty when it loads a model.
    """
    with torch.inference_mode(False):  # else a bank that was first made there could never be trained with
        bank = torch.zeros(POOL, POOL, CELLS, BANDS, TAPS + POOL * CELLS - 1)
        filters = sinc_filters()[: BANDS * POOL].unflatten(0, (BANDS, POOL)).transpose(0, 1)
        for cell in range(CELLS):
            for sample in range(POOL):
                start = cell * POOL + sample
                bank[sample, :, cell, :, start : start + TAPS] = filters
        return bank.to(device)


class SincBands(nn.Module):
    """Waveform [B, S] -> [B, 1, T, BANDS], T = (S - 128) // 3: the largest magnitude of 3 filters x 3 samples.

    The filters are fixed. In training up to `masked` neighbouring ones are silent, as in Tak et al.
    """

    def __init__(self, masked: int = 20) -> None:
        super().__init__()
        if not 0 <= masked <= FILTERS:
            raise ConfigError(f"masked = {masked!r} is not a number of filters, of which there are {FILTERS}")
        self.masked = masked

    def forward(self, waveform: Tensor) -> Tensor:
        """`waveform` of at least 131 samples."""
        steps = (waveform.shape[1] - TAPS + 1) // POOL
        rows = -(-steps // CELLS)
        bank = filter_bank(waveform.device)
        hop, width = POOL * CELLS, bank.shape[-1]
        short = max(0, (rows - 1) * hop + width - waveform.shape[1])
        frames = functional.pad(waveform, (0, short)).unfold(1, width, hop)[:, :rows]
        if self.training:
            bank = bank * self._kept(bank.device)
        # Waveforms suffer most from lower precision, and this product is cheap.
        with torch.autocast(waveform.device.type, enabled=False):
            heard = frames.float() @ bank.flatten(0, 3).T
        strongest = heard.unflatten(2, (POOL * POOL, CELLS * BANDS)).abs().amax(2)
        return strongest.reshape(len(waveform), 1, rows * CELLS, BANDS)[:, :, :steps]

    def _kept(self, device: torch.device) -> Tensor:
        """0 or 1 for each filter, in the shape of the bank."""
        count = int(torch.randint(0, self.masked + 1, ()))
        first = int(torch.randint(0, FILTERS - count + 1, ()))
        kept = torch.ones(FILTERS, device=device)
        kept[first : first + count] = 0
        return kept[: BANDS * POOL].view(BANDS, POOL).T[None, :, None, :, None]


class _Folded(NamedTuple):
    """A block's weights with its batch norm, and with the factor and constant of SELU, inside."""

    first: Tensor
    first_bias: Tensor
    second: Tensor
    second_bias: Tensor
    shortcut: Tensor | None


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolution of [1, C, T, F] without padding, that leaves its result in channels-last memory."""
    if x.shape[1] > 1:
        return functional.conv2d(x, weight, bias)
    height, width = weight.shape[2:]
    steps, bands = x.shape[2] - height + 1, x.shape[3] - width + 1
    columns = [x[0, 0, i : i + steps, j : j + bands] for i in range(height) for j in range(width)]
    flat = weight.flatten(1)
    if bias is not None:
        columns.append(x.new_ones(steps, bands))
        flat = torch.cat([flat, bias[:, None]], 1)
    y = torch.stack(columns).flatten(1).T @ flat.T
    return y.view(1, steps, bands, len(weight)).permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """Two convolutions over 3 steps and 2 bands, a shortcut, and pooling: [B, C, T, F] -> [B, outputs, T // 3, F]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, (3, 2), padding=(1, 1))
        self.norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, (3, 2), padding=(1, 0))
        self.shortcut = nn.Conv2d(inputs, outputs, (3, 1), padding=(1, 0)) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """T must be at least 3."""
        fast = x.device.type == "cpu" and x.dtype == torch.float32
        if fast and not self.training and not torch.is_grad_enabled():
            return self._infer(x)
        y = self.second(functional.selu(self.norm(self.first(x))))
        return functional.max_pool2d(y + (x if self.shortcut is None else self.shortcut(x)), (POOL, 1))

    @torch.autocast("cpu", enabled=False)
    def _infer(self, x: Tensor) -> Tensor:
        """The same as the plain road to rounding, one row and one stretch of time after the other.

        In single precision even under autocast: in bfloat16 the plain road takes twice as long.
        """
        steps, channels = x.shape[2], self.second.out_channels
        stretch = STRETCH * torch.get_num_threads()
        weights = self._folded()
        shape = (len(x), channels, steps // POOL, x.shape[3])
        out = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
        for row in range(len(x)):
            for start in range(0, steps - POOL + 1, stretch):
                end = min(start + stretch, steps // POOL * POOL)
                low, high = max(0, start - 2), min(steps, end + 2)
                part = x[row : row + 1, :, low:high]
                part = functional.pad(part, (1, 1, low - start + 2, end + 2 - high))
                pooled = out[row, :, start // POOL : end // POOL]
                self._stretch(part, weights, start == 0, end == steps, pooled)
        return out

    def _stretch(self, part: Tensor, weights: _Folded, at_start: bool, at_end: bool, out: Tensor) -> None:
        """From [1, C, t + 4, F + 2], two steps and a band more at either end, into `out` [outputs, t // 3, F]."""
        y = _convolve(part, weights.first, weights.first_bias)
        below = y.clamp_max(0).exp_()
        y.clamp_min_(0).add_(below, alpha=SELU_ALPHA)
        # The second convolution is padded with zeros, which are ALPHA before the folded constant is taken off.
        if at_start:
            y[:, :, 0] = SELU_ALPHA
        if at_end:
            y[:, :, -1] = SELU_ALPHA
        y = _convolve(y, weights.second, weights.second_bias)
        if weights.shortcut is None:
            y += part[:, :, 2:-2, 1:-1]
        else:
            y += _convolve(part[:, :, 1:-1, 1:-1], weights.shortcut)
        thirds = y[0].unflatten(1, (y.shape[2] // POOL, POOL))
        larger = torch.maximum(thirds[:, :, 0], thirds[:, :, 1])
        torch.maximum(larger, thirds[:, :, 2], out=out)

    def _folded(self) -> _Folded:
        norm = self.norm
        assert norm.running_mean is not None and norm.running_var is not None
        assert self.first.bias is not None and self.second.bias is not None
        first, first_bias = fuse_conv_bn_weights(
            *(self.first.weight, self.first.bias, norm.running_mean, norm.running_var),
            *(norm.eps, norm.weight, norm.bias),
        )
        second = self.second.weight * SELU_SCALE
        second_bias = self.second.bias - SELU_ALPHA * second.sum((1, 2, 3))
        shortcut = None
        if self.shortcut is not None:
            assert self.shortcut.bias is not None
            shortcut, second_bias = self.shortcut.weight, second_bias + self.shortcut.bias
        last = torch.channels_last
        return _Folded(
            *(first.contiguous(memory_format=last), first_bias),
            *(second.contiguous(memory_format=last), second_bias),
            shortcut,
        )


class RawResidualNetwork(nn.Module):
    """Waveform [B, S] -> map [B, width, T, BANDS]; T is S / 3**7, less at each pooling (29 for 64600 samples)."""

    def __init__(self, width: int, masked: int = 20) -> None:
        super().__init__()
        self.bands = SincBands(masked)
        self.norm = nn.BatchNorm2d(1)
        widths = (1, 32, 32, width, width, width, width)
        self.blocks = nn.ModuleList(ResidualBlock(i, o) for i, o in pairwise(widths))

    def forward(self, waveform: Tensor) -> Tensor:
        """`waveform` of at least 2315 samples."""
        x = self.bands(waveform).to(self.norm.weight.dtype)
        x = functional.selu(self.norm(x))
        x = x.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x)
        return x
