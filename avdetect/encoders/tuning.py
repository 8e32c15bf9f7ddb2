"""How much of a pretrained network is trained: nothing, its normalisation, low-rank changes of its weights, or all.

Low-rank adaptation after Hu et al., "LoRA: low-rank adaptation of large language models" (2021), as a parametrisation
of the weight itself: networks that read `layer.weight` past the layer's own forward (WavLM, VideoMAE) are adapted too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from avdetect.errors import ConfigError

SCALE = 2.0
"""By what the low-rank change is multiplied: alpha / rank of the paper, at the usual alpha = 2 rank."""
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


class Tuning(StrEnum):
    """What of a backbone is trained; what is put on top of it always is."""

    FROZEN = "frozen"
    LAYERNORM = "layernorm"
    LORA = "lora"
    FULL = "full"


class LowRank(nn.Module):
    """A weight [outputs, inputs] plus a change of rank `rank`, which is zero at first."""

    def __init__(self, outputs: int, inputs: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, inputs))
        self.up = nn.Parameter(torch.zeros(outputs, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """[outputs, inputs] -> [outputs, inputs], in the precision of `weight`."""
        return weight + SCALE * (self.up @ self.down).to(weight.dtype)


def tune(network: nn.Module, tuning: Tuning, rank: int, targets: Sequence[str] = ()) -> None:
    """Leave to training what `tuning` says, and freeze the rest.

    LORA changes the linear layers whose name ends in one of `targets` ("q_proj"); without targets, all that are wider
    than `rank` on both sides. ConfigError where none is.
    """
    network.requires_grad_(tuning is Tuning.FULL)
    if tuning is Tuning.LAYERNORM:
        for module in network.modules():
            if isinstance(module, NORMS):
                module.requires_grad_(True)
    elif tuning is Tuning.LORA:
        for layer in _chosen(network, rank, targets):
            change = LowRank(layer.out_features, layer.in_features, rank)
            parametrize.register_parametrization(layer, "weight", change)


def _chosen(network: nn.Module, rank: int, targets: Sequence[str]) -> list[nn.Linear]:
    layers = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    if not layers:
        kind = type(network).__name__
        raise ConfigError(
            f'tuning = "lora": {kind} has no linear layers; give tuning = "layernorm" or "full"'
        )
    for target in targets:
        if not any(_named(name, target) for name in layers):
            known = ", ".join(sorted({name.rpartition(".")[2] for name in layers}))
            raise ConfigError(f"targets: no linear layer is called '{target}'; there are {known}")
    if targets:
        return [layer for name, layer in layers.items() if any(_named(name, target) for target in targets)]
    wide = [layer for layer in layers.values() if min(layer.in_features, layer.out_features) > rank]
    if not wide:
        raise ConfigError(f"rank = {rank} is not below the width of any linear layer; give a smaller one")
    return wide


def _named(name: str, target: str) -> bool:
    return f".{name}".endswith(f".{target}")


def merge(network: nn.Module) -> None:
    """Write the low-rank changes into the weights themselves: the same outputs, from a network without extra parts."""
    for layer in [module for module in network.modules() if isinstance(module, nn.Linear)]:
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
