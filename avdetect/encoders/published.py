"""Checkpoints that the authors of networks publish (.pth): tensors alone are read of them, code never."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from avdetect.errors import ModelError

# What torch raises of files that are no checkpoints.
UNREADABLE = (
    *(pickle.UnpicklingError, OSError, EOFError, RuntimeError, ValueError, TypeError),
    *(LookupError, AttributeError, AssertionError),
)


def read_weights(path: Path, remedy: str) -> dict[str, Tensor]:
    """The table of weights in a checkpoint.

    ModelError, which ends in `remedy`, for a file that cannot be read or holds anything else.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of strange pickles, which are refused below
            published = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        problem = " ".join(str(error).split())[:100] or type(error).__name__
        raise ModelError(f"{path}: cannot be read as a file of weights alone ({problem}); {remedy}") from None
    if not isinstance(published, Mapping) or not all(_is_weight(*item) for item in published.items()):
        raise ModelError(f"{path}: holds no table of weights; {remedy}")
    return dict(published)


def _is_weight(name: object, value: object) -> bool:
    if not isinstance(name, str) or not isinstance(value, Tensor):
        return False
    return value.layout is torch.strided and not value.is_quantized
