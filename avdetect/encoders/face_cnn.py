"""A light CNN on aligned face crops, and on what differs between neighbouring ones.

Inverted residual blocks after Sandler et al., "MobileNetV2" (2018). Beside the picture the network sees its high-pass
residual, where blending seams and up-sampling leave their traces (Fridrich & Kodovský, "Rich models", 2012).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avdetect.encoders.masking import step_mask
from avdetect.types import EncoderOutput


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; with a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int = 3) -> None:
        super().__init__()
        hidden = inputs * expand
        self.shortcut = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.SiLU(inplace=True),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.SiLU(inplace=True),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, outputs, H / stride, W / stride]."""
        y: Tensor = self.layers(x)
        return x + y if self.shortcut else y


class FaceCNN(nn.Module):
    """Face crops [B, N, 3, H, W] in 0..1 -> [B, N, dim], one step per crop."""

    modality = "face"

    def __init__(
        self, size: int = 128, width: int = 16, dim: int = 96, frame_rate: float = 5.0, dropout: float = 0.3
    ) -> None:
        super().__init__()
        self.dim, self.size, self.frame_rate = dim, size, frame_rate
        self.stem = nn.Sequential(
            nn.Conv2d(6, 2 * width, 3, 2, 1, bias=False), nn.BatchNorm2d(2 * width), nn.SiLU(inplace=True)
        )
        plan = [(2, 2, 2), (2, 2, 1), (2, 4, 2), (4, 4, 1), (4, 4, 1), (4, 6, 2), (6, 6, 1), (6, 6, 1)]
        self.blocks = nn.Sequential(
            *(InvertedResidual(i * width, o * width, stride) for i, o, stride in plan)
        )
        self.head = nn.Sequential(
            nn.Conv2d(6 * width, dim, 1, bias=False), nn.BatchNorm2d(dim), nn.SiLU(inplace=True)
        )
        self.dropout = nn.Dropout(dropout)

    def _picture(self, crops: Tensor) -> Tensor:
        """[M, 3, H, W] in 0..1 -> [M, 6, size, size]: the picture about zero, and its high-pass residual."""
        if crops.shape[-1] != self.size:
            crops = nn.functional.interpolate(crops, (self.size, self.size), mode="bilinear", antialias=True)
        residual = crops - nn.functional.avg_pool2d(crops, 3, 1, 1, count_include_pad=False)
        mean = crops.mean((2, 3), keepdim=True)
        return torch.cat([(crops - mean) * 4, residual * 16], 1)

    def forward(self, inputs: Tensor, lengths: Tensor) -> EncoderOutput:
        """Features of face crops; `lengths` [B] in crops. Only real crops are computed, padding costs nothing."""
        batch, crops = inputs.shape[:2]
        mask = step_mask(crops, lengths)
        features = inputs.new_zeros(batch, crops, self.dim)
        if mask.any():
            x = self._picture(inputs[mask])
            x = self.head(self.blocks(self.stem(x))).mean((2, 3))
            features = features.masked_scatter(mask[..., None], self.dropout(x).to(features.dtype))
        return EncoderOutput(features, lengths, self.frame_rate)
