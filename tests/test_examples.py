"""Each example runs, as a person would run it, on the sample clips that ship with the repository."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "data" / "samples"


def run(example: str, *arguments: str | Path, cwd: Path) -> str:
    command = [sys.executable, ROOT / "examples" / example, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=280, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A manifest of the two samples. Which of them is called real here says nothing: only that it runs is tested."""
    path = tmp_path / "manifest.csv"
    claims = ("face_manipulation", "voice_cloning", "lip_sync_mismatch")
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "split", *claims, "method", "identity", "source"])
        for split in ("train", "val"):
            for number, fake in enumerate("0101"):
                sample = SAMPLES / ("sample.mp4" if number < 2 else "sample_voice.flac")
                copy = tmp_path / f"{split}{number}{sample.suffix}"
                shutil.copy(sample, copy)
                labels = [fake, fake, "0"] if number < 2 else ["", fake, ""]
                writer.writerow([copy.name, split, *labels, "made", f"{split}{number}", split])
    return path


def test_detect_clip(tmp_path: Path) -> None:
    said = run("detect_clip.py", SAMPLES / "sample.mp4", SAMPLES / "sample_voice.flac", cwd=tmp_path)
    assert said.count("voice cloning") == 2 and "there is no picture" in said


def test_benchmark(tmp_path: Path) -> None:
    said = run("benchmark.py", SAMPLES / "sample.mp4", "--runs", "1", cwd=tmp_path)
    seconds = dict(re.findall(r"^(\S.*?) +(-?\d+\.\d+) +-?\d+\.\d+$", said, re.MULTILINE))
    assert {"plain decoding (PyAV)", "... a further clip", "faces", "model", "total"} <= seconds.keys()
    # it starts an interpreter and loads a model, beside all that the stages do in one that is there already
    assert float(seconds["python -m avdetect"]) > float(seconds["model"]) > 0


def test_evaluate_audio_only(manifest: Path, tmp_path: Path) -> None:
    said = run("evaluate_audio_only.py", manifest, "--split", "val", cwd=tmp_path)
    row = next(line.split() for line in said.splitlines() if line.startswith("voice_cloning"))
    assert row[1:3] == ["2", "1"]  # a video whose face is fake too is no audio-only fake


def test_out_of_domain(manifest: Path, tmp_path: Path) -> None:
    said = run("out_of_domain.py", manifest, "--clips", "1", cwd=tmp_path)
    rows = {cells[1].strip(): cells[2:6] for cells in (line.split("|") for line in said.splitlines())}
    assert len(rows) == 10 and all(sum(map(int, rows[name])) == 1 for name in rows if "it" in name)
    assert [cell.strip() for cell in rows["music and scrolling text"]] == ["0", "0", "0", "1"]


def test_train_fusion(manifest: Path, tmp_path: Path) -> None:
    small = ("mix.voice=2", "mix.face=2", "mix.sync=2", "training.workers=0")
    said = run(
        "train_fusion.py",
        manifest,
        "--steps",
        "2",
        "--clip",
        SAMPLES / "sample_voice.flac",
        *small,
        cwd=tmp_path,
    )
    assert (tmp_path / "runs" / "mine" / "model" / "README.md").is_file()
    assert "sample_voice.flac" in said


def test_ablate_forgeries(manifest: Path, tmp_path: Path) -> None:
    arguments = (
        manifest,
        "--claim",
        "voice_cloning",
        "--kinds",
        "griffin_lim",
        "--steps",
        "1",
        "--out",
        tmp_path,
    )
    said = run("ablate_forgeries.py", *arguments, cwd=tmp_path)
    assert [line.split("\t")[0] for line in said.splitlines()] == ["none", "all", "griffin_lim"]
    with (tmp_path / "voice_cloning.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["real"] for row in rows] == ["2"] * 3 and rows[0]["p"] == "" != rows[1]["p"]
    assert run("ablate_forgeries.py", *arguments, cwd=tmp_path) == said  # from what is there already


def test_forging_speed(manifest: Path, tmp_path: Path) -> None:
    said = run("forging_speed.py", manifest, "--batches", "1", cwd=tmp_path)
    assert [line.split()[0] for line in said.splitlines()[1:]] == ["voice", "face", "sync"]
    assert all(float(line.split()[2]) > 0 for line in said.splitlines()[1:])
