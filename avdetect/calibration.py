"""Logits to probabilities, and where a probability is enough for a verdict.

Platt scaling (Platt, 1999) per claim on held-out clips, classes weighted alike, so that the probabilities speak of even
odds. Thresholds are set for stated error rates on the same clips: at or above `high` at most FALSE_ALARMS of real
clips, below `low` at most MISSES of fake ones; between them the answer is "inconclusive".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from avdetect.types import CLAIMS, Bools, Floats
from avdetect.validation import Score, arrays

FALSE_ALARMS = 0.015
"""Share of real clips that may be called manipulated on one claim; three claims make up a clip's."""
MISSES = 0.15
"""Share of fake clips that may be passed as clean on one claim."""


def platt(logits: Floats, fake: Bools) -> dict[str, float]:
    """Scale and bias of sigmoid(scale * logit + bias), fitted with both classes weighted alike."""
    from sklearn.linear_model import LogisticRegression

    fit = LogisticRegression(C=10.0, class_weight="balanced").fit(logits[:, None], fake)
    return {"scale": float(max(fit.coef_[0, 0], 1e-3)), "bias": float(fit.intercept_[0])}


def thresholds(probabilities: Floats, fake: Bools) -> dict[str, float]:
    """`low` and `high` for the stated error rates; never out of order."""
    real, fakes = np.sort(probabilities[~fake]), np.sort(probabilities[fake])
    allowed = int(FALSE_ALARMS * len(real))
    high = float(np.nextafter(real[len(real) - 1 - allowed], np.float32(1)))
    low = float(fakes[int(MISSES * len(fakes))])
    high = min(max(high, 0.5), 0.999)
    # rounded outwards, so that no clip slips over a threshold by rounding
    return {"low": math.floor(min(low, high, 0.5) * 1e4) / 1e4, "high": math.ceil(high * 1e4) / 1e4}


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
        bounds[claim.value] = thresholds((1 / (1 + np.exp(-z))).astype(np.float32), fake)
    return calibration, bounds
