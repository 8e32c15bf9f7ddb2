"""Platt scaling and thresholds on scores whose answer is known."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from avdetect import hub
from avdetect.calibration import DOUBTS, FALSE_ALARMS, calibrate, platt, thresholds
from avdetect.types import CLAIMS, Claim, Floats, Item, Label
from avdetect.validation import Score


def draws(n: int, real: float, fake: float, seed: int = 0) -> tuple[Floats, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = np.concatenate([rng.normal(real, 1, n), rng.normal(fake, 1, n)]).astype(np.float32)
    return logits, np.arange(2 * n) >= n


def test_platt_finds_the_log_odds_of_two_normals() -> None:
    fit = platt(*draws(4000, -1.0, 1.0))  # log odds of N(1, 1) against N(-1, 1) are 2 x
    assert fit["scale"] == pytest.approx(2.0, rel=0.1)
    assert fit["bias"] == pytest.approx(0.0, abs=0.15)


def test_platt_weighs_both_classes_alike() -> None:
    logits, fake = draws(4000, -1.0, 1.0)
    few = np.concatenate([np.flatnonzero(~fake), np.flatnonzero(fake)[:200]])
    assert platt(logits[few], fake[few])["bias"] == pytest.approx(0.0, abs=0.3)


def test_platt_never_turns_scores_around() -> None:
    logits, fake = draws(500, 1.0, -1.0)
    assert platt(logits, fake)["scale"] > 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("gap", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("share", sorted(set(FALSE_ALARMS.values())))
def test_thresholds_keep_the_stated_shares_of_real_clips(seed: int, gap: float, share: float) -> None:
    logits, fake = draws(300, -gap, gap, seed)
    probabilities = (1 / (1 + np.exp(-logits))).astype(np.float32)
    bounds = thresholds(probabilities, fake, share)
    assert 0 <= bounds["low"] <= bounds["high"] <= 1
    assert (probabilities[~fake] >= bounds["high"]).mean() <= share
    left = (probabilities[~fake] >= bounds["low"]).mean()
    assert left <= share + DOUBTS
    assert left > DOUBTS - 0.02, "more real clips could have been passed"


@pytest.mark.parametrize("top", [0.61234, 0.61236, 0.500049, 0.5])
def test_rounding_lets_no_real_clip_through(top: float) -> None:
    probabilities = np.array([0.1, top, 0.9, 0.95], np.float32)
    bounds = thresholds(probabilities, np.array([False, False, True, True]), 0.01)
    assert probabilities[1] < bounds["high"]


def test_what_lies_between_two_classes_far_apart_is_inconclusive() -> None:
    bounds = thresholds(
        np.array([0.01, 0.02, 0.97, 0.99], np.float32), np.array([False, False, True, True]), 0.01
    )
    assert bounds == {"low": 0.0201, "high": 0.5}


def scores(claim: Claim, logits: Floats, fake: np.ndarray) -> list[Score]:
    item = Item(Path("x.wav"), Label())
    return [Score(item, claim, float(logit), bool(f)) for logit, f in zip(logits, fake, strict=True)]


def test_a_claim_without_both_classes_keeps_the_identity() -> None:
    known = scores(Claim.VOICE_CLONING, *draws(50, -2.0, 2.0))
    lone = scores(Claim.FACE_MANIPULATION, np.ones(5, np.float32), np.zeros(5, bool))
    calibration, bounds = calibrate([*known, *lone])
    assert set(calibration) == set(bounds) == {claim.value for claim in CLAIMS}
    for claim in ("face_manipulation", "lip_sync_mismatch"):
        assert calibration[claim] == {"scale": 1.0, "bias": 0.0} and bounds[claim] == {
            "low": 0.5,
            "high": 0.5,
        }
    assert calibration["voice_cloning"]["scale"] > 1


def test_one_clip_of_each_class_is_enough_not_to_fail() -> None:
    logits, fake = np.array([-1.0, 1.0], np.float32), np.array([False, True])
    _, bounds = calibrate(scores(Claim.VOICE_CLONING, logits, fake))
    assert bounds["voice_cloning"]["low"] <= bounds["voice_cloning"]["high"]


def test_all_claims_together_call_fewer_than_five_in_a_hundred_real_clips_manipulated() -> None:
    """Of the shipped model, on the scores of clips by the folds that had not seen their sources."""
    config = json.loads((hub.find("base") / "config.json").read_text())
    called: dict[str, bool] = {}
    with (Path(__file__).parents[1] / "docs" / "base" / "scores.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if not row["variant"]]
    made = {row["file"] for row in rows if row["fake"] == "1"}
    for row in rows:
        line, bounds = config["calibration"][row["claim"]], config["thresholds"][row["claim"]]
        score = 1 / (1 + math.exp(-(line["scale"] * float(row["logit"]) + line["bias"])))
        called[row["file"]] = called.get(row["file"], False) or score >= bounds["high"]
    real = [name for name in called if name not in made]
    assert set(FALSE_ALARMS) == set(CLAIMS) and len(real) > 500
    for clips in (real, [name for name in real if name.startswith("video")]):
        assert sum(called[name] for name in clips) < 0.05 * len(clips)
