"""One system that verifies the speaker and refuses spoofs: score files of ASVspoof 5 track 2, and their a-DCF."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avdetect.errors import DatasetError
from avdetect.metrics import Scores
from avdetect.score_columns import as_number, read_table
from avdetect.spoof_metrics import min_a_dcf

KINDS = ("target", "nontarget", "spoof")
HEADERS = ("sasv-score", "sasv_score", "score")
"""What the column of the joint score is called, best first."""


@dataclass(frozen=True)
class SasvScores:
    """Scores of each kind of trial, higher = bona fide target."""

    target: Scores
    nontarget: Scores
    spoof: Scores


def read_sasv_scores(path: Path, score_column: int | None = None) -> SasvScores:
    """A file with a column of target, nontarget and spoof, and the score in `score_column` (from 1).

    Without that it is the one that its header names, or the only one of numbers. DatasetError where a column or one
    kind of trial is missing, or a score is no finite number.
    """
    table = read_table(path)
    key = next((cells for cells in table.columns if set(cells) <= set(KINDS)), None)
    if key is None:
        raise DatasetError(f"{path}: no column of target, nontarget and spoof; add each trial's kind")
    chosen = _score_column(path, table.columns, table.header, score_column)
    values = [as_number(cell) for cell in table.columns[chosen]]
    for line, cell, value in zip(table.lines, table.columns[chosen], values, strict=True):
        if value is None or not np.isfinite(value):
            raise DatasetError(f"{path}: line {line}: score {cell!r} is not a finite number")
    parts = [
        np.array([value for value, one in zip(values, key, strict=True) if one == kind], dtype=np.float64)
        for kind in KINDS
    ]
    empty = [kind for kind, part in zip(KINDS, parts, strict=True) if not part.size]
    if empty:
        raise DatasetError(f"{path}: no {empty[0]} trials; the a-DCF needs target, nontarget and spoof")
    return SasvScores(*parts)


def _score_column(
    path: Path, columns: tuple[tuple[str, ...], ...], header: tuple[str, ...] | None, wanted: int | None
) -> int:
    if wanted is not None:
        if not 1 <= wanted <= len(columns):
            raise DatasetError(f"{path}: no column {wanted}; it has {len(columns)}, counted from 1")
        return wanted - 1
    named = [header.index(name) for name in HEADERS if header and name in header]
    numeric = [at for at, cells in enumerate(columns) if as_number(cells[0]) is not None]
    if named or len(numeric) == 1:
        return (named or numeric)[0]
    raise DatasetError(
        f"{path}: {len(numeric)} columns are numbers; say which is the score with --score-column"
    )


def sasv_report(scores: SasvScores, *, rounds: int, seed: int) -> dict[str, Any]:
    """The a-DCF with its 95 % interval (trials drawn within their kind) and the number of trials."""
    parts = (scores.target, scores.nontarget, scores.spoof)
    rng = np.random.default_rng(seed)

    def redrawn(part: Scores) -> Scores:
        return part[rng.integers(part.size, size=part.size)]

    drawn = [min_a_dcf(redrawn(parts[0]), redrawn(parts[1]), redrawn(parts[2])) for _ in range(rounds)]
    return {
        **{kind: part.size for kind, part in zip(KINDS, parts, strict=True)},
        "min_a_dcf": min_a_dcf(*parts),
        "min_a_dcf_ci": [float(edge) for edge in np.quantile(drawn, [0.025, 0.975])] if drawn else None,
    }
