"""Which steps of a padded batch are real."""

from __future__ import annotations

import torch
from torch import Tensor


def step_mask(steps: int, lengths: Tensor) -> Tensor:
    """[B, steps] True where a step lies before its row's length."""
    return torch.arange(steps, device=lengths.device)[None] < lengths[:, None]
