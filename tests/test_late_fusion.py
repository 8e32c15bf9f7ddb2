"""Late fusion: scores of single streams in, one calibrated probability per claim and clip out."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avdetect.errors import ConfigError, DatasetError, InputError, ModelError
from avdetect.late_fusion import CLIP, TARGETS, ScoreTable, fit, predict, read, read_tables, write
from avdetect.late_fusion_cli import compared, run, write_fused
from avdetect.metrics import auc

VOICE, FACE = "voice_cloning", "face_manipulation"


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path


def noisy(truth: np.ndarray, strength: float, seed: int) -> np.ndarray:
    return strength * truth + np.random.default_rng(seed).normal(size=len(truth))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Two voice systems of like strength whose errors differ, and a face system on every third clip."""
    truth = np.arange(400) % 2
    systems = {"a": noisy(truth, 1.5, 1), "b": 5 + 10 * noisy(truth, 1.5, 2)}
    paths = {
        name: write_csv(
            tmp_path / f"{name}.csv",
            [
                {"file": f"{i}.wav", "claim": VOICE, "fake": int(t), "logit": round(float(s), 4)}
                for i, (t, s) in enumerate(zip(truth, scores, strict=True))
            ],
        )
        for name, scores in systems.items()
    }
    faces = noisy(truth, 2.0, 3)
    rows = [
        {"path": f"{i}.wav", "claim": FACE, "fake": int(truth[i]), "score": 1 / (1 + math.exp(-faces[i]))}
        for i in range(0, 400, 3)
    ]
    rows[0]["score"] = ""
    paths["faces"] = write_csv(tmp_path / "faces.csv", rows)
    return paths


def column(table: ScoreTable, target: str) -> np.ndarray:
    return table.labels[:, TARGETS.index(target)]


def test_files_meet_by_clip_and_absence_is_no_number(files: dict[str, Path]) -> None:
    table = read_tables(files)
    assert table.streams == (f"a/{VOICE}", f"b/{VOICE}", f"faces/{FACE}")
    assert len(table.keys) == 400 and not np.isnan(table.values[:, :2]).any()
    assert (~np.isnan(table.values[:, 2])).sum() == 133
    assert np.isnan(column(table, "lip_sync_mismatch")).all()
    np.testing.assert_array_equal(column(table, CLIP), column(table, VOICE))


def test_a_clip_is_fake_where_one_claim_is(tmp_path: Path) -> None:
    rows = [
        {"file": "x", "claim": FACE, "fake": 1, "logit": 1},
        {"file": "x", "claim": VOICE, "fake": 0, "logit": 0},
    ]
    table = read_tables({"m": write_csv(tmp_path / "m.csv", rows)})
    assert column(table, CLIP).tolist() == [1] and column(table, VOICE).tolist() == [0]


def test_the_fusion_beats_each_stream_whatever_their_units(files: dict[str, Path]) -> None:
    table = read_tables(files)
    lines = fit(table)
    fused = predict(lines, table)[:, TARGETS.index(VOICE)]
    truth = column(table, VOICE) == 1
    alone = [auc(table.values[:, i], truth) for i in range(2)]
    assert auc(fused, truth) > max(alone) + 0.02
    larger = ScoreTable(table.keys, table.streams, table.values * (1, 1000, 1) + (0, 7, 0), table.labels)
    np.testing.assert_allclose(predict(fit(larger), larger)[:, TARGETS.index(VOICE)], fused, rtol=1e-3)


def test_probabilities_are_calibrated_at_even_odds(files: dict[str, Path]) -> None:
    table = read_tables(files)
    fused = predict(fit(table), table)[:, TARGETS.index(VOICE)]
    truth = column(table, VOICE)
    assert fused.mean() == pytest.approx(0.5, abs=0.02)
    for low in (0.0, 0.25, 0.5, 0.75):
        here = (fused >= low) & (fused < low + 0.25)
        assert fused[here].mean() == pytest.approx(truth[here].mean(), abs=0.12)


def test_a_stream_that_is_absent_counts_as_its_mean(files: dict[str, Path]) -> None:
    table = read_tables(files)
    lines = fit(table)
    line = lines[VOICE]
    without, at_mean = table.values.copy(), table.values.copy()
    without[:, 1], at_mean[:, 1] = np.nan, line.mean[1]
    index = TARGETS.index(VOICE)
    np.testing.assert_allclose(
        predict(lines, ScoreTable(table.keys, table.streams, without, table.labels))[:, index],
        predict(lines, ScoreTable(table.keys, table.streams, at_mean, table.labels))[:, index],
    )


