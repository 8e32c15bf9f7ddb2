"""What is said of a countermeasure's scores, in the ASVspoof organisers' terms."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from avdetect.errors import DatasetError
from avdetect.intervals import ROUNDS, bootstrap
from avdetect.metrics import Labels, Scores, UndefinedMetricError, or_none
from avdetect.resampling import Metric, Resample
from avdetect.scores import AsvScores, Higher, Scored
from avdetect.spoof_metrics import (
    AsvRates,
    Tandem,
    legacy_tandem,
    min_tdcf_legacy,
    min_tdcf_revised,
    revised_tandem,
)
from avdetect.summary import COSTS, summary


def spoof_report(
    scored: Scored, asv: AsvScores | None = None, *, ratios: bool = False, rounds: int = ROUNDS, seed: int = 0
) -> dict[str, Any]:
    """Everything said of a countermeasure's scores, as plain JSON values; rates are fractions 0..1.

    Both t-DCFs need `asv`, and are None without. Per attack: its fakes against all bona fide trials, with the
    ASV system's acceptance of that attack. `ratios` adds act_dcf and cllr, for systems whose scores are
    log-likelihood ratios (ASVspoof 5 asks for them). Intervals draw whole speakers where they are known.
    DatasetError where the ASV scores are of other attacks than the trials (dev scores with eval ASV scores).
    """
    if asv is not None:
        check_attacks(scored.attacks, asv)
    row = summary(
        scored.scores, scored.labels, scored.attacks, scored.speakers, ratios=ratios, rounds=rounds, seed=seed
    )
    covered, total = len(scored.names), len(scored.names) + len(scored.missing)
    rates = asv.rates() if asv else None
    turn = 1.0 if scored.higher == Higher.FAKE else -1.0
    report: dict[str, Any] = {
        "trials": covered,
        "bonafide": row["n_real"],
        "spoof": row["n_fake"],
        "missing": len(scored.missing),
        "coverage": covered / total if total else 0.0,
        "unknown": scored.unknown,
        "higher": str(scored.higher),
        "sign": scored.sign,
        "eer": row["eer"],
        "eer_ci": row["eer_ci"],
        "eer_threshold": None if row["eer_threshold"] is None else turn * row["eer_threshold"],
        **{name: row[name] for name in ("auc", "auc_ci", "ap", "ap_ci", "tpr_at_fpr", "tpr_at_fpr_ci")},
        "intervals_over": "speakers" if scored.speakers else "trials",
        **tdcfs(scored.scores, scored.labels, rates),
        **tdcf_intervals(scored.scores, scored.labels, rates, scored.speakers, rounds, seed),
        "min_dcf": row["min_dcf"],
        "min_dcf_ci": row["min_dcf_ci"],
    }
    if ratios:
        report |= {name: row[name] for cost in COSTS for name in (cost, f"{cost}_ci")}
    if rates is not None:
        report["asv"] = {"eer": rates.eer, "spoof_false_alarm": rates.spoof_false_alarm}
    report["per_attack"] = {
        name: {"trials": part["n_fake"], "eer": part["eer"], "auc": part["auc"]}
        | (attack_tdcfs(scored.scores, scored.labels, scored.attacks, asv, name) if asv is not None else {})
        for name, part in row["groups"].items()
    }
    report["warnings"] = _warnings(scored, total)
    return report


def check_attacks(attacks: Sequence[str | None], asv: AsvScores) -> None:
    """DatasetError where a trial's attack is none of those in the ASV scores."""
    known = set(asv.attacks) - {"spoof", "-"}
    strangers = sorted({attack for attack in attacks if attack} - known)
    if known and strangers:
        raise DatasetError(
            f"the ASV scores have no attack {strangers[0]} (they have {', '.join(sorted(known))}); "
            "give the ASV scores of the same part (dev or eval) as the protocol"
        )


def tdcfs(scores: ArrayLike, labels: ArrayLike, rates: AsvRates | None) -> dict[str, float | None]:
    """Both t-DCFs by name; None without ASV rates, for one class, and for decisions instead of scores."""
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.bool_)
    return {name: _tdcf(metric, values, truth, rates) for name, metric in _TDCFS.items()}


_TDCFS: dict[str, Callable[[Scores, Labels, AsvRates], float]] = {
    "min_tdcf_legacy": min_tdcf_legacy,
    "min_tdcf_revised": min_tdcf_revised,
}


def _tdcf(
    metric: Callable[[Scores, Labels, AsvRates], float],
    scores: Scores,
    labels: Labels,
    rates: AsvRates | None,
) -> float | None:
    if rates is None or np.unique(scores).size < 3:
        return None
    return or_none(lambda s, t: metric(s, t, rates), scores, labels)


def tdcf_intervals(
    scores: ArrayLike,
    labels: ArrayLike,
    rates: AsvRates | None,
    clusters: Sequence[Hashable] | None,
    rounds: int,
    seed: int,
) -> dict[str, list[float] | None]:
    """`<name>_ci`, 95 % [low, high], of both t-DCFs; None as in `tdcfs`, without `rounds` and for too few clusters.

    Countermeasure trials are drawn, by `clusters` as in `bootstrap`; the ASV system's error rates stay as they are.
    """
    found: dict[str, list[float] | None] = {f"{name}_ci": None for name in _TDCFS}
    if rates is None or not rounds or np.unique(np.asarray(scores)).size < 3:
        return found
    drawn: dict[str, Metric] = {}
    for name, weights in _TANDEMS.items():
        with suppress(UndefinedMetricError):
            drawn[name] = partial(Resample.min_tdcf, tandem=weights(rates))
    with suppress(UndefinedMetricError):
        intervals = bootstrap(scores, labels, clusters, metrics=drawn, rounds=rounds, seed=seed)
        found |= {f"{name}_ci": list(interval) for name, interval in intervals.items()}
    return found


_TANDEMS: dict[str, Callable[[AsvRates], Tandem]] = {
    "min_tdcf_legacy": legacy_tandem,
    "min_tdcf_revised": revised_tandem,
}


def attack_tdcfs(
    scores: ArrayLike, labels: ArrayLike, attacks: Sequence[str | None], asv: AsvScores, attack: str
) -> dict[str, float | None]:
    """Both t-DCFs of one attack's fakes against all bona fide trials (`attacks` [N]: None for those)."""
    rates: AsvRates | None
    try:
        rates = asv.rates(attack)
    except UndefinedMetricError:
        rates = None  # ASV scores that do not name their attacks
    chosen = np.array([name in (None, attack) for name in attacks], dtype=np.bool_)
    return tdcfs(np.asarray(scores)[chosen], np.asarray(labels)[chosen], rates)


def _warnings(scored: Scored, total: int) -> list[str]:
    found: list[str] = []
    if scored.missing:
        found.append(
            f"{len(scored.missing)} of {total} trials have no score and are left out, first "
            f"{scored.missing[0]}; numbers over part of the trials are not comparable"
        )
    if scored.unknown:
        found.append(f"{scored.unknown} rows are no trials of the protocol and are left out")
    if scored.sign != "given":
        found.append(f"higher = {scored.higher} ({scored.sign})")
    levels = np.unique(scored.scores).size
    if levels < 3:
        found.append(f"only {levels} different scores: these look like decisions, and t-DCF needs scores")
    return found
