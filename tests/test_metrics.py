"""Metrics against hand-worked cases, scikit-learn, plain loops and the official ASVspoof anchor."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from avdetect import metrics, spoof_metrics
from avdetect.intervals import bootstrap, delong, paired_bootstrap
from avdetect.metrics import UndefinedMetricError
from avdetect.resampling import Ranking, Resample, metric
from avdetect.spoof_metrics import act_dcf, cllr, min_dcf
from avdetect.summary import summary

Array = NDArray[np.float64]

# Most fake first: fake .9, fake .8, fake .7, real .6, fake .4, real .3, real .2, real .1.
SCORES = np.array([0.1, 0.2, 0.3, 0.6, 0.4, 0.7, 0.8, 0.9])
LABELS = np.array([False] * 4 + [True] * 4)
ASV = spoof_metrics.AsvRates(eer=0.1, threshold=0.0, miss=0.1, false_alarm=0.1, spoof_false_alarm=0.5)

EVAL_EER = {
    "A07": 0.34, "A08": 0.53, "A09": 0.08, "A10": 0.39, "A11": 0.29, "A12": 0.34, "A13": 0.30,
    "A14": 0.29, "A15": 0.27, "A16": 0.81, "A17": 1.75, "A18": 3.09, "A19": 0.71,
}  # fmt: skip


def tied_trials(seed: int, size: int = 400) -> tuple[Array, NDArray[np.bool_]]:
    """Overlapping classes on a coarse grid, so that many scores are shared."""
    rng = np.random.default_rng(seed)
    labels = rng.random(size) < 0.6
    return np.round(rng.normal(labels * 1.2, 1.0), 1), labels


def slow_eer(scores: Array, labels: NDArray[np.bool_]) -> float:
    """The organisers' definition as a plain loop: trial after trial is rejected, bona fide first in ties."""
    trials = sorted([(-s, False) for s in scores[~labels]] + [(-s, True) for s in scores[labels]])
    misses, caught, best = 0, 0, (1.0, 0.5)
    n_fake, n_real = int(labels.sum()), int((~labels).sum())
    for _, fake in trials:
        caught, misses = caught + fake, misses + (not fake)
        miss, false_alarm = misses / n_real, (n_fake - caught) / n_fake
        best = min(best, (abs(miss - false_alarm), (miss + false_alarm) / 2), key=lambda pair: pair[0])
    return best[1]


@pytest.fixture(scope="module")
def anchor(shared_dir: Path) -> tuple[Array, NDArray[np.bool_], list[str], spoof_metrics.AsvRates]:
    """RawGAT-ST on ASVspoof 2019 LA eval, turned, and the organisers' ASV rates."""
    folder = shared_dir / "fixtures" / "asvspoof2019"
    rows = [line.split() for line in (folder / "cm_RawGAT_ST_mul_LA_eval.txt").read_text().splitlines()]
    asv = [
        line.split()
        for line in (folder / "ASVspoof2019.LA.asv.eval.gi.trl.scores.txt").read_text().splitlines()
    ]
    kinds, values = np.array([row[1] for row in asv]), np.array([float(row[2]) for row in asv])
    rates = spoof_metrics.asv_rates(*(values[kinds == kind] for kind in ("target", "nontarget", "spoof")))
    scores = -np.array([float(row[3]) for row in rows])
    return scores, np.array([row[2] == "spoof" for row in rows]), [row[1] for row in rows], rates


def test_official_anchor(anchor: tuple[Array, NDArray[np.bool_], list[str], spoof_metrics.AsvRates]) -> None:
    scores, labels, attacks, asv = anchor
    assert round(100 * asv.eer, 3) == 2.458
    assert round(100 * metrics.eer(scores, labels), 3) == 1.060
    assert round(spoof_metrics.min_tdcf_legacy(scores, labels, asv), 4) == 0.0335
    per_attack = metrics.by_group(metrics.eer, scores, labels, attacks)
    assert {name: round(100 * (value or 0), 2) for name, value in per_attack.items()} == EVAL_EER


def test_71237_trials_have_intervals(
    anchor: tuple[Array, NDArray[np.bool_], list[str], spoof_metrics.AsvRates],
) -> None:
    scores, labels, attacks, _ = anchor
    row = summary(scores, labels, attacks, threshold=0.0, rounds=100)
    assert row["eer_ci"][0] < row["eer"] < row["eer_ci"][1]
    assert row["auc_ci"][0] < row["auc"] < row["auc_ci"][1]


