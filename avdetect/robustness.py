"""What degraded clips do to a model: per variant, scores, errors and coverage, each beside the untouched clips' own.

Pure functions on the rows of `variants`; plots are drawn by `robustness_plots`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from avdetect.degradations import DEGRADATIONS, Variant
from avdetect.intervals import paired_bootstrap
from avdetect.metrics import UndefinedMetricError, auc, eer, or_none
from avdetect.summary import summary
from avdetect.types import Claim, Outcome
from avdetect.variants import UNTOUCHED, Trial

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Of the scores of real and of fake clips, for the plots."""
ROUNDS = 1000
METRICS = {"auc": auc, "eer": eer}
"""Whose change is told."""

Table = dict[str, Any]


def table(
    trials: Sequence[Trial], claim: Claim, variants: Sequence[Variant], rounds: int = ROUNDS
) -> list[Table]:
    """A row per variant that touches `claim`, the untouched clips first; plain numbers, ready for JSON.

    As `summary` gives them, and: trials, scored, coverage (0..1); `false_alarms` and `caught`, the shares of real and
    of fake clips that were scored and called manipulated; `quantiles` of their scores; `change`, on the clips that
    were scored both ways: n_real, n_fake, auc and eer (variant less untouched) with intervals and p by a bootstrap
    over people, and the mean drift of the scores, `drift_real` and `drift_fake`. What is undefined is None.
    """
    mine = [trial for trial in trials if trial.claim == claim.value]
    untouched = {trial.clip: trial for trial in mine if trial.variant == UNTOUCHED.name}
    rows = []
    for variant in [UNTOUCHED, *variants]:
        here = [trial for trial in mine if trial.variant == variant.name]
        if not here:
            continue
        row: Table = {
            "variant": variant.name,
            "degradation": variant.degradation,
            "severity": variant.severity,
            **_made(variant),
            **_row(here, rounds),
        }
        row["change"] = None if variant == UNTOUCHED else _change(here, untouched, rounds)
        rows.append(row)
    return rows


def _made(variant: Variant) -> dict[str, str]:
    if variant == UNTOUCHED:
        return {"title": "as it is", "kind": "", "made": ""}
    one = DEGRADATIONS[variant.degradation]
    return {"title": one.title, "kind": one.kind.value, "made": one.made.value}


def _row(trials: Sequence[Trial], rounds: int) -> Table:
    scored = [trial for trial in trials if trial.score is not None]
    scores = np.array([trial.score for trial in scored], float)
    fake = np.array([bool(trial.fake) for trial in scored], bool)
    called = np.array([trial.verdict == Outcome.MANIPULATED.value for trial in scored], bool)
    people = [trial.identity for trial in scored]
    return {
        **summary(scores, fake, clusters=people, rounds=rounds),
        "trials": len(trials),
        "scored": len(scored),
        "coverage": len(scored) / len(trials),
        "false_alarms": _mean(called[~fake]),
        "caught": _mean(called[fake]),
        "quantiles": {"real": _quantiles(scores[~fake]), "fake": _quantiles(scores[fake])},
    }


def _mean(values: Any) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _quantiles(scores: Any) -> list[float] | None:
    return [float(value) for value in np.quantile(scores, QUANTILES)] if len(scores) else None


def _change(trials: Sequence[Trial], untouched: Mapping[tuple[str, str, str], Trial], rounds: int) -> Table:
    """What became of the clips that could be scored both as they are and in this variant."""
    pairs = [
        (trial, was)
        for trial in trials
        if trial.score is not None
        and (was := untouched.get(trial.clip)) is not None
        and was.score is not None
    ]
    now = np.array([trial.score for trial, _ in pairs], float)
    before = np.array([was.score for _, was in pairs], float)
    fake = np.array([bool(trial.fake) for trial, _ in pairs], bool)
    people = [trial.identity for trial, _ in pairs]
    out: Table = {
        "n_real": int((~fake).sum()),
        "n_fake": int(fake.sum()),
        "drift_real": _mean((now - before)[~fake]),
        "drift_fake": _mean((now - before)[fake]),
    }
    for metric in METRICS:
        out |= _difference(metric, now, before, fake, people, rounds)
    return out


def _difference(metric: str, now: Any, before: Any, fake: Any, people: Sequence[str], rounds: int) -> Table:
    """The change of a metric, with its interval and p where there are `rounds` and enough people."""
    values = [or_none(METRICS[metric], scores, fake) for scores in (now, before)]
    change = None if values[0] is None or values[1] is None else values[0] - values[1]
    out: Table = {metric: change, f"{metric}_ci": None, f"{metric}_p": None}
    try:
        if rounds:
            found = paired_bootstrap(now, before, fake, people, of=metric, rounds=rounds)
            out |= {f"{metric}_ci": list(found.interval), f"{metric}_p": found.p}
    except UndefinedMetricError:
        pass  # shown as None
    return out


HEADER = (
    "variant",
    "real",
    "fake",
    "coverage",
    "AUC",
    "95 %",
    "EER",
    "AUC change",
    "95 %",
    "false alarms",
    "caught",
)
_WIDTHS = (16, 6, 6, 10, 7, 13, 7, 12, 17, 14, 8)


def to_text(tables: Mapping[str, Sequence[Table]]) -> str:
    """Per claim a line for each variant, for people."""
    lines: list[str] = []
    for claim, rows in tables.items():
        lines += ["", claim, _line(HEADER)] if lines else [claim, _line(HEADER)]
        lines += [_line(_cells(row)) for row in rows]
    return "\n".join(lines)


def _cells(row: Table) -> tuple[str, ...]:
    change = row["change"] or {}
    return (
        row["variant"],
        str(row["n_real"]),
        str(row["n_fake"]),
        f"{row['coverage']:.0%}",
        as_number(row["auc"]),
        as_span(row["auc_ci"]),
        as_number(row["eer"]),
        as_number(change.get("auc"), "+"),
        as_span(change.get("auc_ci"), "+"),
        as_share(row["false_alarms"]),
        as_share(row["caught"]),
    )


def _line(cells: Sequence[str]) -> str:
    first, *rest = zip(cells, _WIDTHS, strict=True)
    return f"{first[0]:<{first[1]}}" + "".join(f"{cell:>{width}}" for cell, width in rest)


def as_number(value: float | None, sign: str = "") -> str:
    """Three places, or a dash."""
    return "-" if value is None else f"{value:{sign}.3f}"


def as_span(values: Sequence[float] | None, sign: str = "") -> str:
    """An interval, or nothing."""
    return "" if values is None else f"{values[0]:{sign}.2f} to {values[1]:{sign}.2f}"


def as_share(value: float | None) -> str:
    """Per cent, or a dash."""
    return "-" if value is None else f"{value:.0%}"
