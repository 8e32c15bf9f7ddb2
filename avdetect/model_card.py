"""What is written down about a trained model: scores, curves and the card that goes with its weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avdetect.calibration import DOUBTS, FALSE_ALARMS
from avdetect.errors import ConfigError
from avdetect.metrics import auc
from avdetect.network import FusionNetwork
from avdetect.probes import EVIDENCE, Hidden
from avdetect.summary import summary
from avdetect.types import CLAIMS, FRAME_RATE, Claim
from avdetect.validation import Score, arrays, moved_by

TEMPLATE = Path(__file__).parent / "templates" / "model_card.md.j2"


def write_curves(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Training loss and, where there was validation, AUC per claim over steps, as a picture."""
    from matplotlib.figure import Figure

    checked = [row for row in history if any(key.endswith("_auc") for key in row)]
    figure = Figure(figsize=(9 if checked else 5, 3.4), layout="constrained")
    loss, *others = figure.subplots(1, 2 if checked else 1, squeeze=False)[0]
    losses = [(row["step"], row["loss"]) for row in history if "loss" in row]
    loss.plot(*zip(*losses, strict=True)) if losses else None
    loss.set(xlabel="step", ylabel="training loss")
    for axes in others:
        for claim in CLAIMS:
            key = f"eval_{claim.value}_auc"
            points = [(row["step"], row[key]) for row in checked if key in row]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", label=claim.value)
        axes.set(xlabel="step", ylabel="validation AUC", ylim=(0.4, 1.01))
        axes.legend(frameon=False)
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
        out[claim.value]["sources"] = per_source(mine)
        out[claim.value]["across"] = across_sources(mine)
        out[claim.value].update(offsets(mine))
    return out


def offsets(scores: Sequence[Score]) -> dict[str, float]:
    """Share of estimated lip-sync offsets within one frame of the truth, on untouched and on moved sound."""
    errors: dict[str, list[float]] = {}
    for s in scores:
        true = moved_by(s.variant)
        if s.offset_frames is not None and true is not None:
            name = "moved_offset_within_one_frame" if s.fake else "offset_within_one_frame"
            errors.setdefault(name, []).append(abs(s.offset_frames - true * FRAME_RATE))
    return {name: float(np.mean(np.array(values) <= 1.0)) for name, values in errors.items()}


def per_source(scores: Sequence[Score], least: int = 3) -> dict[str, dict[str, Any]]:
    """Source -> {n_real, n_fake, auc} of its own real against its own fake clips, with at least so many of each.

    Inside one source recording, codec and page are alike: what is left is the forgery.
    """
    table = {}
    for source in sorted({s.item.source for s in scores if s.item.source}):
        mine = [s for s in scores if s.item.source == source]
        fake = np.array([s.fake for s in mine])
        if min(int(fake.sum()), int((~fake).sum())) >= least:
            area = auc([s.logit for s in mine], fake)
            table[source] = {"n_real": int((~fake).sum()), "n_fake": int(fake.sum()), "auc": area}
    return table


def across_sources(scores: Sequence[Score], least: int = 3) -> dict[str, Any]:
    """How real clips of one source stand against fake clips of another, every pair of sources counting alike.

    {"auc": the mean over pairs, "real", "fake": source -> {n, auc: its mean}}, of sources with at least so many clips;
    {} where no two can be set against each other. A large source or a page with traces of its own rules an AUC over all
    clips; it does not rule this one.
    """
    of: dict[tuple[bool, str], list[float]] = {}
    for s in scores:
        of.setdefault((s.fake, s.item.source or s.item.path.as_posix()), []).append(s.logit)
    known = {key: np.array(logits) for key, logits in of.items() if len(logits) >= least}
    pairs = {
        (real, fake): auc(
            np.concatenate([genuine, made]), np.repeat([False, True], [len(genuine), len(made)])
        )
        for (is_fake, real), genuine in known.items()
        for (is_made, fake), made in known.items()
        if is_made and not is_fake and real != fake
    }
    if not pairs:
        return {}
    table: dict[str, Any] = {"auc": float(np.mean(list(pairs.values())))}
    for side, name in enumerate(("real", "fake")):
        table[name] = {
            source: {
                "n": len(known[bool(side), source]),
                "auc": float(np.mean([area for pair, area in pairs.items() if pair[side] == source])),
            }
            for source in sorted({pair[side] for pair in pairs})
        }
    return table


