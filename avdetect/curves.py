"""Scores to the geometry of an evaluation's plots: ROC, DET, histogram, reliability and bars, as SVG paths.

Plots are drawn in a box of 100 x 100 units, y downwards, that the page gives axes and a size; nothing here knows of
colours. Curves keep at most MAX_POINTS points, chosen so that no step larger than a pixel is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from avdetect.metrics import Labels, Scores, UndefinedMetricError, det_curve, reliability

SIDE = 100.0
MAX_POINTS = 400
DET_RATES = (0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95)
"""Rates that the DET plot's axes name; they reach from the first to the last."""
BINS = 25
"""Columns of a histogram."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Bar:
    """A rectangle: left, top, width, height."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Dot:
    """A reliability bin: where it lies, and its share of the trials (0..1)."""

    x: float
    y: float
    share: float


@dataclass(frozen=True)
class Plots:
    """One claim's plots; `roc` and `det` are None with one class only, `dots` empty unless scores are in 0..1.

    `real` and `fake` are columns of the histogram, each class scaled to its own highest column.
    """

    roc: str | None
    det: str | None
    equal: tuple[float, float] | None
    real: tuple[Bar, ...]
    fake: tuple[Bar, ...]
    dots: tuple[Dot, ...]


def plots(scores: Scores, labels: Labels) -> Plots:
    """The plots of scores [N] in 0..1 with labels [N], True = fake."""
    try:
        curve = det_curve(scores, labels)
    except UndefinedMetricError:
        return Plots(None, None, None, *histogram(scores, labels), dots=dots(scores, labels))
    # Trials of one score are called together: what lies between them is no operating point.
    last = np.append(curve.thresholds[1:] != curve.thresholds[:-1], True)
    rejected, accepted = curve.real_rejected[last], curve.fake_accepted[last]
    rejected, accepted = np.append(0.0, rejected), np.append(1.0, accepted)
    middle = int(np.argmin(np.abs(rejected - accepted)))
    equal = det_axis((rejected[middle] + accepted[middle]) / 2)
    return Plots(
        path(SIDE * rejected, SIDE * accepted),
        path(_axis(rejected), SIDE - _axis(accepted)),
        (equal, SIDE - equal),
        *histogram(scores, labels),
        dots=dots(scores, labels),
    )


def path(x: Values, y: Values) -> str:
    """An SVG path through the points, thinned to those that can be told apart."""
    cells = np.round(np.stack([x, y], 1), 1)
    kept = cells[np.append(True, (cells[1:] != cells[:-1]).any(1))]
    while len(kept) > MAX_POINTS:
        kept = np.concatenate([kept[:-1:2], kept[-1:]])
    return "M" + "L".join(f"{a:g} {b:g}" for a, b in kept)


def det_axis(rate: float) -> float:
    """Where a rate lies on a DET plot's axis, 0..100: by the quantile of the normal distribution."""
    normal = NormalDist()
    low, high = normal.inv_cdf(DET_RATES[0]), normal.inv_cdf(DET_RATES[-1])
    place = normal.inv_cdf(min(max(rate, DET_RATES[0]), DET_RATES[-1]))
    return SIDE * (place - low) / (high - low)


def _axis(rates: Values) -> Values:
    unique, which = np.unique(rates, return_inverse=True)
    placed: Values = np.array([det_axis(rate) for rate in unique])[which]
    return placed


def histogram(scores: Scores, labels: Labels) -> tuple[tuple[Bar, ...], tuple[Bar, ...]]:
    """Columns of the real trials and of the fake ones; a score's place is its probability."""
    width = SIDE / BINS
    found = []
    for part in (~labels, labels):
        counts = np.histogram(scores[part], bins=BINS, range=(0, 1))[0]
        tall = SIDE * counts / max(1, counts.max(initial=0))
        found.append(
            tuple(
                Bar(round(width * at, 2), round(SIDE - height, 2), round(width, 2), round(height, 2))
                for at, height in enumerate(tall)
                if height
            )
        )
    return found[0], found[1]


def dots(scores: Scores, labels: Labels, bins: int = 10) -> tuple[Dot, ...]:
    """The bins of a reliability diagram that hold trials."""
    if not scores.size or scores.min() < 0 or scores.max() > 1:
        return ()
    return tuple(
        Dot(round(SIDE * one.mean_score, 2), round(SIDE * (1 - one.fake_rate), 2), one.trials / scores.size)
        for one in reliability(scores, labels, bins)
        if one.mean_score is not None and one.fake_rate is not None
    )


def spread(interval: Sequence[float] | None) -> tuple[float, float] | None:
    """An interval of rates as left edge and width in units."""
    return (
        None
        if interval is None
        else (round(SIDE * interval[0], 2), round(SIDE * (interval[1] - interval[0]), 2))
    )
