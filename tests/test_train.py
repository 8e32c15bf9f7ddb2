"""A few steps of training, end to end: from clips and a recipe to a folder with a model, its numbers and its card."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from clips import make_video
from safetensors.torch import load_file

from avdetect import hub
from avdetect.config import build
from avdetect.errors import ConfigError
from avdetect.prepared import prepare_cached
from avdetect.recipe import TrainConfig
from avdetect.train import ClaimTrainer, build_model, train
from avdetect.types import CLAIMS

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "samples" / "sample.mp4"
SIDE = 256
RECIPE = """
name = "tiny"
[data]
manifest = "manifest.csv"
window = 2.0
[model]
dim = 16
lags = 10
[model.streams]
voice = {encoder = "spectral_resnet", options = {widths = [4, 8], dim = 8, bands = 32}}
lips = {encoder = "lip_motion", options = {width = 16, dim = 8, layers = 1}}
speech = {encoder = "sync_speech", options = {width = 16, dim = 8, layers = 1}}
face = {encoder = "face_cnn", options = {widths = [4, 8], size = 48}}
[model.claims]
face_manipulation = ["face"]
voice_cloning = ["voice"]
lip_sync_mismatch = ["sync"]
[mix]
voice = 2
face = 2
sync = 2
crops = 2
shortest = 1.0
longest = 1.6
[training]
steps = 4
evaluate_every = 2
learning_rate = 0.01
bf16 = false
workers = 0
"""
ROWS = """file,split,face_manipulation,voice_cloning,lip_sync_mismatch,method,identity,source
0.mp4,train,0,0,0,,a,one
1.mp4,train,1,1,,made,b,two
2.mp4,val,0,0,0,,c,three
3.mp4,val,1,1,0,made,d,four
gone.mp4,val,0,0,0,,e,five
"""


def cut_sample(folder: Path) -> None:
    """Four small clips of the sample's talking face, two seconds each."""
    with av.open(str(SAMPLE)) as source:
        images = [frame.reformat(SIDE, SIDE, "rgb24").to_ndarray() for frame in source.decode(video=0)]
    with av.open(str(SAMPLE)) as source:
        resampler = av.AudioResampler("flt", "mono", 16_000)
        sound = np.concatenate(
            [part.to_ndarray() for frame in source.decode(audio=0) for part in resampler.resample(frame)], 1
        )
    for number, (start, end) in enumerate(pairwise((0, 49, 98, 147, 196))):
        piece = np.ascontiguousarray(sound[:, start * 640 : end * 640])
        make_video(folder / f"{number}.mp4", 1.96, size=(SIDE, SIDE), images=images[start:end], audio=piece)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips, a manifest and a recipe."""
    if not SAMPLE.is_file():
        pytest.skip(f"no sample clip at {SAMPLE} (examples/make_sample.py makes it)")
    folder = tmp_path_factory.mktemp("workshop")
    cut_sample(folder)
    (folder / "manifest.csv").write_text(ROWS)
    (folder / "tiny.toml").write_text(RECIPE)
    return folder


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips are prepared here: starting processes would take longer than all the rest."""

    def prepare_all(items: Any, cache: Path, settings: Any) -> Iterator[Any]:
        return (prepare_cached(item, cache, settings) for item in items)

    monkeypatch.setattr("avdetect.train.prepare_all", prepare_all)


def run(workshop: Path, name: str, *overrides: str, resume: bool = False, fold: int | None = None) -> Path:
    settings = [
        f"name={name}",
        f"data.manifest={workshop / 'manifest.csv'}",
        f"data.cache={workshop / 'cache'}",
    ]
    return train(
        workshop / "tiny.toml",
        [*settings, f"training.out={workshop / 'runs'}", *overrides],
        resume=resume,
        fold=fold,
    )


@pytest.fixture(scope="module")
def finished(workshop: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "avdetect.train.prepare_all",
            lambda items, *settings: (prepare_cached(i, *settings) for i in items),
        )
        return run(workshop, "whole")


def history(folder: Path) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = json.loads((folder / "metrics.json").read_text())
    return rows


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
    assert json.loads((finished / "environment.json").read_text())["torch"] == torch.__version__


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


def test_a_second_run_does_not_write_over_the_first(finished: Path, workshop: Path) -> None:
    before = (finished / "model" / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="holds a run already; add --resume"):
        run(workshop, "whole")
    assert (finished / "model" / "model.safetensors").read_bytes() == before


class _KilledError(BaseException):
    """Stands in for the power going off."""


def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(
    finished: Path, workshop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        original = ClaimTrainer.evaluate

        def evaluate(self: ClaimTrainer, *args: Any, **kwargs: Any) -> dict[str, float]:
            if self.state.global_step > 2:
                raise _KilledError
            return original(self, *args, **kwargs)

        patch.setattr(ClaimTrainer, "evaluate", evaluate)
        with pytest.raises(_KilledError):
            run(workshop, "cut")
    assert not (workshop / "runs" / "cut" / "model").exists()
    assert "left out: " in capsys.readouterr().err  # gone.mp4
    steps: list[int] = []
    with monkeypatch.context() as patch:
        step = ClaimTrainer.training_step

        def training_step(self: ClaimTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
            steps.append(self.state.global_step)
            return step(self, *args, **kwargs)

        patch.setattr(ClaimTrainer, "training_step", training_step)
        resumed = run(workshop, "cut", resume=True)
    assert steps == [2, 3]
    one, other = (load_file(f / "model" / "model.safetensors") for f in (finished, resumed))
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=1e-6, atol=1e-7, msg=name)
    same = ("step", "loss", "eval_score", "learning_rate", "grad_norm")
    kept = [[{k: row[k] for k in same if k in row} for row in history(f)[:4]] for f in (finished, resumed)]
    assert kept[0] == kept[1]
    assert list((resumed / "tensorboard").rglob("events*"))


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
        (["mix.sync=0", "mix.voice=0", "mix.face=0"], "mix.voice, mix.face and mix.sync are all 0"),
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
    assert (folder / "calibration.png").read_bytes().startswith(b"\x89PNG")


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
    assert "| faces | face_manipulation | 1 | 1 |" in blind
    assert "| voice_cloning | 1 | 1 |" in whole.split("## On the validation rows")[1]
