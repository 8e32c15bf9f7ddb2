"""One row of a results table: what tables, reports and model cards say of a set of scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from avdetect.intervals import ROUNDS, Interval, bootstrap
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
from avdetect.spoof_metrics import act_dcf, cllr, min_dcf

GROUP_ROUNDS = 200
"""Bootstrap rounds for each method, of which a set may have a hundred."""
RATES = (0.01, 0.001)
"""False-positive rates at which the share of fakes caught is told."""
COSTS = ("act_dcf", "cllr")
"""What log-likelihood ratios cost."""


def summary(
    scores: ArrayLike,
    labels: ArrayLike,
    groups: Sequence[str | None] | None = None,
    clusters: Sequence[Hashable] | None = None,
    threshold: float | None = None,
    *,
    probabilities: bool = False,
    ratios: bool = False,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> dict[str, Any]:
    """A row of plain numbers, ready for JSON; what is undefined is None, no row is refused for being small.

    `scores` [N] higher = more fake, `labels` [N] True = fake, `groups` [N] the method or attack of each fake,
    `clusters` [N] the identity that intervals are drawn by, `threshold` the one fixed beforehand (None: no
    accuracies). Keys: n_real, n_fake, auc, eer, eer_threshold, ap, tpr_at_fpr (of "0.01" and "0.001"), min_dcf,
    threshold, acc, acc_real, acc_fake, ece and brier (None unless all scores lie in 0..1), each but counts and
    thresholds with `*_ci`, 95 % [low, high]. With `groups` also `groups`: name -> {n_fake, auc, auc_ci, eer,
    eer_ci}, each method's fakes against all reals.
    act_dcf and cllr are given for scores that are log-likelihood ratios (`ratios`), or calibrated
    `probabilities` at even odds, whose log-odds are such ratios.
    `rounds` 0 leaves the intervals out. ValueError for bad input, as in `metrics`.
    """
    try:
        values, truth = checked(scores, labels, both_classes=False)
    except UndefinedMetricError:
        values, truth = np.zeros(0), np.zeros(0, dtype=np.bool_)
    row: dict[str, Any] = {"n_real": int((~truth).sum()), "n_fake": int(truth.sum())}
    row |= _ranking(values, truth) | _decisions(values, truth, threshold) | _calibration(values, truth)
    asked = ["auc", "eer", "ap", "min_dcf", *(f"tpr@{fpr:g}" for fpr in RATES)]
    asked += [f"{name}@{threshold:g}" for name in ("acc", "acc_real", "acc_fake") if threshold is not None]
    asked += ["ece", "brier"] if row["brier"] is not None else []
    row |= _intervals(values, truth, clusters, asked, rounds, seed)
    if probabilities or ratios:
        odds = log_odds(values) if probabilities else values
        row |= {"act_dcf": or_none(act_dcf, odds, truth), "cllr": or_none(cllr, odds, truth)}
        row |= _intervals(odds, truth, clusters, COSTS, rounds, seed)
    if groups is not None:
        row["groups"] = _groups(values, truth, groups, clusters, rounds, seed)
    return row


def brief(
    scores: ArrayLike, labels: ArrayLike, clusters: Sequence[Hashable], rounds: int, seed: int
) -> dict[str, Any]:
    """n_real, n_fake, auc, auc_ci, eer and eer_ci of `summary` alone; None where undefined."""
    values, truth = np.asarray(scores, np.float64), np.asarray(labels, np.bool_)
    counts = {"n_real": int((~truth).sum()), "n_fake": int(truth.sum())}
    found = {"auc": or_none(auc, values, truth), "eer": or_none(eer, values, truth)}
    return counts | found | _intervals(values, truth, clusters, tuple(found), rounds, seed)


def log_odds(probabilities: ArrayLike) -> Scores:
    """Natural log-odds of probabilities in 0..1, those of 0 and 1 brought to within 1e-9 of them."""
    values = np.clip(np.asarray(probabilities, dtype=np.float64), 1e-9, 1 - 1e-9)
    odds: Scores = np.log(values) - np.log1p(-values)
    return odds


def _intervals(
    values: Scores,
    truth: Labels,
    clusters: Sequence[Hashable] | None,
    names: Sequence[str],
    rounds: int,
    seed: int,
) -> dict[str, Any]:
    """`<metric>_ci` of each name, None where it is undefined; those of tpr@x together as `tpr_at_fpr_ci`."""
    found: Mapping[str, Interval] = {}
    if rounds:
        with suppress(UndefinedMetricError):
            found = bootstrap(values, truth, clusters, metrics=names, rounds=rounds, seed=seed)
    row: dict[str, Any] = {}
    for name in names:
        interval = list(found[name]) if name in found else None
        if name.startswith("tpr@"):
            row.setdefault("tpr_at_fpr_ci", {})[name.removeprefix("tpr@")] = interval
        else:
            row[f"{name.split('@')[0]}_ci"] = interval
    return row


def _ranking(values: Scores, truth: Labels) -> dict[str, Any]:
    return {
        "auc": or_none(auc, values, truth),
        "eer": or_none(eer, values, truth),
        "eer_threshold": or_none(lambda s, t: eer_point(s, t)[1], values, truth),
        "ap": or_none(average_precision, values, truth),
        "tpr_at_fpr": {f"{fpr:g}": or_none(partial(tpr_at_fpr, fpr=fpr), values, truth) for fpr in RATES},
        "min_dcf": or_none(min_dcf, values, truth),
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


def _groups(
    values: Scores,
    truth: Labels,
    groups: Sequence[str | None],
    clusters: Sequence[Hashable] | None,
    rounds: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    if not values.size:
        return {}
    aucs, eers = by_group(auc, values, truth, groups), by_group(eer, values, truth, groups)
    counts = Counter(group for group, fake in zip(groups, truth, strict=True) if fake)
    found: dict[str, dict[str, Any]] = {}
    for name in eers:
        chosen = np.array([not fake or group == name for group, fake in zip(groups, truth, strict=True)])
        people = None if clusters is None else [c for c, here in zip(clusters, chosen, strict=True) if here]
        spread = _intervals(
            values[chosen], truth[chosen], people, ("auc", "eer"), min(rounds, GROUP_ROUNDS), seed
        )
        found[name] = {"n_fake": counts[name], "auc": aucs[name], "eer": eers[name], **spread}
    return found
