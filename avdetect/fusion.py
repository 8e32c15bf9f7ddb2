"""The network as a transformers model: for training, for `from_pretrained` and `save_pretrained`.

Scoring does without: see `network` and `loading`. Importing transformers takes longer than scoring a short clip.
"""

from __future__ import annotations

import avdetect.compat  # noqa: F401  (must stand before transformers)

# isort: split
from dataclasses import dataclass

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

    def _init_weights(self, module: nn.Module) -> None:
        """Each module keeps its own initialisation."""
