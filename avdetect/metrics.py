"""How well scores tell fake from real: pure functions on numbers.

Everywhere: `scores` [N] are finite, higher = more fake; `labels` [N] are bool (or 0/1), True = fake; rates
are fractions in 0..1. A trial is called fake when its score is at or above the threshold.
One rule for what cannot be computed: the function raises `UndefinedMetricError` (a `ValueError`), a table
shows None. Bad input (NaN, unequal lengths, labels that are not 0/1) is a plain `ValueError`, in tables too.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Scores = NDArray[np.float64]
Labels = NDArray[np.bool_]
Metric = Callable[[Scores, Labels], float]


class UndefinedMetricError(ValueError):
    """The metric has no value for this input, for example an EER without real trials."""


class DetCurve(NamedTuple):
    """Both error rates [N+1] at every threshold [N+1], from the one that calls nothing fake downwards.

    `real_rejected` is the share of real trials called fake (ASVspoof: miss), `fake_accepted` the share of
    fake trials not called fake (ASVspoof: false alarm). A trial is called fake at or above the threshold.
    """

    real_rejected: Scores
    fake_accepted: Scores
    thresholds: Scores


class ReliabilityBin(NamedTuple):
    """Trials with a probability in `[low, high)`: their number, their mean, and the share that is fake."""

    low: float
    high: float
    trials: int
    mean_score: float | None
    fake_rate: float | None


def checked(scores: ArrayLike, labels: ArrayLike, *, both_classes: bool = True) -> tuple[Scores, Labels]:
    """Scores [N] as float64 and labels [N] as bool.

    ValueError for other shapes, empty input, a score that is not finite or a label that is not bool or 0/1;
    UndefinedMetricError for trials of one class only, unless `both_classes` is False.
    """
    values = np.asarray(scores, dtype=np.float64)
    raw = np.asarray(labels)
    if values.ndim != 1 or raw.shape != values.shape:
        raise ValueError(f"scores {values.shape} and labels {raw.shape} must be two lists of one length")
    if not np.isfinite(values).all():
        index = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(
            f"score {index} is {values[index]}: leave trials without a score out, and count them"
        )
    if values.size == 0:
        raise UndefinedMetricError("there are no trials")
    if raw.dtype != np.bool_ and not (raw.dtype.kind in "iuf" and np.isin(raw, (0, 1)).all()):
        raise ValueError("labels must be True (fake) or False (real): leave trials of unknown label out")
    truth = raw.astype(np.bool_)
    if both_classes and truth.all() == truth.any():
        raise UndefinedMetricError(
            f"all {truth.size} trials are {'fake' if truth.all() else 'real'}: both are needed"
        )
    return values, truth


def or_none(metric: Metric, scores: ArrayLike, labels: ArrayLike) -> float | None:
    """The metric's value, or None where it is undefined: what a table shows."""
    try:
        return metric(np.asarray(scores, dtype=np.float64), np.asarray(labels))
    except UndefinedMetricError:
        return None


# ------------------------------------------------------------------------------------------------ ranking


def ranked(scores: Scores, labels: Labels) -> NDArray[np.intp]:
    """Order [N] of the trials, most fake first; real trials come first among ties.

    That is the ASVspoof organisers' stable, ascending sort of bona fide and then spoof scores.
    """
    real_first = np.argsort(labels, kind="stable")
    order: NDArray[np.intp] = real_first[np.argsort(-scores[real_first], kind="stable")]
    return order


def error_rates(real: Labels) -> tuple[Scores, Scores]:
    """`real_rejected` and `fake_accepted` [N+1] of trials in `ranked` order, `real` [N] where one is real."""
    rejected = np.concatenate([[0], np.cumsum(real)])
    caught = np.arange(real.size + 1) - rejected
    return rejected / rejected[-1], (caught[-1] - caught) / caught[-1]


def det_curve(scores: ArrayLike, labels: ArrayLike) -> DetCurve:
    """Every operating point, exactly as ASVspoof's `compute_det_curve` (evaluation packages 2019, 2021, 5).

    One threshold per trial, ties not merged (real trials come first among them), and one that calls nothing
    fake, 0.001 beyond the most fake score.
    """
    values, truth = checked(scores, labels)
    order = ranked(values, truth)
    rejected, accepted = error_rates(~truth[order])
    thresholds = values[order]
    return DetCurve(rejected, accepted, np.concatenate([[thresholds[0] + 0.001], thresholds]))