def test_without_any_score_nothing_is_said(files: dict[str, Path]) -> None:
    table = read_tables(files)
    lines = fit(table)
    empty = np.full_like(table.values, np.nan)
    assert np.isnan(predict(lines, ScoreTable(table.keys, table.streams, empty, table.labels))).all()
    assert np.isnan(predict(lines, table)[:, TARGETS.index("lip_sync_mismatch")]).all()
    known = ~np.isnan(table.values[:, 2])
    assert (~np.isnan(predict(lines, table)[:, TARGETS.index(FACE)])).tolist() == known.tolist()


def test_it_comes_back_from_json_as_it_was(files: dict[str, Path], tmp_path: Path) -> None:
    table = read_tables(files)
    lines = fit(table)
    write(lines, tmp_path / "late.json")
    assert read(tmp_path / "late.json") == lines
    json.loads((tmp_path / "late.json").read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "other"},
        {"targets": 3},
        {"targets": {VOICE: {}}},
        {"targets": {"nonsense": {"streams": [], "mean": [], "spread": [], "weights": [], "bias": 0}}},
        {"targets": {VOICE: {"streams": ["a"], "mean": [0], "spread": [0], "weights": [1], "bias": 0}}},
        {"targets": {VOICE: {"streams": ["a"], "mean": [], "spread": [1], "weights": [1], "bias": 0}}},
        {
            "targets": {
                VOICE: {"streams": ["a"], "mean": [math.nan], "spread": [1], "weights": [1], "bias": 0}
            }
        },
    ],
    ids=str,
)
def test_a_file_that_is_no_fusion_is_told(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "late.json"
    path.write_text(json.dumps({"kind": "avdetect late fusion", "targets": {}, **change}))
    with pytest.raises(ModelError, match="no late fusion") as error:
        read(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no scores"),
        ("file,claim,fake,logit\n", "holds no scores"),
        ("file,claim,fake,logit\nx,voice,1,2\n", "line 2 names no file, no claim"),
        ("file,claim,fake,logit\nx,voice_cloning,,2\n", "line 2 names no file, no claim or no 'fake'"),
        ("file,claim,fake,logit\nx,voice_cloning,1,two\n", "line 2: logit 'two' is not a number"),
        ("file,claim,fake,score\nx,voice_cloning,1,2\n", "line 2: score '2' is not in 0..1"),
        ("file,claim,fake,score\nx,voice_cloning,1,nan\n", "line 2: score 'nan' is not in 0..1"),
    ],
)
def test_a_file_without_scores_is_told(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_tables({"m": path})


def test_a_missing_or_binary_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_tables({"m": tmp_path / "none.csv"})
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DatasetError, match="not a csv file"):
        read_tables({"m": tmp_path / "b.csv"})


def test_clips_of_one_kind_cannot_be_fitted(tmp_path: Path) -> None:
    rows = [{"file": str(i), "claim": VOICE, "fake": 1, "logit": i} for i in range(5)]
    with pytest.raises(DatasetError, match="both real and fake"):
        fit(read_tables({"m": write_csv(tmp_path / "m.csv", rows)}))


# --- the command --------------------------------------------------------------------------------------------------


def arguments(*scores: str, **options: Path | None) -> Any:
    import argparse

    return argparse.Namespace(**{"scores": list(scores), "out": None, "use": None, "csv": None, **options})


def test_fitted_on_some_and_applied_to_others(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"{name}={path}" for name, path in files.items()]
    late, fused = tmp_path / "late.json", tmp_path / "fused.csv"
    assert run(arguments(*given, out=late)) == 0
    assert run(arguments(*given, use=late, csv=fused)) == 0
    assert "late fusion" in capsys.readouterr().out
    rows = list(csv.DictReader(fused.open()))
    assert {row["claim"] for row in rows} == {VOICE, FACE, CLIP}
    assert all(0 <= float(row["score"]) <= 1 for row in rows if row["score"])


def test_each_row_of_the_table_counts_its_clips(files: dict[str, Path], tmp_path: Path) -> None:
    table = read_tables(files)
    rows = compared(table, predict(fit(table), table))
    of_voice = {row["system"]: row for row in rows if row["target"] == VOICE}
    assert set(of_voice) == {f"a/{VOICE}", f"b/{VOICE}", "late fusion"}
    assert all(row["n_real"] == row["n_fake"] == 200 and row["auc_ci"] for row in of_voice.values())
    write_fused(table, predict(fit(table), table), tmp_path / "fused.csv")
    assert len(list(csv.DictReader((tmp_path / "fused.csv").open()))) == 400 * 2 + 134


def test_wrong_usage_is_told(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two score files are called 'a'"):
        run(arguments(f"a={files['a']}", str(files["a"]), out=tmp_path / "late.json"))
    with pytest.raises(ConfigError, match="--csv"):
        run(arguments(str(files["a"]), out=tmp_path / "late.json", csv=tmp_path / "x.csv"))
