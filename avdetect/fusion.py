"""The network as a transformers model: for training, for `from_pretrained` and `save_pretrained`.

Scoring does without: see `network` and `loading`. Importing transformers takes longer than scoring a short clip.
"""

from __future__ import annotations

import avdetect.compat  # noqa: F401  (must stand before transformers)

# isort: split
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils.generic import ModelOutput

from avdetect.fusion_settings import FusionSettings
from avdetect.network import FusionNetwork, FusionOutput


class FusionConfig(FusionSettings, PreTrainedConfig):
    """FusionSettings as a transformers configuration; what else is given is kept beside them."""

    model_type = "avdetect"

    __init__ = FusionSettings.__init__  # or transformers would make one of its own


@dataclass
class FusionModelOutput(FusionOutput, ModelOutput):
    """FusionOutput as transformers' Trainer and accelerate take it."""


class FusionModel(FusionNetwork, PreTrainedModel):
    """FusionNetwork with the same weights under the same names."""

    config: FusionConfig
    output_type = FusionModelOutput
    config_class = FusionConfig
    base_model_prefix = "avdetect"
    main_input_name = "waveform"
    accepts_loss_kwargs = (
        True  # Trainer then gives num_items_in_batch, and does not divide losses by parts of a step
    )

    def __init__(self, config: FusionConfig) -> None:
        PreTrainedModel.__init__(self, config)
        self.assemble(config)
        self.post_init()

    def save_pretrained(  # type: ignore[override]  # transformers names each option
        self, save_directory: str | Path, *args: Any, **options: Any
    ) -> None:
        """As PreTrainedModel.save_pretrained, with every weight under its own name.

        transformers would save those of its networks under the names of their first checkpoints, which only its own
        loading turns back.
        """
        super().save_pretrained(save_directory, *args, **{"save_original_format": False, **options})

    def _init_weights(self, module: nn.Module) -> None:
        """Each module keeps its own initialisation."""
