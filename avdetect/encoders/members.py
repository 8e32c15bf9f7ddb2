"""Several encoders of one kind of input side by side, their features in one vector.

Compared by their product with those of another such committee, they give the mean of the members' similarities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from avdetect.errors import ConfigError
from avdetect.types import EncoderOutput


class Members(nn.Module):
    """[B, T, D] of each of K encoders -> [B, T, K D] over the square root of K.

    `of`: {"encoder": name, "options": {...}} of each. ConfigError where they read different inputs or are none.
    """

    def __init__(self, of: Sequence[Mapping[str, Any]]) -> None:
        from avdetect.encoders import build_encoder

        super().__init__()
        built = [build_encoder(one["encoder"], **one.get("options", {})) for one in of]
        kinds = sorted({one.modality for one in built})
        if len(kinds) != 1:
            raise ConfigError(
                f"encoder 'members': {len(built)} encoders of {' and '.join(kinds) or 'nothing'}; give one kind"
            )
        self.modality, self.dim = kinds[0], sum(one.dim for one in built)
        self.members = nn.ModuleList(one for one in built if isinstance(one, nn.Module))

    def forward(self, inputs: Tensor, lengths: Tensor) -> EncoderOutput:
        """Features of `inputs`, as the members take them; `lengths` and steps per second are the first one's."""
        found = [member(inputs, lengths) for member in self.members]
        features = torch.cat([one.features for one in found], -1) / len(found) ** 0.5
        return EncoderOutput(features, found[0].lengths, found[0].frame_rate)