def test_hand_worked_ranking_metrics() -> None:
    assert metrics.eer_point(SCORES, LABELS) == (0.25, 0.6)
    assert metrics.auc(SCORES, LABELS) == 15 / 16
    assert metrics.average_precision(SCORES, LABELS) == pytest.approx((1 + 1 + 1 + 4 / 5) / 4)
    assert metrics.tpr_at_fpr(SCORES, LABELS, 0.01) == 0.75
    assert metrics.tpr_at_fpr(SCORES, LABELS, 0.25) == 1.0
    assert metrics.accuracy(SCORES, LABELS, 0.4) == 7 / 8
    assert metrics.accuracy(SCORES[LABELS], LABELS[LABELS], 0.5) == 0.75


def test_det_curve_starts_with_nothing_called_fake() -> None:
    curve = metrics.det_curve(SCORES, LABELS)
    assert curve.real_rejected.tolist() == [0, 0, 0, 0, 0.25, 0.25, 0.5, 0.75, 1]
    assert curve.fake_accepted.tolist() == [1, 0.75, 0.5, 0.25, 0.25, 0, 0, 0, 0]
    assert curve.thresholds[0] == pytest.approx(0.901)
    for rejected, accepted, threshold in zip(*curve, strict=True):
        assert (SCORES[~LABELS] >= threshold).mean() == rejected
        assert (SCORES[LABELS] < threshold).mean() == accepted


@pytest.mark.parametrize("seed", range(5))
def test_eer_is_the_organisers_in_any_order_of_trials(seed: int) -> None:
    scores, labels = tied_trials(seed)
    shuffled = np.random.default_rng(seed).permutation(labels.size)
    assert metrics.eer(scores, labels) == pytest.approx(slow_eer(scores, labels), abs=1e-12)
    assert metrics.eer(scores[shuffled], labels[shuffled]) == metrics.eer(scores, labels)


def test_eer_of_equal_scores_is_one_as_in_the_official_code() -> None:
    assert metrics.eer(np.zeros(8), LABELS) == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_agreement_with_scikit_learn(seed: int) -> None:
    from sklearn import metrics as sklearn

    scores, labels = tied_trials(seed)
    probabilities = 1 / (1 + np.exp(-scores))
    assert metrics.auc(scores, labels) == pytest.approx(sklearn.roc_auc_score(labels, scores))
    assert metrics.average_precision(scores, labels) == pytest.approx(
        sklearn.average_precision_score(labels, scores)
    )
    assert metrics.accuracy(scores, labels, 0.5) == pytest.approx(
        sklearn.accuracy_score(labels, scores >= 0.5)
    )
    assert metrics.brier(probabilities, labels) == pytest.approx(
        sklearn.brier_score_loss(labels, probabilities)
    )
    fpr, tpr, _ = sklearn.roc_curve(labels, scores)
    assert metrics.tpr_at_fpr(scores, labels, 0.1) == pytest.approx(tpr[fpr <= 0.1].max())


def test_calibration_by_hand() -> None:
    scores, labels = [0.1, 0.1, 0.9, 0.9, 0.9], [False, True, True, True, False]
    assert metrics.ece(scores, labels, bins=10) == pytest.approx(0.4 * 0.4 + 0.6 * (0.9 - 2 / 3))
    assert metrics.brier(scores, labels) == pytest.approx((0.01 + 0.81 + 0.01 + 0.01 + 0.81) / 5)
    bins = metrics.reliability(scores, labels, bins=10)
    assert [b.trials for b in bins] == [0, 2, 0, 0, 0, 0, 0, 0, 0, 3]
    assert bins[0].mean_score is None and bins[0].fake_rate is None
    assert bins[9].fake_rate == pytest.approx(2 / 3)
    assert metrics.reliability([1.0], [True], bins=4)[3].trials == 1


def test_groups_share_the_reals_or_keep_their_own() -> None:
    groups: list[str | None] = [None, None, "x", "x", "x", "x", "y", "y"]
    shared = metrics.by_group(metrics.auc, SCORES, LABELS, groups)
    assert shared == {"x": 7 / 8, "y": 1.0}
    own = metrics.by_group(metrics.auc, SCORES, LABELS, groups, shared_reals=False)
    assert own == {"x": 3 / 4, "y": None}


def test_clip_level_pools_frames() -> None:
    scores, labels = [0.2, 0.9, 0.4, 0.1], [False, True, False, False]
    pooled, fakes, clips = metrics.clip_level(scores, labels, ["a", "b", "a", "b"])
    assert clips == ["a", "b"] and fakes.tolist() == [False, True]
    assert pooled.tolist() == pytest.approx([0.3, 0.5])
    assert metrics.clip_level(scores, labels, ["a", "b", "a", "b"], "max")[0].tolist() == [0.4, 0.9]


