"""Residual blocks of plain 3x3 convolutions, for pictures of faces and of sound alike.

He et al., "Deep residual learning" (2016). Dense convolutions count more operations than depth-wise ones and yet run
faster: CPUs with matrix units keep these busy, and memory rules the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from avdetect.encoders.masking import step_mask


class Block(nn.Module):
    """Two convolutions and a shortcut: [B, C, H, W] -> [B, outputs, H / 2, W / 2]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        )
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, ceil_mode=True),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Halves the picture; `mask` [B, 1, 1, W / 2] keeps padding at zero."""
        y = self.first(x)
        y = self.second(y if mask is None else y * mask)
        y = torch.relu(y + self.shortcut(x))
        return y if mask is None else y * mask


class Tower(nn.Module):
    """[B, inputs, H, W] -> [B, widths[-1], H / 2**n, W / 2**n] for n widths."""

    def __init__(self, inputs: int, widths: Sequence[int], kernel: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(inputs, widths[0], kernel, 2, kernel // 2, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        )
        self.blocks = nn.ModuleList(Block(i, o) for i, o in pairwise(widths))

    def forward(self, x: Tensor, columns: Tensor | None = None) -> Tensor:
        """`columns` [B]: how many columns of each picture are real, where they run along time; halved at each step."""
        x = self.stem(x)
        mask, columns = _halved(columns, x.shape[-1], x.dtype)
        x = x if mask is None else x * mask
        for block in self.blocks:
            mask, columns = _halved(columns, -(-x.shape[-1] // 2), x.dtype)
            x = block(x, mask)
        return x


def _halved(columns: Tensor | None, width: int, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
    """Mask [B, 1, 1, width] of half as many columns, and their number [B]."""
    if columns is None:
        return None, None
    columns = torch.div(columns, 2, rounding_mode="floor").clamp_min(1)
    return step_mask(width, columns)[:, None, None].to(dtype), columns
