"""A claim taken over from another run: it says there what it said before, and so do the others."""

from __future__ import annotations

import copy
import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import call
from test_fusion import FACE, STREAMS, SYNC, VOICE, make_batch, make_model, run
from workshop import make_workshop, prepare_here
from workshop import run as train_run

from avdetect.committee import committee
from avdetect.errors import ConfigError
from avdetect.folds import write_scores
from avdetect.fusion import FusionModel
from avdetect.hub import load
from avdetect.joining import joined_model
from avdetect.manifest import read_manifest
from avdetect.train import fold_model
from avdetect.types import CLAIMS, Claim, Item
from avdetect.validation import Score

VOICES = Claim.VOICE_CLONING


def another(seed: int, **settings: Any) -> FusionModel:
    model = make_model(**settings)
    vars(model.config).update(name="one", version="1", folds=4, recipes=["some"])
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn_like(weight)
    for claim in CLAIMS:
        model.config.calibration[claim.value] = {"scale": 1.0 + seed, "bias": 0.0}
    return model


def voices_alone(seed: int = 2) -> FusionModel:
    """A run of another voice encoder, and of nothing else."""
    stream = {"encoder": "tdnn", "options": {"width": 8, "dim": 16, "bands": 16, "layers": 1}}
    return another(seed, streams={"ear": stream}, claims={"voice_cloning": ["ear"]})


@pytest.mark.parametrize("claim", CLAIMS)
def test_each_claim_says_what_it_said_in_its_own_run(claim: Claim) -> None:
    first, second, batch = another(1), another(2), make_batch()
    joint = joined_model(first, claim, second)
    logits = {name: run(m, **batch).clip_logits for name, m in (("1", first), ("2", second), ("j", joint))}
    assert not torch.allclose(logits["1"], logits["2"], atol=1e-3)
    for index, other in enumerate(CLAIMS):
        expected, seed = (logits["2"], 2) if other is claim else (logits["1"], 1)
        assert torch.equal(logits["j"][:, index], expected[:, index]), other
        assert joint.config.calibration[other.value]["scale"] == 1.0 + seed
    assert first.config.calibration[claim.value]["scale"] == 2.0, "the first model is left as it was"


def test_other_streams_can_take_the_place_of_a_claims_own() -> None:
    joint = joined_model(another(1), VOICES, voices_alone())
    assert set(joint.config.streams) == {"lips", "speech", "face", "ear"}
    assert joint.config.claims["voice_cloning"] == ["ear"]
    assert torch.equal(
        run(joint, **make_batch()).clip_logits[:, VOICE],
        run(voices_alone(), **make_batch()).clip_logits[:, VOICE],
    )
    assert run(joint, **make_batch()).claim_mask[:, [FACE, SYNC]].all()


