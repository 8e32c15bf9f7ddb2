"""`evaluate fuse`: late fusion of score files, fitted on some and tried on others."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avdetect.errors import ConfigError

if TYPE_CHECKING:
    from avdetect.late_fusion import Numbers, ScoreTable

EPILOG = """\
A file of scores is csv as `evaluate --csv` writes it, given as FILE or NAME=FILE; the name tells the system and must be
the same when fitting and applying.

examples:
  python -m avdetect evaluate fuse faces=f.train.csv voices=v.train.csv --out late.json
  python -m avdetect evaluate fuse faces=f.val.csv voices=v.val.csv --use late.json --csv fused.csv
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `evaluate fuse`."""
    parser.add_argument("scores", nargs="+", metavar="[NAME=]FILE", help="scores of one system each")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--out", type=Path, metavar="FILE", help="fit on these scores; the fusion, as JSON")
    way.add_argument("--use", type=Path, metavar="FILE", help="apply a fusion that was fitted before")
    parser.add_argument(
        "--csv", type=Path, metavar="FILE", help="with --use: the fused scores, a row per target"
    )


def run(args: argparse.Namespace) -> int:
    """Fits or applies; prints a row per stream and target, with intervals by clip."""
    from avdetect.late_fusion import fit, predict, read, read_tables, write
    from avdetect.outputs import check_output

    if args.csv is not None and args.use is None:
        raise ConfigError("--csv holds fused scores: it goes with --use, not with --out")
    for option, path in (("--out", args.out), ("--csv", args.csv)):
        if path is not None:
            check_output(path, option)
    table = read_tables(_named(args.scores))
    fusion = fit(table) if args.use is None else read(args.use)
    fused = predict(fusion, table)
    if args.out is not None:
        write(fusion, args.out)
        print(f"fitted on {len(table.keys)} clips; what follows is on these same clips", file=sys.stderr)
    if args.csv is not None:
        write_fused(table, fused, args.csv)
    print("\n".join(f"{r['target']:<19}{r['system']:<34}{r['text']}" for r in compared(table, fused)))
    return 0


def _named(given: Sequence[str]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for text in given:
        name, mark, path = text.partition("=")
        name, path = (name, path) if mark else (Path(text).stem, text)
        if name in files:
            raise ConfigError(f"two score files are called '{name}'; give them as NAME=FILE")
        files[name] = Path(path)
    return files


def compared(table: ScoreTable, fused: Numbers) -> list[dict[str, Any]]:
    """A row per target and system (each stream alone, and the fusion) on the clips that the fusion scored."""
    import numpy as np

    from avdetect.late_fusion import CLIP, TARGETS
    from avdetect.summary import summary

    rows = []
    for index, target in enumerate(TARGETS):
        systems = {
            name: table.values[:, i]
            for i, name in enumerate(table.streams)
            if target in (CLIP, name.rsplit("/", 1)[1])
        }
        systems["late fusion"] = fused[:, index]
        truth = table.labels[:, index]
        for name, values in systems.items():
            known = ~np.isnan(truth) & ~np.isnan(values)
            if len(set(truth[known])) == 2:
                clusters = [key[0] for key, mine in zip(table.keys, known, strict=True) if mine]
                found = summary(values[known], truth[known] == 1, clusters=clusters)
                rows.append({"target": target, "system": name, "text": _text(found), **found})
    return rows


def _text(row: Mapping[str, Any]) -> str:
    low, high = row["auc_ci"] or (float("nan"),) * 2
    counts = f"{row['n_real']} real, {row['n_fake']} fake"
    return f"AUC {row['auc']:.3f} ({low:.3f} to {high:.3f})  EER {row['eer']:.1%}  {counts}"


def write_fused(table: ScoreTable, fused: Numbers, path: Path) -> None:
    """The fused probabilities as csv: file, audio_path, variant, claim (or "clip"), fake, score."""
    import math

    from avdetect.late_fusion import TARGETS

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "audio_path", "variant", "claim", "fake", "score"))
        for key, values, labels in zip(table.keys, fused, table.labels, strict=True):
            for target, value, label in zip(TARGETS, values, labels, strict=True):
                if not math.isnan(label):
                    writer.writerow([*key, target, int(label), "" if math.isnan(value) else round(value, 6)])
