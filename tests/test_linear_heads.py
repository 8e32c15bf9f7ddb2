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
from test_recordings import FAKE, MIX, REAL, recording
from workshop import make_workshop, run, weights

from avdetect.committee import committee
from avdetect.errors import ConfigError
from avdetect.fusion import FusionModel
from avdetect.linear_heads import fit_linear, linear_streams, logistic, resting, still_taught
from avdetect.recordings import MixSettings, Recording
from avdetect.train import fold_model
from avdetect.types import CLAIMS, Claim, Label

FACES, VOICES = CLAIMS.index(Claim.FACE_MANIPULATION), CLAIMS.index(Claim.VOICE_CLONING)
FROZEN = {"encoder": "efficientnet_lite", "options": {"blocks": 2, "trained": 0}, "head": "linear"}
LEARNING = {"encoder": "face_cnn", "options": {"widths": [8, 16], "size": 32}}


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
    fit_linear(model, [recording(0), recording(1, source="b"), dark], MIX, 6, 0)
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


@pytest.mark.parametrize(("read", "faces"), [("face", 0), ("other", 2)], ids=["not taught", "not read"])
def test_a_head_that_nothing_asks_for_is_left_as_it_is(read: str, faces: int) -> None:
    model = make_model(streams={"face": FROZEN, "other": LEARNING}, claims={"face_manipulation": [read]})
    before = copy.deepcopy(model.state_dict())
    fit_linear(model, [recording(0)], replace(MIX, face=faces), 1, 0)
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
    ("claims", "words"),
    [
        ({"face_manipulation": ["face"], "voice_cloning": ["face"]}, "one claim must read it"),
        ({"face_manipulation": ["face", "too"]}, r"set own_loss = 1.0 \(it is 0\)"),
    ],
)
def test_a_stream_that_cannot_be_fitted_alone_is_refused(claims: dict[str, list[str]], words: str) -> None:
    streams = {name: FROZEN for names in claims.values() for name in names}
    model = make_model(streams=streams, claims=claims)
    with pytest.raises(ConfigError, match=words):
        resting(model)  # which a run asks before its first step
    with pytest.raises(ConfigError, match=words):
        fit_linear(model, [recording(0)], MIX, 1, 0)


def beside_another() -> FusionModel:
    """A model that tells faces by a linear head and by a stream that learns."""
    return make_model(
        streams={"face": FROZEN, "other": LEARNING},
        claims={"face_manipulation": ["face", "other"]},
        own_loss=1.0,
    )


