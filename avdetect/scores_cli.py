"""`evaluate scores`: arguments in, the numbers of a score file out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from avdetect.errors import ConfigError
from avdetect.intervals import ROUNDS
from avdetect.sasv import KINDS, read_sasv_scores, sasv_report
from avdetect.scores import PROTOCOLS, Higher, read_asv_scores, read_scores, read_trials, write_text
from avdetect.spoof_report import spoof_report
from avdetect.summary import COSTS

SASV = "asvspoof5-track2"
"""Not a countermeasure's protocol, but one of systems that verify the speaker too."""


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is negative")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `evaluate scores`."""
    parser.add_argument(
        "--protocol",
        choices=[*PROTOCOLS, SASV],
        default="asvspoof2019-la",
        help="whose trials these are; asvspoof5-track2: joint scores with a column of target, nontarget, spoof",
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


def run(args: argparse.Namespace) -> int:
    """Run `evaluate scores`: 0 done, 1 some trials of the protocol have no score (the rest was evaluated).

    Raises InputError for files that cannot be used.
    """
    if args.protocol == SASV:
        return _run_sasv(args)
    trials = read_trials(args.cm_protocol, args.protocol, args.subset) if args.cm_protocol else None
    scored = read_scores(args.scores, trials, Higher(args.higher), args.score_column)
    asv = read_asv_scores(args.asv_scores) if args.asv_scores else None
    result = {"protocol": args.protocol, "scores": str(args.scores)}
    result |= spoof_report(
        scored, asv, ratios=args.protocol == "asvspoof5", rounds=args.rounds, seed=args.seed
    )
    for warning in result["warnings"]:
        print(f"warning: {args.scores}: {warning}", file=sys.stderr)
    _put(args, result, _text)
    return 1 if scored.missing else 0


def _put(args: argparse.Namespace, result: dict[str, Any], as_text: Callable[[dict[str, Any]], str]) -> None:
    text = json.dumps(result, indent=2, allow_nan=False) + "\n" if args.json else as_text(result)
    if args.json in (None, "-"):
        sys.stdout.write(text)
    else:
        write_text(Path(args.json), text)


def _run_sasv(args: argparse.Namespace) -> int:
    if args.cm_protocol or args.asv_scores or args.higher == str(Higher.FAKE):
        raise ConfigError(f"--protocol {SASV}: the file states each trial's kind, higher = bona fide target")
    found = sasv_report(read_sasv_scores(args.scores, args.score_column), rounds=args.rounds, seed=args.seed)
    _put(args, {"protocol": SASV, "scores": str(args.scores), **found}, _sasv_text)
    return 0


def _sasv_text(result: dict[str, Any]) -> str:
    interval = result["min_a_dcf_ci"]
    spread = f"  (95 %: {interval[0]:.4f} to {interval[1]:.4f})" if interval else ""
    counts = ", ".join(f"{result[kind]} {kind}" for kind in KINDS)
    return f"{counts} trials\nmin a-DCF          {result['min_a_dcf']:.4f}{spread}\n"


def _text(result: dict[str, Any]) -> str:
    """A short table for people; rates in per cent, costs as numbers."""

    def percent(value: float | None) -> str:
        return "undefined" if value is None else f"{100 * value:.3f} %"

    def cost(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}"

    def spread(name: str, number: Callable[[float | None], str]) -> str:
        interval = result[f"{name}_ci"]
        return f"  (95 %: {number(interval[0])} to {number(interval[1])})" if interval else ""

    def costs(part: dict[str, Any]) -> str:
        kinds = [(kind, part.get(f"min_tdcf_{kind}")) for kind in ("legacy", "revised")]
        return "".join(f"   t-DCF {kind} {cost(value)}" for kind, value in kinds if value is not None)

    lines = [
        f"{result['trials']} trials ({result['bonafide']} bona fide, {result['spoof']} spoof), "
        f"coverage {percent(result['coverage'])}",
        f"EER                {percent(result['eer'])}{spread('eer', percent)}",
        f"AUC                {percent(result['auc'])}",
        f"AP                 {percent(result['ap'])}",
        *(f"TPR at {float(fpr):<6.1%} FPR {percent(rate)}" for fpr, rate in result["tpr_at_fpr"].items()),
        f"min t-DCF legacy   {cost(result['min_tdcf_legacy'])}{spread('min_tdcf_legacy', cost)}",
        f"min t-DCF revised  {cost(result['min_tdcf_revised'])}{spread('min_tdcf_revised', cost)}",
        f"min DCF            {cost(result['min_dcf'])}",
        *(f"{name:<18} {cost(result[name])}" for name in COSTS if name in result),
        *(
            f"  {name:<16} EER {percent(part['eer'])}{costs(part)}"
            for name, part in result["per_attack"].items()
        ),
    ]
    return "\n".join(lines) + "\n"