def decisions(model: FusionNetwork, scores: Sequence[Score]) -> dict[str, dict[str, list[float]]]:
    """Claim -> shares of its real and of its fake clips [manipulated, inconclusive, nothing found]."""
    table = {}
    for claim in CLAIMS:
        logits, fake = arrays(scores, claim)
        if len(set(fake.tolist())) < 2:
            continue
        fit, bounds = model.config.calibration[claim.value], model.config.thresholds[claim.value]
        stated = 1 / (1 + np.exp(-(fit["scale"] * logits + fit["bias"])))
        found, clean = stated >= bounds["high"], stated < bounds["low"]
        table[claim.value] = {
            name: [float(part.mean()) for part in (found[of], ~(found | clean)[of], clean[of])]
            for name, of in (("real", ~fake), ("fake", fake))
        }
    return table


def write_calibration(model: FusionNetwork, scores: Sequence[Score], path: Path) -> None:
    """How often clips of each stated probability were fake, per claim, as a picture; classes weighted alike."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    for claim in CLAIMS:
        logits, fake = arrays(scores, claim)
        if len(set(fake.tolist())) < 2:
            continue
        fit = model.config.calibration[claim.value]
        stated = 1 / (1 + np.exp(-(fit["scale"] * logits + fit["bias"])))
        weight = np.where(fake, 0.5 / fake.sum(), 0.5 / (~fake).sum())
        place = np.minimum((stated * 8).astype(int), 7)
        bins = [place == k for k in range(8) if (place == k).sum() >= 5]
        points = [
            (np.average(stated[b], weights=weight[b]), np.average(fake[b], weights=weight[b])) for b in bins
        ]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", label=claim.value)
    axes.set(xlabel="stated probability", ylabel="share of fake clips", xlim=(0, 1), ylim=(0, 1))
    if len(axes.lines) > 1:
        axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def probes_of(runs: Sequence[Path]) -> list[dict[str, Any]]:
    """Of finished probe runs: what was hidden, claim, streams and summary row. ConfigError where one isn't finished."""
    found = []
    for run in runs:
        try:
            config = json.loads((run / "config.json").read_text())
            hidden, told_by = config["data"]["hide"], config["model"]["claims"]
            table = json.loads((run / "model" / "results.json").read_text())
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"training.probes: {run} is no finished run; train it first") from error
        asked = EVIDENCE[Hidden(hidden)]
        found += [
            {"hidden": hidden, "claim": claim, "streams": told_by[claim], **row}
            for claim, row in table.items()
            if Claim(claim) in asked
        ]
    return found


def write_card(
    model: FusionNetwork, scores: Sequence[Score], run: Path, probes: Sequence[dict[str, Any]] = ()
) -> None:
    """README.md, results.json and calibration.png beside the weights; `probes` as `probes_of` gives them."""
    from jinja2 import Environment, StrictUndefined

    table = results(scores)
    (run / "model" / "results.json").write_text(json.dumps(table, indent=1) + "\n")
    write_calibration(model, scores, run / "model" / "calibration.png")
    data = json.loads((run / "data.json").read_text())
    settings = json.loads((run / "config.json").read_text())
    template = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        TEMPLATE.read_text(encoding="utf-8")
    )
    card = template.render(
        model=model.config,
        parameters=sum(p.numel() for p in model.parameters()),
        table=table,
        data=data,
        left_out=settings["data"].get("leave_out", []),
        false_alarms={claim.value: share for claim, share in FALSE_ALARMS.items()},
        doubts=DOUBTS,
        decisions=decisions(model, scores),
        probes=probes,
    )
    (run / "model" / "README.md").write_text(card, encoding="utf-8")
