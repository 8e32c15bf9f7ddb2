"""Attacks go against the gradient, stay within their budget, and are judged as the detector judges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import ROOT, detector

from avdetect.adversarial import Crops, Sound, Victim, victim
from avdetect.attempts import Attempt, _windows, attacked, attempts, table, to_text
from avdetect.looked import Looked
from avdetect.robustness_page import Section, page
from avdetect.robustness_plots import as_svg, attacks_drawn
from avdetect.scoring import alone
from avdetect.types import CLAIMS, Claim, Item, Label, Window
from avdetect.windows import prepare

VOICE, FACE, SYNC = Claim.VOICE_CLONING, Claim.FACE_MANIPULATION, Claim.LIP_SYNC_MISMATCH
SAMPLES = ROOT / "data" / "samples"


@pytest.fixture(scope="module")
def looked() -> Looked:
    """The sample clip with its face and its voice."""
    return Looked.at(prepare(SAMPLES / "sample.mp4", detector().settings))


def aimed(looked: Looked, claim: Claim) -> Victim:
    """At the clip's first window, to be quick."""
    found = victim(detector(), looked, _windows(looked, claim)[:1], claim)
    assert found is not None
    return found


@pytest.mark.parametrize("claim", CLAIMS)
def test_the_clip_as_it_is_scores_as_the_detector_has_it(claim: Claim, looked: Looked) -> None:
    whole = victim(detector(), looked, _windows(looked, claim), claim)
    verdict = detector().detect(SAMPLES / "sample.mp4", prepared=looked)
    assert whole is not None
    assert whole.score(whole.surface.clean) == pytest.approx(verdict.claims[claim].score, abs=1e-4)


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_gradient_reaches_what_is_changed(claim: Claim, looked: Looked) -> None:
    aim = aimed(looked, claim)
    x = aim.surface.clean.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(aim.objective(x), x)
    # of faces one crop of so many is looked at
    apart = max(encoder.every for encoder in detector().model.seeing.values()) if claim is FACE else 1
    assert torch.isfinite(gradient).all() and float((gradient != 0).float().mean()) > 0.8 / apart


@pytest.mark.parametrize(("claim", "budget"), [(FACE, 2), (VOICE, 40), (SYNC, 40)])
def test_a_few_steps_fool_more_than_noise_and_stay_within_the_budget(
    claim: Claim, budget: int, looked: Looked
) -> None:
    aim = aimed(looked, claim)
    clean = aim.surface.clean
    up, down = aim.fooled(False, budget, 4), aim.fooled(True, budget, 4)
    noisy = aim.surface.kept(aim.surface.noise(np.random.default_rng(0), budget))
    scores = [aim.score(x) for x in (down, clean, up, noisy)]
    assert all(score is not None for score in scores)
    low, before, high, noise = (float(score or 0) for score in scores)
    assert low < before < high and max(before - low, high - before) > 3 * abs(noise - before)
    for x in (up, down, noisy):
        if claim is FACE:
            levels = (x - clean) * 255
            assert float(levels.abs().max()) <= budget + 1e-3 and torch.allclose(
                levels, levels.round(), atol=1e-3
            )
        else:
            below = 20 * torch.log10(clean.norm() / (x - clean).norm())
            assert float(below) > budget - 0.3 and torch.equal(x * 32768, (x * 32768).round())


def test_the_same_attack_twice_is_the_same(looked: Looked) -> None:
    aim = aimed(looked, VOICE)
    assert torch.equal(aim.fooled(True, 40, 2), aim.fooled(True, 40, 2))


def test_a_crop_that_stands_in_two_windows_is_changed_once() -> None:
    faces = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    crops = Crops({"faces": torch.stack([faces[[0, 1]], faces[[1, 2]]])})
    assert crops.clean.shape == (3, 3, 8, 8)
    changed = crops.clean.clone()
    changed[1] = 0
    given = crops.inputs(changed)["faces"]
    assert torch.equal(given[0, 1], given[1, 0]) and float(given[0, 1].abs().max()) == 0
    assert torch.equal(
        crops.inputs(crops.clean)["faces"] * 255, torch.stack([faces[[0, 1]], faces[[1, 2]]]).float()
    )


