"""One model of several that were trained alike on different clips: what it says is the mean of what they say.

Models trained on a few sources differ most on clips that are like none of them; their mean differs least. Faces and
voices become streams of their own, each with its share of the evidence, or one stream where only the linear heads
differ; lips and speech are compared by the mean of the members' similarities. No weight is trained.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from avdetect.errors import ConfigError
from avdetect.fusion import FusionModel
from avdetect.fusion_settings import Fusion


def committee(models: Sequence[FusionModel]) -> FusionModel:
    """The mean of `models`, of one recipe; calibration and whatever cannot be a mean are the first one's.

    ConfigError where the models differ in their streams, or fuse them by attention.
    """
    first = models[0]
    for one in models:
        if one.config.fusion != Fusion.EVIDENCE.value or one.config.streams != first.config.streams:
            raise ConfigError('a committee needs models with the same streams, and fusion = "evidence"')
    config = copy.deepcopy(first.config)
    shared = {name for name in first.heads if _is_shared(models, name)}
    config.streams = _streams(first, len(models), shared)
    config.claims = _claims(first, len(models), shared)
    joint = FusionModel(config)
    with torch.no_grad():
        joint.load_state_dict(_weights(models, shared))
    return joint.float().eval()


def _is_shared(models: Sequence[FusionModel], stream: str) -> bool:
    """Whether a stream's encoder is the same in all models, and its head linear: the mean of heads is then a head."""
    if models[0].config.streams[stream].get("head") != "linear":
        return False
    first = models[0].encoders[stream].state_dict()
    others = [model.encoders[stream].state_dict() for model in models[1:]]
    return all(torch.equal(value, other[name]) for other in others for name, value in first.items())


def _streams(first: FusionModel, count: int, shared: set[str]) -> dict[str, dict[str, Any]]:
    streams: dict[str, dict[str, Any]] = {}
    for name, stream in first.config.streams.items():
        if name not in first.heads:  # lips and speech are compared, and say nothing alone
            streams[name] = {
                "encoder": "members",
                "options": {"of": [copy.deepcopy(stream) for _ in range(count)]},
            }
        else:
            members = 1 if name in shared else count
            streams |= {called(name, k): copy.deepcopy(stream) for k in range(members)}
    return streams


def _claims(first: FusionModel, count: int, shared: set[str]) -> dict[str, list[str]]:
    own = {
        claim: [name for name in names if name in first.heads] for claim, names in first.config.claims.items()
    }
    return {
        claim: [*(name for name in names if name not in own[claim])]
        + [called(name, k) for name in own[claim] for k in range(1 if name in shared else count)]
        for claim, names in first.config.claims.items()
    }


def called(name: str, number: int) -> str:
    """What a member's stream is called in a committee; `number`: the member's, from 0."""
    return name if number == 0 else f"{name}_{number + 1}"


def _weights(models: Sequence[FusionModel], shared: set[str]) -> dict[str, torch.Tensor]:
    """The members' weights under their names in the committee; each member's evidence is its share of the sum."""
    out: dict[str, torch.Tensor] = {}
    for number, model in enumerate(models):
        for name, value in model.float().state_dict().items():
            part, _, rest = name.partition(".")
            stream, _, inner = rest.partition(".")
            if part == "encoders" and stream not in model.heads:
                out[f"encoders.{stream}.members.{number}.{inner}"] = value
            elif stream in shared and part == "heads":
                out[name] = out.get(name, 0) + value / len(models)
            elif stream in shared and part == "encoders":
                out[name] = value
            elif part in ("encoders", "heads"):
                share = value / len(models) if part == "heads" and inner.startswith("evidence.") else value
                out[f"{part}.{called(stream, number)}.{inner}"] = share
            elif number == 0:
                out[name] = value
    return out