@pytest.mark.parametrize(
    "scores, labels, words",
    [
        ([0.1, math.nan], [True, False], "score 1 is nan"),
        ([0.1, math.inf], [True, False], "score 1 is inf"),
        ([0.1, 0.2], [True], "one length"),
        ([0.1, 0.2], [True, None], "unknown label"),
        ([0.1, 0.2], [1, 2], "unknown label"),
    ],
)
@pytest.mark.parametrize("metric", [metrics.eer, metrics.auc, metrics.average_precision, spoof_metrics.cllr])
def test_bad_input_is_a_value_error(
    metric: Callable[[object, object], float], scores: list[float], labels: list[bool | None], words: str
) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        metric(scores, labels)
    assert not isinstance(caught.value, UndefinedMetricError)


@pytest.mark.parametrize("metric", [metrics.eer, metrics.auc, spoof_metrics.min_dcf, spoof_metrics.act_dcf])
def test_one_class_is_undefined_and_none_in_tables(metric: metrics.Metric) -> None:
    with pytest.raises(UndefinedMetricError, match="all 2 trials are fake"):
        metric(np.array([0.1, 0.2]), np.array([True, True]))
    assert metrics.or_none(metric, [0.1, 0.2], [True, True]) is None
    assert metrics.or_none(metric, [], []) is None


def test_probabilities_are_demanded_for_calibration() -> None:
    with pytest.raises(ValueError, match="not probabilities"):
        metrics.ece([0.2, 1.4], [False, True])


# ------------------------------------------------------------------------------------------- ASVspoof


def test_asv_rates_by_hand() -> None:
    rates = spoof_metrics.asv_rates([1, 2, 3, 4], [0, 0.5, 1.5, -1], [0.5, 1, 2])
    assert (rates.eer, rates.threshold, rates.miss, rates.false_alarm) == (0.25, 1.0, 0.0, 0.25)
    assert rates.spoof_false_alarm == pytest.approx(2 / 3)


def test_both_tdcfs_by_hand_differ() -> None:
    # Best operating point: no bona fide refused, a quarter of the spoofs accepted.
    assert spoof_metrics.min_tdcf_legacy(SCORES, LABELS, ASV) == pytest.approx(0.25)
    c0 = 0.9405 * 0.1 + 0.0095 * 10 * 0.1
    assert spoof_metrics.min_tdcf_revised(SCORES, LABELS, ASV) == pytest.approx(
        (c0 + 0.25 * 0.25) / (c0 + 0.25)
    )


def test_perfect_countermeasure_in_both_definitions() -> None:
    perfect = LABELS + np.linspace(0, 0.1, 8)
    assert spoof_metrics.min_tdcf_legacy(perfect, LABELS, ASV) == 0
    assert spoof_metrics.min_tdcf_revised(perfect, LABELS, ASV) == pytest.approx(0.10355 / (0.10355 + 0.25))


def test_tdcf_refuses_decisions_and_hopeless_asv() -> None:
    with pytest.raises(ValueError, match="not decisions"):
        spoof_metrics.min_tdcf_legacy(LABELS.astype(float), LABELS, ASV)
    hopeless = spoof_metrics.AsvRates(eer=1, threshold=0, miss=1.0, false_alarm=1.0, spoof_false_alarm=1.0)
    with pytest.raises(UndefinedMetricError, match="negative"):
        spoof_metrics.min_tdcf_revised(SCORES, LABELS, hopeless)


def test_dcf_and_cllr_by_hand() -> None:
    assert spoof_metrics.min_dcf(SCORES, LABELS) == pytest.approx(0.25)
    assert spoof_metrics.act_dcf(SCORES, LABELS) == pytest.approx(0.25)  # threshold log(.95 / .5) = 0.642
    assert spoof_metrics.act_dcf(SCORES + 10, LABELS) == pytest.approx(0.95 / 0.5)
    assert spoof_metrics.cllr(np.zeros(8), LABELS) == pytest.approx(1.0)
    ratios = np.where(LABELS, math.log(3), -math.log(3))
    assert spoof_metrics.cllr(ratios, LABELS) == pytest.approx(math.log2(4 / 3))
    assert spoof_metrics.cllr(1e4 * ratios, LABELS) == 0.0


def test_a_dcf_by_hand() -> None:
    assert spoof_metrics.min_a_dcf([3, 4], [1, 2], [0, 3.5]) == pytest.approx(0.45 / 0.9)
    assert spoof_metrics.min_a_dcf([5, 6], [1, 2], [0, 3]) == 0


def test_costs_must_make_sense() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        spoof_metrics.Costs(p_spoof=0.5)