def test_beside_another_stream_a_head_says_its_share() -> None:
    alone = make_model(streams={"face": FROZEN}, claims={"face_manipulation": ["face"]})
    both = beside_another()
    dark = recording(2, FAKE)
    assert dark.window.face_crops is not None
    dark = replace(dark, window=replace(dark.window, face_crops=dark.window.face_crops // 3))
    for model in (alone, both):
        fit_linear(model, [recording(0), dark], MIX, 4, 0)
    whole, half = (model.heads["face"].evidence for model in (alone, both))
    torch.testing.assert_close(half.weight[FACES] * 2, whole.weight[FACES])
    torch.testing.assert_close(half.bias[FACES] * 2, whole.bias[FACES])
    assert float(both.sharpness[FACES].detach()) == 0.0, "the other stream has learnt it"


def test_a_stream_that_rests_takes_no_part_and_its_share_is_kept_for_it() -> None:
    model = beside_another().train()
    assert resting(model) == {"face"}
    batch = {name: value for name, value in make_batch().items() if name.startswith("face")}
    model.eval().resting = resting(model)
    rested = ask(model, **batch).step_logits
    torch.nn.init.normal_(model.heads["face"].evidence.weight)
    torch.testing.assert_close(ask(model, **batch).step_logits, rested)
    alone = make_model(streams={"other": LEARNING}, claims={"face_manipulation": ["other"]})
    alone.load_state_dict({name: value for name, value in model.state_dict().items() if ".face." not in name})
    with torch.no_grad():
        for value in alone.heads["other"].evidence.parameters():
            value *= 2
    labels = torch.tensor([[1.0, torch.nan, torch.nan]] * len(batch["face_lengths"]))
    losses = [one(**batch, labels=labels).loss for one in (model, alone)]
    torch.testing.assert_close(*losses)
    model.resting = frozenset()
    assert not torch.allclose(ask(model, **batch).step_logits, rested)


@pytest.mark.parametrize(("labels", "forged"), [((REAL, FAKE), 0.0), ((REAL,), MIX.forged_faces)])
def test_forgeries_and_pairs_are_kept_from_the_fit_where_there_are_labelled_fakes(
    monkeypatch: pytest.MonkeyPatch, labels: tuple[Label, ...], forged: float
) -> None:
    drawn: list[MixSettings] = []

    def examples(recordings: list[Recording], mix: MixSettings, batches: int, seed: int) -> None:
        drawn.append(mix)
        raise InterruptedError

    monkeypatch.setattr("avdetect.linear_heads.ExampleSet", examples)
    model = make_model(streams={"face": FROZEN}, claims={"face_manipulation": ["face"]})
    with pytest.raises(InterruptedError):
        fit_linear(model, [recording(k, label) for k, label in enumerate(labels)], MIX, 1, 0)
    assert (drawn[0].forged_faces, drawn[0].same_source) == (forged, 0)
    assert (drawn[0].face, drawn[0].voice, drawn[0].sync, drawn[0].crops) == (MIX.face, 0, 0, 1)


def test_no_examples_are_drawn_for_claims_that_rest() -> None:
    model = make_model(
        streams={"face": FROZEN, "voice": {"encoder": "tdnn", "options": {"width": 8}}},
        claims={"face_manipulation": ["face"], "voice_cloning": ["voice"]},
    ).train()
    assert still_taught(model, MIX) == MIX
    model.resting = resting(model)
    assert still_taught(model, MIX) == replace(MIX, face=0)
    both = beside_another().train()
    both.resting = resting(both)
    assert still_taught(both, MIX) == MIX


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


@pytest.mark.parametrize("setting", ["fit_batches=0", "fit_batches=-1"])
def test_a_fit_of_nothing_is_refused(tmp_path: Path, setting: str) -> None:
    workshop = make_workshop(tmp_path)
    with pytest.raises(ConfigError, match="is not a positive number"):
        run(workshop, "nothing", f"training.{setting}")


def test_a_streams_penalty_keeps_its_weights_small() -> None:
    lengths = []
    dark = recording(1, FAKE)
    assert dark.window.face_crops is not None
    dark = replace(dark, window=replace(dark.window, face_crops=dark.window.face_crops // 3))
    for penalty in (0.001, 10.0):
        stream = {**FROZEN, "penalty": penalty}
        model = make_model(streams={"face": stream}, claims={"face_manipulation": ["face"]})
        fit_linear(model, [recording(0), dark], MIX, 2, 0)
        lengths.append(float(model.heads["face"].evidence.weight[FACES].detach().norm()))
    assert 0 < lengths[1] < lengths[0] / 4


@pytest.mark.parametrize("penalty", [0, -0.1, float("nan"), float("inf"), True, "little"])
def test_a_penalty_must_be_a_positive_number(penalty: object) -> None:
    with pytest.raises(ConfigError, match=r"the stream 'face': penalty = .* is not a positive number"):
        make_model(streams={"face": {**FROZEN, "penalty": penalty}}, claims={"face_manipulation": ["face"]})


def test_only_a_linear_head_has_a_penalty() -> None:
    with pytest.raises(ConfigError, match="only a head that is"):
        make_model(streams={"face": {**LEARNING, "penalty": 0.1}}, claims={"face_manipulation": ["face"]})
