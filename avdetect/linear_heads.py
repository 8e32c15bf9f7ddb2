"""Linear heads, fitted to the end: penalised logistic regression on examples drawn as training draws them.

Gradient steps stop somewhere on the way, and with a few dozen fakes it is where they stop that decides what a head
makes of sources it never saw. This has one solution, which nothing but the examples and the penalty decides. Meant for
encoders of which nothing is trained: their features don't move under it, and they rest while other streams learn.
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
from avdetect.fusion_layers import LinearHead, resample_steps
from avdetect.fusion_settings import PENALTY, STEP_RATE
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


def resting(model: FusionModel) -> frozenset[str]:
    """The linear streams with nothing to train but their heads: gradient steps would be wasted on them.

    ConfigError where one can't be fitted: before the others learn, not after.
    """
    names = linear_streams(model)
    for name in names:
        _claim_of(model, name)
    return frozenset(
        name
        for name in names
        if not any(weight.requires_grad for weight in model.encoders[name].parameters())
    )


def still_taught(model: FusionModel, mix: MixSettings) -> MixSettings:
    """`mix` without the examples that only streams that rest could learn from."""
    idle: dict[str, Any] = {
        kind: 0
        for claim, kind in KINDS.items()
        if (read := model.config.claims.get(claim.value)) and model.resting.issuperset(read)
    }
    return replace(mix, **idle)


def fit_linear(
    model: FusionModel,
    recordings: Sequence[Recording],
    mix: MixSettings,
    batches: int,
    seed: int,
) -> None:
    """Fits every linear head of `model`, in place, on `batches` batches of labelled examples, a crop or a voice each.

    The mean cross-entropy of examples, and the stream's penalty times the sum of squared weights of standardised
    features, are least. Where a claim reads other streams too, a head says its share of their mean. What no claim
    reads, or `mix` draws no examples of, is left as it is. ConfigError where a stream can't be fitted.
    """
    for name in linear_streams(model):
        claim = _claim_of(model, name)
        if claim is None or not getattr(mix, KINDS[claim]):
            continue
        examples = ExampleSet(recordings, _labelled(mix, claim, recordings), batches, seed)
        features, fake = _features(model, name, claim, examples)
        weight, bias = logistic(features, fake, model.config.streams[name].get("penalty", PENALTY))
        head, index, read = model.heads[name], CLAIMS.index(claim), model.config.claims[claim.value]
        assert isinstance(head, LinearHead)
        with torch.no_grad():
            head.evidence.weight[index] = torch.from_numpy(weight) / len(read)
            head.evidence.bias[index] = bias / len(read)
            if set(read) <= set(linear_streams(model)):
                model.sharpness[index] = EVEN


def _labelled(mix: MixSettings, claim: Claim, recordings: Sequence[Recording]) -> MixSettings:
    """Examples of one claim, one crop each: any real one, any labelled fake; forgeries only where there is none.

    Forgeries and pairs from one source keep a network from learning sources by heart. From a weighted sum of frozen
    features they take what it knows of other makers' fakes: docs/base/README.md has the numbers.
    """
    kinds: dict[str, Any] = {
        kind: getattr(mix, kind) if kind == KINDS[claim] else 0 for kind in ("voice", "face", "sync", "whole")
    }
    if any(one.item.label[claim] for one in recordings):
        kinds |= {"forged_voices": 0.0, "forged_faces": 0.0}
    return replace(mix, **kinds, crops=1, same_source=0.0)


def _claim_of(model: FusionModel, stream: str) -> Claim | None:
    """The claim that reads a stream; ConfigError where several do, or its streams don't each learn alone."""
    read = [Claim(claim) for claim, names in model.config.claims.items() if stream in names]
    if not read:
        return None
    if len(read) != 1 or read[0] not in KINDS:
        raise ConfigError(
            f'[model.streams.{stream}] head = "linear": one claim must read it, and that one of {", ".join(KINDS)}'
        )
    if len(model.config.claims[read[0].value]) > 1 and model.config.own_loss != 1:
        raise ConfigError(
            f'[model.streams.{stream}] head = "linear": {read[0]} reads other streams too, which must each learn '
            f"alone; set own_loss = 1.0 (it is {model.config.own_loss:g})"
        )
    return read[0]


def _features(
    model: FusionModel, stream: str, claim: Claim, examples: ExampleSet
) -> tuple[Floats, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """The mean of the features of each example's valid steps [N, D], and whether it is of a fake [N]."""
    encoder, kind, size = model.encoders[stream].eval(), model.modalities[stream], examples.mix.batch
    features, fake = [], []
    with torch.inference_mode():
        for batch in track(range(examples.steps), f"fitting {stream}", examples.steps):
            drawn = [examples[index] for index in range(batch * size, (batch + 1) * size)]
            batched = {name: value.to(model.device) for name, value in collate_examples(drawn).items()}
            inputs, lengths = (batched[name] for name in INPUTS[kind])
            out = encoder(inputs if inputs.is_floating_point() else inputs.float() / 255, lengths)
            steps, mask = resample_steps(out, max(1, int(model.seconds_of(kind, inputs) * STEP_RATE + 0.5)))
            mask = model.spoken(stream, mask, batched.get("speech"))
            heard = mask.any(1)
            mean = (steps * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp_min(1)
            features.append(mean[heard].float().cpu().numpy())
            fake += [
                bool(example.label[claim]) for example, is_heard in zip(drawn, heard, strict=True) if is_heard
            ]
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