def test_overlapping_windows_share_their_samples() -> None:
    waveform = np.arange(32_000, dtype=np.float32) / 32_000
    windows = [Window(0, 1, waveform[:16_000]), Window(0.48, 1.48, waveform[7680:23_680])]
    sound = Sound({"waveform": torch.zeros(2, 16_000)}, waveform, windows)
    given = sound.inputs(sound.clean)["waveform"]
    assert torch.equal(given[1], torch.from_numpy(waveform[7680:23_680]))
    changed = sound.clean.clone()
    changed[8000] = -1
    given = sound.inputs(changed)["waveform"]
    assert given[0, 8000] == given[1, 320] == -1


# Tables


def attempt(number: int, fake: bool, attack: str, score: float, high: float = 0.8) -> Attempt:
    verdict = "manipulated" if score >= high else "no manipulation found" if score < 0.3 else "inconclusive"
    budget, steps = ("", 0) if attack == "none" else ("40 dB", 10)
    return Attempt(
        f"{number}.wav",
        "",
        "",
        VOICE.value,
        int(fake),
        attack,
        budget,
        steps,
        score,
        verdict,
        "",
        "m",
        f"p{number}",
    )


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    """Two real and two fake clips, one of which is detected, before and after."""
    before = [(False, 0.1), (False, 0.4), (True, 0.6), (True, 0.9)]
    after = [(False, 0.3), (False, 0.85), (True, 0.2), (True, 0.7)]
    made = [attempt(n, *(fake, "none", score)) for n, (fake, score) in enumerate(before)]
    made += [attempt(n, *(fake, "gradient", score)) for n, (fake, score) in enumerate(after)]
    return table(made, VOICE, rounds=0)


def test_a_row_counts_what_was_lost_and_raised(rows: list[dict[str, Any]]) -> None:
    as_it_is, after = rows
    assert as_it_is["auc"] == 1 and as_it_is["lost"] == as_it_is["raised"] == as_it_is["lost_at_eer"] == 0
    assert after["detected"] == 1 and after["lost"] == 1  # .9 was called manipulated, .7 is not
    assert after["raised"] == 0.5 and after["cleared"] == 0.5
    assert after["auc"] == 0.25 and after["drift_fake"] == pytest.approx(-0.3)
    assert (after["lost_at_eer"], after["raised_at_eer"]) == (0.5, 0.5)  # the threshold lies at .6
    assert "100% of 1" in to_text({"voice_cloning": rows})


def test_plot_and_page_show_the_attack(rows: list[dict[str, Any]]) -> None:
    figure = attacks_drawn(rows, "Voices")
    assert [float(y) for y in figure.axes[1].lines[0].get_ydata()] == [0, 0.5]
    model = {"name": "base", "version": "1", "sha256": "ab" * 32}
    facts = {"model": model, "seed": 0, "command": "evaluate m.csv", "date": "2026-01-01", "avdetect": "1"}
    text = page(facts, {}, {"voice_cloning": Section(rows, as_svg(figure))})
    assert "Attacked clips" in text and "40 dB" in text and "Degraded clips" not in text


def test_clips_are_attacked_once_and_what_cannot_be_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avdetect.attempts.DECIBELS", (40,))
    monkeypatch.setattr("avdetect.attempts.STEPS", (1,))
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"nothing")
    items = [Item(path, Label(voice_cloning=True)) for path in (SAMPLES / "sample_voice.flac", broken)]
    path = tmp_path / "rows.csv"
    ask = alone(detector(), None, attempts)
    found = [row for rows in attacked(ask, items, [VOICE], path) for row in rows]
    assert [(row.attack, row.steps) for row in found[:3]] == [("none", 0), ("noise", 0), ("gradient", 1)]
    assert found[2].score is not None and found[2].score < (found[0].score or 0)
    assert found[3].score is None and "broken.wav" in found[3].reason and len(found) == 4
    monkeypatch.setattr("avdetect.attempts.victim", lambda *_: pytest.fail("it is there already"))
    assert [row for rows in attacked(ask, items, [VOICE], path) for row in rows] == found
