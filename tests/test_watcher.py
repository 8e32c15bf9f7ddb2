"""Faces followed by another process: the same verdict, and nothing lost where it fails."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import make_audio, make_video
from commands import call, detector, portrait, process, voice

from avdetect import watcher as module
from avdetect.__main__ import _verdict, _watchers
from avdetect.detect import Detector
from avdetect.errors import MediaError
from avdetect.media import open_clip
from avdetect.types import Outcome, Verdict
from avdetect.watched import Watched
from avdetect.watcher import Watcher, _parts
from avdetect.windows import WindowSettings, prepare


@pytest.fixture(scope="module")
def watcher() -> Iterator[Watcher]:
    made = Watcher()
    yield made
    made.close()


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "talking.mp4"
    return make_video(path, size=(480, 360), images=[portrait(300, 352)] * 75, seconds=3, audio=voice(3.0))


def verdicts(*clips: Path, watchers: Sequence[Watcher]) -> list[Verdict]:
    names, judge = [str(clip) for clip in clips], detector()
    opened = judge.opened(names, watchers)
    return [_verdict(judge, name, one) for name, one in zip(names, opened, strict=True)]


def test_windows_tracks_and_warnings_are_the_same(watcher: Watcher, talking: Path) -> None:
    here, there = (prepare(talking, WindowSettings(2.0, 1.0)) for _ in range(2))
    there = Watched.by(watcher, there)
    ours, theirs = list(here), list(there)
    assert len(ours) == len(theirs) == 2 and there.finder is None
    for one, other in zip(ours, theirs, strict=True):
        for name in ("waveform", "landmarks", "found", "mouth_crops", "face_crops", "crop_landmarks"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert [track.id for track in here.tracks] == [track.id for track in there.tracks] == [0]
    assert here.warnings == there.warnings and there.seconds["faces"] > 0


def test_a_verdict_is_the_same(watcher: Watcher, talking: Path) -> None:
    plain, (watched,) = detector().detect(talking), verdicts(talking, watchers=[watcher])
    assert watched.claims == plain.claims and watched.evidence == plain.evidence
    assert watched.outcome is plain.outcome is not Outcome.NOT_ASSESSABLE


def test_what_cannot_be_decoded_is_told_as_here(watcher: Watcher, talking: Path, tmp_path: Path) -> None:
    data = bytearray(talking.read_bytes())
    at = data.index(b"mdat") + 4
    data[at : at + 20_000] = bytes(20_000)
    (broken := tmp_path / "broken.mp4").write_bytes(data)
    plain, (watched, after) = detector().detect(broken), verdicts(broken, talking, watchers=[watcher])
    assert (watched.outcome, watched.error, watched.warnings) == (plain.outcome, plain.error, plain.warnings)
    assert after.score is not None


def test_one_that_was_ended_costs_a_clip_and_is_started_again(watcher: Watcher, talking: Path) -> None:
    told = watcher.follow(open_clip(talking), WindowSettings())
    assert isinstance(next(told), list)
    watcher._process.kill()
    with pytest.raises(RuntimeError, match="was ended"):
        list(told)
    assert verdicts(talking, watchers=[watcher])[0].score is not None
    watcher._process.kill()
    watcher._process.wait()
    assert verdicts(talking, watchers=[watcher])[0].score is not None


def test_a_clip_that_is_left_in_the_middle_is_not_gone_on_with(watcher: Watcher, talking: Path) -> None:
    told = watcher.follow(open_clip(talking), WindowSettings())
    next(told)
    told.close()
    assert watcher._process.poll() is not None
    assert verdicts(talking, watchers=[watcher])[0].score is not None


def test_clips_that_are_followed_at_the_same_time_keep_their_order(
    watcher: Watcher, talking: Path, tmp_path: Path
) -> None:
    sound = make_audio(tmp_path / "voice.wav", voice(1.5))
    (damaged := tmp_path / "damaged.mp4").write_bytes(talking.read_bytes()[:3000])
    clips = [talking, tmp_path / "nothing.mp4", sound, damaged, talking]
    second = Watcher()
    try:
        found = verdicts(*clips, watchers=[watcher, second])
    finally:
        second.close()
    plain = [detector().detect(clip) for clip in clips]
    assert [one.path for one in found] == clips
    assert [(one.outcome, one.error) for one in found] == [(one.outcome, one.error) for one in plain]
    assert [one.claims for one in found] == [one.claims for one in plain]


def test_a_watcher_is_free_for_the_clip_after_one_that_could_not_be_scored(
    watcher: Watcher, talking: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing, score = iter([True, False]), Detector._score

    def scored(self: Detector, *arguments: Any) -> Any:
        if next(failing):
            raise ZeroDivisionError("by nought")
        return score(self, *arguments)

    monkeypatch.setattr(Detector, "_score", scored)
    first, second = verdicts(talking, talking, watchers=[watcher])
    assert first.outcome is Outcome.ERROR and second.score is not None


class Failing:
    """A clip whose pictures end in an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def _look(self, seen: dict[int, dict[int, Any]]) -> Iterator[int]:
        for index in range(30):
            seen.setdefault(0, {})[index] = index
            yield index + 1
        raise self.error


