"""A few steps of training, end to end: from clips and a recipe to a folder with a model, its numbers and its card."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from workshop import history, make_workshop, prepare_here, run

from avdetect import hub
from avdetect.config import build
from avdetect.errors import ConfigError
from avdetect.recipe import TrainConfig
from avdetect.train import build_model
from avdetect.trainer import half_precision
from avdetect.types import CLAIMS


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avdetect.train.prepare_all", prepare_here)


@pytest.fixture(scope="module")
def finished(workshop: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("avdetect.train.prepare_all", prepare_here)
        return run(workshop, "whole")


def test_a_run_leaves_a_model_and_all_that_is_known_of_it(finished: Path) -> None:
    for name in ("config.json", "environment.json", "data.json", "metrics.json", "curves.png", "scores.csv"):
        assert (finished / name).stat().st_size > 50, name
    assert {p.name for p in (finished / "model").iterdir()} >= {
        "config.json",
        "model.safetensors",
        "README.md",
        "results.json",
    }
    assert (finished / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((finished / "tensorboard").rglob("events*"))
    assert json.loads((finished / "config.json").read_text())["training"]["steps"] == 4
    environment = json.loads((finished / "environment.json").read_text())
    assert environment["torch"] == torch.__version__ and environment["processes"] == 1
    assert len(environment["code_sha256"]) == 64 and environment["avdetect"]


def test_the_model_of_a_run_can_be_used(finished: Path) -> None:
    model = hub.load(finished / "model")
    assert hub.info(finished / "model").name == "whole"
    assert set(model.config.calibration) == set(model.config.thresholds) == {c.value for c in CLAIMS}
    assert model.config.calibration["voice_cloning"] != {"scale": 1.0, "bias": 0.0}


def test_every_claim_is_validated_and_learnt(finished: Path) -> None:
    rows = history(finished)
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 2 and all(np.isfinite(losses))
    evaluations = [row for row in rows if "eval_score" in row]
    assert [row["step"] for row in evaluations] == [2, 4]
    for claim in CLAIMS:
        assert 0 <= evaluations[-1][f"eval_{claim.value}_auc"] <= 1


def test_the_card_and_the_facts_say_what_was_used(finished: Path) -> None:
    card = (finished / "model" / "README.md").read_text()
    facts = json.loads((finished / "data.json").read_text())
    assert "avdetect `whole`" in card and facts["manifest_sha256"] in card
    assert all(claim.value in card for claim in CLAIMS)
    assert "{{" not in card and "None" not in card
    assert facts["rows"]["train"]["face_manipulation=1"] == 1
    assert facts["rows"]["val"]["lip_sync_mismatch=0"] == 3


def test_half_precision_is_for_machines_that_have_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not half_precision(False) and not capsys.readouterr().err
    assert not half_precision(True) and "training.bf16: this machine" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert half_precision(True) and not half_precision(False) and not capsys.readouterr().err


def test_a_second_run_does_not_write_over_the_first(finished: Path, workshop: Path) -> None:
    before = (finished / "model" / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="holds a run already; add --resume"):
        run(workshop, "whole")
    assert (finished / "model" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.stps=3"], "unknown setting 'stps'; did you mean 'steps'"),
        (["model.layrs=2"], "unknown setting 'layrs'; did you mean 'layers'"),
        (["model.streams.voice.encoder=lcn"], "no encoder is called 'lcn'"),
        (["model.streams.voice.options.wdth=3"], "encoder 'spectral_resnet': .*wdth"),
        (["model.dim=wide"], "dim = 'wide' is not a positive whole number"),
        (['data.train=["test"]'], "the manifest has no rows of split test"),
        (["data.train=nowhere"], "no split is called 'nowhere'"),
        (
            ["mix.sync=0", "mix.voice=0", "mix.face=0"],
            "mix.voice, mix.face, mix.sync and mix.whole are all 0",
        ),
        (['mix.kinds=["mouht"]'], "mix.kinds: no forgery is called 'mouht'"),
        (["data.hide=hair"], "hide = 'hair' is none of nothing, faces, speech"),
        (["training.folds=1"], "training.folds = 1: give 0, or 2 and more"),
        (["training.evaluate_every=0"], "training.evaluate_every = 0 is not a positive number"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_line(
    workshop: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        run(workshop, "refused", *overrides)
    assert "\n" not in str(error.value)


def test_a_run_may_go_on_from_a_trained_model_but_not_with_another_shape(tmp_path: Path) -> None:
    raw = {"name": "on", "data": {"manifest": "m.csv"}, "training": {"start": str(tmp_path)}}
    with pytest.raises(ConfigError, match=r"both set"):
        build_model(build(TrainConfig, {**raw, "model": {"dim": 8}}, "test"))
    first = build_model(
        build(TrainConfig, {"name": "first", "data": raw["data"], "model": {"dim": 8}}, "test")
    )
    first.save_pretrained(tmp_path)
    second = build_model(build(TrainConfig, raw, "test"))
    assert second.config.dim == 8 and second.config.name == "on"
    assert torch.equal(first.sharpness, second.sharpness)


def test_folds_hold_sources_out_and_calibrate_the_model_of_all(workshop: Path) -> None:
    settings = ["training.folds=2", "training.steps=2"]
    with pytest.raises(ConfigError, match=r"no fold 2: training\.folds = 2"):
        run(workshop, "folded", *settings, fold=2)
    part = run(workshop, "folded", *settings, fold=1)
    assert part == workshop / "runs" / "folded" / "folds" / "1"
    assert not (workshop / "runs" / "folded" / "model").exists()
    written = (part / "scores.csv").stat().st_mtime_ns

    folder = run(workshop, "folded", *settings)
    assert (part / "scores.csv").stat().st_mtime_ns == written, "a finished fold was run again"
    rows = {
        name: list(csv.DictReader((folder / name).open()))
        for name in ("scores.csv", "folds/0/scores.csv", "folds/1/scores.csv")
    }
    first, second = ({row["source"] for row in rows[f"folds/{k}/scores.csv"]} for k in range(2))
    assert first and second and not first & second
    assert rows["scores.csv"] == rows["folds/0/scores.csv"] + rows["folds/1/scores.csv"]
    assert {row["file"] for row in rows["scores.csv"]} == {f"{k}.mp4" for k in range(4)}
    assert "Leave-one-source-out: 2 models" in " ".join((folder / "model" / "README.md").read_text().split())
    assert (folder / "model" / "calibration.png").read_bytes().startswith(b"\x89PNG")

    shared = run(workshop, "folded", *settings, "training.committee=2", resume=True)
    streams = json.loads((shared / "model" / "config.json").read_text())["streams"]
    one = json.loads((part / "checkpoints" / "checkpoint-2" / "config.json").read_text())["streams"]
    assert streams.keys() - one.keys() == {f"{name}_2" for name in one if name not in ("lips", "speech")}
    card = " ".join((shared / "model" / "README.md").read_text().split())
    assert "the mean of that model and of the first 1 of the 2" in card


def test_a_fold_of_other_settings_is_not_taken_over(workshop: Path) -> None:
    part = run(workshop, "again", "training.folds=2", "training.steps=1", fold=0)
    before = (part / "scores.csv").read_text()
    run(workshop, "again", "training.folds=2", "training.steps=1", "training.seed=5", fold=0)
    assert (part / "scores.csv").read_text() != before


def test_a_card_quotes_what_is_told_without_the_evidence(workshop: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere is no finished run"):
        run(workshop, "quoting", 'training.probes=["nowhere"]')
    blind = ("data.hide=faces", "mix.voice=0", "mix.sync=0", "training.steps=1", "training.evaluate_every=1")
    run(workshop, "background", *blind)
    short = ("training.steps=1", "training.evaluate_every=1")
    run(workshop, "rows", *short)
    folder = run(workshop, "quoting", *short, 'training.probes=["background", "rows"]')
    whole, blind = (folder / "model" / "README.md").read_text().split("## Shortcuts")
    assert "| faces | face_manipulation | face | 1 | 1 |" in blind
    assert "| faces | voice_cloning" not in blind  # nothing of a voice was taken out
    assert "| voice_cloning | 1 | 1 |" in whole.split("## On the validation rows")[1]
