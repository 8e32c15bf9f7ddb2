"""What the encoders on networks of transformers share: their options, the tuned network and a light back end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

import torch
from torch import nn

from avdetect.encoders.pretrained import load_network, read_config, settings_of
from avdetect.encoders.tuning import Tuning, tune
from avdetect.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Options = TypeVar("Options", bound="BackboneOptions")


@dataclass(frozen=True)
class BackboneOptions:
    """Which network, and how much of it is trained.

    `pretrained`: a hub name or a folder, `revision` of it on the hub; weights are read once, when a model is first
    built. `config`: settings laid over the checkpoint's own, or with a "model_type" and without `pretrained` all that
    is known of a network with random weights. `tuning`, `rank`, `targets`: see `tuning`. `dim`: features per step.
    """

    pretrained: str | None = None
    revision: str | None = None
    config: dict[str, Any] | None = None
    tuning: str = Tuning.FROZEN
    rank: int = 8
    targets: Sequence[str] = ()
    dim: int = 256
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.tuning not in {mode.value for mode in Tuning}:
            raise ConfigError(f"tuning = {self.tuning!r} is none of {', '.join(Tuning)}")
        for name in ("rank", "dim"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} = {value!r} is not a positive whole number")
        for name in ("pretrained", "revision"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise ConfigError(f"{name} = {value!r} is not a name")
        if self.config is not None and not isinstance(self.config, dict):
            raise ConfigError(f"config = {self.config!r} is not a table of settings")
        if isinstance(self.targets, str):
            raise ConfigError(f"targets = {self.targets!r} is not a list of names")
        if not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout = {self.dropout!r} is not a share from 0 to 1")


class Backbone(nn.Module):
    """A network of transformers of which as much is trained as its options say. `config`: its settings.

    `accepts` gives the reason why an encoder can do nothing with a network's settings; `fixed` are settings that it
    needs to be so, where the kind of network has them.
    """

    pretrained = True

    def __init__(self, options: BackboneOptions, accepts: Callable[[Any], str | None], **fixed: Any) -> None:
        super().__init__()
        self.tuning = Tuning(options.tuning)
        self.config = read_config(options.pretrained, options.config, options.revision)
        if reason := accepts(self.config):
            raise ConfigError(f"a network of type '{self.config.model_type}' {reason}")
        for name, value in fixed.items():
            if hasattr(self.config, name):
                setattr(self.config, name, value)
        self.network = load_network(options.pretrained, self.config, options.revision)
        tune(self.network, self.tuning, options.rank, options.targets)
        freeze = getattr(self.network, "freeze_feature_encoder", None)
        if freeze is not None and self.tuning is not Tuning.FULL:
            freeze()  # of speech networks: gradients would run through all of a row's samples
        self.trained = {name for name, value in self.network.named_parameters() if value.requires_grad}

    @property
    def dtype(self) -> torch.dtype:
        """The precision of its weights."""
        return next(self.network.parameters()).dtype

    def train(self, mode: bool = True) -> Self:
        """A frozen network is never in training mode: it has no dropout, and its statistics stay.

        What is frozen is said here again, since loading a saved model opens everything to training.
        """
        for name, value in self.network.named_parameters():
            value.requires_grad_(name in self.trained)
        return super().train(mode and self.tuning is not Tuning.FROZEN)

    def forward(self, **inputs: Any) -> Any:
        """What the network gives, without gradients where nothing of it is trained."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.tuning is not Tuning.FROZEN):
            return self.network(**inputs)


class BackEnd(nn.Sequential):
    """[..., inputs] -> [..., dim], the light back end: all that is trained on a frozen network."""

    def __init__(self, inputs: int, options: BackboneOptions) -> None:
        super().__init__(
            nn.LayerNorm(inputs),
            nn.Linear(inputs, options.dim),
            nn.GELU(),
            nn.Dropout(options.dropout),
        )


def written_out(options: Options, config: PreTrainedConfig) -> dict[str, Any]:
    """The options with the network's settings in the place of its name: what builds the encoder again without files."""
    named = dataclasses.replace(options, pretrained=None, revision=None, config=settings_of(config))
    return dataclasses.asdict(named)