@pytest.mark.parametrize("error", [MediaError("x.mp4", "is damaged"), ZeroDivisionError("by nought")])
def test_errors_come_last_and_can_cross_to_another_process(error: Exception) -> None:
    first, last = _parts(Failing(error))  # type: ignore[arg-type]
    assert first == [(index, {0: index}) for index in range(module.TOGETHER)]
    expected = error if isinstance(error, MediaError) else RuntimeError("ZeroDivisionError: by nought")
    assert type(last) is type(expected) and str(last) == str(expected)


def test_a_failure_is_a_verdict_of_that_clip_alone(talking: Path) -> None:
    class Gone(Watcher):
        def __init__(self) -> None:
            pass

        def follow(self, *_: Any) -> Generator[Any, None, None]:
            yield from ()
            raise RuntimeError("the process that looks for faces was ended")

    (found,) = verdicts(talking, watchers=[Gone()])
    assert found.outcome is Outcome.ERROR and "was ended" in (found.error or "")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_an_interrupt_is_not_heard_while_one_starts() -> None:
    made = Watcher()
    try:
        status = Path(f"/proc/{made._process.pid}/status").read_text()
    finally:
        made.close()
    masks = {
        line.split(":")[0]: int(line.split()[1], 16)
        for line in status.splitlines()
        if line.startswith("Sig") and "Q" not in line
    }
    assert (masks["SigBlk"] | masks["SigIgn"]) >> (signal.SIGINT - 1) & 1
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_program_without_standard_streams_has_them_too(talking: Path) -> None:
    code = """
import os, sys
os.close(0), os.close(1)
from avdetect.watcher import Watcher
from avdetect.media import open_clip
from avdetect.windows import WindowSettings
from dataclasses import replace
made = Watcher()
first = made._process.pid
told = list(made.follow(replace(open_clip(sys.argv[1]), waveform=None), WindowSettings()))
print(len(told), made._process.pid == first, file=sys.stderr)
made.close()
"""
    done = subprocess.run([sys.executable, "-c", code, talking], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "5 True"


@pytest.mark.parametrize(
    ("clips", "face_model", "cores", "wanted"),
    [
        (["a.mp4"], None, 2, 1),
        (["a.wav", "b.mp4"], None, 2, 1),
        (["a.mp4", "b", "c.mp4"], None, 2, 2),
        ([f"{n}.mp4" for n in range(99)], None, 64, module.MOST),
        (["a.wav", "b.flac"], None, 2, 0),
        (["a.mp4"], Path("m.task"), 2, 0),
        (["a.mp4", "b.mp4"], None, 1, 0),
    ],
)
def test_they_are_started_only_where_they_help(
    monkeypatch: pytest.MonkeyPatch, clips: list[str], face_model: Path | None, cores: int, wanted: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(module, "Watcher", lambda: "started")
    found = _watchers(argparse.Namespace(clips=clips, face_model=face_model))
    assert found == ["started"] * wanted


def test_the_command_says_what_the_function_says(talking: Path, tmp_path: Path) -> None:
    make_audio(tmp_path / "voice.wav", voice(1.5))
    clips = [talking, "nothing.mp4", "voice.wav"]
    alone = process(*clips, "--json", "-", "--quiet", cwd=tmp_path)
    inside = call(talking, tmp_path / "nothing.mp4", tmp_path / "voice.wav", "--json", "-", "--quiet")
    assert alone.code == inside.code == 1
    assert [v["claims"] for v in alone.verdicts] == [v["claims"] for v in inside.verdicts]
    assert len(alone.err) == 1 and "nothing.mp4: no such file" in alone.err[0]
