"""A recipe whose streams are trained in runs of their own: what each is given, and that together they are one model."""

from __future__ import annotations

import copy
import csv
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from test_fusion import SYNC, VOICE, make_batch
from test_fusion import run as said_by
from workshop import make_workshop, prepare_here, settings_of
from workshop import run as train_run

from avdetect import train as single
from avdetect.apart import folder_of, parts_of
from avdetect.config import read_config
from avdetect.errors import ConfigError
from avdetect.hub import load
from avdetect.joining import join_runs
from avdetect.recipe import TrainConfig
from avdetect.types import Claim

EAR = 'model.streams.ear={encoder="tdnn", options={width=8, dim=8, bands=16, layers=1}}'
EARS = (EAR, 'model.claims.voice_cloning=["voice", "ear"]', "training.folds=2")
GROUPS = 'training.apart=[["voice"], ["lips", "speech"], ["face"], ["ear"]]'


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workshop(tmp_path_factory.mktemp("workshop"))


def config(workshop: Path, *overrides: str) -> TrainConfig:
    return read_config(TrainConfig, workshop / "tiny.toml", settings_of(workshop, "whole", *overrides))


def test_each_part_has_its_streams_their_claims_and_examples_of_those(workshop: Path) -> None:
    whole = config(workshop, *EARS, GROUPS, "training.steps=7")
    voice, lips, face, ear = parts_of(whole)
    assert [part.name for part in (voice, lips, face, ear)] == ["voice", "lips-speech", "face", "ear"]
    assert [list(part.model["streams"]) for part in (voice, lips)] == [["voice"], ["lips", "speech"]]
    assert ear.model["claims"] == {"voice_cloning": ["ear"]}
    assert lips.model["claims"] == {"lip_sync_mismatch": ["sync"]}
    assert [(part.mix.voice, part.mix.face, part.mix.sync) for part in (voice, lips, face)] == [
        *((2, 0, 0), (0, 0, 2), (0, 2, 0))
    ]
    for part in (voice, lips, face, ear):
        assert part.training.steps == 7 and part.model["dim"] == 16 and part.data == whole.data
        assert not part.training.apart and folder_of(part).parent == workshop / "runs" / "whole" / "parts"


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ('[["voice", "ear"], ["lips", "speech"]]', "stream 'face' must stand"),
        ('[["voice", "ear"], ["lips", "speech"], ["face"], ["nose"]]', "stream 'nose' must stand"),
        ('[["voice", "ear"], ["lips", "speech", "ear"], ["face"]]', "stream 'ear' must stand"),
        ('[["voice", "ear", "lips"], ["speech"], ["face"]]', "lips and speech are compared"),
        ('[["voice"], ["lips", "speech"], ["face", "ear"]]', "face-ear must tell nothing else"),
    ],
)
def test_groups_that_cannot_be_trained_so_are_refused(workshop: Path, groups: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parts_of(config(workshop, *EARS, f"training.apart={groups}"))


def test_a_claim_in_several_parts_needs_folds_and_a_stream_a_claim(workshop: Path) -> None:
    with pytest.raises(ConfigError, match=r"voice_cloning is told by several parts.* give training\.folds"):
        parts_of(config(workshop, *EARS, GROUPS, "training.folds=0"))
    with pytest.raises(ConfigError, match="no claim reads any of ear"):
        parts_of(config(workshop, EAR, "training.folds=2", GROUPS))


def test_a_part_without_examples_is_refused(workshop: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"lips-speech has nothing to learn from, mix\.sync = 0; training\.apart=\[\]"
    ):
        parts_of(config(workshop, *EARS, GROUPS, "mix.sync=0"))


def test_a_part_that_is_not_there_is_refused(workshop: Path) -> None:
    with pytest.raises(ConfigError, match="no part 'nose': the parts are voice, lips-speech, face, ear"):
        train_run(workshop, "whole", *EARS, GROUPS, part="nose")
    with pytest.raises(ConfigError, match=r"no part 'nose': training\.apart names none"):
        train_run(workshop, "whole", part="nose")


def scores(folder: Path) -> dict[tuple[str, str, str], float]:
    rows = csv.DictReader((folder / "scores.csv").open())
    return {(row["file"], row["claim"], row["method"]): float(row["logit"]) for row in rows}


def test_parts_become_one_model_and_finished_ones_are_taken_over(
    workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avdetect.train.prepare_all", lambda *told: map(copy.deepcopy, prepare_here(*told)))
    settings = (*EARS, GROUPS, "training.steps=2", "training.committee=2")
    one_fold = train_run(workshop, "whole", *settings, fold=1)
    assert one_fold == workshop / "runs" / "whole" and not (one_fold / "model").exists()
    seen: list[str] = []
    fit = single.fit

    def told(job: Any, clips: Any, held_out: Any, run: Path) -> Any:
        seen.append(run.relative_to(one_fold / "parts").as_posix())
        return fit(job, clips, held_out, run)

    with patch.object(single, "fit", told):
        part = train_run(workshop, "whole", *settings, part="ear")
        assert seen == ["ear/folds/0", "ear"] and part == one_fold / "parts" / "ear"
        seen.clear()
        run = train_run(workshop, "whole", *settings)
    names = ["voice", "lips-speech", "face", "ear"]
    assert seen == [place for name in names[:3] for place in (f"{name}/folds/0", name)]
    parts = {name: run / "parts" / name for name in names}
    model, batch = load(run / "model"), make_batch()
    assert model.config.name == "whole" and model.config.recipes == ["tiny"]
    assert model.config.claims["voice_cloning"] == ["voice", "voice_2", "ear", "ear_2"]
    with torch.inference_mode():
        logits = {name: said_by(load(part / "model"), **batch).step_logits for name, part in parts.items()}
        said = said_by(model, **batch).step_logits
    torch.testing.assert_close(said[..., SYNC], logits["lips-speech"][..., SYNC], rtol=1e-4, atol=1e-5)
    mean = (logits["voice"] + logits["ear"])[..., VOICE] / 2
    torch.testing.assert_close(said[..., VOICE], mean, rtol=1e-4, atol=1e-5)
    found, face = scores(run), scores(parts["face"])
    assert {claim for _, claim, _ in found} == {"face_manipulation", "voice_cloning", "lip_sync_mismatch"}
    assert {key: found[key] for key in face} == face
    card = (run / "model" / "README.md").read_text()
    assert "train tiny" in card and "trained apart" not in card

    part = train_run(workshop, "try", *settings, "mix.sync=3", part="lips-speech")
    joint = workshop / "joint"
    claim = Claim.LIP_SYNC_MISMATCH
    join_runs(run=run, claim=claim, other=part, manifest=workshop / "manifest.csv", out=joint)
    mine, theirs = scores(joint), scores(part)
    assert mine == {**{key: value for key, value in found.items() if key[1] != claim.value}, **theirs}
    assert load(joint / "model").config.apart == {claim.value: ["tiny"]}

    with pytest.raises(ConfigError, match="holds a run already"):
        train_run(workshop, "whole", *settings)
    (run / "model" / "config.json").unlink()
    (run / "model" / "model.safetensors").unlink()
    with patch.object(single, "fit", told):
        seen.clear()
        again = train_run(workshop, "whole", *settings, resume=True)
    assert seen == [] and scores(again) == found
    with (
        patch.object(single, "fit", told),
        pytest.raises(ConfigError, match=r"training\.steps was 2 and is 3"),
    ):
        train_run(workshop, "whole", *settings, "training.steps=3", resume=True)
