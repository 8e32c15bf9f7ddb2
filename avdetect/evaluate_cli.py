"""`evaluate`: arguments in, tables out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avdetect.scores_cli import add_scores_arguments, run_scores
from avdetect.shards import CACHE
from avdetect.types import CLAIMS, Claim

if TYPE_CHECKING:
    from avdetect.evaluate import Row

SLICES = ("audio-only", "video-only", "both", "all")


def evaluate_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of `evaluate scores ...` or of `evaluate MANIFEST ...`."""
    if arguments and arguments[0] == "scores":
        parser = argparse.ArgumentParser(
            "avdetect evaluate scores", description="Measures a score file of any system against a protocol."
        )
        parser.add_argument("scores_command", choices=["scores"], help=argparse.SUPPRESS)
        add_scores_arguments(parser)
        parser.set_defaults(run=run_scores)
        return parser
    parser = argparse.ArgumentParser(
        "avdetect evaluate",
        description="Scores every clip of a labelled manifest (csv or parquet) and tells how well that went; or, "
        "as `evaluate scores --help`, measures a score file of another system.",
        epilog="example: python -m avdetect evaluate corpus/manifest.csv --split val --slice audio-only "
        "--claim voice_cloning --csv scores.csv",
    )
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="see data/README.md for its columns")
    parser.add_argument(
        "--model", default="base", metavar="NAME|DIR", help="a shipped or trained model (base)"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (cpu)")
    parser.add_argument(
        "--claim", choices=[c.value for c in CLAIMS], action="append", help="one claim; may be repeated"
    )
    parser.add_argument(
        "--slice", choices=SLICES, default="all", help="which fakes are set against the real clips"
    )
    parser.add_argument("--split", choices=["train", "val", "test"], help="only the rows of this split")
    parser.add_argument(
        "--cache",
        type=Path,
        default=CACHE,
        metavar="DIR",
        help=f"clips that `data prepare` or training left there are not decoded again ({CACHE})",
    )
    parser.add_argument(
        "--csv",
        type=Path,
        metavar="FILE",
        help="a row per clip and claim; goes on where it stopped (one file for one model)",
    )
    parser.add_argument("--json", metavar="FILE", help="the tables as JSON; - for standard output")
    parser.set_defaults(run=run_manifest)
    return parser


def run_manifest(args: argparse.Namespace) -> int:
    """Evaluates a manifest; 1 where a clip could not be read."""
    from avdetect.detect import Detector
    from avdetect.errors import DatasetError
    from avdetect.evaluate import Slice, evaluate, tables
    from avdetect.manifest import read_manifest
    from avdetect.outputs import check_output, open_output
    from avdetect.prepared import Cache
    from avdetect.progress import track
    from avdetect.wording import printable

    claims = [Claim(name) for name in args.claim] if args.claim else list(CLAIMS)
    wanted = Slice(args.slice)
    items = [
        item
        for item in read_manifest(args.manifest)
        if (args.split is None or item.split == args.split)
        and any(item.label[claim] is not None for claim in claims)
        and wanted.holds(item)
    ]
    if not items:
        raise DatasetError(f"{args.manifest}: no row fits --split, --slice and --claim")
    detector = Detector.from_pretrained(args.model, device=args.device)
    to_file = Path(args.json) if args.json not in (None, "-") else None
    for path, option in ((args.csv, "--csv"), (to_file, "--json")):
        if path is not None:
            check_output(path, option, [args.manifest])
    rows: list[Row] = []
    scored = evaluate(detector, items, claims, args.csv, Cache(args.cache))
    for found in track(scored, "scoring", len(items)):
        rows += found
    table = tables(rows, claims)
    as_json = json.dumps(table, indent=1) + "\n"
    sys.stdout.write(as_json if args.json == "-" else to_text(table) + "\n")
    if to_file is not None:
        with open_output(to_file, "--json") as file:
            file.write(as_json)
    failed = {row.path: row.reason for row in rows if row.verdict == "error"}
    for path, reason in failed.items():
        print(f"avdetect: {printable(reason or path)}", file=sys.stderr)
    return 1 if failed else 0


def to_text(table: dict[str, dict[str, Any]]) -> str:
    """A line per claim, and under it a line per method."""
    lines = [
        f"{'claim':<34}{'real':>6}{'fake':>6}{'AUC':>8}{'95 %':>15}{'EER':>8}{'coverage':>10}"
        f"{'false alarms':>14}"
    ]
    for claim, row in table.items():
        interval = "" if row["auc_ci"] is None else f"{row['auc_ci'][0]:.3f}-{row['auc_ci'][1]:.3f}"
        lines.append(
            f"{claim:<34}{row['n_real']:>6}{row['n_fake']:>6}{_number(row['auc'])}{interval:>15}{_number(row['eer'])}"
            f"{row['coverage']:>10.1%}{row['false_alarms']:>14.1%}"
        )
        for method, group in sorted(row.get("groups", {}).items()):
            lines.append(
                f"  {method[:31]:<32}{'':>6}{group['n_fake']:>6}{_number(group['auc'])}{'':>15}"
                f"{_number(group['eer'])}"
            )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return f"{'-' if value is None else f'{value:.3f}':>8}"
