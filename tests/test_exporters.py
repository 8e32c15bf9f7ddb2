"""Official submissions, read back as their benchmarks read them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from commands import VOICE, call

from avdetect.errors import DatasetError
from avdetect.export_cli import FORMATS as NAMES
from avdetect.exporters import FORMATS, Prediction, Settings, faceforensics, lav_df, read_predictions
from avdetect.rows import Journal, Row
from avdetect.scores import read_scores
from avdetect.types import ModelInfo

MODEL = ModelInfo("base", "1", "ab")


def row(path: str, claim: str, score: float | None, fake: int = 1, *spans: tuple[float, float, float]) -> Row:
    method = "A07" if fake else ""
    return Row(
        path, claim, fake, score, "inconclusive", "", method, "p", "", proposals=spans, model="base", model_sha256="ab"
    )  # fmt: skip


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    journal = Journal(path, MODEL)
    journal.write([row("/d/test/a1.mp4", "face_manipulation", 0.2, 0, (0.4, 1.0, 2.0))])
    journal.write([row("/d/test/a1.mp4", "voice_cloning", 0.8, 1, (0.9, 0.0, 1.0))])
    journal.write([row("/d/test/a2.mp4", "voice_cloning", 0.1, 0)])
    journal.write([row("/d/test/a3.mp4", "voice_cloning", None, 1)])
    journal.close()
    return path


def test_every_format_of_the_command_has_a_writer() -> None:
    assert list(FORMATS) == list(NAMES)


def test_a_clip_is_as_fake_as_its_worst_claim(rows: Path) -> None:
    first, second, third = read_predictions(rows)
    assert (first.score, first.fake, first.proposals) == (0.8, True, ((0.9, 0.0, 1.0), (0.4, 1.0, 2.0)))
    assert (second.score, second.fake, third.score) == (0.1, False, None)


def test_deepfake1m_scores_every_clip(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "prediction.txt"
    answer = call("evaluate", "export", "av-deepfake1m", rows, "--out", out)
    assert out.read_text() == "a1.mp4;0.800000\na2.mp4;0.100000\na3.mp4;0.500000\n"
    assert answer.code == 1 and answer.err == ["avdetect: 1 clips have no score and are handed in as 0.5"]


def test_deepfake1m_segments_are_in_seconds_best_first(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "prediction.json"
    call("evaluate", "export", "av-deepfake1m-segments", rows, "--out", out, "--root", "/d")
    found = json.loads(out.read_text())
    assert found == {"test/a1.mp4": [[0.9, 0.0, 1.0], [0.4, 1.0, 2.0]], "test/a2.mp4": [], "test/a3.mp4": []}


def test_lav_df_wants_frames_and_a_hundred_proposals(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    warnings = lav_df([Prediction("/d/test/000001.mp4", 0.5, ((0.5, 0.4, 2.0),))], out, Settings())
    (name, proposals), *rest = json.loads(out.read_text()).items()
    assert name == "test/000001.mp4" and not rest and not warnings
    assert proposals[0] == [0.5, 10.0, 50.0] and len(proposals) == 100 and proposals[-1] == [0, 0, 0]


def test_asvspoof_files_are_turned_and_come_back(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.txt"
    answer = call("evaluate", "export", "asvspoof2019", rows, "--out", out)
    assert out.read_text().splitlines() == ["a1 A07 spoof -0.8", "a2 - bonafide -0.1"]
    assert answer.code == 1 and "1 clips have no score and are left out" in answer.err[0]
    assert read_scores(out).scores.tolist() == [0.8, 0.1]
    call("evaluate", "export", "asvspoof5", rows, "--out", out)
    assert out.read_text().splitlines()[0] == "filename\tcm-score"


def images(count: int, fakes: int) -> list[Prediction]:
    return [Prediction(f"/x/{i:04d}.png", 0.9 if i < fakes else 0.1) for i in range(count)]


def test_the_benchmark_gets_one_json_of_hard_labels_in_a_zip(tmp_path: Path) -> None:
    out, again = tmp_path / "a.zip", tmp_path / "b.zip"
    assert faceforensics(images(1000, 500), out, Settings()) == []
    with zipfile.ZipFile(out) as archive:
        (name,) = archive.namelist()
        labels = json.loads(archive.read(name))
    assert name.endswith(".json") and len(labels) == 1000
    assert (labels["0000.png"], labels["0999.png"]) == ("fake", "real")
    faceforensics(images(1000, 500), again, Settings())
    assert out.read_bytes() == again.read_bytes()


def test_pristine_images_called_fake_are_warned_of(tmp_path: Path) -> None:
    (warning,) = faceforensics(images(1000, 700), tmp_path / "a.zip", Settings())
    assert "700 of 1000 images are called fake" in warning and "at most 60.0%" in warning
    assert faceforensics(images(1000, 700), tmp_path / "a.zip", Settings(threshold=0.95)) == []
    (few,) = faceforensics(images(10, 5), tmp_path / "a.zip", Settings())
    assert few.startswith("10 images; the benchmark has 1000")
    with pytest.raises(DatasetError, match=r"cat\.png: is no image of the benchmark"):
        faceforensics([Prediction("cat.png", 0.5)], tmp_path / "a.zip", Settings())


def test_verdicts_do_where_labels_are_withheld(tmp_path: Path) -> None:
    verdicts, out = tmp_path / "verdicts.jsonl", tmp_path / "p.txt"
    assert call(VOICE, "--json", verdicts, "--quiet").code == 0
    score = json.loads(verdicts.read_text())["claims"]["voice_cloning"]["score"]
    answer = call("evaluate", "export", "av-deepfake1m", verdicts, "--out", out)
    assert answer.code == 0 and out.read_text() == f"{VOICE.name};{score:.6f}\n"


def test_a_plain_score_file_does_too(tmp_path: Path) -> None:
    scores, out = tmp_path / "scores.txt", tmp_path / "p.txt"
    scores.write_text("a.mp4 0.25\nb.mp4 0.5\n")
    assert call("evaluate", "export", "av-deepfake1m", scores, "--out", out).code == 0
    assert out.read_text() == "a.mp4;0.250000\nb.mp4;0.500000\n"


@pytest.mark.parametrize("text", ['{"path": 3}\n', "{broken\n", "\x00\xff"])
def test_files_of_other_kinds_are_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine"
    path.write_bytes(text.encode("latin-1"))
    answer = call("evaluate", "export", "lav-df", path, "--out", tmp_path / "out.json")
    assert answer.code == 1 and len(answer.err) == 1 and "mine" in answer.err[0]


def test_two_clips_of_one_name_want_a_root(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"1\.mp4: is the name of two clips; give --root"):
        FORMATS["av-deepfake1m"](
            [Prediction("/a/1.mp4", 0.1), Prediction("/b/1.mp4", 0.2)], tmp_path / "out", Settings()
        )
