"""Bad input is normal input: one clear line, the right exit code, the other clips done, never a traceback."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import av
import numpy as np
import pytest
from clips import corrupt, make_audio, make_video, noise, picture, tone, truncate
from commands import PORTRAIT, Answer, call, detector, parsed, portrait, voice
from numpy.typing import NDArray
from PIL import Image

from avdetect import hub, tracks

FACE = (480, 360)


def talking(path: Path, seconds: float = 3.0) -> Path:
    """A face before a changing texture, with speech, spread evenly over the file."""
    face = portrait(300, 352).astype(int)
    grain = np.random.default_rng(0)

    def images() -> Iterator[NDArray[np.uint8]]:
        for _ in range(round(seconds * 25)):
            rough = grain.integers(-6, 7, (*face.shape[:2], 1))
            yield np.clip(face + rough, 0, 255).astype(np.uint8)

    return make_video(
        path,
        seconds,
        size=FACE,
        images=images(),
        audio=voice(seconds),
        options={"g": "10", "preset": "ultrafast", "bf": "0"},
    )


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talking(tmp_path_factory.mktemp("good") / "good.mp4")


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound clip that can be scored, to be named beside bad ones."""
    return make_audio(tmp_path_factory.mktemp("beside") / "voice.wav", voice(2.0))


def no_frames(path: Path) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        out.start_encoding()


UNREADABLE: list[tuple[str, Callable[[Path, Path], object], str, str]] = [
    ("missing.mp4", lambda path, good: None, "no such file", "check the path"),
    ("folder.mp4", lambda path, good: path.mkdir(), "is a directory, not a clip", "name the files in it"),
    ("empty.mp4", lambda path, good: path.touch(), "the file is empty", "copy or download it again"),
    ("text.mp4", lambda path, good: path.write_text("Hello.\n" * 99), "is text", "check that it is the file"),
    (
        "bytes.mp4",
        lambda path, good: path.write_bytes(bytes(range(256)) * 40),
        "is not a video",
        "convert it",
    ),
    ("moov.mp4", lambda path, good: truncate(good, path, 0.5), "(moov) is missing", "copy it again"),
    ("zero.avi", lambda path, good: no_frames(path), "has no frames", "check or convert the file"),
    ("zero.mp4", lambda path, good: no_frames(path), "holds neither picture nor sound", "check that it is"),
    ("still.jpg", lambda path, good: Image.new("RGB", (64, 64)).save(path), "is", "give a clip|convert it"),
    ("gone.mp4", lambda path, good: path.symlink_to("nowhere"), "no such file", "check the path"),
    ("loop.mp4", lambda path, good: path.symlink_to(path), "loop.mp4: ", "check the path"),
    ("n" * 300, lambda path, good: None, "cannot be looked up (File name too long)", "check the path"),
]


@pytest.mark.parametrize(
    ("name", "make", "cause", "remedy"), UNREADABLE, ids=[case[0][:9] for case in UNREADABLE]
)
def test_what_cannot_be_read_is_one_line_and_the_rest_is_done(
    tmp_path: Path,
    good: Path,
    beside: Path,
    name: str,
    make: Callable[[Path, Path], object],
    cause: str,
    remedy: str,
) -> None:
    path = tmp_path / name
    make(path, good)
    answer = call(path, beside, "--json", "-", "--quiet")
    assert answer.code == 1
    (line,) = answer.err
    assert line.startswith(f"avdetect: {path}: ") and cause in line
    assert any(words in line for words in remedy.split("|"))
    bad, other = answer.verdicts
    assert (bad["path"], bad["verdict"], bad["score"], bad["claims"]) == (str(path), "error", None, {})
    assert f"avdetect: {bad['error']}" == line
    assert other["error"] is None and other["claims"]["voice_cloning"]["status"] == "assessed"


