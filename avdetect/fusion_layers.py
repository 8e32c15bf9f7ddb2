"""The parts of a fusion model: streams on one time axis, read in context, turned into evidence, pooled over time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from avdetect.encoders.masking import step_mask
from avdetect.fusion_settings import STEP_RATE, FusionSettings
from avdetect.types import CLAIMS, FRAME_RATE, EncoderOutput


def resample_steps(output: EncoderOutput, steps: int) -> tuple[Tensor, Tensor]:
    """Features on the fusion axis [B, steps, D], averaged over each step's span, and their mask [B, steps]."""
    ratio = output.frame_rate / STEP_RATE
    position = torch.arange(output.features.shape[1], device=output.features.device)
    target = torch.div(position + 0.5, ratio, rounding_mode="floor").long().clamp_max(steps - 1)
    if ratio < 1:  # fewer features than steps: each step takes the nearest feature
        source = ((torch.arange(steps, device=position.device) + 0.5) * ratio).long()
        source = source.clamp_max(output.features.shape[1] - 1)
        present = step_mask(output.features.shape[1], output.lengths)[:, source]
        return output.features[:, source] * present[..., None], present
    mask = step_mask(output.features.shape[1], output.lengths).to(output.features.dtype)
    total = output.features.new_zeros(len(mask), steps, output.features.shape[2])
    total.index_add_(1, target, output.features * mask[..., None])
    count = mask.new_zeros(len(mask), steps).index_add_(1, target, mask)
    return total / count.clamp_min(1)[..., None], count > 0


def joined(streams: Sequence[EncoderOutput]) -> EncoderOutput:
    """The mean of streams on one grid, at each step over those that are there: alone, one stays as it is."""
    if len(streams) == 1:
        return streams[0]
    steps = max(stream.features.shape[1] for stream in streams)
    there = [step_mask(steps, stream.lengths) for stream in streams]
    padded = [nn.functional.pad(s.features, (0, 0, 0, steps - s.features.shape[1])) for s in streams]
    mean = torch.stack(padded).sum(0) / torch.stack(there).sum(0).clamp_min(1)[..., None]
    lengths = torch.stack([stream.lengths for stream in streams]).amax(0)
    return EncoderOutput(mean, lengths, streams[0].frame_rate)


def soft_maximum(logits: Tensor, mask: Tensor, sharpness: Tensor) -> Tensor:
    """Log-mean-exp of [..., K] over valid steps, with a sharpness [...].

    It is the mean for sharpness -> 0, the maximum for sharpness -> inf. With a learned sharpness a short fake
    stretch in a long real clip survives as far as the training data has shown that it should. Rows without a
    valid step give 0.
    """
    scaled = (logits * sharpness[..., None]).masked_fill(~mask, float("-inf"))
    count = mask.sum(-1)
    pooled = torch.logsumexp(scaled.masked_fill(count[..., None] == 0, 0.0), -1) - count.clamp_min(1).log()
    return torch.where(count > 0, pooled / sharpness, torch.zeros_like(pooled))


def speech_steps(speech: Tensor, steps: int) -> Tensor:
    """[B, T] on the video grid -> [B, steps]: whether someone speaks within the step."""
    per_step = int(FRAME_RATE / STEP_RATE)
    padded = nn.functional.pad(speech, (0, max(0, steps * per_step - speech.shape[1])))[:, : steps * per_step]
    return padded.unflatten(1, (steps, per_step)).any(2)


class MaskedAttention(nn.Module):
    """Self-attention among the tokens of [B, N, D], each of which may read the valid tokens and itself."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(
            dim, heads, 2 * dim, dropout, "gelu", batch_first=True, norm_first=True
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[B, N, D]; `mask` [B, N] says which tokens are read."""
        attend = mask[:, None, :] | torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
        heads = self.layer.self_attn.num_heads
        y: Tensor = self.layer(x, src_mask=~attend.repeat_interleave(heads, 0))
        return y


class LinearHead(nn.Module):
    """One stream's features brought to the fusion axis, each step's weighted and summed to evidence per claim."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.evidence = nn.Linear(inputs, len(CLAIMS))

    def forward(self, output: EncoderOutput, steps: int) -> tuple[Tensor, Tensor]:
        """Evidence [B, K, C] and mask [B, K]."""
        x, mask = resample_steps(output, steps)
        return self.evidence(x) * mask[..., None], mask


class StreamHead(nn.Module):
    """One stream's features brought to the fusion axis, read in context, and turned into evidence per claim."""

    def __init__(self, inputs: int, settings: FusionSettings) -> None:
        super().__init__()
        self.project = nn.Linear(inputs, settings.dim)
        self.context = nn.ModuleList(
            MaskedAttention(settings.dim, settings.heads, settings.dropout) for _ in range(settings.layers)
        )
        self.norm = nn.LayerNorm(settings.dim)
        self.evidence = nn.Linear(settings.dim, len(CLAIMS))

    def forward(self, output: EncoderOutput, steps: int) -> tuple[Tensor, Tensor]:
        """Evidence [B, K, C] and mask [B, K]."""
        x, mask = resample_steps(output, steps)
        x = self.project(x) * mask[..., None]
        for layer in self.context:
            x = layer(x, mask) * mask[..., None]
        return self.evidence(self.norm(x)) * mask[..., None], mask
