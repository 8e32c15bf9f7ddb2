"""A pair of light encoders that meet where mouth and speech are of one moment: lips and speech, 25 steps per second.

Contrastive lip/speech embedding after Chung & Zisserman, "Out of time: automated lip sync in the wild" (2016), on
landmark motion and small mouth crops instead of full mouth video, and log-mel instead of MFCC. Each step's embedding is
a unit vector times a gate in 0..1, so that a still mouth or a silent moment takes itself out of the comparison.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avdetect.encoders.masking import step_mask
from avdetect.encoders.spectra import FFT, hann, mel_bands
from avdetect.types import FRAME_RATE, SAMPLE_RATE, EncoderOutput

HOP = SAMPLE_RATE // (4 * FRAME_RATE)


def _another_mouth(x: Tensor) -> Tensor:
    """Training only: wider, flatter, noisier mouths than were filmed; [B, T, P] with x and y in turn."""
    batch, _, points = x.shape
    size = torch.empty(batch, 1, 1, 2, device=x.device).uniform_(0.5, 1.5)
    shape = 1 + 0.15 * torch.randn(batch, 1, points, device=x.device)
    noise = 0.06 * torch.rand(batch, 1, 1, device=x.device) * torch.randn_like(x)
    return (x.unflatten(2, (points // 2, 2)) * size).flatten(2) * shape + noise


def _another_voice(x: Tensor) -> Tensor:
    """Training only: coloured and with missing bands and moments [B, F, T], after SpecAugment (Park et al., 2019)."""
    batch, bands, _ = x.shape
    knots = 0.4 * torch.randn(batch, 1, 6, device=x.device)
    x = x * torch.empty(batch, 1, 1, device=x.device).uniform_(0.7, 1.3)
    x = x + nn.functional.interpolate(knots, bands, mode="linear").transpose(1, 2) * (x != 0)
    for axis, most in ((1, bands // 4), (2, 24)):
        start = torch.randint(0, x.shape[axis], (batch,), device=x.device)
        width = torch.randint(0, most + 1, (batch,), device=x.device)
        place = torch.arange(x.shape[axis], device=x.device)[None]
        keep = (place < start[:, None]) | (place >= (start + width)[:, None])
        x = x * (keep[:, :, None] if axis == 1 else keep[:, None, :])
    return x


class TemporalBlock(nn.Module):
    """Residual temporal convolution [B, T, D] that never looks at padding."""

    def __init__(self, dim: int, kernel: int, dropout: float, dilation: int = 1) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.conv = nn.Conv1d(dim, dim, kernel, padding=dilation * (kernel // 2), dilation=dilation)
        self.mix = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`mask` [B, T, 1]."""
        y = self.norm(x) * mask
        y = nn.functional.gelu(self.conv(y.transpose(1, 2)).transpose(1, 2))
        return (x + self.dropout(self.mix(y))) * mask


class GatedUnit(nn.Module):
    """[B, T, D] -> unit vectors times a gate in 0..1."""

    def __init__(self, inputs: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(inputs, dim)
        self.gate = nn.Linear(inputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, inputs] -> [B, T, dim]."""
        return nn.functional.normalize(self.project(x), dim=-1) * torch.sigmoid(self.gate(x))


class LipMotion(nn.Module):
    """Lip landmarks in the head's own frame, and their speed: [B, T, P] -> [B, T, dim] at 25 steps per second."""

    modality = "mouth"

    def __init__(
        self, points: int = 92, width: int = 112, dim: int = 64, layers: int = 3, dropout: float = 0.25
    ) -> None:
        super().__init__()
        self.dim = dim
        self.project = nn.Linear(2 * points, width)
        self.blocks = nn.ModuleList(TemporalBlock(width, 5, dropout) for _ in range(layers))
        self.out = GatedUnit(width, dim)

    def forward(self, inputs: Tensor, lengths: Tensor) -> EncoderOutput:
        """Features of lip points `inputs` [B, T, P] in units of the eye distance; `lengths` [B] in frames."""
        mask = step_mask(inputs.shape[1], lengths)[..., None].to(inputs.dtype)
        mean = (inputs * mask).sum(1, keepdim=True) / lengths.clamp_min(1)[:, None, None]
        x = (inputs - mean) * mask * 10
        if self.training:
            x = _another_mouth(x) * mask
        speed = torch.diff(x, dim=1, prepend=x[:, :1]) * 3 * mask
        mask = mask.to(self.project.weight.dtype)
        x = self.project(torch.cat([x, speed], -1).to(mask.dtype)) * mask
        for block in self.blocks:
            x = block(x, mask)
        return EncoderOutput(self.out(x) * mask, lengths, FRAME_RATE)


class SyncSpeech(nn.Module):
    """Log-mel speech [B, S] -> [B, T, dim] at 25 steps per second."""

    modality = "audio"

    def __init__(
        self, bands: int = 48, width: int = 112, dim: int = 64, layers: int = 3, dropout: float = 0.25
    ) -> None:
        super().__init__()
        self.dim = dim
        self.bands = bands
        self.stem = nn.Conv1d(bands, width, 4, stride=4)
        self.blocks = nn.ModuleList(TemporalBlock(width, 5, dropout) for _ in range(layers))
        self.out = GatedUnit(width, dim)

    @torch.autocast("cpu", enabled=False)
    def _spectrum(self, waveform: Tensor, frames: Tensor, steps: int) -> Tensor:
        """[B, bands, steps], frame k centred on sample (k + 1/2) HOP, mean removed, zero beyond `frames`."""
        waveform = nn.functional.pad(waveform.float(), (FFT // 2 - HOP // 2, FFT))
        window = hann(FFT, waveform.device)
        spectrum = torch.stft(waveform, FFT, HOP, FFT, window, center=False, return_complex=True)
        bands = mel_bands(self.bands, 60.0, 7600.0, waveform.device)
        energy = spectrum[..., :steps].abs().square().transpose(1, 2) @ bands
        mask = step_mask(steps, frames)[..., None]
        level = (energy * mask).sum((1, 2)) / (frames.clamp_min(1) * energy.shape[2])
        energy = (energy / level.clamp_min(1e-10)[:, None, None] + 1e-4).log() * mask
        mean = energy.sum(1, keepdim=True) / frames.clamp_min(1)[:, None, None]
        return ((energy - mean) * mask * 0.4).transpose(1, 2)

    def forward(self, inputs: Tensor, lengths: Tensor) -> EncoderOutput:
        """Features of speech `inputs` [B, S] at 16 kHz; `lengths` [B] in samples."""
        steps = torch.div(lengths, 4 * HOP, rounding_mode="floor")
        total = inputs.shape[1] // (4 * HOP)
        inputs = inputs * step_mask(inputs.shape[1], lengths)
        x = self._spectrum(inputs, 4 * steps, 4 * total)
        if self.training:
            x = _another_voice(x)
        x = x.to(self.stem.weight.dtype)
        mask = step_mask(total, steps)[..., None].to(x.dtype)
        x = self.stem(x).transpose(1, 2) * mask
        for block in self.blocks:
            x = block(x, mask)
        return EncoderOutput(self.out(x) * mask, steps, FRAME_RATE)
