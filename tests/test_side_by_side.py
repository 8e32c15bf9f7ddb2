"""Folds and parts trained at the same time: in which order, with what they would have given alone, and what fails."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import pytest
from workshop import make_workshop, prepare_here, run, settings_of

from avdetect import side_by_side
from avdetect.apart import parts_of
from avdetect.config import read_config
from avdetect.errors import AvdetectError, ConfigError
from avdetect.folds import read_scores
from avdetect.hub import load
from avdetect.joining import items_of
from avdetect.recipe import TrainConfig
from avdetect.side_by_side import Piece, pieces_of, train_pieces

GROUPS = 'training.apart=[["voice"], ["lips", "speech"], ["face"]]'


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avdetect.train.prepare_all", prepare_here)


def config(workshop: Path, *overrides: str) -> TrainConfig:
    return read_config(TrainConfig, workshop / "tiny.toml", settings_of(workshop, "whole", *overrides))


def test_folds_at_the_same_time_give_what_they_give_one_after_the_other(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("training.folds=2", "training.steps=2")
    alone = run(workshop, "alone", *settings)
    capsys.readouterr()
    shared = run(workshop, "shared", *settings, jobs=2)
    said = capsys.readouterr().err
    assert "fold-0 begins" in said and "fold-1 is trained" in said
    assert "held out" not in said  # no fold was trained in this process
    assert "fold 0: " in (shared / "logs" / "fold-0.log").read_text()
    items = items_of(alone, workshop / "manifest.csv")
    one, other = ([s.logit for s in read_scores(of / "scores.csv", items)] for of in (alone, shared))
    assert one == pytest.approx(other, abs=1e-2)
    assert pieces_of({None: config(workshop, *settings, "name=shared")}, None, whole=False) == []


def test_parts_without_folds_are_trained_at_the_same_time_and_joined(workshop: Path) -> None:
    groups = 'training.apart=[["voice", "lips", "speech"], ["face"]]'
    whole = run(workshop, "joined", groups, "training.steps=2", jobs=2)
    model = load(whole / "model")
    assert set(model.config.streams) == {"voice", "lips", "speech", "face"}
    assert {path.name for path in (whole / "logs").iterdir()} == {"voice-lips-speech-all.log", "face-all.log"}
    with pytest.raises(ConfigError, match="holds a run already"):
        run(workshop, "joined", groups, "training.steps=2", jobs=2)


def test_a_part_begins_once_its_folds_are_trained(
    workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = config(workshop, GROUPS, "training.folds=2")
    pieces = pieces_of({part.name: part for part in parts_of(whole)}, None, whole=True)
    assert [piece.name for piece in pieces[:4]] == [
        "voice-fold-0",
        "voice-fold-1",
        "voice-all",
        "lips-speech-fold-0",
    ]
    assert pieces[1].arguments == ["--part", "voice", "--fold", "1"] and pieces[2].arguments == [
        "--part",
        "voice",
    ]
    begun: list[Piece] = []

    def started(piece: Piece, *_: object) -> subprocess.Popen[bytes]:
        begun.append(piece)
        return subprocess.Popen([sys.executable, "-c", ""])

    monkeypatch.setattr(side_by_side, "_started", started)
    monkeypatch.setattr(side_by_side, "_prepare", lambda _: None)
    train_pieces(pieces, whole, [], 2, tmp_path)
    assert sorted(begun, key=pieces.index) == pieces
    for piece in pieces:
        assert all(begun.index(piece) > begun.index(other) for other in pieces if piece.waits_for(other))
    assert begun.index(Piece("voice", None)) < begun.index(Piece("face", 0))


def test_one_that_fails_ends_the_others_and_is_told_of(
    workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes: list[subprocess.Popen[bytes]] = []

    def started(piece: Piece, *_: object) -> subprocess.Popen[bytes]:
        (tmp_path / f"{piece.name}.log").write_text("one line\nerror: no more memory\n")
        code = "raise SystemExit(3)" if piece.fold == 1 else "import time; time.sleep(60)"
        processes.append(subprocess.Popen([sys.executable, "-c", code]))
        return processes[-1]

    monkeypatch.setattr(side_by_side, "_started", started)
    monkeypatch.setattr(side_by_side, "_prepare", lambda _: None)
    with pytest.raises(AvdetectError, match=r"fold-1 ended with 3: error: no more memory; .*fold-1\.log"):
        train_pieces([Piece(None, 0), Piece(None, 1)], config(workshop), [], 2, tmp_path)
    assert len(processes) == 2 and all(process.returncode for process in processes)


@pytest.mark.parametrize(
    ("jobs", "settings", "words"),
    [
        (0, (), "--jobs 0: give 1"),
        (2, (), "there is one model to train"),
        (2, ("training.folds=2",), "without torchrun"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(
    workshop: Path, jobs: int, settings: Sequence[str], words: str
) -> None:
    with (
        patch.object(side_by_side, "join", lambda: type("", (), {"num_processes": 2})),
        pytest.raises(ConfigError, match=words),
    ):
        run(workshop, "refused", *settings, jobs=jobs)
