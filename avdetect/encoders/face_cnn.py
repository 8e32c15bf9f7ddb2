"""A small residual CNN on face crops.

Beside the picture the network sees its high-pass residual, where blending seams and up-sampling leave their traces
(Fridrich & Kodovský, "Rich models for steganalysis", 2012).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from avdetect.encoders.masking import step_mask
from avdetect.encoders.residual import Tower
from avdetect.errors import ConfigError
from avdetect.types import EncoderOutput


class FaceCNN(nn.Module):
    """Face crops [B, N, 3, H, W] in 0..1 -> [B, N, 2 widths[-1]], one step per crop: mean and maximum over it.

    `every`: in use, not in training, one crop of so many is looked at, which gives as many steps less.
    """

    modality = "face"

    def __init__(
        self,
        size: int = 112,
        widths: Sequence[int] = (24, 48, 64, 96, 128),
        frame_rate: float = 5.0,
        dropout: float = 0.4,
        every: int = 1,
    ) -> None:
        super().__init__()
        if every < 1:
            raise ConfigError(f"encoder 'face_cnn': every = {every} is not a positive number")
        self.every = every
        self.dim, self.size, self.frame_rate = 2 * widths[-1], size, frame_rate
        self.tower = Tower(6, widths)
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
        every = 1 if self.training else self.every
        inputs, lengths = inputs[:, ::every], torch.div(lengths + every - 1, every, rounding_mode="floor")
        batch, crops = inputs.shape[:2]
        mask = step_mask(crops, lengths)
        features = inputs.new_zeros(batch, crops, self.dim)
        if mask.any():
            picture = self._picture(inputs[mask].float()).to(next(self.tower.parameters()).dtype)
            x = self.tower(picture.contiguous(memory_format=torch.channels_last))
            x = torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)
            features = features.masked_scatter(mask[..., None], self.dropout(x).to(features.dtype))
        return EncoderOutput(features, lengths, self.frame_rate / every)
