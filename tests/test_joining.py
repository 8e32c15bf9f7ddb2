"""A claim taken over from another run: it says there what it said before, and so do the others."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import call
from test_fusion import FACE, STREAMS, SYNC, VOICE, make_batch, make_model, run

from avdetect.errors import ConfigError
from avdetect.folds import write_scores
from avdetect.fusion import FusionModel
from avdetect.hub import load
from avdetect.joining import joined_model
from avdetect.manifest import read_manifest
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
        "models", "join", first, "voice_cloning", second, out, "--manifest", manifest, "--version", "9"
    )
    assert told.code == 0 and told.out.strip() == str(out)
    rows = list(csv.DictReader((out / "scores.csv").open()))
    highest = {c.value: max(float(r["logit"]) for r in rows if r["claim"] == c.value) for c in CLAIMS}
    assert highest == {"face_manipulation": 1.5, "voice_cloning": 5.5, "lip_sync_mismatch": 1.5}
    card = (out / "model" / "README.md").read_text()
    assert "avdetect `" in card and "` 9" in card and "voice_cloning was trained apart" in card
    assert load(out / "model").config.claims["voice_cloning"] == ["ear"]
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
