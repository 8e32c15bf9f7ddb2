"""`evaluate scores`: arguments in, the numbers of a score file out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from avdetect.errors import DatasetError
from avdetect.intervals import ROUNDS
from avdetect.metrics import Labels, Scores, UndefinedMetricError, or_none
from avdetect.scores import (
    PROTOCOLS,
    AsvScores,
    Higher,
    Scored,
    read_asv_scores,
    read_scores,
    read_trials,
    write_text,
)
from avdetect.spoof_metrics import AsvRates, act_dcf, cllr, min_dcf, min_tdcf_legacy, min_tdcf_revised
from avdetect.summary import summary


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is negative")
    return value


def add_scores_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `evaluate scores`."""
    parser.add_argument(
        "--protocol", choices=list(PROTOCOLS), default="asvspoof2019-la", help="whose trials these are"
    )
    parser.add_argument(
        "--scores", type=Path, required=True, metavar="FILE", help="one line per trial, any columns"
    )
    parser.add_argument(
        "--cm-protocol", type=Path, metavar="FILE", help="the protocol or key file (else: keys in FILE)"
    )
    parser.add_argument(
        "--asv-scores", type=Path, metavar="FILE", help="the organisers' ASV scores, for both t-DCFs"
    )
    parser.add_argument(
        "--subset", default="eval", help="rows of an ASVspoof 2021 key file to count (default: eval)"
    )
    parser.add_argument(
        "--higher",
        choices=[str(way) for way in Higher],
        default=str(Higher.AUTO),
        help="what a higher score means; auto finds out from the labels and tells (default: auto)",
    )
    parser.add_argument(
        "--score-column", type=_natural, metavar="N", help="the score's column, counted from 1"
    )
    parser.add_argument(
        "--rounds",
        type=_natural,
        default=ROUNDS,
        metavar="N",
        help=f"bootstrap rounds, 0: none (default: {ROUNDS})",
    )
    parser.add_argument("--seed", type=_natural, default=0, help="seed of the bootstrap (default: 0)")
    parser.add_argument(
        "--json", metavar="FILE", help="write JSON to FILE, - for standard output, instead of a table"
    )


def run_scores(args: argparse.Namespace) -> int:
    """Run `evaluate scores`: 0 done, 1 some trials of the protocol have no score (the rest was evaluated).

    Raises InputError for files that cannot be used.
    """
    trials = read_trials(args.cm_protocol, args.protocol, args.subset) if args.cm_protocol else None
    scored = read_scores(args.scores, trials, Higher(args.higher), args.score_column)
    asv = read_asv_scores(args.asv_scores) if args.asv_scores else None
    result = {"protocol": args.protocol, "scores": str(args.scores)}
    result |= spoof_report(
        scored, asv, ratios=args.protocol == "asvspoof5", rounds=args.rounds, seed=args.seed
    )
    for warning in result["warnings"]:
        print(f"warning: {args.scores}: {warning}", file=sys.stderr)
    text = json.dumps(result, indent=2, allow_nan=False) + "\n" if args.json else _text(result)
    if args.json in (None, "-"):
        sys.stdout.write(text)
    else:
        write_text(Path(args.json), text)
    return 1 if scored.missing else 0


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
        _check_attacks(scored, asv)
    row = summary(scored.scores, scored.labels, scored.attacks, scored.speakers, rounds=rounds, seed=seed)
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
        "auc": row["auc"],
        "auc_ci": row["auc_ci"],
        "intervals_over": "speakers" if scored.speakers else "trials",
        "min_tdcf_legacy": _tdcf(min_tdcf_legacy, scored.scores, scored.labels, rates),
        "min_tdcf_revised": _tdcf(min_tdcf_revised, scored.scores, scored.labels, rates),
        "min_dcf": or_none(min_dcf, scored.scores, scored.labels),
    }
    if ratios:
        report |= {
            name: or_none(metric, scored.scores, scored.labels) for name, metric in _RATIO_METRICS.items()
        }
    if rates is not None:
        report["asv"] = {"eer": rates.eer, "spoof_false_alarm": rates.spoof_false_alarm}
    report["per_attack"] = {
        name: {"trials": part["n_fake"], "eer": part["eer"], "auc": part["auc"]}
        | _attack_tdcf(scored, asv, name)
        for name, part in row["groups"].items()
    }
    report["warnings"] = _warnings(scored, total)
    return report


_RATIO_METRICS: dict[str, Callable[[Scores, Labels], float]] = {"act_dcf": act_dcf, "cllr": cllr}


def _check_attacks(scored: Scored, asv: AsvScores) -> None:
    known = set(asv.attacks) - {"spoof", "-"}
    strangers = sorted({attack for attack in scored.attacks if attack} - known)
    if known and strangers:
        raise DatasetError(
            f"the ASV scores have no attack {strangers[0]} (they have {', '.join(sorted(known))}); "
            "give the ASV scores of the same part (dev or eval) as the protocol"
        )


def _tdcf(
    metric: Callable[[Scores, Labels, AsvRates], float],
    scores: Scores,
    labels: Labels,
    rates: AsvRates | None,
) -> float | None:
    """A t-DCF, or None without ASV scores, for one class, and for decisions instead of scores."""
    if rates is None or np.unique(scores).size < 3:
        return None
    return or_none(lambda s, t: metric(s, t, rates), scores, labels)


def _attack_tdcf(scored: Scored, asv: AsvScores | None, attack: str) -> dict[str, float | None]:
    if asv is None:
        return {}
    rates: AsvRates | None
    try:
        rates = asv.rates(attack)
    except UndefinedMetricError:
        rates = None  # ASV scores that do not name their attacks
    chosen = np.array([name in (None, attack) for name in scored.attacks], dtype=np.bool_)
    scores, labels = scored.scores[chosen], scored.labels[chosen]
    return {
        "min_tdcf_legacy": _tdcf(min_tdcf_legacy, scores, labels, rates),
        "min_tdcf_revised": _tdcf(min_tdcf_revised, scores, labels, rates),
    }


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


def _text(result: dict[str, Any]) -> str:
    """A short table for people; rates in per cent, costs as numbers."""

    def percent(value: float | None) -> str:
        return "undefined" if value is None else f"{100 * value:.3f} %"

    def cost(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}"

    interval = result["eer_ci"]
    spread = f"  (95 %: {percent(interval[0])} to {percent(interval[1])})" if interval else ""
    lines = [
        f"{result['trials']} trials ({result['bonafide']} bona fide, {result['spoof']} spoof), "
        f"coverage {percent(result['coverage'])}",
        f"EER                {percent(result['eer'])}{spread}",
        f"AUC                {percent(result['auc'])}",
        f"min t-DCF legacy   {cost(result['min_tdcf_legacy'])}",
        f"min t-DCF revised  {cost(result['min_tdcf_revised'])}",
        f"min DCF            {cost(result['min_dcf'])}",
        *(f"{name:<18} {cost(result[name])}" for name in _RATIO_METRICS if name in result),
        *(f"  {name:<16} EER {percent(part['eer'])}" for name, part in result["per_attack"].items()),
    ]
    return "\n".join(lines) + "\n"
