"""`evaluate`: arguments in, tables, files and an exit code out."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from avdetect import robustness_cli
from avdetect.shards import CACHE
from avdetect.types import CLAIMS

COMMANDS = {
    "scores": ("scores_cli", "Measures a score file of any system against a protocol."),
    "compare": ("compare_cli", "Compares systems on the clips that all of them scored, with paired tests."),
    "fuse": ("late_fusion_cli", "Late fusion of score files, fitted on some and tried on others."),
    "export": ("export_cli", "Writes scores in the official format of a challenge or benchmark."),
}
"""Ways to evaluate without running a model: module, which has `add_arguments(parser)` and `run(args)`, and purpose."""

DESCRIPTION = """\
Scores every labelled clip and tells how well that went.

  evaluate MANIFEST...            clips of your own (csv or parquet; columns: data/README.md)
  evaluate PROTOCOL ROOT...       a public set by name in the folder ROOT: asvspoof2019-la, dfd, faceforensics-c23,
                                  fakeavceleb, lav-df ... (`data list` has them all), split as its protocol says
  evaluate scores  --scores FILE  a score file of any system            (scores --help)
  evaluate compare A B [C...]     systems on the same clips             (compare --help)
  evaluate fuse A B --out FILE    late fusion of systems                (fuse --help)
  evaluate export FORMAT ROWS     an official submission from --csv     (export --help)
"""
EPILOG = """\
examples:
  python -m avdetect evaluate corpus/manifest.csv --split val --slice audio-only --claim voice_cloning --csv scores.csv
  python -m avdetect evaluate asvspoof2019-la /data/LA --asv-scores asv.eval.gi.trl.scores.txt --parquet la.parquet
  python -m avdetect evaluate faceforensics-c23 /data/ffpp dfd-c23 /data/dfd --csv faces.csv --html faces.html

