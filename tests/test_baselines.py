"""Other systems behind the face that an evaluation asks: AASIST from a checkpoint, an LFCC-GMM from a file."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import make_audio, noise
from commands import call, voice

from avdetect.baselines import AasistScorer, GmmScorer
from avdetect.encoders.aasist import CHUNK, AasistDetector
from avdetect.errors import ModelError
from avdetect.gmm import GmmSettings, LfccGmm
from avdetect.rows import read_rows
from avdetect.scoring import make_scorer
from avdetect.types import Claim, Outcome


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("aasist") / "aasist.safetensors"
    AasistDetector("aasist_l").eval().save(path)
    return path


def test_aasist_hears_the_first_chunk_as_published(checkpoint: Path, tmp_path: Path) -> None:
    sound = np.tile(voice(3.0)[0], 3)[: CHUNK + 16_000]
    path = make_audio(tmp_path / "a.wav", sound[None])
    scorer = make_scorer(f"aasist:{checkpoint}")
    verdict = scorer.detect(path)
    kept = scorer.detect(make_audio(tmp_path / "b.wav", sound[None, :CHUNK]))
    assert isinstance(scorer, AasistScorer) and verdict.score == kept.score and verdict.score is not None
    heard = torch.from_numpy(sound[None, :CHUNK].copy())
    odds = AasistDetector.load(checkpoint).scores(heard, torch.tensor([CHUNK]))[0, 0].item()
    assert math.log(verdict.score / (1 - verdict.score)) == pytest.approx(
        odds, abs=0.02
    )  # 16 bit in the file
    assert verdict.model.name == "aasist_l" and len(verdict.model.sha256) == 64
    assert verdict.claims[Claim.FACE_MANIPULATION].reason == "this model does not answer it"


def test_clips_that_cannot_be_heard_have_a_reason(checkpoint: Path, tmp_path: Path) -> None:
    scorer = AasistScorer(checkpoint)
    gone = scorer.detect(tmp_path / "gone.wav")
    assert gone.outcome is Outcome.ERROR and "gone.wav" in (gone.error or "")
    silent = scorer.detect(make_audio(tmp_path / "silent.wav", np.zeros((1, 16_000), np.float32)))
    assert silent.score is None and silent.claims[Claim.VOICE_CLONING].reason == "there is no sound"


def test_a_gmm_ranks_as_its_own_scores(tmp_path: Path) -> None:
    sounds = [noise(1.0)[0] * 0.1, voice(2.0)[0]]
    model = LfccGmm.fit(zip(sounds, [False, True], strict=True), GmmSettings(components=2, frames=200))
    file = tmp_path / "gmm.safetensors"
    model.save(file)
    scorer = make_scorer(f"gmm:{file}")
    assert isinstance(scorer, GmmScorer) and scorer.model_info.name == "lfcc-gmm"
    low, high = (
        scorer.detect(make_audio(tmp_path / f"{number}.wav", sound[None])).score
        for number, sound in enumerate(sounds)
    )
    assert low is not None and high is not None and low < 0.5 < high


def test_a_file_of_something_else_is_a_model_error(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    path.write_text("no weights")
    for prefix in ("aasist", "gmm"):
        with pytest.raises(ModelError, match=r"mine\.pth"):
            make_scorer(f"{prefix}:{path}")
        with pytest.raises(ModelError, match=r"gone\.pth"):
            make_scorer(f"{prefix}:{tmp_path / 'gone.pth'}")


def test_an_evaluation_runs_with_another_system(checkpoint: Path, tmp_path: Path) -> None:
    make_audio(tmp_path / "a.wav", voice(1.5))
    (tmp_path / "m.csv").write_text("file,voice_cloning,face_manipulation\na.wav,1,0\n")
    rows = tmp_path / "rows.csv"
    answer = call("evaluate", tmp_path / "m.csv", "--model", f"aasist:{checkpoint}", "--csv", rows)
    assert answer.code == 0 and answer.err == []
    face, sound = read_rows(rows)
    assert (face.score, face.reason) == (None, "this model does not answer it")
    assert sound.score is not None and sound.model == "aasist_l"