# ------------------------------------------------------------------------------------------ intervals


def test_bootstrap_matches_a_plain_one_under_ties() -> None:
    scores, labels = tied_trials(1, 150)
    rng = np.random.default_rng(7)
    fakes, reals = np.flatnonzero(labels), np.flatnonzero(~labels)
    plain: dict[str, list[float]] = {"auc": [], "eer": []}
    for _ in range(600):
        drawn = np.concatenate([rng.choice(fakes, fakes.size), rng.choice(reals, reals.size)])
        above = scores[drawn][labels[drawn]][:, None] - scores[drawn][~labels[drawn]][None]
        plain["auc"].append(float((above > 0).mean() + (above == 0).mean() / 2))
        plain["eer"].append(slow_eer(scores[drawn], labels[drawn]))
    found = bootstrap(scores, labels, rounds=600)
    for name, values in plain.items():
        assert found[name] == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.02)


def test_bootstrap_is_seeded_and_clusters_widen_it() -> None:
    scores, labels = tied_trials(2, 60)
    people = [f"person {index}" for index in range(60)]
    many, truth, crowd = np.tile(scores, 10), np.tile(labels, 10), people * 10
    naive = bootstrap(many, truth, rounds=200)
    honest = bootstrap(many, truth, crowd, rounds=200)
    assert bootstrap(many, truth, crowd, rounds=200) == honest
    assert bootstrap(many, truth, crowd, rounds=200, seed=1) != honest
    # Ten copies of each trial hold no more people: about sqrt(10) wider than pretending that they do.
    ratio = (honest["auc"].high - honest["auc"].low) / (naive["auc"].high - naive["auc"].low)
    assert 2.3 < ratio < 4.3


def test_bootstrap_says_what_it_cannot_do() -> None:
    with pytest.raises(UndefinedMetricError, match="at least two"):
        bootstrap(SCORES, LABELS, ["one person"] * 8)
    with pytest.raises(ValueError, match="one of auc, eer"):
        bootstrap(SCORES, LABELS, metrics=["accuracy"])
    with pytest.raises(ValueError, match="7 clusters for 8"):
        bootstrap(SCORES, LABELS, ["p"] * 7)


def test_delong_against_its_definition() -> None:
    (first, labels), (second, _) = tied_trials(3, 120), tied_trials(4, 120)

    def kernel(scores: Array) -> Array:
        gap = scores[labels][:, None] - scores[~labels][None]
        matrix: Array = (gap > 0) + (gap == 0) / 2
        return matrix

    gap = kernel(first) - kernel(second)
    variance = np.var(gap.mean(1), ddof=1) / len(gap) + np.var(gap.mean(0), ddof=1) / gap.shape[1]
    test = delong(first, second, labels)
    assert test.auc_a == pytest.approx(metrics.auc(first, labels))
    assert test.difference == pytest.approx(gap.mean())
    assert test.z == pytest.approx(gap.mean() / math.sqrt(variance))
    assert test.interval == pytest.approx(
        gap.mean() + np.array([-1, 1]) * 1.959964 * math.sqrt(variance), abs=1e-6
    )
    assert test.p == pytest.approx(2 * NormalDist().cdf(-abs(test.z)))
    paired = paired_bootstrap(first, second, labels, rounds=400)
    assert paired.difference == pytest.approx(gap.mean())
    assert paired.interval == pytest.approx(test.interval, abs=0.03)
    assert paired.p == pytest.approx(test.p, abs=0.06)
    better = paired_bootstrap(first + 9 * labels, second, labels, rounds=50)
    assert better.p == 1 / 50


def test_a_system_does_not_differ_from_itself() -> None:
    scores, labels = tied_trials(5)
    same = delong(scores, 3 * scores + 1, labels)
    assert (same.difference, same.z, same.p) == (0, 0, 1)
    assert paired_bootstrap(scores, scores, labels, of="eer", rounds=50).p == 1


def test_delong_false_alarms_are_as_rare_as_promised() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(80) < 40
    noise = labels[None, None] + rng.normal(size=(300, 2, 80))
    rate = float(np.mean([delong(a, b, labels).p < 0.05 for a, b in noise]))
    assert 0.02 < rate < 0.09


NAMED: dict[str, metrics.Metric] = {
    "auc": metrics.auc,
    "eer": metrics.eer,
    "ap": metrics.average_precision,
    "tpr@0.1": lambda s, t: metrics.tpr_at_fpr(s, t, 0.1),
    "acc@0.5": lambda s, t: metrics.accuracy(s, t, 0.5),
    "acc_real@0.5": lambda s, t: metrics.accuracy(s[~t], t[~t], 0.5),
    "acc_fake@0.5": lambda s, t: metrics.accuracy(s[t], t[t], 0.5),
    "ece": metrics.ece,
    "brier": metrics.brier,
    "min_dcf": min_dcf,
    "act_dcf": act_dcf,
    "cllr": cllr,
}


