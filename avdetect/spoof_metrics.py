"""The ASVspoof organisers' costs: t-DCF (two definitions), DCF, Cllr, a-DCF.

Countermeasure scores and labels as in `metrics`: higher = more fake, True = spoof. Speaker-verification (ASV)
scores are similarity to the claimed speaker, higher = same speaker, and are never turned. "Miss" is always a
bona fide trial rejected, "false alarm" a spoof or another speaker accepted, in the organisers' words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from avdetect.metrics import Scores, UndefinedMetricError, checked, det_curve, eer_point


@dataclass(frozen=True)
class Costs:
    """Priors and costs of ASVspoof 2019 and 2021 for both t-DCFs, and of ASVspoof 5 track 1 for the DCFs."""

    p_spoof: float = 0.05
    p_target: float = 0.9405
    p_nontarget: float = 0.0095
    miss: float = 1.0
    false_alarm: float = 10.0

    def __post_init__(self) -> None:
        priors = (self.p_spoof, self.p_target, self.p_nontarget)
        if min(priors) < 0 or abs(sum(priors) - 1) > 1e-10:
            raise ValueError(f"priors {priors} must be positive and sum to 1")
        if self.miss < 0 or self.false_alarm < 0:
            raise ValueError(f"costs {self.miss} and {self.false_alarm} must not be negative")


@dataclass(frozen=True)
class AgnosticCosts:
    """Priors and costs of the a-DCF in ASVspoof 5 track 2."""

    p_spoof: float = 0.05
    p_nontarget: float = 0.05
    p_target: float = 0.9
    miss: float = 1.0
    false_alarm: float = 10.0
    false_alarm_spoof: float = 20.0


@dataclass(frozen=True)
class AsvRates:
    """A speaker-verification system fixed at its EER threshold: error rates 0..1 as fractions."""

    eer: float
    threshold: float
    miss: float
    false_alarm: float
    spoof_false_alarm: float


class Tandem(NamedTuple):
    """A t-DCF as a function of the countermeasure: (constant + per_miss P_miss + per_false_alarm P_fa) / scale."""

    constant: float
    per_miss: float
    per_false_alarm: float
    scale: float


STANDARD = Costs()
AGNOSTIC = AgnosticCosts()


def _finite(name: str, values: ArrayLike) -> Scores:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError(f"{name} scores must be one list of finite numbers")
    if array.size == 0:
        raise UndefinedMetricError(f"there are no {name} scores")
    return array


def asv_rates(target: ArrayLike, nontarget: ArrayLike, spoof: ArrayLike) -> AsvRates:
    """The ASV system's errors at its own EER threshold (target against nontarget), as in both t-DCF packages.

    Accepted is a score at or above the threshold.
    """
    targets, nontargets = _finite("target", target), _finite("nontarget", nontarget)
    spoofs = _finite("spoof", spoof)
    similarity = np.concatenate([targets, nontargets])
    # A nontarget stands where a fake stands in `metrics`, so similarity is turned into unlikeness.
    rate, unlikeness = eer_point(-similarity, np.arange(similarity.size) >= targets.size)
    threshold = -unlikeness
    return AsvRates(
        eer=rate,
        threshold=threshold,
        miss=float((targets < threshold).mean()),
        false_alarm=float((nontargets >= threshold).mean()),
        spoof_false_alarm=float((spoofs >= threshold).mean()),
    )


def _least(scores: ArrayLike, labels: ArrayLike, tandem: Tandem) -> float:
    """The t-DCF at its best threshold; decisions instead of scores are refused."""
    values, truth = checked(scores, labels)
    if np.unique(values).size < 3:
        raise ValueError("fewer than three different scores: t-DCF needs scores, not decisions")
    curve = det_curve(values, truth)
    cost = tandem.per_miss * curve.real_rejected + tandem.per_false_alarm * curve.fake_accepted
    return float((tandem.constant + cost.min()) / tandem.scale)


def _check_weights(*weights: float) -> None:
    if min(weights) < 0:
        raise UndefinedMetricError(f"t-DCF weights {weights} are negative: the ASV system is too weak for it")


def min_tdcf_legacy(scores: ArrayLike, labels: ArrayLike, asv: AsvRates, costs: Costs = STANDARD) -> float:
    """Minimum normalised t-DCF as in ASVspoof 2019, the one that papers on 2019 LA quote; 0 is best.

    C1 = p_target (miss - miss P_miss_asv) - p_nontarget fa P_fa_asv; C2 = fa p_spoof (1 - P_miss_spoof_asv);
    min over thresholds of (C1 P_miss + C2 P_fa) / min(C1, C2). Kinnunen et al., Odyssey 2018. Not comparable
    with `min_tdcf_revised`. ValueError for fewer than three different scores.
    """
    return _least(scores, labels, legacy_tandem(asv, costs))


def legacy_tandem(asv: AsvRates, costs: Costs = STANDARD) -> Tandem:
    """The weights of `min_tdcf_legacy`; UndefinedMetricError where the ASV system is too weak, or accepts no spoof."""
    c1 = (
        costs.p_target * costs.miss * (1 - asv.miss) - costs.p_nontarget * costs.false_alarm * asv.false_alarm
    )
    c2 = costs.false_alarm * costs.p_spoof * asv.spoof_false_alarm
    _check_weights(c1, c2)
    if min(c1, c2) == 0:
        raise UndefinedMetricError(
            "the ASV system accepts no spoof (or no target): legacy t-DCF is undefined"
        )
    return Tandem(0.0, c1, c2, min(c1, c2))


def min_tdcf_revised(scores: ArrayLike, labels: ArrayLike, asv: AsvRates, costs: Costs = STANDARD) -> float:
    """Minimum normalised t-DCF as in ASVspoof 2021 (ASV-constrained); its best value is above 0.

    C0 = p_target miss P_miss_asv + p_nontarget fa P_fa_asv; C1 = p_target miss - C0; C2 = p_spoof fa
    P_fa_spoof_asv; min over thresholds of (C0 + C1 P_miss + C2 P_fa) / (C0 + min(C1, C2)). Kinnunen et al.,
    TASLP 2020. Not comparable with `min_tdcf_legacy`. ValueError for fewer than three different scores.
    """
    return _least(scores, labels, revised_tandem(asv, costs))


def revised_tandem(asv: AsvRates, costs: Costs = STANDARD) -> Tandem:
    """The weights of `min_tdcf_revised`; UndefinedMetricError where the ASV system leaves nothing to measure."""
    c0 = costs.p_target * costs.miss * asv.miss + costs.p_nontarget * costs.false_alarm * asv.false_alarm
    c1 = costs.p_target * costs.miss - c0
    c2 = costs.p_spoof * costs.false_alarm * asv.spoof_false_alarm
    _check_weights(c0, c1, c2)
    if c0 + min(c1, c2) == 0:
        raise UndefinedMetricError("the ASV system makes no error and accepts no spoof: t-DCF is undefined")
    return Tandem(c0, c1, c2, c0 + min(c1, c2))


def min_dcf(scores: ArrayLike, labels: ArrayLike, costs: Costs = STANDARD) -> float:
    """Minimum normalised detection cost, ASVspoof 5 track 1 (its primary metric): 0 is best, at most 1.

    The best threshold's miss (1 - p_spoof) P_miss + fa p_spoof P_fa over the better of calling everything
    real or everything fake.
    """
    curve = det_curve(scores, labels)
    per_miss, per_false_alarm = costs.miss * (1 - costs.p_spoof), costs.false_alarm * costs.p_spoof
    cost = per_miss * curve.real_rejected + per_false_alarm * curve.fake_accepted
    return float(cost.min() / min(per_miss, per_false_alarm))


def act_dcf(llrs: ArrayLike, labels: ArrayLike, costs: Costs = STANDARD) -> float:
    """Actual normalised detection cost, ASVspoof 5 track 1: the cost at the threshold that theory gives.

    `llrs` [N] are natural log-likelihood ratios, fake over real (ASVspoof's own with the sign turned). Above
    1: worse than not looking. Meaningless for scores that are no ratios.
    """
    values, truth = checked(llrs, labels)
    per_miss, per_false_alarm = costs.miss * (1 - costs.p_spoof), costs.false_alarm * costs.p_spoof
    threshold = act_dcf_threshold(costs)
    miss, false_alarm = float((values[~truth] > threshold).mean()), float((values[truth] <= threshold).mean())
    return (per_miss * miss + per_false_alarm * false_alarm) / min(per_miss, per_false_alarm)


def act_dcf_threshold(costs: Costs = STANDARD) -> float:
    """The log-likelihood ratio, fake over real, above which theory calls a trial fake."""
    return math.log(costs.miss * (1 - costs.p_spoof) / (costs.false_alarm * costs.p_spoof))


def cllr(llrs: ArrayLike, labels: ArrayLike) -> float:
    """Cost of the log-likelihood ratios in bits, ASVspoof 5 track 1: 0 is best, 1 says nothing.

    `llrs` [N] as in `act_dcf`. Brümmer and du Preez 2006.
    """
    values, truth = checked(llrs, labels)
    # log(1 + e^x) without overflow, where ratios of hundreds are common in overconfident systems.
    real_cost, fake_cost = np.logaddexp(0, values[~truth]).mean(), np.logaddexp(0, -values[truth]).mean()
    return float((real_cost + fake_cost) / (2 * math.log(2)))


def min_a_dcf(
    target: ArrayLike, nontarget: ArrayLike, spoof: ArrayLike, costs: AgnosticCosts = AGNOSTIC
) -> float:
    """Minimum normalised architecture-agnostic DCF, ASVspoof 5 track 2's primary metric: 0..1, 0 is best.

    Scores of one system that verifies the speaker and refuses spoofs, higher = bona fide target. Shim et al.,
    Odyssey 2024; ties as there: targets, then nontargets, then spoofs are rejected first.
    """
    parts = [_finite("target", target), _finite("nontarget", nontarget), _finite("spoof", spoof)]
    kinds = np.repeat([0, 1, 2], [part.size for part in parts])
    kinds = kinds[np.argsort(np.concatenate(parts), kind="stable")]
    rejected = [np.concatenate([[0], np.cumsum(kinds == kind)]) / parts[kind].size for kind in range(3)]
    all_real = costs.false_alarm * costs.p_nontarget + costs.false_alarm_spoof * costs.p_spoof
    cost = (
        costs.miss * costs.p_target * rejected[0]
        + costs.false_alarm * costs.p_nontarget * (1 - rejected[1])
        + costs.false_alarm_spoof * costs.p_spoof * (1 - rejected[2])
    )
    return float(cost.min() / min(all_real, costs.miss * costs.p_target))