def test_a_claim_can_be_added_to_a_run_that_tells_nothing_of_it() -> None:
    lips = {name: STREAMS[name] for name in ("lips", "speech")}
    talks = another(3, streams=lips, claims={"lip_sync_mismatch": ["sync"]})
    joint, batch = joined_model(voices_alone(), Claim.LIP_SYNC_MISMATCH, talks), make_batch()
    assert set(joint.config.streams) == {"ear", "lips", "speech"}
    said, ear_said, lips_said = (run(model, **batch).clip_logits for model in (joint, voices_alone(), talks))
    assert torch.equal(said[:, VOICE], ear_said[:, VOICE]) and torch.equal(said[:, SYNC], lips_said[:, SYNC])
    assert joint.config.calibration["lip_sync_mismatch"]["scale"] == 4.0
    with pytest.raises(ConfigError, match="tells nothing of lip_sync_mismatch"):
        joined_model(talks, Claim.LIP_SYNC_MISMATCH, voices_alone())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"fusion": "attention"}, "attention reads streams together"),
        ({"claims": {"face_manipulation": ["face"]}}, "tells nothing of voice_cloning"),
        (
            {"claims": {"face_manipulation": ["face", "voice"], "voice_cloning": ["voice"]}},
            "shares the stream voice with face_manipulation",
        ),
        ({"window": {"length": 3.0, "hop": 1.0}}, "cut clips apart"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        joined_model(another(1), VOICES, another(2, **settings))


def test_a_name_that_both_use_for_different_claims_is_refused() -> None:
    ears_called_face = another(2, streams={"face": STREAMS["voice"]}, claims={"voice_cloning": ["face"]})
    with pytest.raises(ConfigError, match="a stream of the same name"):
        joined_model(another(1), VOICES, ears_called_face)


def finished(folder: Path, model: FusionModel, items: list[Item], logit: float, sha: str = "a") -> Path:
    """A run folder with the model and a score of every claim for every clip, a fake one higher by `logit`."""
    model.save_pretrained(folder / "model", safe_serialization=True)
    (folder / "config.json").write_text(json.dumps({"data": {"leave_out": []}}))
    (folder / "data.json").write_text(json.dumps({"manifest_sha256": sha, "rows": {}, "sources": []}))
    claims = [claim for claim in CLAIMS if claim.value in model.config.claims]
    scores = [
        Score(i, c, logit * k + 0.1 * n, bool(k)) for c in claims for n, i in enumerate(items) for k in (0, 1)
    ]
    write_scores(scores, items, folder / "scores.csv")
    return folder


def test_a_joined_run_has_the_scores_of_both_and_a_card(tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    lines = [f"{name}.wav,train,{k % 2}" for k, name in enumerate("abcdef")]
    manifest.write_text("\n".join(["file,split,voice_cloning", *lines]) + "\n")
    items = read_manifest(manifest)
    first = finished(tmp_path / "one", another(1), items, 1.0)
    second = finished(tmp_path / "two", voices_alone(), items, 5.0)
    out = tmp_path / "out"
    told = call(
        "models",
        "join",
        first,
        "voice_cloning",
        second,
        out,
        "--manifest",
        manifest,
        "--version",
        "9",
        "--name",
        "both",
    )
    assert told.code == 0 and told.out.strip() == str(out)
    rows = list(csv.DictReader((out / "scores.csv").open()))
    highest = {c.value: max(float(r["logit"]) for r in rows if r["claim"] == c.value) for c in CLAIMS}
    assert highest == {"face_manipulation": 1.5, "voice_cloning": 5.5, "lip_sync_mismatch": 1.5}
    card = (out / "model" / "README.md").read_text()
    assert "avdetect `" in card and "` 9" in card and "voice_cloning was trained apart" in card
    assert load(out / "model").config.claims["voice_cloning"] == ["ear"]
    assert load(out / "model").config.name == "both"
    again = call("models", "join", first, "voice_cloning", second, out, "--manifest", manifest)
    assert again.code != 0 and "is there already" in " ".join(again.err)


def test_runs_on_other_clips_and_unfinished_ones_are_refused(tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text("file,split,voice_cloning\na.wav,train,0\nb.wav,train,1\n")
    items = read_manifest(manifest)
    first = finished(tmp_path / "one", another(1), items, 1.0)
    second = finished(tmp_path / "two", another(2), items, 1.0, sha="b")
    words = ("models", "join", first, "voice_cloning", second, tmp_path / "out", "--manifest", manifest)
    assert "different manifests" in " ".join(call(*words).err)
    (second / "data.json").unlink()
    assert "data.json is missing" in " ".join(call(*words).err)
    wrong = call("models", "join", first, "voices", second, tmp_path / "out", "--manifest", manifest)
    assert wrong.code == 2 and "no claim is called 'voices'" in " ".join(wrong.err)
    assert not (tmp_path / "out").exists()


def ear(seed: int) -> FusionModel:
    """As `voices_alone`, under another name and calibrated in another way."""
    stream = {"encoder": "tdnn", "options": {"width": 8, "dim": 16, "bands": 16, "layers": 1}}
    return another(seed, streams={"second": stream}, claims={"voice_cloning": ["second"]})


def test_streams_beside_each_other_say_their_mean_at_every_step() -> None:
    first, second, batch = another(1), ear(3), make_batch()
    both = joined_model(first, VOICES, second, beside=True)
    own = first.config.claims["voice_cloning"]
    assert both.config.claims["voice_cloning"] == [*own, "second"]
    said = [run(model, **batch) for model in (first, second, both)]
    seen = said[0].step_mask[..., VOICE] & said[1].step_mask[..., VOICE]
    assert seen.any()
    share = len(own) / (len(own) + 1)
    mean = share * said[0].step_logits[..., VOICE] + (1 - share) * said[1].step_logits[..., VOICE]
    torch.testing.assert_close(said[2].step_logits[..., VOICE][seen], mean[seen])
    for index in (FACE, SYNC):
        assert torch.equal(said[2].clip_logits[:, index], said[0].clip_logits[:, index])
    assert both.config.apart["voice_cloning"] == ["some"]


@pytest.mark.parametrize(
    ("claim", "settings", "words"),
    [
        (Claim.LIP_SYNC_MISMATCH, {}, "can't stand beside each other"),
        (VOICES, {}, "both runs have a stream called voice"),
    ],
)
def test_streams_that_cannot_stand_beside_each_other_are_refused(
    claim: Claim, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        joined_model(another(1), claim, another(2, **settings), beside=True)


def test_in_a_committee_each_run_says_its_share_of_the_streams_that_its_recipe_names() -> None:
    frozen = {"encoder": "spectral_efficientnet", "options": {"blocks": 1, "trained": 0}, "head": "linear"}
    several = committee([another(1), another(4)])
    one = committee([make_model(streams={"seen": frozen}, claims={"voice_cloning": ["seen"]})] * 2)
    for model in (several, one):
        vars(model.config).update(committee=2, folds=2, recipes=["some"])
    assert list(several.config.claims["voice_cloning"]) == ["voice", "voice_2"] and list(one.heads) == [
        "seen"
    ]
    both, batch = joined_model(several, VOICES, one, beside=True), make_batch()
    said = [run(model, **batch).step_logits[..., VOICE] for model in (several, one, both)]
    torch.testing.assert_close(said[2], (said[0] + said[1]) / 2)


def test_runs_beside_each_other_are_scored_by_their_folds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = make_workshop(tmp_path)
    settings = ("training.folds=2", "training.committee=2", "training.steps=2", "mix.face=0", "mix.sync=0")
    ears = {
        "voice": '{encoder="spectral_resnet", options={widths=[4, 8], dim=8, bands=32}}',
        "seen": '{encoder="spectral_efficientnet", options={blocks=2, trained=0}, head="linear", penalty=10}',
    }
    monkeypatch.setattr("avdetect.train.prepare_all", lambda *told: map(copy.deepcopy, prepare_here(*told)))
    runs = [
        train_run(
            *(
                workshop,
                f"run-{name}",
                *settings,
                "training.fit_batches=4",
                f"model.streams={{{name}={ear}}}",
            ),
            f'model.claims={{voice_cloning=["{name}"]}}',
        )
        for name, ear in ears.items()
    ]
    words = ("models", "join", runs[0], "voice_cloning", runs[1], tmp_path / "out")
    told = call(*words, "--manifest", workshop / "manifest.csv", "--beside")
    assert told.code == 0, told.err
    scores = [
        {row["file"]: float(row["logit"]) for row in csv.DictReader((folder / "scores.csv").open())}
        for folder in (*runs, tmp_path / "out")
    ]
    assert scores[0].keys() == scores[1].keys() == scores[2].keys() and len(scores[0]) == 4
    for name, logit in scores[2].items():
        assert logit == pytest.approx((scores[0][name] + scores[1][name]) / 2, abs=0.02)
    model = load(tmp_path / "out" / "model")
    assert model.config.claims["voice_cloning"] == ["voice", "voice_2", "seen"]
    assert fold_model(tmp_path / "out", 1).config.claims["voice_cloning"] == ["voice", "seen"]
    assert (
        model.config.thresholds["voice_cloning"] != load(runs[1] / "model").config.thresholds["voice_cloning"]
    )


def test_runs_without_folds_cannot_stand_beside_each_other(tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text("file,split,voice_cloning\na.wav,train,0\nb.wav,train,1\n")
    items = read_manifest(manifest)
    first = finished(tmp_path / "one", another(1), items, 1.0)
    second = finished(tmp_path / "two", voices_alone(), items, 1.0)
    words = ("models", "join", first, "voice_cloning", second, tmp_path / "out", "--manifest", manifest)
    told = call(*words, "--beside")
    assert told.code == 2 and "has no folds to score anew" in " ".join(told.err)
    assert not (tmp_path / "out").exists()


def test_committees_of_different_sizes_are_refused() -> None:
    first, second = another(1), ear(3)
    vars(first.config).update(committee=3)
    with pytest.raises(ConfigError, match="the mean of 3 and of 1"):
        joined_model(first, VOICES, second, beside=True)
