"""Linear-frequency spectra of speech seen as pictures, by the first blocks of EfficientNet-Lite0.

What photographs teach a network to see (edges, textures, rhythms) serves spectra too: Gong et al., "PSLA: improving
audio tagging with pretraining" (2021). A voice's harmonics are lines; what a vocoder does to them changes a texture.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avdetect.encoders.efficientnet_lite import LEAST, TOGETHER, imagenet_unless_loaded
from avdetect.encoders.lcnn import HIGH, HOP, WINDOW, LinearSpectrum
from avdetect.encoders.masking import step_mask
from avdetect.errors import ConfigError
from avdetect.types import SAMPLE_RATE, EncoderOutput

SPAN = 12.0
"""Natural logarithms of energy from black to white."""


class SpectralEfficientNet(nn.Module):
    """Waveform [B, S] -> EncoderOutput [B, T, 2 dim]: mean and deviation over frequency, a step for each 16 frames.

    `blocks`: how many of the network are used; `trained`: how many of the last of those are trained. `bands`, `gate`,
    `window`, `high`: see `LinearSpectrum`.
    """

    modality = "audio"

    def __init__(
        self,
        blocks: int = 8,
        trained: int = 5,
        dropout: float = 0.3,
        bands: int = 160,
        gate: float = 0.0,
        window: int = WINDOW,
        high: float = HIGH,
    ) -> None:
        super().__init__()
        self.trunk = imagenet_unless_loaded(blocks, trained)
        self.step = self.trunk.stride
        if bands < self.step:
            raise ConfigError(f"encoder 'spectral_efficientnet': bands = {bands}; give {self.step} or more")
        self.spectrum = LinearSpectrum(bands, gate=gate, window=window, high=high)
        self.dim = 2 * self.trunk.dim
        # with nothing trained, all that are built alike stay alike, and one can stand for several (see `committee`)
        self.norm = nn.BatchNorm1d(self.dim, eps=LEAST) if trained else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def _summary(self, spectra: Tensor) -> Tensor:
        """[M, bands, frames], a multiple of `step` of them -> [M, frames / step, dim]."""
        found = []
        for some in spectra.split(TOGETHER):
            maps = self.trunk((0.5 + some[:, None] / SPAN).clamp(0, 1).expand(-1, 3, -1, -1))
            found.append(torch.cat([maps.mean(2), maps.std(2)], 1).transpose(1, 2))
        return torch.cat(found)

    def forward(self, inputs: Tensor, lengths: Tensor) -> EncoderOutput:
        """Features of speech `inputs` [B, S] at 16 kHz; `lengths` [B] in samples.

        Rows of one length are computed together, each without the padding that the longest needs.
        """
        spectra, frames = self.spectrum(nn.functional.pad(inputs, (0, self.step * HOP)), lengths)
        steps = torch.div(frames + self.step - 1, self.step, rounding_mode="floor")
        features = spectra.new_zeros(len(inputs), int(steps.max()), self.dim)
        for count in steps.unique().tolist():
            rows = torch.nonzero(steps == count)[:, 0]
            found = self._summary(spectra[rows, :, : count * self.step])
            features = features.index_copy(
                0, rows, nn.functional.pad(found, (0, 0, 0, features.shape[1] - count)).to(features.dtype)
            )
        mask = step_mask(features.shape[1], steps)
        normed = self.dropout(self.norm(features[mask].to(self.trunk.stem.weight.dtype)))
        features = torch.zeros_like(features).masked_scatter(mask[..., None], normed.to(features.dtype))
        return EncoderOutput(features, steps, SAMPLE_RATE / HOP / self.step)
