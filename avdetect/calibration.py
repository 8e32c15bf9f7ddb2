"""Logits to probabilities, and where a probability is enough for a verdict.

Platt scaling (Platt, 1999) per claim on held-out clips, classes weighted alike, so that the probabilities speak of even
odds. Thresholds are set for stated shares of the same real clips: at most FALSE_ALARMS at or above `high`, and at most
DOUBTS more at or above `low`, where the answer is "inconclusive". How many fakes that finds is for the card to say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from avdetect.types import CLAIMS, Bools, Claim, Floats
from avdetect.validation import Score, arrays

FALSE_ALARMS = {
    Claim.FACE_MANIPULATION: 0.01,
    Claim.VOICE_CLONING: 0.02,
    Claim.LIP_SYNC_MISMATCH: 0.025,
}
"""Share of real clips that each claim may call manipulated; most where most fakes are found.

So that fewer than 5 % of real clips have one of the three: the claims' false alarms fall partly on the same clips, and
no clip is asked about what it lacks.
"""
DOUBTS = 0.10
"""Share of real clips that may be left inconclusive on one claim."""


def platt(logits: Floats, fake: Bools) -> dict[str, float]:
    """Scale and bias of sigmoid(scale * logit + bias), fitted with both classes weighted alike."""
    from sklearn.linear_model import LogisticRegression

    fit = LogisticRegression(C=10.0, class_weight="balanced").fit(logits[:, None], fake)
    return {"scale": float(max(fit.coef_[0, 0], 1e-3)), "bias": float(fit.intercept_[0])}


def thresholds(probabilities: Floats, fake: Bools, false_alarms: float) -> dict[str, float]:
    """`low` and `high` for the stated shares of real clips; never out of order."""
    real = np.sort(probabilities[~fake])[::-1]
    high, low = (_just_above(real, share) for share in (false_alarms, false_alarms + DOUBTS))
    high = min(max(high, 0.5), 0.999)
    # rounded upwards, so that no clip slips over a threshold by rounding
    return {name: math.ceil(value * 1e4) / 1e4 for name, value in (("low", min(low, high)), ("high", high))}


def _just_above(falling: Floats, share: float) -> float:
    """The least value that at most `share` of the numbers, sorted from the largest, reach."""
    return float(np.nextafter(falling[int(share * len(falling))], np.float32(1)))


def calibrate(scores: Sequence[Score]) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Calibration and thresholds per claim; a claim without both classes keeps the identity and 0.5."""
    calibration: dict[str, dict[str, float]] = {}
    bounds: dict[str, dict[str, float]] = {}
    for claim in CLAIMS:
        logits, fake = arrays(scores, claim)
        if len(set(fake.tolist())) < 2:
            calibration[claim.value] = {"scale": 1.0, "bias": 0.0}
            bounds[claim.value] = {"low": 0.5, "high": 0.5}
            continue
        fit = platt(logits, fake)
        calibration[claim.value] = {name: round(value, 5) for name, value in fit.items()}
        z = fit["scale"] * logits + fit["bias"]
        stated = (1 / (1 + np.exp(-z))).astype(np.float32)
        bounds[claim.value] = thresholds(stated, fake, FALSE_ALARMS[claim])
    return calibration, bounds
