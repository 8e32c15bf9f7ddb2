"""The loss of partly labelled rows, so that parts of a step add up to what the whole step at once would give.

Rows are labelled for some claims only, and other ones in each part of a step: the means of the parts, averaged, would
not be the mean of the whole. So each part's sum is divided by how many rows teach the claim in the *whole* step, over
all its micro-batches and all processes; the labels alone say how many.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

STEPS = 0.3
"""Weight of the steps' own loss beside the clip's."""
SMOOTHING = 0.02
"""Labels are taken as so sure: SMOOTHING and 1 - SMOOTHING."""


def teaching_rows(labels: Tensor, true_lag: Tensor | None) -> Tensor:
    """[C + 1] how many rows teach each claim, and last the lip/speech pair.

    `labels` [B, C] and `true_lag` [B] are nan where nothing is known.
    """
    lags = torch.zeros_like(labels[:, 0]) if true_lag is None else (~true_lag.isnan()).to(labels.dtype)
    return torch.cat([(~labels.isnan()).to(labels.dtype), lags[:, None]], 1).sum(0)


def claim_losses(
    clip_logits: Tensor, step_logits: Tensor, claim_mask: Tensor, step_mask: Tensor, labels: Tensor
) -> Tensor:
    """[C] cross-entropy of clips and of their steps, summed over the rows that have evidence and a label.

    clip_logits, claim_mask, labels [B, C]; step_logits, step_mask [B, K, C]. A row's steps are averaged. A row that is
    labelled but shows no evidence adds nothing.
    """
    known = ~labels.isnan() & claim_mask
    target = labels.nan_to_num(0.5) * (1 - 2 * SMOOTHING) + SMOOTHING
    clip = nn.functional.binary_cross_entropy_with_logits(clip_logits, target, reduction="none")
    per_step = target[:, None].expand_as(step_logits)
    step = nn.functional.binary_cross_entropy_with_logits(step_logits, per_step, reduction="none")
    seen = step_mask & known[:, None]
    step = (step * seen).sum(1) / seen.sum(1).clamp_min(1)
    return ((clip + STEPS * step) * known).sum(0)
