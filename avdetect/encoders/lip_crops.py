"""A light encoder of what the mouth looks like, beside `sync.LipMotion` which knows where its landmarks stand.

Small grey crops instead of the full mouth video of Chung & Zisserman, "Out of time: automated lip sync in the wild"
(2016): teeth, tongue and the inner lips show what landmarks do not tell. A crop is placed by eyes and nose alone, so
lips and jaw move inside it. Every frame passes a small CNN, with what has changed since the mean picture and since the
frame before it as further channels; convolutions over time follow, as in `sync`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from avdetect.encoders.masking import step_mask
from avdetect.encoders.sync import GatedUnit, TemporalBlock
from avdetect.types import FRAME_RATE, EncoderOutput

CHANNELS = 3
"""The picture, its difference from the mean picture of the row, and from the frame before."""


def _another_view(x: Tensor) -> Tensor:
    """Training only: each row [B, T, H, W] lit, held and mirrored otherwise, and with its own camera's noise."""
    batch = len(x)

    def drawn(low: float, high: float) -> Tensor:
        return torch.empty(batch, device=x.device).uniform_(low, high)

    side = torch.where(torch.rand(batch, device=x.device) < 0.5, -1.0, 1.0)
    theta = torch.zeros(batch, 2, 3, device=x.device)
    theta[:, 0, 0], theta[:, 1, 1] = side * drawn(0.85, 1.15), drawn(0.85, 1.15)
    theta[:, 0, 2], theta[:, 1, 2] = drawn(-0.1, 0.1), drawn(-0.1, 0.1)
    grid = nn.functional.affine_grid(theta, [batch, 1, *x.shape[2:]], align_corners=False)
    x = nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
    x = x.clamp(1e-3, 1) ** drawn(0.6, 1.6)[:, None, None, None]
    return x + drawn(0.0, 0.03)[:, None, None, None] * torch.randn_like(x)


class LipCrops(nn.Module):
    """Mouth crops [B, T, M, M] in 0..1 -> [B, T, dim] at 25 steps per second; unit vectors times a gate in 0..1."""

    modality = "mouth_crops"

    def __init__(
        self,
        size: int = 32,
        widths: Sequence[int] = (16, 32, 48),
        width: int = 112,
        dim: int = 64,
        layers: int = 3,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        self.dim, self.size = dim, size
        cnn: list[nn.Module] = []
        side = size
        for inputs, outputs in zip((CHANNELS, *widths), widths, strict=False):
            kernel = 5 if not cnn else 3
            cnn += [nn.Conv2d(inputs, outputs, kernel, 2, kernel // 2), nn.GroupNorm(1, outputs), nn.GELU()]
            side = -(-side // 2)
        self.cnn = nn.Sequential(*cnn, nn.Flatten())
        self.project = nn.Linear(widths[-1] * side * side, width)
        self.blocks = nn.ModuleList(TemporalBlock(width, 5, dropout) for _ in range(layers))
        self.out = GatedUnit(width, dim)

    def _small(self, crops: Tensor) -> Tensor:
        """[B, T, M, M] -> [B, T, size, size]."""
        if crops.shape[-1] == self.size:
            return crops
        return nn.functional.interpolate(crops, (self.size, self.size), mode="bilinear", antialias=True)

    @torch.autocast("cpu", enabled=False)
    def _pictures(self, x: Tensor, mask: Tensor) -> Tensor:
        """[B, T, H, W] -> [B, T, 3, H, W] (see CHANNELS), in units of the contrast of the row's mean picture."""
        count = mask.sum(1, keepdim=True).clamp_min(1)[..., None, None]
        mean = (x * mask[..., None, None]).sum(1, keepdim=True) / count
        level = mean.mean((2, 3), keepdim=True)
        contrast = ((mean - level).square().mean((2, 3), keepdim=True) + 1e-3).sqrt()
        speed = torch.diff(x, dim=1, prepend=x[:, :1])
        return torch.stack([x - level, 3 * (x - mean), 6 * speed], 2) / contrast[:, :, None]

    def forward(self, inputs: Tensor, lengths: Tensor) -> EncoderOutput:
        """Features of mouth crops; `lengths` [B] in frames. Only real frames pass the CNN, padding costs nothing."""
        batch, steps = inputs.shape[:2]
        mask = step_mask(steps, lengths)
        x = self._small(inputs.float())
        if self.training:
            x = _another_view(x)
        frames = self._pictures(x, mask)[mask].to(self.project.weight.dtype)
        frames = self.project(self.cnn(frames))
        x = frames.new_zeros(batch, steps, frames.shape[1]).masked_scatter(mask[..., None], frames)
        kept = mask[..., None].to(self.project.weight.dtype)
        for block in self.blocks:
            x = block(x, kept)
        return EncoderOutput(self.out(x) * kept, lengths, FRAME_RATE)
