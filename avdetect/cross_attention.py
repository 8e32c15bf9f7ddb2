"""Cross-modal attention: a claim's streams, aligned in time, are read together instead of one by one.

Each claim asks once per step, with a token of its own that reads the tokens of the streams that the configuration
lists for it, at all steps (Vaswani et al., 2017; the claim tokens are as the class token of ViT). Which of the streams
are there differs from row to row: what is absent or beyond a row's end is masked, so that it can't be read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from avdetect.fusion_layers import MaskedAttention
from avdetect.fusion_settings import FusionSettings
from avdetect.types import CLAIMS

Steps = Mapping[str, tuple[Tensor, Tensor]]
"""Stream -> features [B, K, D of the stream] on the fusion axis, and where they are there [B, K]."""


class CrossModalAttention(nn.Module):
    """Evidence per step and claim from any subset of streams; `widths`: stream -> D of its features."""

    def __init__(self, widths: Mapping[str, int], settings: FusionSettings) -> None:
        super().__init__()
        self.reads = [list(dict.fromkeys(settings.claims.get(claim.value, []))) for claim in CLAIMS]
        self.stream_dropout = settings.stream_dropout
        self.project = nn.ModuleDict({name: nn.Linear(width, settings.dim) for name, width in widths.items()})
        self.stream = nn.ParameterDict(
            {name: nn.Parameter(0.02 * torch.randn(settings.dim)) for name in widths}
        )
        self.claim = nn.Parameter(0.02 * torch.randn(len(CLAIMS), settings.dim))
        self.layers = nn.ModuleList(
            MaskedAttention(settings.dim, settings.heads, settings.dropout)
            for _ in range(max(1, settings.layers))
        )
        self.norm = nn.LayerNorm(settings.dim)
        self.evidence = nn.Linear(settings.dim, len(CLAIMS))

    def forward(self, streams: Steps, batch: int, steps: int) -> tuple[Tensor, Tensor]:
        """Evidence [B, K, C], and where at least one stream of the claim was there."""
        device = self.claim.device
        place = _positions(steps, self.claim.shape[1], device)
        total = torch.zeros(batch, steps, len(CLAIMS), device=device)
        valid = torch.zeros(batch, steps, len(CLAIMS), dtype=torch.bool, device=device)
        tokens = {
            name: (self.project[name](x) + self.stream[name] + place, mask)
            for name, (x, mask) in streams.items()
        }
        for index, names in enumerate(self.reads):
            present = [tokens[name] for name in names if name in tokens]
            if present:
                mask = self._kept(torch.stack([mask for _, mask in present], 1))
                total[..., index] = self._ask(index, torch.cat([x for x, _ in present], 1), mask, place)
                valid[..., index] = mask.any(1)
        return total * valid, valid

    def _ask(self, index: int, tokens: Tensor, mask: Tensor, place: Tensor) -> Tensor:
        """Evidence [B, K] on one claim from its streams' tokens [B, S * K, D] with mask [B, S, K]."""
        steps = mask.shape[2]
        question = (self.claim[index] + place).expand(len(tokens), -1, -1)
        x = torch.cat([question, tokens], 1)
        readable = nn.functional.pad(mask.flatten(1), (steps, 0))  # the questions themselves are not read
        for layer in self.layers:
            x = layer(x, readable)
        answers: Tensor = self.evidence(self.norm(x[:, :steps]))
        return answers[..., index].float()

    def _kept(self, mask: Tensor) -> Tensor:
        """The mask [B, S, K] with some of a row's streams hidden in training, though never all of them."""
        there = mask.any(2)
        if not self.training or mask.shape[1] < 2:
            return mask
        kept = there & (torch.rand(there.shape, device=mask.device) >= self.stream_dropout)
        return mask & torch.where(kept.any(1, keepdim=True), kept, there)[..., None]


def _positions(steps: int, dim: int, device: torch.device) -> Tensor:
    """[K, D] sines and cosines of the step (Vaswani et al., 2017), the longest wave 1,000 steps."""
    rate = torch.exp(-math.log(1000.0) * torch.arange(0, dim, 2, device=device) / dim)
    angle = torch.arange(steps, device=device)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :dim]
