"""One row of a results table: what tables, reports and model cards say of a set of scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from avdetect.intervals import ROUNDS, bootstrap
from avdetect.metrics import (
    Labels,
    Scores,
    UndefinedMetricError,
    accuracy,
    auc,
    average_precision,
    brier,
    by_group,
    checked,
    ece,
    eer,
    eer_point,
    or_none,
    tpr_at_fpr,
)


def summary(
    scores: ArrayLike,
    labels: ArrayLike,
    groups: Sequence[str | None] | None = None,
    clusters: Sequence[Hashable] | None = None,
    threshold: float | None = None,
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> dict[str, Any]:
    """A row of plain numbers, ready for JSON; what is undefined is None, no row is refused for being small.

    `scores` [N] higher = more fake, `labels` [N] True = fake, `groups` [N] the method or attack of each fake,
    `clusters` [N] the identity that intervals are drawn by, `threshold` the one fixed beforehand (None: no
    accuracies). Keys: n_real, n_fake, auc, auc_ci, eer, eer_ci, eer_threshold, ap, tpr_at_fpr (of "0.01" and
    "0.001"), threshold, acc, acc_real, acc_fake, ece and brier (None unless all scores lie in 0..1); `*_ci`
    are 95 % [low, high]. With `groups` also `groups`: name -> {n_fake, auc, eer}, each method's fakes against
    all reals.
    `rounds` 0 leaves the intervals out. ValueError for bad input, as in `metrics`.
    """
    try:
        values, truth = checked(scores, labels, both_classes=False)
    except UndefinedMetricError:
        values, truth = np.zeros(0), np.zeros(0, dtype=np.bool_)
    row: dict[str, Any] = {"n_real": int((~truth).sum()), "n_fake": int(truth.sum())}
    row |= _ranking(values, truth, clusters, rounds, seed)
    row |= _decisions(values, truth, threshold)
    row |= _calibration(values, truth)
    if groups is not None:
        row["groups"] = _groups(values, truth, groups)
    return row


def _ranking(
    values: Scores, truth: Labels, clusters: Sequence[Hashable] | None, rounds: int, seed: int
) -> dict[str, Any]:
    intervals: dict[str, list[float]] = {}
    if rounds:
        try:
            found = bootstrap(values, truth, clusters, rounds=rounds, seed=seed)
            intervals = {name: list(interval) for name, interval in found.items()}
        except UndefinedMetricError:
            pass  # shown as None below
    return {
        "auc": or_none(auc, values, truth),
        "auc_ci": intervals.get("auc"),
        "eer": or_none(eer, values, truth),
        "eer_ci": intervals.get("eer"),
        "eer_threshold": or_none(lambda s, t: eer_point(s, t)[1], values, truth),
        "ap": or_none(average_precision, values, truth),
        "tpr_at_fpr": {
            "0.01": or_none(lambda s, t: tpr_at_fpr(s, t, 0.01), values, truth),
            "0.001": or_none(lambda s, t: tpr_at_fpr(s, t, 0.001), values, truth),
        },
    }


def _decisions(values: Scores, truth: Labels, threshold: float | None) -> dict[str, float | None]:
    row: dict[str, float | None] = {"threshold": threshold, "acc": None, "acc_real": None, "acc_fake": None}
    if threshold is not None:
        limit = threshold
        for key, part in (("acc", np.ones_like(truth)), ("acc_real", ~truth), ("acc_fake", truth)):
            row[key] = or_none(lambda s, t: accuracy(s, t, limit), values[part], truth[part])
    return row


def _calibration(values: Scores, truth: Labels) -> dict[str, float | None]:
    if values.size and (values.min() < 0 or values.max() > 1):
        return {"ece": None, "brier": None}
    return {"ece": or_none(ece, values, truth), "brier": or_none(brier, values, truth)}


def _groups(values: Scores, truth: Labels, groups: Sequence[str | None]) -> dict[str, dict[str, Any]]:
    if not values.size:
        return {}
    aucs, eers = by_group(auc, values, truth, groups), by_group(eer, values, truth, groups)
    counts = Counter(group for group, fake in zip(groups, truth, strict=True) if fake)
    return {name: {"n_fake": counts[name], "auc": aucs[name], "eer": eers[name]} for name in eers}
