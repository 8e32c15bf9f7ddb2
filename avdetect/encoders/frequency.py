"""A small network that sees of faces only their fine structure: residuals of fixed filters, and block DCTs.

The two halves of Qian et al., "Thinking in frequency" (F3-Net, 2020), made cheap: three high-pass filters of
steganalysis (Fridrich & Kodovský, "Rich models for steganalysis", 2012, as Zhou et al. chose them for tampered
pictures, 2018), and the energies of the block DCT in rings of equal frequency, where up-sampling and blending leave
peaks and holes. Crops are never resized here: that would write its own traces over the ones that are looked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from avdetect.encoders.masking import step_mask
from avdetect.encoders.residual import Tower
from avdetect.types import EncoderOutput

SIDE = 8
"""Pixels of a DCT block, as in JPEG and the old video codecs."""
RINGS = 2 * SIDE - 2
"""Sums of vertical and horizontal frequency, 1..14: the mean brightness is left out."""
TRUNCATE = 4.0
"""Residuals beyond so many of 255 grey levels are edges, not traces."""
FLOOR = 0.1
"""Added to DCT energies in squared grey levels: what rounding to whole levels leaves (1/12 per coefficient)."""


@cache
@torch.inference_mode(False)  # what is first made for a verdict can be trained with too
def residual_filters(device: torch.device) -> Tensor:
    """[3, 1, 5, 5] high-pass filters: second differences in a square and in a line, and the "KV" kernel."""
    square = torch.zeros(5, 5)
    square[1:4, 1:4] = torch.tensor([[-1.0, 2, -1], [2, -4, 2], [-1, 2, -1]]) / 4
    kv = [[-1.0, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]]
    line = torch.zeros(5, 5)
    line[2, 1:4] = torch.tensor([1.0, -2, 1]) / 2
    return torch.stack([square, torch.tensor(kv) / 12, line])[:, None].to(device)


@cache
@torch.inference_mode(False)
def block_dct(device: torch.device) -> tuple[Tensor, Tensor]:
    """The DCT-II of blocks, orthonormal, as filters [SIDE², 1, SIDE, SIDE]; the mean over each ring [RINGS, SIDE²]."""
    from scipy.fft import dct

    basis = torch.from_numpy(dct(np.eye(SIDE), norm="ortho", axis=0)).float()  # [frequency, pixel]
    filters = torch.einsum("uy,vx->uvyx", basis, basis).reshape(SIDE**2, 1, SIDE, SIDE)
    place = torch.arange(SIDE)
    ring = (place[:, None] + place[None]).flatten()
    member = (ring[None] == torch.arange(1, RINGS + 1)[:, None]).float()
    return filters.to(device), (member / member.sum(1, keepdim=True)).to(device)


class Frequency(nn.Module):
    """Face crops [B, N, 3, H, W] in 0..1 -> [B, N, 2 widths[-1]], one step per crop: mean and maximum over it.

    `widths`: of the first layers on residuals, which halve the picture three times to the grid of blocks, and of the
    layers on both together, which halve it further.
    """

    modality = "face"

    def __init__(
        self,
        first: Sequence[int] = (12, 24, 32),
        widths: Sequence[int] = (64, 96),
        frame_rate: float = 5.0,
        dropout: float = 0.4,
    ) -> None:
        super().__init__()
        self.dim, self.frame_rate = 2 * widths[-1], frame_rate
        self.residuals = Tower(3, first)
        self.both = Tower(first[-1] + RINGS, widths)
        self.dropout = nn.Dropout(dropout)

    def _traces(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """[M, 3, H, W] -> residuals [M, 3, H, W] in -1..1, and ring energies [M, RINGS, H / SIDE, W / SIDE]."""
        # Whole levels again, as the crops came: half precision would leave traces of its own.
        levels = (255 * crops.float()).round()
        grey = torch.einsum("c,mchw->mhw", levels.new_tensor([0.299, 0.587, 0.114]), levels)[:, None]
        short = [-edge % SIDE for edge in grey.shape[-2:]]
        grey = functional.pad(grey, (0, short[1], 0, short[0]), mode="replicate")
        around = functional.pad(grey, (2, 2, 2, 2), mode="replicate")
        residuals = functional.conv2d(around, residual_filters(grey.device))
        filters, rings = block_dct(grey.device)
        energy = functional.conv2d(grey, filters, stride=SIDE).square()
        energy = torch.einsum("rk,mkhw->mrhw", rings, energy)
        return residuals.clamp(-TRUNCATE, TRUNCATE) / TRUNCATE, (energy + FLOOR).log() / 4

    def forward(self, inputs: Tensor, lengths: Tensor) -> EncoderOutput:
        """Features of face crops; `lengths` [B] in crops. Only real crops are computed, padding costs nothing."""
        mask = step_mask(inputs.shape[1], lengths)
        features = inputs.new_zeros(*mask.shape, self.dim)
        if mask.any():
            with torch.autocast(inputs.device.type, enabled=False):
                residuals, energies = self._traces(inputs[mask])
            x = self.residuals(
                residuals.to(next(self.parameters()).dtype).contiguous(memory_format=torch.channels_last)
            )
            x = self.both(torch.cat([x, energies.to(x.dtype)], 1))
            x = self.dropout(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1))
            features = features.masked_scatter(mask[..., None], x.to(features.dtype))
        return EncoderOutput(features, lengths, self.frame_rate)
