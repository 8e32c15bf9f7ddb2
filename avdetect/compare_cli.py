"""`evaluate compare`: score files in, one table and paired tests out."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from avdetect.intervals import ROUNDS
from avdetect.scores import PROTOCOLS
from avdetect.types import CLAIMS, Claim

EPILOG = """\
A system is the --csv or --parquet of an evaluation, or anybody's score file (one line per trial, any usual columns).

examples:
  python -m avdetect evaluate compare base=base.csv mine=mine.csv --claim voice_cloning
  python -m avdetect evaluate compare rawgat.txt aasist.txt gmm.txt --cm-protocol cm.eval.trl.txt --fusion
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `evaluate compare`."""
    parser.add_argument("systems", nargs="+", metavar="[NAME=]FILE", help="two or more")
    parser.add_argument("--claim", choices=[c.value for c in CLAIMS], help="where files hold several")
    parser.add_argument(
        "--protocol", choices=list(PROTOCOLS), default="asvspoof2019-la", help="how --cm-protocol is laid out"
    )
    parser.add_argument("--cm-protocol", type=Path, metavar="FILE", help="labels of score files without keys")
    parser.add_argument(
        "--fusion", action="store_true", help="also the mean rank of all systems (late fusion)"
    )
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, metavar="N", help=f"bootstrap rounds ({ROUNDS})"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap (0)")
    parser.add_argument("--json", metavar="FILE", help="write JSON to FILE, - for standard output")


def run(args: argparse.Namespace) -> int:
    """Compares systems; 0 always: what a system left out is in the table."""
    from avdetect.compare import compare, fused, named, read_systems
    from avdetect.errors import ConfigError
    from avdetect.scores import read_trials, write_text

    if args.rounds < 1 or args.seed < 0:
        raise ConfigError(f"--rounds {args.rounds} must be 1 or more, --seed {args.seed} 0 or more")
    trials = read_trials(args.cm_protocol, args.protocol) if args.cm_protocol else None
    systems = read_systems(named(args.systems), Claim(args.claim) if args.claim else None, trials)
    if args.fusion and len(systems) > 1:
        systems.append(fused(systems))
    result = compare(systems, rounds=args.rounds, seed=args.seed)
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    if args.json not in (None, "-"):
        write_text(Path(args.json), text)
    sys.stdout.write(text if args.json == "-" else to_text(result))
    return 0


def to_text(result: dict[str, Any]) -> str:
    """The table and the tests for people."""
    lines = [
        f"{result['clips']} clips that all scored ({result['n_real']} real, {result['n_fake']} fake; "
        f"{result['identities']} people or sources)",
        f"{'system':<26}{'AUC':>7}{'95 %':>15}{'EER':>8}{'95 %':>16}{'TPR@1%':>8}{'scored':>9}{'coverage':>10}",
    ]
    for row in result["systems"]:
        found = row.get("tpr_at_fpr", {}).get("0.01")
        lines.append(
            f"{row['name'][:25]:<26}{_number(row['auc']):>7}{_interval(row.get('auc_ci')):>15}"
            f"{_number(row['eer']):>8}{_interval(row.get('eer_ci')):>16}{_number(found):>8}{row['scored']:>9}"
            f"{row['coverage']:>10.1%}"
        )
    lines.append(
        f"{'a - b':<42}{'AUC':>8}{'95 %':>17}{'p':>8}{'Holm':>8}{'DeLong p':>10}{'EER':>9}{'p':>8}{'Holm':>8}"
    )
    for pair in result["pairs"]:
        area, error = pair["auc"], pair["eer"]
        lines.append(
            f"{pair['a'][:19]} - {pair['b'][:19]}".ljust(42)
            + f"{_number(area['difference'], '+'):>8}{_interval(area['ci'], '+'):>17}{_number(area['p']):>8}"
            + f"{_number(area['p_holm']):>8}{_number(area['delong_p']):>10}"
            + f"{_number(error['difference'], '+'):>9}{_number(error['p']):>8}{_number(error['p_holm']):>8}"
        )
    return "\n".join(lines) + "\n"


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.3f}"


def _interval(interval: list[float] | None, sign: str = "") -> str:
    return "" if interval is None else f"{interval[0]:{sign}.3f}..{interval[1]:{sign}.3f}"