exit codes: 0 done; 1 some clip could not be read (it is counted and listed, the rest was evaluated); 2 wrong usage
"""


def evaluate_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of `evaluate scores|compare|fuse|export ...`, or of `evaluate MANIFEST...`."""
    if arguments and arguments[0] in COMMANDS:
        name = arguments[0]
        module, purpose = import_module(f"avdetect.{COMMANDS[name][0]}"), COMMANDS[name][1]
        parser = argparse.ArgumentParser(
            f"avdetect evaluate {name}",
            description=purpose,
            epilog=getattr(module, "EPILOG", None),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("evaluate_command", choices=[name], help=argparse.SUPPRESS)
        module.add_arguments(parser)
        parser.set_defaults(run=module.run)
        return parser
    parser = argparse.ArgumentParser(
        "avdetect evaluate",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_clip_arguments(parser)
    _add_outputs(parser)
    robustness_cli.add_arguments(parser)
    parser.set_defaults(run=run_clips, arguments=list(arguments))
    return parser


def add_clip_arguments(parser: argparse.ArgumentParser) -> None:
    """What is evaluated, with which model, on which machine."""
    parser.add_argument("targets", nargs="+", metavar="MANIFEST | PROTOCOL ROOT", help="one or several")
    parser.add_argument(
        "--model",
        default="base",
        metavar="NAME|DIR|aasist:FILE|gmm:FILE",
        help="a shipped or trained model (base), AASIST from its authors' checkpoint, or an LFCC-GMM",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (cpu)")
    parser.add_argument(
        "--claim", choices=[c.value for c in CLAIMS], action="append", help="one claim; may be repeated"
    )
    parser.add_argument(
        "--slice",
        default="all",
        metavar="NAME",
        help="which fakes are set against the real clips: audio-only, video-only, both, all (all), or a METHOD",
    )
    parser.add_argument(
        "--split",
        choices=["train", "val", "test", "all"],
        help="only this split (default: all of a manifest, test of a named set)",
    )
    parser.add_argument(
        "--jobs", type=_at_least(1), metavar="N", help="processes, one thread each (all cores)"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=CACHE,
        metavar="DIR",
        help=f"clips that `data prepare` or training left there are not decoded again ({CACHE})",
    )
    parser.add_argument(
        "--asv-scores", type=Path, metavar="FILE", help="ASVspoof 2019's ASV scores, for both t-DCFs"
    )
    parser.add_argument(
        "--rounds", type=_at_least(0), default=1000, metavar="N", help="bootstrap rounds (1000)"
    )
    parser.add_argument("--seed", type=_at_least(0), default=0, metavar="N", help="of the bootstrap (0)")


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    rows = "a row per clip and claim; goes on where it stopped"
    parser.add_argument("--csv", type=Path, metavar="FILE", help=f"{rows} (one file for one model)")
    parser.add_argument("--parquet", type=Path, metavar="FILE", help="the same rows as parquet")
    parser.add_argument("--json", metavar="FILE", help="all results as JSON; - for standard output")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="all results as one page that opens offline"
    )
    parser.add_argument(
        "--clip-reports",
        type=_at_least(0),
        default=0,
        metavar="N",
        help="reports of the N worst errors of each kind, in a folder beside --html, linked from it (0)",
    )
    parser.add_argument(
        "--beside",
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="--csv, --parquet or score file of another system, compared with this one on the clips that both scored; "
        "may be repeated",
    )
    parser.add_argument(
        "--retry",
        action="store_true",
        help="what could not be read when the rows of --csv or --parquet were written is tried again",
    )
    parser.add_argument(
        "--probes",
        type=_at_least(0),
        metavar="N",
        help="clips that are opened to measure shortcuts (1000 with --html, else 0)",
    )


def _at_least(low: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        value = int(text)
        if value < low:
            raise argparse.ArgumentTypeError(f"{value} is less than {low}")
        return value

    return whole


def run_clips(args: argparse.Namespace) -> int:
    """Evaluates clips; 1 where one could not be read."""
    from avdetect.errors import ConfigError
    from avdetect.evaluate import tables
    from avdetect.evaluation_run import check_outputs, choose, say, score, set_beside, write
    from avdetect.scores import read_asv_scores
    from avdetect.scoring import make_scorer

    if args.clip_reports and args.html is None:
        raise ConfigError("--clip-reports go beside a report: name it with --html")
    chosen = choose(args)
    check_outputs(args, chosen)
    asv = read_asv_scores(args.asv_scores) if args.asv_scores else None
    scorer = make_scorer(args.model, args.device)
    if robustness_cli.asked(args):
        return robustness_cli.run(args, scorer, chosen.items, chosen.claims)
    rows, throughput = score(args, chosen, scorer)
    table = tables(rows, chosen.claims, asv, rounds=args.rounds, seed=args.seed)
    set_beside(args, scorer, rows, table)
    write(args, chosen, scorer, rows, table, throughput, to_text(table))
    failed = {row.path: row.reason for row in rows if row.verdict == "error"}
    for path, reason in failed.items():
        say(reason or path)
    return 1 if failed else 0


def to_text(table: dict[str, dict[str, Any]]) -> str:
    """A line per claim, and under it a line per set, per method and for faces; other systems beside it at the end."""
    from avdetect.compare_cli import to_text as compared

    lines = [
        f"{'claim':<34}{'real':>6}{'fake':>6}{'AUC':>8}{'95 %':>15}{'EER':>8}{'coverage':>10}"
        f"{'false alarms':>14}{'found':>8}"
    ]
    for claim, row in table.items():
        lines.append(_line(claim, row))
        for name in _TDCFS:
            if row.get(name) is not None:
                lines.append(_cost(name, row[name], row[f"{name}_ci"]))
        for name, part in row.get("datasets", {}).items():
            lines += [_line(f"  {name}", part), *_methods(part, "    ")]
        lines += [_line("  each face", row["faces"])] if "faces" in row else []
        lines += _timed(row)
        if (
            "datasets" not in row
        ):  # else each set has its own: methods are told from real clips of the same set
            lines += _methods(row, "  ")
        for reason, count in row["unscored"].items():
            lines.append(f"  not scored: {count} × {reason}")
    for claim, row in table.items():
        if "beside" in row:
            lines += ["", f"{claim}, beside others", compared(row["beside"]).rstrip()]
    return "\n".join(lines)


_TDCFS = ("min_tdcf_legacy", "min_tdcf_revised")


def _cost(name: str, value: float, interval: Sequence[float] | None) -> str:
    spread = f"  (95 %: {interval[0]:.4f} to {interval[1]:.4f})" if interval else ""
    return f"  {name:<32}{value:>8.4f}{spread}"


def _methods(row: dict[str, Any], indent: str) -> Iterator[str]:
    """A line per method of a table's fakes, with its t-DCFs where there are any."""
    for method, group in sorted(row["groups"].items()):
        costs = [f"{name} {group[name]:.4f}" for name in _TDCFS if group.get(name) is not None]
        yield "  ".join([_line(indent + method, group), *costs])


def _line(name: str, row: dict[str, Any]) -> str:
    shares = "".join(
        f"{row[key]:>{width}.1%}" if row.get(key) is not None else " " * width
        for key, width in (("coverage", 10), ("false_alarms", 14), ("found", 8))
    )
    interval = row.get("auc_ci")
    spread = "" if interval is None else f"{interval[0]:.3f}-{interval[1]:.3f}"
    return (
        f"{name[:33]:<34}{row.get('n_real', ''):>6}{row['n_fake']:>6}{_number(row['auc'])}{spread:>15}"
        f"{_number(row['eer'])}{shares}"
    ).rstrip()


def _timed(row: dict[str, Any]) -> Iterator[str]:
    """What is known of time: steps, stretches and offsets, where there are any."""
    if "steps" in row:
        yield _line("  each step of the timelines", row["steps"])
        yield _line("  … within partial fakes", row["steps"]["within"])
    if found := row.get("localisation"):
        parts = [f"AP@{level} {value:.3f}" for level, value in found["ap"].items()]
        parts += [f"AR@{count} {value:.3f}" for count, value in found["ar"].items()]
        yield f"  where, {found['stretches']} stretches: {', '.join(parts)}"
    if late := row.get("offsets"):
        yield f"  sound offset, {late['clips']} of {late['known']} clips" + _errors(late)


def _errors(late: dict[str, Any]) -> str:
    if not late["clips"]:
        return ": no estimate"
    median, share = late["median_error_ms_ci"], late["within_one_frame_ci"]
    near = f" ({median[0]:.0f}-{median[1]:.0f})" if median else ""
    often = f" ({share[0]:.1%}-{share[1]:.1%})" if share else ""
    return (
        f": median error {late['median_error_ms']:.0f} ms{near}, "
        f"within ±40 ms {late['within_one_frame']:.1%}{often}"
    )


def _number(value: float | None) -> str:
    return f"{'-' if value is None else f'{value:.3f}':>8}"
