"""Faces followed by another process: the same verdict, and nothing lost where it fails."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import make_audio, make_video
from commands import call, detector, portrait, process, voice

from avdetect import watcher as module
from avdetect.__main__ import _verdict, _watcher
from avdetect.detect import Detector
from avdetect.errors import MediaError
from avdetect.media import open_clip
from avdetect.types import Outcome
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


def watching(watcher: Watcher) -> Detector:
    made = Detector.from_pretrained()
    made._loading = detector()._load()
    made.watcher = watcher
    return made


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
    plain, watched = detector().detect(talking), watching(watcher).detect(talking)
    assert watched.claims == plain.claims and watched.evidence == plain.evidence
    assert watched.outcome is plain.outcome is not Outcome.NOT_ASSESSABLE


def test_what_cannot_be_decoded_is_told_as_here(watcher: Watcher, talking: Path, tmp_path: Path) -> None:
    data = bytearray(talking.read_bytes())
    at = data.index(b"mdat") + 4
    data[at : at + 20_000] = bytes(20_000)
    (broken := tmp_path / "broken.mp4").write_bytes(data)
    plain, watched = detector().detect(broken), watching(watcher).detect(broken)
    assert (watched.outcome, watched.error, watched.warnings) == (plain.outcome, plain.error, plain.warnings)
    assert watching(watcher).detect(talking).score is not None


def test_one_that_was_ended_costs_a_clip_and_is_started_again(watcher: Watcher, talking: Path) -> None:
    mine = watching(watcher)
    told = watcher.follow(open_clip(talking), mine.settings)
    assert isinstance(next(told), list)
    watcher._process.kill()
    with pytest.raises(RuntimeError, match="was ended"):
        list(told)
    assert mine.detect(talking).score is not None
    watcher._process.kill()
    watcher._process.join()
    assert mine.detect(talking).score is not None


def test_a_clip_that_is_left_in_the_middle_is_not_gone_on_with(watcher: Watcher, talking: Path) -> None:
    mine = watching(watcher)
    told = watcher.follow(open_clip(talking), mine.settings)
    next(told)
    told.close()  # type: ignore[attr-defined]
    assert not watcher._process.is_alive()
    assert mine.detect(talking).score is not None


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

        def follow(self, *_: Any) -> Iterator[Any]:
            raise RuntimeError("the process that looks for faces was ended")

    found = _verdict(watching(Gone()), str(talking))
    assert found.outcome is Outcome.ERROR and "was ended" in (found.error or "")


@pytest.mark.parametrize(
    ("clips", "face_model", "cores", "wanted"),
    [
        (["a.mp4"], None, 2, True),
        (["a.wav", "b.mp4"], None, 2, True),
        (["a.wav", "b.flac"], None, 2, False),
        (["a.mp4"], Path("m.task"), 2, False),
        (["a.mp4"], None, 1, False),
    ],
)
def test_one_is_started_only_where_it_helps(
    monkeypatch: pytest.MonkeyPatch, clips: list[str], face_model: Path | None, cores: int, wanted: bool
) -> None:
    monkeypatch.setattr(module, "useful", lambda: cores > 1)
    monkeypatch.setattr(module, "Watcher", lambda: "started")
    found = _watcher(argparse.Namespace(clips=clips, face_model=face_model))
    assert (found == "started") is wanted


def test_the_command_says_what_the_function_says(talking: Path, tmp_path: Path) -> None:
    make_audio(tmp_path / "voice.wav", voice(1.5))
    clips = [talking, "nothing.mp4", "voice.wav"]
    alone = process(*clips, "--json", "-", "--quiet", cwd=tmp_path)
    inside = call(talking, tmp_path / "nothing.mp4", tmp_path / "voice.wav", "--json", "-", "--quiet")
    assert alone.code == inside.code == 1
    assert [v["claims"] for v in alone.verdicts] == [v["claims"] for v in inside.verdicts]
    assert len(alone.err) == 1 and "nothing.mp4: no such file" in alone.err[0]