def huge(path: Path) -> Path:
    """A face that fills 8000 x 8000 pixels, for as short a time as can be assessed."""
    image = np.zeros((8000, 8000, 3), np.uint8)
    image[:, 600:7400] = np.asarray(Image.open(PORTRAIT).resize((6800, 8000)))
    times = [0.0, 0.25, 0.5]
    options = {"codec": "mjpeg", "pix_fmt": "yuvj420p"}
    return make_video(path, size=(8000, 8000), images=[image] * 3, times=times, **options)  # type: ignore[arg-type]


def crowd(path: Path) -> Path:
    """Forty faces, 4 rows of 10."""
    canvas = Image.new("RGB", (1280, 720), (120, 120, 120))
    one = Image.open(PORTRAIT).resize((120, 140))
    for number in range(40):
        canvas.paste(one, (number % 10 * 126 + 4, number // 10 * 160 + 10))
    return make_video(path, size=canvas.size, images=[np.asarray(canvas)] * 20)


def still_video(path: Path, image: NDArray[np.uint8], seconds: float, audio: Any = None) -> Path:
    size = (image.shape[1], image.shape[0])
    return make_video(path, seconds, size=size, images=[image] * round(seconds * 25), audio=audio)


CHORD = tone(3.0, hz=440) + tone(3.0, hz=554) + tone(3.0, hz=659)

# name, clip, exit code, reason that face manipulation and that voice cloning are not assessed (None: they are)
POOR: list[tuple[str, Callable[[Path], Path], int, str | None, str | None]] = [
    (
        "one.mp4",
        lambda p: still_video(p, portrait(300, 352), 0.04),
        1,
        "seen in 1 frame only",
        "there is no sound",
    ),
    ("16x16.mp4", lambda p: make_video(p, 1.0, size=(16, 16)), 1, "no face was found", "there is no sound"),
    ("huge.mov", huge, 0, None, "there is no sound"),
    ("short.wav", lambda p: make_audio(p, tone(0.1)), 1, "there is no picture", "only 0.1 s of sound"),
    (
        "short.mp3",
        lambda p: make_audio(p, voice(1.0)),
        1,
        "there is no picture",
        "s of speech; at least 1.0 s",
    ),
    (
        "zeros.wav",
        lambda p: make_audio(p, np.zeros((1, 32_000), np.float32)),
        1,
        "no picture",
        "digital silence",
    ),
    ("music.wav", lambda p: make_audio(p, CHORD), 1, "no picture", "no speech is heard, only music, noise"),
    (
        "noise.wav",
        lambda p: make_audio(p, noise(3.0)),
        1,
        "no picture",
        "no speech is heard, only music, noise",
    ),
    ("noface.mp4", lambda p: make_video(p, 1.0), 1, "no face was found", "there is no sound"),
    ("heard.mp4", lambda p: make_video(p, 2.0, audio=voice(2.0)), 0, "no face was found", None),
    (
        "far.mp4",
        lambda p: still_video(p, portrait(64, 75), 1.0),
        1,
        "px wide; at least 40 px are needed",
        "no sound",
    ),
    ("forty.mp4", crowd, 0, None, "there is no sound"),
    (
        "mute.mp4",
        lambda p: still_video(p, portrait(300, 352), 2.0, np.zeros((1, 32_000), np.float32)),
        0,
        None,
        "the sound is digital silence",
    ),
    (
        "tune.mp4",
        lambda p: still_video(p, portrait(300, 352), 2.0, CHORD[:, :32_000]),
        0,
        None,
        "no speech is heard, only music, noise",
    ),
    ("silent.mp4", lambda p: still_video(p, portrait(300, 352), 1.0), 0, None, "there is no sound"),
]


@pytest.mark.parametrize(("name", "make", "code", "face", "heard"), POOR, ids=[case[0] for case in POOR])
def test_what_cannot_be_assessed_has_the_reason(
    tmp_path: Path, name: str, make: Callable[[Path], Path], code: int, face: str | None, heard: str | None
) -> None:
    path = make(tmp_path / name)
    answer = call(path, "--json", "-")
    (verdict,) = answer.verdicts
    claims = verdict["claims"]
    for claim, reason in (("face_manipulation", face), ("voice_cloning", heard)):
        found = claims[claim]
        assert (found["score"] is None) == (reason is not None), found["reason"]
        assert reason is None or reason in found["reason"]
    sync = claims["lip_sync_mismatch"]  # takes both: whatever is missing is missing here too
    assert sync["score"] is None and sync["offset_ms"] is None
    assert all(reason in sync["reason"] for reason in (face, heard) if reason is not None)
    assert (answer.code, verdict["verdict"] == "not assessable") == (code, bool(code))
    lines = [line for line in answer.err if "not assessable" in line]
    assert len(lines) == code
    assert all(f"{path}: not assessable: " in line and "; give a clip with" in line for line in lines)


def test_a_mouth_that_never_moves_is_not_compared_with_speech(tmp_path: Path) -> None:
    path = still_video(tmp_path / "photograph.mp4", portrait(300, 352), 2.0, voice(2.0))
    answer = call(path, "--json", "-")
    (verdict,) = answer.verdicts
    claims = verdict["claims"]
    assert verdict["tracks"][0]["mouth"] < tracks.MIN_MOUTH and answer.code == 0
    assert claims["lip_sync_mismatch"]["reason"].startswith("nobody in view moves the mouth: a photograph")
    assert claims["face_manipulation"]["score"] is not None and claims["voice_cloning"]["score"] is not None


def test_a_crowd_is_told_of(tmp_path: Path) -> None:
    (verdict,) = call(crowd(tmp_path / "crowd.mp4"), "--json", "-").verdicts
    assert verdict["warnings"] == ["more than 8 faces are seen at once: only the 8 largest are looked at"]
    assert len(verdict["tracks"]) == 8


def test_a_face_in_profile_is_not_assessed(tmp_path: Path) -> None:
    path = still_video(tmp_path / "profile.mp4", portrait(300, 352), 1.0)
    with patch.object(tracks, "head_pose", lambda landmarks: (72.0, 0.0, 0.0)):
        answer = call(path, "--json", "-")
    (verdict,) = answer.verdicts
    reason = verdict["claims"]["face_manipulation"]["reason"]
    assert answer.code == 1 and "turned" in reason and verdict["tracks"][0]["yaw"] == 72.0


def test_a_clip_cut_in_the_middle_is_scored_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = talking(tmp_path / "whole.mkv", 4.0)
    answer = call(truncate(whole, tmp_path / "cut.mkv", 0.6), "--json", "-")
    (verdict,) = answer.verdicts
    assert answer.code == 0 and 1.0 < verdict["duration"] < 3.5
    assert verdict["claims"]["face_manipulation"]["status"] == "assessed"
    assert any("seems cut short" in warning for warning in verdict["warnings"])
    assert any("seems cut short" in line for line in answer.err)


def test_corrupt_packets_are_left_out_and_told(tmp_path: Path, good: Path) -> None:
    answer = call(corrupt(good, tmp_path / "corrupt.mp4", 0.4, 0.5), "--json", "-")
    (verdict,) = answer.verdicts
    assert answer.code == 0 and verdict["duration"] == pytest.approx(3.0, abs=0.2)
    assert verdict["claims"]["face_manipulation"]["status"] == "assessed"
    assert any(
        "is damaged" in warning and "could not be decoded" in warning for warning in verdict["warnings"]
    )


def test_every_bad_clip_of_a_call_is_told_in_order(tmp_path: Path, beside: Path) -> None:
    (tmp_path / "empty.wav").touch()
    names = ["a.mp4", "empty.wav", "b.mp4"]
    answer = call(*(tmp_path / name for name in names), beside, "--json", "-")
    assert [Path(v["path"]).name for v in answer.verdicts] == [*names, "voice.wav"]
    assert [Path(line.split(": ")[1]).name for line in answer.err] == names
    assert answer.code == 1


def test_a_failure_of_avdetect_itself_leaves_the_other_clips(good: Path, beside: Path) -> None:
    detect = detector().detect

    def fail(path: Any, progress: Any = None, **options: Any) -> Any:
        if str(path) == str(good):
            raise ZeroDivisionError("a bug\nwith two lines")
        return detect(path, progress, **options)

    with patch.object(detector(), "detect", fail):
        answer = call(good, beside, "--json", "-")
    bad, other = answer.verdicts
    assert answer.code == 1 and other["score"] is not None
    assert "avdetect failed (ZeroDivisionError: a bug with two lines); please report it" in bad["error"]
    assert answer.err == [f"avdetect: {bad['error']}"]


# --- models ---------------------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the shipped model, to be spoiled."""
    return Path(shutil.copytree(hub.find("base"), tmp_path / "model"))


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def hostile(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(str(folder / "sprung"))))


SPOILT: list[tuple[str, Callable[[Path], object], str]] = [
    ("gone", shutil.rmtree, "no model '{}': give the folder of a trained model"),
    ("empty", lambda m: (shutil.rmtree(m), m.mkdir()), "{}: not a model folder, config.json is missing"),
    ("json", lambda m: (m / "config.json").write_text("{"), "{}/config.json: cannot be read as JSON"),
    ("other", lambda m: edit(m, model_type="bert"), "a model of type 'bert', not 'avdetect'"),
    ("pickle", hostile, "model.safetensors is missing; pickled weights (.bin, .pt, .pth) are never loaded"),
    ("weights", lambda m: (m / "model.safetensors").write_bytes(b"{}" * 99), "the weights cannot be loaded"),
    ("pickled", lambda m: shutil.move(pickled(m), m / "model.safetensors"), "the weights cannot be loaded"),
    ("dim", lambda m: edit(m, dim=32), "the weights cannot be loaded"),
    ("stream", lambda m: edit(m, streams={"voice": {"encoder": "none"}}), "the weights cannot be loaded"),
    ("window", lambda m: edit(m, window={"length": 0}), "length = 0 is not a number from 1 to 60"),
    ("hop", lambda m: edit(m, window={"hop": float("nan")}), "hop = nan is not a number"),
    ("limits", lambda m: edit(m, thresholds=limits(0.9, 0.5)), "low = 0.9 is not a number from 0 to 0.5"),
    (
        "hub",
        lambda m: edit(
            m, streams={"voice": {"encoder": "speech_backbone", "options": {"pretrained": "a/b"}}}
        ),
        "takes weights from elsewhere ('a/b')",
    ),
    ("scale", lambda m: edit(m, calibration={}, claims=[]), "claims = [] is not a table"),
]


def pickled(folder: Path) -> Path:
    path = folder / "weights.pkl"
    path.write_bytes(pickle.dumps(Trap(str(folder / "sprung"))))
    return path


def limits(low: float, high: float) -> dict[str, dict[str, float]]:
    names = ("face_manipulation", "voice_cloning", "lip_sync_mismatch")
    return {name: {"low": low, "high": high} for name in names}


@pytest.mark.parametrize(("spoil", "words"), [case[1:] for case in SPOILT], ids=[case[0] for case in SPOILT])
def test_a_folder_that_is_no_model_is_one_line(
    tmp_path: Path, model: Path, beside: Path, spoil: Callable[[Path], object], words: str
) -> None:
    spoil(model)
    earlier = tmp_path / "earlier.jsonl"
    earlier.write_text("{}\n")
    answer = call(beside, "--model", model, "--json", earlier)
    assert answer.code == 1 and answer.out == ""
    (line,) = answer.err
    assert line.startswith("avdetect: ") and words.format(model) in line and str(model) in line
    assert len(line) < 500 and not (model / "sprung").exists()


def test_a_model_that_cannot_be_found_loses_no_earlier_result(tmp_path: Path, beside: Path) -> None:
    earlier = tmp_path / "earlier.jsonl"
    earlier.write_text("{}\n")
    answer = call(beside, "--model", "n" * 300, "--json", earlier)
    assert answer.code == 1 and "no model 'nnn" in answer.err[0] and earlier.read_text() == "{}\n"


def test_equal_thresholds_leave_nothing_inconclusive(model: Path, beside: Path) -> None:
    edit(model, thresholds=limits(0.5, 0.5))
    (verdict,) = call(beside, "--model", model, "--json", "-").verdicts
    assert verdict["verdict"] in ("manipulated", "no manipulation found")


def test_a_face_model_that_is_none_is_one_line(tmp_path: Path, beside: Path) -> None:
    bundle = tmp_path / "face_landmarker.task"
    assert "no such file" in one_line(call(beside, "--face-model", bundle))
    bundle.write_bytes(b"PK" * 500)
    assert "not a mediapipe face_landmarker.task bundle" in one_line(call(beside, "--face-model", bundle))


def one_line(answer: Answer, code: int = 1) -> str:
    assert answer.code == code and answer.out == ""
    (line,) = answer.err
    return line


# --- outputs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--json", "--html"])
@pytest.mark.parametrize(
    ("name", "why"),
    [("", "Is a directory"), ("no/such/file", "No such file"), ("n" * 300, "File name too long")],
)
def test_an_unwritable_output_is_told_before_any_work(
    tmp_path: Path, beside: Path, option: str, name: str, why: str
) -> None:
    with patch.object(detector(), "detect", side_effect=AssertionError("work was done")):
        line = one_line(call(beside, option, tmp_path / name))
    assert f"{option} {tmp_path / name}: cannot be written ({why}" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_an_output_does_not_overwrite_a_clip(tmp_path: Path, beside: Path, option: str) -> None:
    clip, other = (Path(shutil.copy(beside, tmp_path / name)) for name in ("a.wav", "b.wav"))
    before = clip.read_bytes()
    assert "is one of the clips" in one_line(call(clip, option, f"{tmp_path}/./a.wav"), 2)
    assert "would be lost" in one_line(
        call(other, option, clip), 2
    )  # `--json *.wav`, with the name forgotten
    assert clip.read_bytes() == before


def test_two_outputs_need_two_files(tmp_path: Path, beside: Path) -> None:
    path = tmp_path / "report"
    assert "both name" in one_line(call(beside, "--json", path, "--html", path), 2)
    assert not path.exists()


def test_a_disk_that_is_full_is_one_line(beside: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full on this system")
    for option in ("--json", "--html"):
        line = one_line(call(beside, option, "/dev/full", "--quiet"))
        assert f"{option} /dev/full: cannot be written ({os.strerror(errno.ENOSPC)})" in line


def test_a_page_that_was_not_finished_leaves_no_file(tmp_path: Path, beside: Path) -> None:
    with patch.object(detector(), "detect", side_effect=KeyboardInterrupt):
        answer = call(beside, "--html", tmp_path / "report.html", "--json", tmp_path / "done.jsonl")
    assert (answer.code, answer.err) == (130, ["avdetect: interrupted"])
    assert not (tmp_path / "report.html").exists() and (tmp_path / "done.jsonl").read_text() == ""


def test_what_was_done_before_an_interrupt_is_kept(tmp_path: Path, beside: Path) -> None:
    detect, path = detector().detect, tmp_path / "done.jsonl"
    calls: list[Any] = []

    def once(clip: Any, progress: Any = None, **options: Any) -> Any:
        calls.append(clip)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return detect(clip, progress, **options)

    with patch.object(detector(), "detect", once):
        assert call(beside, beside, "--json", path).code == 130
    assert len(parsed(path.read_text())) == 1


def test_frames_of_noise_have_no_face_and_no_failure(tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    images = [dice.integers(0, 255, (120, 160, 3), np.uint8) for _ in range(10)] + [picture(1)] * 5
    answer = call(make_video(tmp_path / "snow.mp4", images=images, seconds=0.6), "--json", "-")
    assert answer.verdicts[0]["verdict"] == "not assessable"
