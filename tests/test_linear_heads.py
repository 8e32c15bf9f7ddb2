"""Heads that are fitted to the end: at the optimum, on features as they come, and in the model that a run leaves."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_fusion import make_batch, make_model
from test_fusion import run as ask
from test_recordings import FAKE, MIX, recording
from workshop import make_workshop, run, weights

from avdetect.committee import committee
from avdetect.errors import ConfigError
from avdetect.linear_heads import fit_linear, linear_streams, logistic
from avdetect.train import fold_model
from avdetect.types import CLAIMS, Claim

FACES, VOICES = CLAIMS.index(Claim.FACE_MANIPULATION), CLAIMS.index(Claim.VOICE_CLONING)
FROZEN = {"encoder": "efficientnet_lite", "options": {"blocks": 2, "trained": 0}, "head": "linear"}


def test_the_fit_is_where_its_loss_is_least() -> None:
    rng = np.random.default_rng(0)
    fake = rng.random(400) < 0.3
    features = (rng.normal(size=(400, 3)) + fake[:, None] * (1.0, 0.0, -0.5)).astype(np.float32)
    features = features * np.float32([1, 10, 0.1]) + np.float32([5, -3, 0])
    weight, bias = logistic(features, fake, 0.02)
    mean, scale = features.mean(0), features.std(0)

    def loss(change: torch.Tensor) -> torch.Tensor:
        """Of weights of standardised features and a bias that are moved by `change`."""
        own = torch.from_numpy(weight * scale).double() + change[:3]
        logits = torch.from_numpy((features - mean) / scale).double() @ own + change[3]
        logits = logits + float(bias + weight @ mean)
        fit = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(fake).double())
        return fit + 0.02 * own.square().sum()

    slope = torch.autograd.functional.jacobian(loss, torch.zeros(4, dtype=torch.float64))
    assert slope.abs().max() < 2e-3
    assert weight[0] > 0.1 and weight[2] < -1 and abs(weight[1]) < 0.05


def test_a_face_head_learns_and_nothing_else_moves() -> None:
    model = make_model(
        streams={"face": FROZEN, "voice": {"encoder": "tdnn", "options": {"width": 8}}},
        claims={"face_manipulation": ["face"], "voice_cloning": ["voice"]},
    )
    before = copy.deepcopy(model.state_dict())
    dark = recording(2, FAKE)
    assert dark.window.face_crops is not None
    dark = replace(dark, window=replace(dark.window, face_crops=dark.window.face_crops // 3))
    fit_linear(
        model, [recording(0), recording(1, source="b"), dark], replace(MIX, forged_faces=0.0), 6, 0.01, 0
    )
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"heads.face.evidence.weight", "heads.face.evidence.bias", "sharpness"}
    head = model.heads["face"].evidence
    assert torch.equal(head.weight[VOICES], before["heads.face.evidence.weight"][VOICES])
    said = []
    for one in (recording(0), dark):
        assert one.window.face_crops is not None
        faces = torch.from_numpy(one.window.face_crops[None, :3]).permute(0, 1, 4, 2, 3)
        said.append(ask(model, faces=faces, face_lengths=torch.tensor([3])).clip_logits[0, FACES].item())
    assert said[1] > said[0] + 1


def test_a_claim_that_is_not_taught_keeps_its_head() -> None:
    model = make_model(streams={"face": FROZEN}, claims={"face_manipulation": ["face"]})
    before = copy.deepcopy(model.state_dict())
    fit_linear(model, [recording(0)], replace(MIX, face=0), 1, 0.01, 0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_linear_head_weighs_each_step_by_itself() -> None:
    model = make_model(streams={"face": FROZEN}, claims={"face_manipulation": ["face"]})
    batch = {name: value for name, value in make_batch().items() if name.startswith("face")}
    torch.manual_seed(0)
    torch.nn.init.normal_(model.heads["face"].evidence.weight)
    whole = ask(model, **batch).step_logits[:, 0]
    first = ask(
        model, faces=batch["faces"][:, :1], face_lengths=batch["face_lengths"].clamp_max(1)
    ).step_logits[:, 0]
    torch.testing.assert_close(whole, first)


@pytest.mark.parametrize(
    ("streams", "claims"),
    [
        ({"face": FROZEN}, {"face_manipulation": ["face"], "voice_cloning": ["face"]}),
        ({"face": FROZEN, "too": FROZEN}, {"face_manipulation": ["face", "too"]}),
    ],
)
def test_a_stream_that_is_not_all_that_one_claim_reads_is_refused(
    streams: dict[str, dict[str, object]], claims: dict[str, list[str]]
) -> None:
    with pytest.raises(ConfigError, match="must be all that one claim reads"):
        fit_linear(make_model(streams=streams, claims=claims), [recording(0)], MIX, 1, 0.01, 0)


def test_the_mean_of_linear_heads_on_one_encoder_is_one_stream() -> None:
    settings = {"streams": {"face": FROZEN}, "claims": {"face_manipulation": ["face"]}}
    models = [make_model(**settings) for _ in range(3)]
    for seed, model in enumerate(models):
        torch.manual_seed(seed)
        torch.nn.init.normal_(model.heads["face"].evidence.weight)
        torch.nn.init.normal_(model.heads["face"].evidence.bias)
    batch = {name: value for name, value in make_batch().items() if name.startswith("face")}
    joint = committee(models)
    assert list(joint.config.streams) == ["face"] and joint.config.claims["face_manipulation"] == ["face"]
    mean = torch.stack([ask(model, **batch).step_logits for model in models]).mean(0)
    torch.testing.assert_close(ask(joint, **batch).step_logits, mean)
    with torch.no_grad():
        models[2].encoders["face"].trunk.stem.weight[0] += 1
    apart = committee(models)
    assert list(apart.config.streams) == ["face", "face_2", "face_3"]
    mean = torch.stack([ask(model, **batch).step_logits for model in models]).mean(0)
    torch.testing.assert_close(ask(apart, **batch).step_logits, mean)


def test_an_unknown_head_is_refused_with_the_nearest_known() -> None:
    with pytest.raises(ConfigError, match="no head is called 'liner'; did you mean 'linear'"):
        make_model(streams={"face": {**FROZEN, "head": "liner"}}, claims={"face_manipulation": ["face"]})


def test_folds_and_the_model_of_all_are_fitted(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path)
    recipe = (workshop / "tiny.toml").read_text().splitlines()
    face = next(number for number, line in enumerate(recipe) if line.startswith("face = {encoder"))
    recipe[face] = (
        'face = {encoder = "efficientnet_lite", options = {blocks = 2, trained = 0}, head = "linear"}'
    )
    (workshop / "tiny.toml").write_text("\n".join(recipe))
    settings = ("training.folds=2", "training.committee=2", "training.steps=2", "training.fit_batches=8")
    folder = run(workshop, "linear", *settings)
    fold = fold_model(folder, 0)
    assert linear_streams(fold) == ["face"]
    assert float(fold.sharpness[FACES].detach()) == -3.0
    whole = weights(folder)
    assert float(whole["sharpness"][FACES]) == -3.0
    assert not any(".face_2." in name for name in whole), "one encoder stands for both"
    assert any(".voice_2." in name for name in whole)
    assert not torch.equal(whole["heads.face.evidence.weight"], fold.heads["face"].evidence.weight)
    again = run(workshop, "linear", *settings, resume=True)
    for name, value in weights(again).items():
        assert torch.equal(value, whole[name]), name


def test_what_was_fitted_for_other_settings_is_not_taken_over(tmp_path: Path) -> None:
    from avdetect.config import read_config
    from avdetect.recipe import TrainConfig
    from avdetect.run_folder import begin

    workshop = make_workshop(tmp_path)
    fold = tmp_path / "run" / "folds" / "0"
    make_model().save_pretrained(fold / "model")
    begin(fold, read_config(TrainConfig, workshop / "tiny.toml"))
    with pytest.raises(ConfigError, match="its last checkpoint is missing"):
        fold_model(tmp_path / "run", 0)


@pytest.mark.parametrize("setting", ["fit_batches=0", "fit_penalty=0.0", "fit_penalty=-1"])
def test_a_fit_of_nothing_is_refused(tmp_path: Path, setting: str) -> None:
    workshop = make_workshop(tmp_path)
    with pytest.raises(ConfigError, match="is not a positive number"):
        run(workshop, "nothing", f"training.{setting}")
