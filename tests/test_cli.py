"""The command line as programs and people meet it: streams, exit codes, names, signals, options."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from clips import make_audio, make_video, truncate
from commands import PORTRAIT, call, command, detector, environment, parsed, portrait, process, voice

from avdetect import Detector, hub, outputs
from avdetect.__main__ import COMMANDS, main
from avdetect.loading import load_network
from avdetect.types import CLAIMS, ClaimResult, ModelInfo, Outcome, Status, Verdict


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a spoken clip, voice.wav, and a short one with a face and a voice, face.mp4."""
    path = tmp_path_factory.mktemp("clips")
    make_audio(path / "voice.wav", voice(1.5))
    image = portrait(300, 352)
    make_video(path / "face.mp4", size=(480, 360), images=[image] * 50, seconds=2, audio=voice(2.0))
    return path


# --- processes of their own -------------------------------------------------------------------------------------


def test_a_call_on_many_odd_names(folder: Path, tmp_path: Path) -> None:
    """Order, duplicates, names that steer shells, terminals and pages; nothing but JSON on stdout."""
    odd = [
        b"with space.wav",
        b"line\nbreak.wav",
        b"<script>alert(1)</script>.wav",
        b"caf\xe9.wav",
        b"train",
        b"-x.wav",
    ]
    odd += [b"\x1b[31mred\x1b[0m.wav"]
    names = [b"./" + name.replace(b"/", b":") for name in odd]
    for name in names:
        shutil.copy(folder / "voice.wav", os.path.join(os.fsencode(tmp_path), name))
    shutil.copy(folder / "face.mp4", tmp_path)
    given = [names[0], b"face.mp4", b"./gone\n\x1b[2J.mp4", *names[1:], names[0]]
    answer = process(*given, "--json", "-", "--html", "all.html", cwd=tmp_path)
    assert answer.code == 1
    (line,) = answer.err  # mediapipe, absl, TensorFlow Lite and transformers keep quiet
    assert line.startswith("avdetect: ") and "no such file; check the path" in line and "\x1b" not in line
    expected = [os.fsdecode(name).encode("utf-8", "replace").decode() for name in given]
    shown = [name.replace("?", "\ufffd") if "caf" in name else name for name in expected]
    verdicts = answer.verdicts
    assert [verdict["path"] for verdict in verdicts] == shown
    heard = [v["claims"]["voice_cloning"]["score"] for v in verdicts if v["error"] is None]
    assert len(heard) == len(given) - 1 and None not in heard
    assert verdicts[0]["claims"] == verdicts[-1]["claims"]
    page = (tmp_path / "all.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page and "\x1b" not in page


def test_a_reader_that_goes_away_is_no_error(folder: Path) -> None:
    with subprocess.Popen(
        command("voice.wav", "voice.wav"),
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as run:
        assert run.stdout is not None and run.stderr is not None
        run.stdout.close()  # before anything is written, as `| true` does
        assert run.stderr.read() == b""
    assert run.returncode == 141  # as of every program that SIGPIPE ends


def test_ctrl_c_ends_with_one_line(folder: Path) -> None:
    run = subprocess.Popen(
        command(*["voice.wav"] * 500, "--json", "-"),
        cwd=folder,
        env=environment(),
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # ignored in what a shell runs behind
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert run.stdout is not None
    first = run.stdout.readline()
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=30)
    assert (run.returncode, err) == (130, b"avdetect: interrupted\n")
    assert 1 <= len(parsed((first + out).decode())) < 500


def test_a_terminal_sees_a_bar_and_a_pipe_does_not(folder: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command("voice.wav", "voice.wav", "--json", "-"),
        cwd=folder,
        env=environment() | {"TERM": "xterm", "COLUMNS": "80"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    ) as run:
        os.close(theirs)
        seen = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            seen += part
        assert run.stdout is not None
        assert len(parsed(run.stdout.read().decode())) == 2
    os.close(ours)
    assert b"1/2 voice.wav" in seen and b"2/2 voice.wav" in seen and run.returncode == 0


SLOW = {
    "av",
    "cv2",
    "librosa",
    "matplotlib",
    "mediapipe",
    "pandas",
    "pyarrow",
    "scipy",
    "sklearn",
    "torch",
    "transformers",
}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)], ids=str
)
def test_help_waits_for_no_library(arguments: list[str], tmp_path: Path) -> None:
    """Importing these takes seconds."""
    answer = process(*arguments, cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    imported = {line.split("|")[-1].strip().split(".")[0] for line in answer.err}
    assert answer.code == 0 and "avdetect" in answer.out
    assert "avdetect" in imported and not imported & SLOW


# --- in this process --------------------------------------------------------------------------------------------


def test_text_is_for_people(folder: Path) -> None:
    answer = call(folder / "face.mp4", folder / "voice.wav")
    assert (answer.code, answer.err) == (0, [])
    assert answer.out.index("face.mp4") < answer.out.index("voice.wav")
    for name in ("Face manipulation", "Voice cloning", "Lip-sync mismatch"):
        assert answer.out.count(f"\n  {name}  ") == 2
    assert "there is no picture" in answer.out and "\x1b" not in answer.out


def test_several_clips_share_one_load_of_the_model(folder: Path) -> None:
    with patch("avdetect.detect.load_network", wraps=load_network) as load:
        answer = call(*[folder / "voice.wav"] * 3, "--model", hub.find("base"), "--json", "-")
    assert load.call_count == 1 and len(answer.verdicts) == 3
    assert len({verdict["score"] for verdict in answer.verdicts}) == 1


def test_json_into_a_file_leaves_the_text(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    path.write_text("earlier\n")
    answer = call(folder / "voice.wav", "--json", path)
    (verdict,) = parsed(path.read_text())
    assert "Voice cloning" in answer.out and verdict["path"] == str(folder / "voice.wav")


def test_quiet_says_nothing_but_what_failed(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    answer = call(folder / "voice.wav", "--quiet", "--html", path)
    assert (answer.code, answer.out, answer.err) == (0, "", [])
    assert path.read_text().startswith("<!doctype html>")
    answer = call(folder / "gone.wav", "--quiet")
    assert (answer.code, answer.out, len(answer.err)) == (1, "", 1)


def test_a_page_holds_every_clip_in_order(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    assert call(folder / "voice.wav", folder / "gone.wav", folder / "face.mp4", "--html", path).code == 1
    page = path.read_text()
    places = [page.index(f'id="clip-{number}"') for number in (1, 2, 3)]
    assert places == sorted(places) and "no such file; check the path" in page
    assert page.index("voice.wav") < page.index("gone.wav") < page.index("face.mp4")


def test_warnings_are_told_once(folder: Path, tmp_path: Path) -> None:
    """In the text where there is one, on stderr where stdout is for programs."""
    whole = make_audio(tmp_path / "whole.mka", np.tile(voice(2.0), (1, 4)), codec="flac")
    path = truncate(whole, tmp_path / "cut.mka", 0.5)
    words = "seems cut short"
    text, programs = call(path), call(path, "--json", "-")
    assert " ".join(text.out.split()).count(words) == 1 and text.err == []
    assert [words in line for line in programs.err] == [True]
    assert call(path, "--quiet").err == []


def test_the_path_is_told_as_it_was_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    given = ["./voice.wav", "voice.wav", f"../{folder.name}/voice.wav", ".//voice.wav"]
    assert [verdict["path"] for verdict in call(*given, "--json", "-").verdicts] == given


USAGE: list[list[str]] = [
    [],
    ["--json"],
    ["clip.wav", "--no-such-option"],
    ["clip.wav", "--jso", "x"],
    ["evaluate"],
    ["evaluate", "x.csv", "--claim", "nonsense"],
    ["data"],
    ["data", "nonsense"],
    ["train"],
]


@pytest.mark.parametrize("arguments", USAGE, ids=lambda arguments: " ".join(arguments) or "nothing")
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    answer = call(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err[0].startswith("usage: avdetect") and "error: " in answer.err[-1]


@pytest.mark.parametrize("device", ["cuda:42", "meta", "tpu"])
def test_a_device_that_is_not_there_is_wrong_usage(folder: Path, device: str) -> None:
    answer = call(folder / "voice.wav", "--device", device)
    assert (answer.code, answer.out) == (2, "")
    (line,) = answer.err
    assert f"device {device}" in line.replace("'", "") and "cpu" in line


def test_cuda_without_a_gpu_is_one_line(folder: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU that CUDA can use")
    answer = call(folder / "voice.wav", "--device", "cuda")
    assert answer.code == 2 and len(answer.err) == 1 and answer.err[0].endswith("; leave it out for cpu")


def test_data_sets_are_listed() -> None:
    answer = call("data", "list")
    assert answer.code == 0 and "fakeavceleb" in answer.out


def test_a_manifest_is_evaluated(folder: Path, tmp_path: Path) -> None:
    manifest, rows, table = tmp_path / "manifest.csv", tmp_path / "rows.csv", tmp_path / "table.json"
    manifest.write_text(f"file,voice_cloning\n{folder / 'voice.wav'},1\n{folder / 'gone.wav'},0\n")
    answer = call("evaluate", manifest, "--csv", rows, "--json", table)
    assert answer.code == 1 and "voice_cloning" in answer.out
    assert len(answer.err) == 1 and "gone.wav: no such file" in answer.err[0]
    assert json.loads(table.read_text())["voice_cloning"]["coverage"] == 0.5
    assert len(rows.read_text().splitlines()) == 3
    with patch.object(detector(), "detect", side_effect=AssertionError("scored again")):
        assert call("evaluate", manifest, "--csv", rows).out == answer.out


@pytest.mark.parametrize("option", ["--csv", "--json"])
def test_an_evaluation_that_could_not_be_written_is_told_first(
    folder: Path, tmp_path: Path, option: str
) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(f"file,voice_cloning\n{folder / 'voice.wav'},1\n")
    with patch.object(detector(), "detect", side_effect=AssertionError("work was done")):
        for target, code in ((tmp_path, 1), (tmp_path / "no" / "file", 1), (manifest, 2)):
            answer = call("evaluate", manifest, option, target)
            assert answer.code == code and len(answer.err) == 1 and str(target) in answer.err[0]
    assert manifest.read_text().startswith("file,")


def test_a_manifest_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    answer = call("evaluate", tmp_path / "none.csv")
    assert answer.code == 1 and len(answer.err) == 1 and "none.csv" in answer.err[0]


# --- pages of very many clips -----------------------------------------------------------------------------------


def verdict_of(score: float | None) -> Verdict:
    claims = {
        claim: ClaimResult(claim, Status.NOT_ASSESSABLE, Outcome.NOT_ASSESSABLE, reason="-")
        if score is None
        else ClaimResult(claim, Status.ASSESSED, Outcome.INCONCLUSIVE, score)
        for claim in CLAIMS
    }
    outcome = Outcome.NOT_ASSESSABLE if score is None else Outcome.INCONCLUSIVE
    return Verdict(Path(f"{score}.wav"), outcome, ModelInfo("m", "1", "0" * 64), score=score, claims=claims)


def test_a_page_keeps_the_highest_scores_in_order() -> None:
    scores = [0.1, 0.9, None, 0.5, 0.9, 0.3]
    kept = outputs.highest([verdict_of(score) for score in scores], 3)
    assert [verdict.score for verdict in kept] == [0.9, 0.5, 0.9]
    assert len(outputs.highest([verdict_of(0.5)], 3)) == 1


def test_a_page_of_very_many_clips_is_bounded_and_says_so(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    many = outputs.Outputs([], None, str(page), text=False)
    with patch.object(outputs, "MAX_HTML_CLIPS", 5):
        for number in range(64):
            many.take("clip", verdict_of((number * 37 % 64) / 64))
            assert len(many._best) < 10
        note = many.finish()
    assert note == f"{page} shows the 5 clips with the highest scores of 64"
    text = page.read_text()
    assert "0.984375.wav" in text and "0.921875.wav" in text and "0.90625.wav" not in text


def test_main_reads_the_command_line_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["avdetect", "--version"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0


def test_a_photograph_is_not_a_clip() -> None:
    answer = call(PORTRAIT, "--json", "-")
    assert answer.code == 1 and answer.verdicts[0]["verdict"] == "error"


def test_the_detector_of_these_tests_is_the_shipped_one() -> None:
    assert isinstance(detector(), Detector) and detector().model_info.name == "base"
