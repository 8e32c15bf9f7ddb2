"""Metrics on resampled trials: sorted once, so that a round of the bootstrap costs no sort.

`counts` [N] says how often each trial was drawn. Each metric gives what the one of the same name in `metrics` or
`spoof_metrics` gives for the trials repeated that often.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from avdetect.metrics import Labels, Scores, error_rates, ranked
from avdetect.spoof_metrics import STANDARD, Tandem, act_dcf_threshold

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Ranking:
    """Scores [N] with labels [N], True = fake, and their `ranked` order; `real` [N] stands in that order."""

    scores: Scores
    labels: Labels
    order: NDArray[np.intp]
    real: Labels

    @classmethod
    def of(cls, scores: Scores, labels: Labels) -> Ranking:
        """Sorts the trials."""
        order = ranked(scores, labels)
        return cls(scores, labels, order, ~labels[order])

    @cached_property
    def ends(self) -> NDArray[np.intp]:
        """Sorted positions after which the score changes: trials of one score are called together."""
        values = self.scores[self.order]
        return np.append(np.flatnonzero(values[1:] != values[:-1]), values.size - 1)

    @cached_property
    def bins(self) -> NDArray[np.int64]:
        """Each trial's bin of fifteen equally wide ones, as `metrics.ece` has them."""
        return np.minimum((self.scores * 15).astype(np.int64), 14)

    @cached_property
    def ratio_costs(self) -> Scores:
        """What each trial's log-likelihood ratio costs in bits."""
        costs: Scores = np.logaddexp(0, np.where(self.labels, -self.scores, self.scores)) / np.log(2)
        return costs


@dataclass(frozen=True)
class Resample:
    """One round: how often each trial was drawn, `counts` [N]. Each metric is what its namesake gives for that."""

    ranking: Ranking
    counts: Counts

    @cached_property
    def sums(self) -> tuple[Counts, Counts]:
        """Drawn reals and fakes [N] at or above each sorted trial."""
        drawn = self.counts[self.ranking.order]
        reals = np.cumsum(np.where(self.ranking.real, drawn, 0))
        return reals, np.cumsum(drawn) - reals

    @cached_property
    def called(self) -> tuple[Counts, Counts]:
        """The same at each score that there is, trials of one score together."""
        reals, fakes = self.sums
        return reals[self.ranking.ends], fakes[self.ranking.ends]

    def auc(self) -> float:
        """As `metrics.auc`."""
        reals, fakes = self.called
        # Each step to the right counts the fakes above it, and half of those that tie.
        height = fakes - np.diff(fakes, prepend=0) / 2
        return float(np.dot(np.diff(reals, prepend=0), height)) / (float(reals[-1]) * float(fakes[-1]))

    def eer(self) -> float:
        """As `metrics.eer`."""
        drawn = np.repeat(self.ranking.real, self.counts[self.ranking.order])
        rejected, accepted = error_rates(drawn)
        index = int(np.argmin(np.abs(rejected - accepted)))
        return float(rejected[index] + accepted[index]) / 2

    def tpr(self, fpr: float) -> float:
        """As `metrics.tpr_at_fpr`."""
        reals, fakes = self.called
        within = int(np.searchsorted(reals, fpr * reals[-1] + 1e-9, side="right"))
        return float(fakes[within - 1] / fakes[-1]) if within else 0.0

    def average_precision(self) -> float:
        """As `metrics.average_precision`."""
        reals, fakes = self.called
        precision = fakes / np.maximum(reals + fakes, 1)
        return float(np.dot(np.diff(fakes, prepend=0), precision) / fakes[-1])

    def min_dcf(self) -> float:
        """As `spoof_metrics.min_dcf`."""
        return self._least_cost(*_COSTS) / min(_COSTS)

    def min_tdcf(self, tandem: Tandem) -> float:
        """As `spoof_metrics.min_tdcf_legacy` or `min_tdcf_revised`, whose weights `tandem` holds."""
        return (tandem.constant + self._least_cost(tandem.per_miss, tandem.per_false_alarm)) / tandem.scale

    def _least_cost(self, per_miss: float, per_false_alarm: float) -> float:
        """Of both errors at the best threshold, among them the one that calls nothing fake."""
        reals, fakes = self.sums
        cost = per_miss / reals[-1] * reals + per_false_alarm * (1 - fakes / fakes[-1])
        return float(min(cost.min(), per_false_alarm))

    def act_dcf(self) -> float:
        """As `spoof_metrics.act_dcf`."""
        ranking = self.ranking
        above = ranking.scores > act_dcf_threshold()
        per_miss, per_false_alarm = _COSTS
        miss, caught = (_mean(above, self.counts * part) for part in (~ranking.labels, ranking.labels))
        return (per_miss * miss + per_false_alarm * (1 - caught)) / min(_COSTS)

    def cllr(self) -> float:
        """As `spoof_metrics.cllr`."""
        ranking = self.ranking
        parts = (self.counts * ranking.labels, self.counts * ~ranking.labels)
        return sum(_mean(ranking.ratio_costs, part) for part in parts) / 2

    def ece(self) -> float:
        """As `metrics.ece` with fifteen bins."""
        ranking = self.ranking
        gaps = np.bincount(ranking.bins, self.counts * (ranking.scores - ranking.labels))
        return float(np.abs(gaps).sum() / self.counts.sum())

    def brier(self) -> float:
        """As `metrics.brier`."""
        return _mean((self.ranking.scores - self.ranking.labels) ** 2, self.counts)

    def accuracy(self, threshold: float, fake: bool | None = None) -> float:
        """As `metrics.accuracy`, of all trials or of one class alone."""
        ranking = self.ranking
        counts = self.counts if fake is None else self.counts * (ranking.labels == fake)
        return _mean((ranking.scores >= threshold) == ranking.labels, counts)


_COSTS = STANDARD.miss * (1 - STANDARD.p_spoof), STANDARD.false_alarm * STANDARD.p_spoof
"""Of a miss and of a false alarm, priors included."""


def _mean(values: NDArray[np.float64] | NDArray[np.bool_], weights: Counts) -> float:
    return float(np.dot(values, weights) / weights.sum())


Metric = Callable[[Resample], float]
METRICS: dict[str, Metric] = {
    "auc": Resample.auc,
    "eer": Resample.eer,
    "ap": Resample.average_precision,
    "min_dcf": Resample.min_dcf,
    "act_dcf": Resample.act_dcf,
    "cllr": Resample.cllr,
    "ece": Resample.ece,
    "brier": Resample.brier,
}
_AT: dict[str, Callable[[float], Metric]] = {
    "tpr": lambda fpr: partial(Resample.tpr, fpr=fpr),
    "acc": lambda threshold: partial(Resample.accuracy, threshold=threshold),
    "acc_real": lambda threshold: partial(Resample.accuracy, threshold=threshold, fake=False),
    "acc_fake": lambda threshold: partial(Resample.accuracy, threshold=threshold, fake=True),
}


def metric(name: str) -> Metric:
    """A metric by its name in METRICS, or as `tpr@0.01` or `acc@0.5`; ValueError for any other name."""
    kind, _, number = name.partition("@")
    try:
        return _AT[kind](float(number)) if number else METRICS[name]
    except (KeyError, ValueError):
        known = ", ".join([*METRICS, *(f"{one}@NUMBER" for one in _AT)])
        raise ValueError(f"metric {name!r} cannot be bootstrapped: use one of {known}") from None