@pytest.mark.parametrize("name", NAMED)
def test_a_resampled_metric_is_the_metric_of_the_repeated_trials(name: str) -> None:
    rng = np.random.default_rng(3)
    scores = np.round(rng.random(60), 1)  # many ties, within and between classes
    labels = rng.random(60) < 0.4
    for _ in range(20):
        counts = rng.integers(0, 4, size=60)
        repeated = np.repeat(scores, counts), np.repeat(labels, counts)
        found = metric(name)(Resample(Ranking.of(scores, labels), counts))
        assert found == pytest.approx(NAMED[name](*repeated), abs=1e-12)


def test_resampled_tdcfs_are_those_of_the_repeated_trials() -> None:
    rng = np.random.default_rng(4)
    scores, labels = np.round(rng.random(60), 1), rng.random(60) < 0.4
    both = (
        (spoof_metrics.legacy_tandem, spoof_metrics.min_tdcf_legacy),
        (spoof_metrics.revised_tandem, spoof_metrics.min_tdcf_revised),
    )
    for weights, least in both:
        for _ in range(10):
            counts = rng.integers(0, 4, size=60)
            repeated = np.repeat(scores, counts), np.repeat(labels, counts)
            found = Resample(Ranking.of(scores, labels), counts).min_tdcf(weights(ASV))
            assert found == pytest.approx(least(*repeated, ASV), abs=1e-12)


@pytest.mark.parametrize("name", ["area", "tpr@", "acc@half", "auc@0.5"])
def test_a_metric_that_cannot_be_resampled_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' cannot be bootstrapped"):
        bootstrap(SCORES, LABELS, metrics=[name])


def test_summary_of_probabilities_costs_their_log_odds() -> None:
    row = summary([0.2, 0.4, 0.6, 0.9], [False, True, False, True], probabilities=True, rounds=50)
    assert row["cllr"] == pytest.approx(cllr(np.log([0.25, 2 / 3, 1.5, 9]), [False, True, False, True]))
    assert row["cllr_ci"][0] <= row["cllr"] <= row["cllr_ci"][1]
    assert set(row["tpr_at_fpr_ci"]) == set(row["tpr_at_fpr"]) == {"0.01", "0.001"}
    sure = summary([0.0, 1.0], [False, True], probabilities=True, rounds=0)
    assert sure["cllr"] == pytest.approx(0, abs=1e-8) and sure["cllr_ci"] is None


# -------------------------------------------------------------------------------------------- summary


def test_summary_row() -> None:
    row = summary(SCORES, LABELS, ["real"] * 4 + ["x", "x", "y", "y"], threshold=0.5, rounds=100)
    assert (row["n_real"], row["n_fake"], row["auc"], row["eer"]) == (4, 4, 15 / 16, 0.25)
    assert (row["acc"], row["acc_real"], row["acc_fake"]) == (0.75, 0.75, 0.75)
    assert row["tpr_at_fpr"] == {"0.01": 0.75, "0.001": 0.75}
    x, y = row["groups"]["x"], row["groups"]["y"]
    assert (x["n_fake"], x["auc"], x["eer"]) == (2, 7 / 8, 0.25 + 0.125)
    assert (y["n_fake"], y["auc"], y["eer"], y["auc_ci"]) == (2, 1.0, 0.0, [1.0, 1.0])
    assert x["auc_ci"][0] < 7 / 8 < x["auc_ci"][1]
    assert row["auc_ci"][0] <= 15 / 16 <= row["auc_ci"][1]
    assert row["brier"] == pytest.approx(metrics.brier(SCORES, LABELS))


@pytest.mark.parametrize("labels", [[], [True, True]])
def test_summary_of_too_little_shows_none(labels: list[bool]) -> None:
    row = summary(np.linspace(2, 3, len(labels)), labels, groups=["x"] * len(labels), threshold=2.5)
    assert row["auc"] is None and row["eer_ci"] is None and row["ece"] is None
    assert row["n_fake"] == len(labels)
    assert row["acc"] == (0.5 if labels else None)
    nothing = {"n_fake": 2, "auc": None, "eer": None, "auc_ci": None, "eer_ci": None}
    assert row["groups"] == ({"x": nothing} if labels else {})


def test_summary_refuses_nan() -> None:
    with pytest.raises(ValueError, match="score 0 is nan"):
        summary([math.nan, 1], [True, False])
