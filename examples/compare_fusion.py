"""Does a fusion model beat its streams, each alone, and a late fusion of them? A table from score files.

    python examples/compare_fusion.py runs/face/scores.csv runs/frequency/scores.csv \\
        --joint evidence=runs/evidence/scores.csv attention=runs/attention/scores.csv

The first files are of single streams: the `scores.csv` of runs in which every claim reads one stream. Their late fusion
is logistic regression, of each source by what was fitted on the others. Intervals and paired tests are drawn by source,
on the clips that all systems have scored.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from avdetect.errors import AvdetectError
from avdetect.intervals import bootstrap, paired_bootstrap
from avdetect.late_fusion import TARGETS, Key, Numbers, ScoreTable, fit, predict, read_tables
from avdetect.metrics import auc
from avdetect.types import CLAIMS


def sources_of(files: Sequence[Path]) -> dict[Key, str]:
    """The source of each clip in scores.csv files."""
    out = {}
    for path in files:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                out[(row["file"], "", row["variant"])] = row["source"] or row["file"]
    return out


def some(table: ScoreTable, rows: Numbers) -> ScoreTable:
    """The rows of a table."""
    keys = tuple(key for key, keep in zip(table.keys, rows, strict=True) if keep)
    return replace(table, keys=keys, values=table.values[rows], labels=table.labels[rows])


def late(table: ScoreTable, sources: Sequence[str]) -> Numbers:
    """Log odds [N, 4] of the late fusion, of each source by what was fitted on the others."""
    out, own = np.full((len(table.keys), len(TARGETS)), np.nan), np.array(sources)
    for source in sorted(set(sources)):
        mine = own == source
        out[mine] = predict(fit(some(table, ~mine)), some(table, mine))
    odds: Numbers = np.log(out) - np.log1p(-out)
    return odds


def rows_of(claim: int, systems: Mapping[str, Numbers], truth: Numbers, sources: Sequence[str]) -> list[str]:
    """A line of the table per system, on the clips that all of them scored."""
    there = ~np.isnan(truth) & np.all([~np.isnan(values) for values in systems.values()], 0)
    labels, clusters = truth[there] == 1, [s for s, keep in zip(sources, there, strict=True) if keep]
    base = systems["late fusion"][there]
    lines = []
    for name, values in systems.items():
        low, high = bootstrap(values[there], labels, clusters)["auc"]
        text = f"{auc(values[there], labels):.3f} ({low:.3f} to {high:.3f})"
        gap = ""
        if name != "late fusion":
            pair = paired_bootstrap(values[there], base, labels, clusters)
            gap = f"{pair.difference:+.3f} (p {pair.p:.2f})"
        clips = f"{int((~labels).sum())} / {int(labels.sum())}"
        lines.append(f"| {CLAIMS[claim].value} | {name} | {clips} | {text} | {gap} |")
    return lines


def compared(singles: Mapping[str, Path], joint: Mapping[str, Path]) -> list[str]:
    """The table: single streams, their late fusion, and joint models, per claim."""
    table = read_tables({**singles, **joint})
    known = sources_of([*singles.values(), *joint.values()])
    sources = [known[key] for key in table.keys]
    alone = [i for i, name in enumerate(table.streams) if name.split("/")[0] in singles]
    streams = replace(table, streams=tuple(table.streams[i] for i in alone), values=table.values[:, alone])
    fused = late(streams, sources)
    lines = ["| claim | system | real / fake | AUC (95 %) | against late fusion |", "|---|---|---|---|---|"]
    for index, claim in enumerate(CLAIMS):
        systems = {
            name.split("/")[0]: table.values[:, i]
            for i, name in enumerate(table.streams)
            if name.endswith(f"/{claim.value}")
        }
        if not systems:
            continue
        ordered = {name: systems[name] for name in singles if name in systems}
        ordered["late fusion"] = fused[:, index]
        ordered |= {name: systems[name] for name in joint if name in systems}
        lines += rows_of(index, ordered, table.labels[:, index], sources)
    return lines


def named(texts: Sequence[str]) -> dict[str, Path]:
    """[NAME=]FILE; without a name, that of the run folder."""
    pairs = [text.rpartition("=") for text in texts]
    return {name or Path(path).parent.name: Path(path) for name, _, path in pairs}


def main() -> int:
    """Arguments in, exit code out."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else "", epilog="Score files: [NAME=]FILE."
    )
    parser.add_argument("singles", nargs="+", metavar="[NAME=]FILE", help="of single streams")
    parser.add_argument("--joint", nargs="+", default=[], metavar="[NAME=]FILE", help="of fusion models")
    args = parser.parse_args()
    try:
        print("\n".join(compared(named(args.singles), named(args.joint))))
    except (AvdetectError, OSError, KeyError) as error:
        print(f"compare_fusion: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
