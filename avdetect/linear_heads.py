"""Linear heads, fitted to the end: penalised logistic regression on examples drawn as training draws them.

Gradient steps stop somewhere on the way, and with a few dozen fakes it is where they stop that decides what a head
makes of sources it never saw. This has one solution, which nothing but the examples and the penalty decides. Meant for
encoders of which nothing is trained: their features don't move under it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from avdetect.errors import ConfigError
from avdetect.fusion import FusionModel
from avdetect.fusion_layers import LinearHead
from avdetect.progress import track
from avdetect.recordings import ExampleSet, MixSettings, Recording, collate_examples
from avdetect.types import CLAIMS, Claim, Floats

LEAST = 1e-4
"""A variance of features below which they say nothing."""
EVEN = -3.0
"""Raw sharpness of a claim's pooling that is all but a mean: a head that saw single steps knows of no maximum."""
KINDS = {Claim.FACE_MANIPULATION: "face", Claim.VOICE_CLONING: "voice"}
"""The examples of `MixSettings` that teach a claim."""
INPUTS = {"face": ("faces", "face_lengths"), "audio": ("waveform", "waveform_lengths")}


def linear_streams(model: FusionModel) -> list[str]:
    """The streams whose heads are linear."""
    return [name for name, stream in model.config.streams.items() if stream.get("head") == "linear"]


def fit_linear(
    model: FusionModel,
    recordings: Sequence[Recording],
    mix: MixSettings,
    batches: int,
    penalty: float,
    seed: int,
) -> None:
    """Fits every linear head of `model`, in place, on `batches` batches of examples of one crop, or one voice, each.

    The mean cross-entropy of steps and `penalty` times the sum of squared weights of standardised features are least.
    A claim of which `mix` draws no examples is left as it is. ConfigError where a stream can't be fitted.
    """
    for name in linear_streams(model):
        claim = _claim_of(model, name)
        if not getattr(mix, KINDS[claim]):
            continue
        only: dict[str, Any] = {
            kind: getattr(mix, kind) if kind == KINDS[claim] else 0
            for kind in ("voice", "face", "sync", "whole")
        }
        examples = ExampleSet(recordings, replace(mix, **only, crops=1), batches, seed)
        features, fake = _features(model, name, claim, examples)
        weight, bias = logistic(features, fake, penalty)
        head, index = model.heads[name], CLAIMS.index(claim)
        assert isinstance(head, LinearHead)
        with torch.no_grad():
            head.evidence.weight[index] = torch.from_numpy(weight)
            head.evidence.bias[index] = bias
            model.sharpness[index] = EVEN


def _claim_of(model: FusionModel, stream: str) -> Claim:
    """The claim that reads a stream; ConfigError where it is not one claim's only stream."""
    read = [Claim(claim) for claim, names in model.config.claims.items() if stream in names]
    if len(read) != 1 or read[0] not in KINDS or model.config.claims[read[0].value] != [stream]:
        raise ConfigError(
            f'[model.streams.{stream}] head = "linear": it must be all that one claim reads, and that claim one of '
            f"{', '.join(KINDS)}"
        )
    return read[0]


def _features(
    model: FusionModel, stream: str, claim: Claim, examples: ExampleSet
) -> tuple[Floats, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """Every valid step's features [N, D] in all examples, and whether it is of a fake [N]."""
    encoder, size = model.encoders[stream].eval(), examples.mix.batch
    names = INPUTS[model.modalities[stream]]
    features, fake = [], []
    with torch.inference_mode():
        for batch in track(range(examples.steps), f"fitting {stream}", examples.steps):
            drawn = [examples[index] for index in range(batch * size, (batch + 1) * size)]
            inputs, lengths = (collate_examples(drawn)[name].to(model.device) for name in names)
            out = encoder(inputs if inputs.is_floating_point() else inputs.float() / 255, lengths)
            for row, example in enumerate(drawn):
                found = out.features[row, : int(out.lengths[row])].float().cpu().numpy()
                features.append(found)
                fake += [bool(example.label[claim])] * len(found)
    return np.concatenate(features), np.array(fake)


def logistic(
    features: Floats, fake: np.ndarray[tuple[int], np.dtype[np.bool_]], penalty: float
) -> tuple[Floats, float]:
    """Weights [D] and bias of the logit of `fake`, for features as they come [N, D]."""
    from sklearn.linear_model import LogisticRegression

    mean, scale = features.mean(0), np.sqrt(features.var(0) + LEAST)
    fit = LogisticRegression(C=1 / (2 * penalty * len(features)), max_iter=1000)
    fit.fit((features - mean) / scale, fake)
    if fit.n_iter_[0] >= fit.max_iter:
        print(f"linear head: not at its end after {fit.max_iter} iterations", file=sys.stderr)
    weight = (fit.coef_[0] / scale).astype(np.float32)
    return weight, float(fit.intercept_[0] - weight @ mean)
