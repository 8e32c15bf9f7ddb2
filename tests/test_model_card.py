"""What the card says of scores whose answer is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from avdetect.fusion import FusionConfig, FusionModel
from avdetect.model_card import across_sources, decisions, per_source, write_calibration, write_curves
from avdetect.types import Claim, Item, Label
from avdetect.validation import Score

VOICE = Claim.VOICE_CLONING


def score(logit: float, fake: bool, source: str | None = "one") -> Score:
    return Score(Item(Path("x.wav"), Label(), source=source), VOICE, logit, fake)


@pytest.fixture(scope="module")
def model() -> FusionModel:
    streams = {"voice": {"encoder": "tdnn", "options": {"width": 8, "dim": 8, "bands": 16, "layers": 1}}}
    thresholds = {claim.value: {"low": 0.4, "high": 0.8} for claim in Claim}
    return FusionModel(FusionConfig(streams, {"voice_cloning": ["voice"]}, dim=8, thresholds=thresholds))


def test_a_source_is_told_apart_only_where_it_has_enough_of_both() -> None:
    whole = [
        score(z, fake) for z, fake in [(-1, False), (0.5, False), (1, False), (0, True), (2, True), (3, True)]
    ]
    few = [score(z, fake, "two") for z, fake in [(-1, False), (0, False), (1, True), (1, True), (1, True)]]
    table = per_source([*whole, *few, score(9.0, True, None)])
    assert table == {"one": {"n_real": 3, "n_fake": 3, "auc": pytest.approx(7 / 9)}}


def test_across_sources_every_pair_of_them_counts_alike() -> None:
    large = [score(z, False, "large") for z in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)]
    small = [score(z, False, "small") for z in (0.0, 1.0, 2.0)]
    made = [score(z, True, "page") for z in (2.5, 2.5, 9.0)]
    own = [
        score(z, True, "small") for z in (5.0, 5.5, 6.0)
    ]  # against its own source's real clips it isn't set
    few = [score(-9.0, True, "few")] * 2
    table = across_sources([*large, *small, *made, *own, *few])
    against_page, against_small = (3 + 3 + 7) / 21, (5.5 + 6 + 6.5) / 21
    assert table == {
        "auc": pytest.approx((against_page + against_small + 1) / 3),
        "real": {
            "large": {"n": 7, "auc": pytest.approx((against_page + against_small) / 2)},
            "small": {"n": 3, "auc": 1.0},
        },
        "fake": {
            "page": {"n": 3, "auc": pytest.approx((against_page + 1) / 2)},
            "small": {"n": 3, "auc": pytest.approx(against_small)},
        },
    }
    assert across_sources([*large, *small]) == {}


def test_decisions_are_shares_at_the_models_thresholds(model: FusionModel) -> None:
    real = [score(z, False) for z in (-2.0, -1.0, 0.0, 2.0)]  # .12 .27 .5 .88
    fake = [score(z, True) for z in (0.0, 1.0, 3.0, 4.0, -3.0)]  # .5 .73 .95 .98 .05
    assert decisions(model, [*real, *fake]) == {
        "voice_cloning": {"real": [0.25, 0.25, 0.5], "fake": [0.4, 0.4, pytest.approx(0.2)]}
    }
    assert decisions(model, real) == {}


def test_pictures_are_written_with_and_without_validation(model: FusionModel, tmp_path: Path) -> None:
    history = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]
    write_curves(history, tmp_path / "loss.png")
    write_curves([*history, {"step": 2, "eval_voice_cloning_auc": 0.7}], tmp_path / "both.png")
    write_calibration(model, [score(k / 10 - 2, k % 3 == 0) for k in range(40)], tmp_path / "calibration.png")
    sizes = {p.name: p.read_bytes()[16:24] for p in tmp_path.iterdir()}
    assert set(sizes) == {"loss.png", "both.png", "calibration.png"}
    assert sizes["both.png"][:4] > sizes["loss.png"][:4], "validation has a panel of its own"
