"""What is written down about a trained model: scores, curves and the card that goes with its weights."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avdetect.calibration import FALSE_ALARMS, MISSES
from avdetect.fusion import FusionModel
from avdetect.summary import summary
from avdetect.types import CLAIMS, Claim
from avdetect.validation import Score

TEMPLATE = Path(__file__).parent / "templates" / "model_card.md.j2"


def write_scores(scores: Sequence[Score], path: Path) -> None:
    """A row per validation score."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "claim", "variant", "fake", "logit", "offset_frames", "method", "source"])
        for s in scores:
            offset = "" if s.offset_frames is None else round(s.offset_frames, 3)
            row = [
                f"{s.item.path.parent.name}/{s.item.path.name}",
                s.claim.value,
                s.variant,
                int(s.fake),
                round(s.logit, 4),
                offset,
            ]
            writer.writerow([*row, s.item.method or "", s.item.source or ""])


def write_curves(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Training loss and validation AUC per claim over steps, as a picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    losses = [(row["step"], row["loss"]) for row in history if "loss" in row]
    left.plot(*zip(*losses, strict=True)) if losses else None
    left.set(xlabel="step", ylabel="training loss")
    for claim in CLAIMS:
        key = f"eval_{claim.value}_auc"
        points = [(row["step"], row[key]) for row in history if key in row]
        if points:
            right.plot(*zip(*points, strict=True), marker="o", label=claim.value)
    right.set(xlabel="step", ylabel="validation AUC", ylim=(0.4, 1.01))
    if right.lines:
        right.legend(frameon=False)
    figure.savefig(path, dpi=110)


def results(scores: Sequence[Score]) -> dict[str, dict[str, Any]]:
    """Claim -> summary row, with intervals by identity and figures per method or, for lip-sync, per change."""
    out = {}
    for claim in CLAIMS:
        mine = [s for s in scores if s.claim is claim]
        if not mine:
            continue
        sync = claim is Claim.LIP_SYNC_MISMATCH
        out[claim.value] = summary(
            [s.logit for s in mine],
            [s.fake for s in mine],
            groups=[(s.variant if sync else s.item.method) or None for s in mine],
            clusters=[" ".join(s.item.identities) or s.item.source or s.item.path.name for s in mine],
        )
        offsets = [abs(s.offset_frames) for s in mine if s.offset_frames is not None and not s.fake]
        if offsets:
            out[claim.value]["offset_within_one_frame"] = float(np.mean(np.array(offsets) <= 1.0))
    return out


def write_card(model: FusionModel, scores: Sequence[Score], run: Path) -> None:
    """README.md and results.json beside the weights."""
    from jinja2 import Environment, StrictUndefined

    table = results(scores)
    (run / "model" / "results.json").write_text(json.dumps(table, indent=1) + "\n")
    data = json.loads((run / "data.json").read_text())
    template = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        TEMPLATE.read_text(encoding="utf-8")
    )
    card = template.render(
        model=model.config,
        parameters=sum(p.numel() for p in model.parameters()),
        table=table,
        data=data,
        false_alarms=FALSE_ALARMS,
        misses=MISSES,
    )
    (run / "model" / "README.md").write_text(card, encoding="utf-8")
