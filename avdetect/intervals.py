"""How sure a number is: bootstrap intervals and paired tests between two systems.

Scores, labels and errors as in `metrics`. Every draw is seeded: the same input gives the same interval.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from avdetect.metrics import Labels, Scores, UndefinedMetricError, checked
from avdetect.resampling import Counts, Metric, Ranking, Resample, metric

ROUNDS = 1000
"""Bootstrap rounds where nothing else is asked for."""


class Interval(NamedTuple):
    """Where the value lies with the asked confidence, by percentiles of the bootstrap."""

    low: float
    high: float


class DeLong(NamedTuple):
    """Two systems on the same trials: their AUCs (0..1), a - b with its interval, z and two-sided p."""

    auc_a: float
    auc_b: float
    difference: float
    interval: Interval
    z: float
    p: float


class PairedBootstrap(NamedTuple):
    """a - b of one metric on the same resampled trials: its interval and a two-sided p of no difference."""

    difference: float
    interval: Interval
    p: float


def _cluster_numbers(clusters: Sequence[Hashable], size: int) -> NDArray[np.int64]:
    if len(clusters) != size:
        raise ValueError(f"{len(clusters)} clusters for {size} scores")
    number: dict[Hashable, int] = {}
    index = np.array([number.setdefault(cluster, len(number)) for cluster in clusters], dtype=np.int64)
    if len(number) < 2:
        raise UndefinedMetricError("an interval over clusters needs at least two of them")
    return index


def _draws(labels: Labels, clusters: Sequence[Hashable] | None, rounds: int, seed: int) -> Iterator[Counts]:
    """How often each trial [N] is drawn, round by round; a round without both classes is left out."""
    rng = np.random.default_rng(seed)
    if clusters is None:
        parts = [np.flatnonzero(labels), np.flatnonzero(~labels)]
        for _ in range(rounds):
            counts = np.zeros(labels.size, dtype=np.int64)
            for part in parts:
                counts[part] = np.bincount(rng.integers(part.size, size=part.size), minlength=part.size)
            yield counts
        return
    index = _cluster_numbers(clusters, labels.size)
    total = int(index.max()) + 1
    for _ in range(rounds):
        counts = np.bincount(rng.integers(total, size=total), minlength=total)[index]
        if counts[labels].any() and counts[~labels].any():
            yield counts


def _percentiles(values: Sequence[float], rounds: int, level: float) -> Interval:
    if len(values) < rounds / 2:
        raise UndefinedMetricError(
            f"only {len(values)} of {rounds} resamples hold both classes: too few clusters"
        )
    low, high = np.quantile(np.asarray(values), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _check_settings(rounds: int, level: float) -> None:
    if rounds < 1 or not 0 < level < 1:
        raise ValueError(f"rounds {rounds} must be positive and level {level} within 0..1")


def bootstrap(
    scores: ArrayLike,
    labels: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    metrics: Sequence[str] | Mapping[str, Metric] = ("auc", "eer"),
    rounds: int = ROUNDS,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Percentile interval of each metric of `resampling.METRICS` ("auc", "eer", "tpr@0.01" …), or of others by name.

    With `clusters` [N] (the identity or speaker of each trial) whole clusters are drawn, because clips of one
    person are not independent; without, trials are drawn within each class. Every round is exact (nothing is
    sub-sampled): 71,237 trials cost about 3 ms a round. UndefinedMetricError for fewer than two clusters or
    where most resamples hold one class only.
    """
    _check_settings(rounds, level)
    computed = dict(metrics) if isinstance(metrics, Mapping) else {name: metric(name) for name in metrics}
    values, truth = checked(scores, labels)
    ranking = Ranking.of(values, truth)
    found: dict[str, list[float]] = {name: [] for name in metrics}
    for counts in _draws(truth, clusters, rounds, seed):
        drawn = Resample(ranking, counts)
        for name, compute in computed.items():
            found[name].append(compute(drawn))
    return {name: _percentiles(found[name], rounds, level) for name in metrics}


def paired_bootstrap(
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    labels: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    of: str = "auc",
    rounds: int = ROUNDS,
    level: float = 0.95,
    seed: int = 0,
) -> PairedBootstrap:
    """Whether two systems differ in a metric of `resampling.METRICS` on the same trials; `clusters` as in `bootstrap`.

    To be preferred to `delong` where several trials show one person. p is twice the smaller share of
    resamples on either side of no difference, at least 1/rounds.
    """
    _check_settings(rounds, level)
    first, truth = checked(scores_a, labels)
    second, _ = checked(scores_b, labels)
    compute = metric(of)
    rankings = Ranking.of(first, truth), Ranking.of(second, truth)

    def gap(counts: Counts) -> float:
        return compute(Resample(rankings[0], counts)) - compute(Resample(rankings[1], counts))

    gaps = np.array([gap(counts) for counts in _draws(truth, clusters, rounds, seed)])
    interval = _percentiles(gaps.tolist(), rounds, level)
    side = min(float((gaps <= 0).mean()), float((gaps >= 0).mean()))
    return PairedBootstrap(
        gap(np.ones(truth.size, dtype=np.int64)), interval, min(1.0, max(2 * side, 1 / rounds))
    )


def _midranks(values: Scores) -> Scores:
    """Ranks [N] from 1, ties sharing their mean rank."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2
    ranks: Scores = middle[group]
    return ranks


def _placements(scores: Scores, labels: Labels) -> tuple[Scores, Scores]:
    """For each fake the share of reals below it, for each real the share of fakes above it (ties half)."""
    fakes, reals = scores[labels], scores[~labels]
    ranks = _midranks(scores)
    below = (ranks[labels] - _midranks(fakes)) / reals.size
    above = 1 - (ranks[~labels] - _midranks(reals)) / fakes.size
    return below, above


def delong(scores_a: ArrayLike, scores_b: ArrayLike, labels: ArrayLike, level: float = 0.95) -> DeLong:
    """Paired test of two systems' AUCs on the same, independent trials.

    DeLong et al. 1988, in the fast form of Sun and Xu 2014. Two systems whose difference has no variance give
    p = 1 where it is zero, else p = 0. UndefinedMetricError below two trials of either class.
    """
    if not 0 < level < 1:
        raise ValueError(f"level {level} is not within 0..1")
    first, truth = checked(scores_a, labels)
    second, _ = checked(scores_b, labels)
    n_fake, n_real = int(truth.sum()), int((~truth).sum())
    if min(n_fake, n_real) < 2:
        raise UndefinedMetricError(f"{n_real} real and {n_fake} fake trials: the test needs two of each")
    below_a, above_a = _placements(first, truth)
    below_b, above_b = _placements(second, truth)
    difference = float(below_a.mean() - below_b.mean())
    variance = float(np.var(below_a - below_b, ddof=1) / n_fake + np.var(above_a - above_b, ddof=1) / n_real)
    deviation = math.sqrt(variance)
    # Below rounding of the placements the difference is exact, not uncertain.
    if deviation < 1e-12:
        z = 0.0 if abs(difference) < 1e-12 else math.copysign(math.inf, difference)
    else:
        z = difference / deviation
    reach = NormalDist().inv_cdf((1 + level) / 2) * deviation
    return DeLong(
        auc_a=float(below_a.mean()),
        auc_b=float(below_b.mean()),
        difference=difference,
        interval=Interval(difference - reach, difference + reach),
        z=z,
        p=math.erfc(abs(z) / math.sqrt(2)),
    )