def eer_point(scores: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """Equal error rate 0..1 and its threshold, as ASVspoof's `compute_eer`.

    The mean of both error rates at the first threshold where they are closest; nothing is interpolated. Ties
    count against the system: scores that are all equal give 1.0, so never feed it decisions for scores.
    """
    curve = det_curve(scores, labels)
    index = int(np.argmin(np.abs(curve.real_rejected - curve.fake_accepted)))
    return float(curve.real_rejected[index] + curve.fake_accepted[index]) / 2, float(curve.thresholds[index])


def eer(scores: ArrayLike, labels: ArrayLike) -> float:
    """Equal error rate 0..1, as ASVspoof's `compute_eer`; see `eer_point`."""
    return eer_point(scores, labels)[0]


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the ROC curve 0..1: how often a fake scores above a real one, ties half (scikit-learn)."""
    from sklearn.metrics import roc_auc_score

    values, truth = checked(scores, labels)
    return float(roc_auc_score(truth, values))


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Average precision 0..1 of finding the fakes, not interpolated (scikit-learn)."""
    from sklearn.metrics import average_precision_score

    values, truth = checked(scores, labels)
    return float(average_precision_score(truth, values))


def tpr_at_fpr(scores: ArrayLike, labels: ArrayLike, fpr: float) -> float:
    """Highest share of fakes caught (0..1) while at most `fpr` (0..1) of the real trials are called fake.

    Only thresholds that exist count, nothing is interpolated: with fewer than 1/fpr real trials none may be
    called fake. Tied trials are called together (scikit-learn's `roc_curve`).
    """
    from sklearn.metrics import roc_curve

    if not 0 <= fpr <= 1:
        raise ValueError(f"fpr {fpr} is not in 0..1")
    values, truth = checked(scores, labels)
    false_rates, true_rates, _ = roc_curve(truth, values, drop_intermediate=False)
    return float(true_rates[false_rates <= fpr + 1e-12].max())


def accuracy(scores: ArrayLike, labels: ArrayLike, threshold: float) -> float:
    """Share of trials 0..1 called rightly at a threshold fixed beforehand; one class alone is fine."""
    values, truth = checked(scores, labels, both_classes=False)
    return float(((values >= threshold) == truth).mean())


# -------------------------------------------------------------------------------------------- calibration


def _probabilities(scores: ArrayLike, labels: ArrayLike) -> tuple[Scores, Labels]:
    values, truth = checked(scores, labels, both_classes=False)
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"scores from {values.min():g} to {values.max():g} are not probabilities in 0..1")
    return values, truth


def brier(scores: ArrayLike, labels: ArrayLike) -> float:
    """Mean squared distance 0..1 between probabilities in 0..1 and what is true (Brier 1950); 0 is best."""
    values, truth = _probabilities(scores, labels)
    return float(np.mean((values - truth) ** 2))


def _binned(scores: ArrayLike, labels: ArrayLike, bins: int) -> tuple[Scores, Scores, Scores]:
    """Trials, sum of probabilities and fakes of `bins` equally wide bins; the last one holds 1.0 too."""
    if bins < 1:
        raise ValueError(f"{bins} bins: at least one is needed")
    values, truth = _probabilities(scores, labels)
    index = np.minimum((values * bins).astype(np.int64), bins - 1)
    weights = np.ones_like(values), values, truth.astype(np.float64)
    trials, total, fakes = (np.bincount(index, weight, bins).astype(np.float64) for weight in weights)
    return trials, total, fakes


def reliability(scores: ArrayLike, labels: ArrayLike, bins: int = 15) -> list[ReliabilityBin]:
    """Reliability diagram of probabilities in 0..1: `bins` equally wide bins, an empty one without rates."""
    rows = np.stack(_binned(scores, labels, bins), axis=1).tolist()
    return [
        ReliabilityBin(i / bins, (i + 1) / bins, int(n), total / n if n else None, fakes / n if n else None)
        for i, (n, total, fakes) in enumerate(rows)
    ]


def ece(scores: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error 0..1: mean distance between probability and fake rate, weighted by bin.

    Equally wide bins over the probability of "fake" (Naeini et al. 2015; Guo et al. 2017 use 15 bins).
    """
    trials, total, fakes = _binned(scores, labels, bins)
    return float(np.abs(total - fakes).sum() / trials.sum())


# ------------------------------------------------------------------------------------- groups and levels


def by_group(
    metric: Metric,
    scores: ArrayLike,
    labels: ArrayLike,
    groups: Sequence[str | None],
    *,
    shared_reals: bool = True,
) -> dict[str, float | None]:
    """The metric per group, by name; None where it is undefined for a group.

    `shared_reals` sets each attack's or method's fakes against *all* real trials, as ASVspoof does (a real
    trial's own group then does not matter). Without it a group holds its own fakes and its own reals, for
    conditions that both have: codec, language, duration. Trials of group None belong to no group.
    """
    values, truth = checked(scores, labels, both_classes=False)
    if len(groups) != values.size:
        raise ValueError(f"{len(groups)} groups for {values.size} scores")
    names = np.array([group if group is not None else "" for group in groups])
    has_group = np.array([group is not None for group in groups])
    wanted = has_group & truth if shared_reals else has_group
    table: dict[str, float | None] = {}
    for name in np.unique(names[wanted]):
        chosen = wanted & (names == name)
        if shared_reals:
            chosen |= ~truth
        table[str(name)] = or_none(metric, values[chosen], truth[chosen])
    return table


def clip_level(
    scores: ArrayLike, labels: ArrayLike, clips: Sequence[Hashable], how: Literal["mean", "max"] = "mean"
) -> tuple[Scores, Labels, list[Hashable]]:
    """From frames or windows [N] to clips [C]: pooled scores, labels (fake if any part is) and clip names.

    Clips come in the order of their first part. `how` is the mean over the parts, as FaceForensics++ and
    DeepfakeBench pool frames, or their maximum, for fakes that are local in time.
    """
    values, truth = checked(scores, labels, both_classes=False)
    if len(clips) != values.size:
        raise ValueError(f"{len(clips)} clip names for {values.size} scores")
    number: dict[Hashable, int] = {}
    index = np.array([number.setdefault(clip, len(number)) for clip in clips], dtype=np.int64)
    fakes = np.bincount(index, weights=truth, minlength=len(number)) > 0
    if how == "mean":
        pooled = np.bincount(index, weights=values) / np.bincount(index)
    elif how == "max":
        pooled = np.full(len(number), -np.inf)
        np.maximum.at(pooled, index, values)
    else:
        raise ValueError(f"how {how!r} is neither 'mean' nor 'max'")
    return pooled, fakes, list(number)
