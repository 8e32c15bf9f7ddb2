"""Plots of robustness: small multiples, one per degradation, and what attacks do, budget by budget."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

REAL, FAKE, AUC = "#14695a", "#b3261e", "#1b1d1f"
COLUMNS = 5


def drawn(rows: Sequence[dict[str, Any]], title: str) -> Figure:
    """A figure of a `robustness.table`: scores' medians and middle 80 %, and the AUC with its interval.

    Every panel starts with the untouched clips and shares one axis, 0..1.
    """
    untouched, parts = rows[0], list(_parts(rows[1:]))
    lines = max(1, -(-len(parts) // COLUMNS))
    figure = Figure(figsize=(2.5 * COLUMNS, 2.25 * lines + 0.9), layout="constrained")
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    axes = figure.subplots(lines, COLUMNS, sharey=True, squeeze=False)
    for at, part in zip(axes.flat, parts, strict=False):
        _panel(at, [untouched, *part])
    for at in axes.flat[len(parts) :]:
        at.set_visible(False)
    if parts:
        figure.legend(
            *axes.flat[0].get_legend_handles_labels(), loc="outside lower left", ncols=3, frameon=False
        )
    return figure


def _parts(rows: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for name in dict.fromkeys(row["degradation"] for row in rows):
        yield [row for row in rows if row["degradation"] == name]


def _panel(at: Axes, rows: Sequence[dict[str, Any]]) -> None:
    for place, (name, colour) in zip((-0.12, 0.12), (("real", REAL), ("fake", FAKE)), strict=True):
        seen = [(x + place, row["quantiles"][name]) for x, row in enumerate(rows) if row["quantiles"][name]]
        if seen:
            xs, values = [x for x, _ in seen], [q for _, q in seen]
            at.vlines(xs, [q[0] for q in values], [q[-1] for q in values], colour, lw=3, alpha=0.35)
            at.plot(xs, [q[2] for q in values], "o", color=colour, ms=4, label=f"{name} clips' scores")
    _auc_line(at, rows)
    at.axhline(0.5, color=AUC, lw=0.6, ls=":", alpha=0.5)
    at.set_title(rows[1]["title"], fontsize=8.5, loc="left")
    at.set_xticks(range(len(rows)), ["as it is", *(row["severity"] for row in rows[1:])], fontsize=7.5)
    at.set_xlim(-0.5, len(rows) - 0.5)
    at.set_ylim(0, 1)
    at.tick_params(axis="y", labelsize=7.5)
    at.spines[["top", "right"]].set_visible(False)


def _auc_line(at: Axes, rows: Sequence[dict[str, Any]]) -> None:
    known = [(x, row) for x, row in enumerate(rows) if row["auc"] is not None]
    at.plot([x for x, _ in known], [row["auc"] for _, row in known], "-", color=AUC, lw=1.4, label="AUC")
    for x, row in known:
        if row["auc_ci"]:
            low, high = row["auc_ci"]
            at.vlines(x, low, high, AUC, lw=0.8)


ATTACKS = {("noise", 0): ("noise alone", "#8a8f95"), ("gradient", 1): ("1 gradient step", "#c9872c")}
STRONGEST = "#6b3fa0"


def attacks_drawn(rows: Sequence[dict[str, Any]], title: str) -> Figure:
    """A figure of an `attempts.table`: AUC, fakes lost and real clips raised, over the budget, an attack a line."""
    figure = Figure(figsize=(10.5, 3.1), layout="constrained")
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    panels = {
        "auc": "AUC",
        "lost_at_eer": "fakes that fall below the EER threshold",
        "raised_at_eer": "real clips that rise above it",
    }
    axes = figure.subplots(1, len(panels), sharey=True)
    budgets = list(dict.fromkeys(row["budget"] for row in rows))
    for at, (name, words) in zip(axes, panels.items(), strict=True):
        for attack in dict.fromkeys((row["attack"], row["steps"]) for row in rows[1:]):
            label, colour = ATTACKS.get(attack, (f"{attack[1]} gradient steps", STRONGEST))
            mine = [rows[0], *(row for row in rows[1:] if (row["attack"], row["steps"]) == attack)]
            known = [(budgets.index(row["budget"]), row[name]) for row in mine if row[name] is not None]
            at.plot(
                [x for x, _ in known], [y for _, y in known], "o-", color=colour, ms=4, lw=1.4, label=label
            )
        at.set_title(words, fontsize=8.5, loc="left")
        at.set_xticks(range(len(budgets)), ["as it is", *budgets[1:]], fontsize=7.5)
        at.set_ylim(-0.03, 1.03)
        at.tick_params(axis="y", labelsize=7.5)
        at.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=3, frameon=False)
    return figure


def as_png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def as_svg(figure: Figure) -> str:
    """The figure as an SVG element, to stand in a page: text stays text, and the same figure gives the same bytes."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "avdetect"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
