"""An evaluation as one HTML page that opens offline: curves, calibration, methods, shortcuts, worst errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from avdetect import curves, wording
from avdetect.evaluate import reason_of, worst
from avdetect.evaluation_report import PROBES, SHOWN, Evaluation
from avdetect.rows import Row
from avdetect.types import CLAIMS, Claim

if TYPE_CHECKING:
    from jinja2 import Template

MOST_METHODS = 40
"""Methods that have a bar on the page, those with most fakes; the JSON has them all."""


@dataclass(frozen=True)
class Method:
    """A method's line: its numbers, and its interval as (left, width) of a bar of 100 units."""

    name: str
    row: Mapping[str, Any]
    place: float | None
    spread: tuple[float, float] | None


@dataclass(frozen=True)
class ClaimView:
    """One claim's section of the page; `probes` are (what is seen, its numbers)."""

    claim: Claim
    table: Mapping[str, Any]
    plots: curves.Plots
    methods: tuple[Method, ...]
    more_methods: int
    probes: tuple[tuple[str, Mapping[str, Any]], ...]
    errors: tuple[tuple[str, tuple[Row, ...]], ...]
    reasons: tuple[tuple[str, int], ...]


def to_html(result: Evaluation) -> str:
    """One self-contained page: it asks nothing of any network, and reads without scripts."""
    views = [_view(result, claim) for claim in CLAIMS if claim.value in result.tables]
    return _template().render(
        about=result.about, views=views, links=result.links, failed=result.to_dict()["evaluation"]["failed"]
    )


def _view(result: Evaluation, claim: Claim) -> ClaimView:
    table = result.tables[claim.value]
    mine = [row for row in result.rows if row.claim == claim.value]
    scored = [row for row in mine if row.score is not None]
    groups = sorted(table["groups"].items(), key=lambda one: (-one[1]["n_fake"], one[0]))
    shown = sorted(groups[:MOST_METHODS], key=lambda one: (one[1]["auc"] is None, one[1]["auc"], one[0]))
    errors = worst(result.rows, claim, SHOWN)
    kinds = (
        ("Real clips that look most fake", tuple(row for row in errors if not row.fake)),
        ("Fakes that look most real", tuple(row for row in errors if row.fake)),
    )
    reasons = Counter(reason_of(row) for row in mine if row.score is None).most_common()
    probes = result.probes.get(claim.value, {})
    return ClaimView(
        claim,
        table,
        curves.plots(
            np.array([row.score for row in scored], dtype=np.float64),
            np.array([bool(row.fake) for row in scored], dtype=np.bool_),
        ),
        tuple(
            Method(
                name, row, None if row["auc"] is None else 100 * row["auc"], curves.spread(row.get("auc_ci"))
            )
            for name, row in shown
        ),
        len(groups) - len(shown),
        tuple((PROBES[name], probe) for name, probe in probes.items()),
        kinds,
        tuple(reasons),
    )


METRICS = (
    ("auc", "AUC", "a fake scores above a real clip; 0.5 is chance"),
    ("eer", "EER", "both error rates where they are equal, as ASVspoof computes it"),
    ("ap", "AP", "average precision of finding the fakes"),
    ("tpr@0.01", "Found at 1 % false alarms", "share of fakes above 99 % of the real clips"),
    ("tpr@0.001", "Found at 0.1 % false alarms", "none may be called fake below 1,000 real clips"),
    ("acc", "Accuracy at 0.5", "a threshold fixed beforehand"),
    ("acc_real", "… of real clips", "at the same threshold"),
    ("acc_fake", "… of fakes", "at the same threshold"),
    ("min_dcf", "min DCF", "ASVspoof 5 track 1, best threshold; 1 says nothing"),
    ("act_dcf", "act DCF", "the same at the threshold that theory gives"),
    ("cllr", "Cllr", "cost of the log-odds in bits; 1 says nothing"),
    ("ece", "ECE", "distance of probabilities from what is true, 15 bins"),
    ("brier", "Brier", "their squared distance"),
    ("min_tdcf_legacy", "min t-DCF (2019, legacy)", "with the organisers' ASV scores"),
    ("min_tdcf_revised", "min t-DCF (2021, revised)", "not comparable with the other"),
)
"""The page's table of metrics: key, name, meaning."""


def metric_rows(table: Mapping[str, Any]) -> list[tuple[str, float, Sequence[float] | None, str]]:
    """Name, value, interval and meaning of every metric that has a value."""
    found = []
    for key, name, meaning in METRICS:
        kind, _, rate = key.partition("@")
        if kind == "tpr":
            value, interval = table["tpr_at_fpr"][rate], table["tpr_at_fpr_ci"][rate]
        else:
            value, interval = table.get(key), table.get(f"{key}_ci")
        if value is not None:
            found.append((name, value, interval, meaning))
    return found


def rate_text(value: float | None, digits: int = 3) -> str:
    """A number with that many decimals, an en dash for none."""
    return "–" if value is None else f"{value:.{digits}f}"


def percent_text(value: float | None) -> str:
    """A rate in per cent with one decimal, an en dash for none."""
    return "–" if value is None else f"{100 * value:.1f} %"


def interval_text(interval: Sequence[float] | None) -> str:
    """Low to high; nothing for none."""
    return "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def percent_range(interval: Sequence[float] | None) -> str:
    """Low to high in per cent; nothing for none."""
    return "" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("avdetect", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    helpers = (metric_rows, rate_text, percent_text, interval_text, percent_range, curves.det_axis)
    environment.globals |= {one.__name__: one for one in helpers}
    environment.globals |= {
        "DET_RATES": curves.DET_RATES,
        "TITLES": wording.TITLES,
        "QUESTIONS": wording.QUESTIONS,
    }
    return environment.get_template("evaluation.html.j2")


def _harmless(value: Any) -> Any:
    """Names come from strangers: what the template prints goes through here; markup of its own macros stays."""
    return value if hasattr(value, "__html__") else wording.printable(str(value))
