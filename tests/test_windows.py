"""From a file to windows and back to the clip's time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import beep, make_audio, make_video, noise, onset, tone

from avdetect.errors import MediaError
from avdetect.faces import FaceFinder
from avdetect.types import CROP_EVERY, Claim, Clip, Floats
from avdetect.windows import (
    Prepared,
    WindowSettings,
    _forget,
    _Seen,
    overlap_add,
    prepare,
    segments_of,
)

STEP = 640
Walked = tuple[Prepared, list[Any]]


@pytest.mark.parametrize("length", [2.0, 4.0, 10.0])
@pytest.mark.parametrize("hop", [1.0, 2.0])
@pytest.mark.parametrize("duration", [0.04, 0.5, 1.99, 2.0, 2.04, 4.0, 4.04, 5.96, 6.0, 23.4, 61.0])
def test_windows_cover_the_clip_and_end_with_it(duration: float, hop: float, length: float) -> None:
    spans = WindowSettings(length, hop).spans(duration)
    frames, each = round(duration * 25), round(length * 25)
    starts = [start for start, _ in spans]
    assert starts[0] == 0 and sum(spans[-1]) == frames
    assert starts == sorted(set(starts))
    assert all(size == each for _, size in spans[:-1])
    assert min(frames, each) <= spans[-1][1] <= 1.2 * each
    covered = {frame for start, size in spans for frame in range(start, start + size)}
    assert covered == set(range(frames))
    assert all(b - a <= round(hop * 25) for a, b in pairwise(starts))


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (10.0, [(0, 250)]),
        (12.0, [(0, 300)]),
        (12.04, [(0, 250), (51, 250)]),
        (18.0, [(0, 250), (200, 250)]),
        (19.0, [(0, 250), (200, 275)]),
        (20.04, [(0, 250), (200, 250), (251, 250)]),
    ],
)
def test_what_little_is_left_over_belongs_to_the_last_window(
    duration: float, expected: list[tuple[int, int]]
) -> None:
    assert WindowSettings(10.0, 8.0).spans(duration) == expected


def test_no_clip_is_too_short_for_a_window() -> None:
    assert WindowSettings().spans(0.0) == [(0, 1)]


def windows_of(path: Path, settings: WindowSettings | None = None) -> Walked:
    prepared = prepare(path, settings)
    return prepared, list(prepared)


def test_sound_alone_is_cut_at_the_sample(tmp_path: Path) -> None:
    path = make_audio(tmp_path / "a.wav", noise(5.3))
    prepared, windows = windows_of(path, WindowSettings(2.0, 1.0))
    waveform = prepared.clip.waveform
    assert waveform is not None
    assert [w.start for w in windows] == [0.0, 1.0, 2.0, 3.0] and windows[-1].end == 5.28
    for window in windows:
        first, steps = round(window.start * 16_000), 57 if window is windows[-1] else 50
        piece = waveform[first : first + steps * STEP]
        np.testing.assert_array_equal(window.waveform[: len(piece)], piece)
        assert not window.waveform[len(piece) :].any()
        assert len(window.waveform) == steps * STEP and len(window.speech) == steps
        assert window.track is None and window.face_crops is None and window.landmarks is None
    assert prepared.tracks == []


def test_a_sound_shorter_than_a_window_gives_one_of_its_length(tmp_path: Path) -> None:
    _, windows = windows_of(make_audio(tmp_path / "a.wav", tone(0.5)))
    assert [(w.start, w.end, len(w.waveform)) for w in windows] == [(0.0, 0.48, 12 * STEP)]


def test_a_beep_stands_at_its_time_in_every_window(tmp_path: Path) -> None:
    _, windows = windows_of(make_audio(tmp_path / "a.wav", beep(6.0, at=2.6)), WindowSettings(4.0, 1.0))
    heard = [w for w in windows if w.start <= 2.6 < w.end - 0.1]
    assert len(heard) == 3
    for window in heard:
        assert window.start + onset(window.waveform) == pytest.approx(2.6, abs=0.002)


def test_a_picture_without_a_face_or_sound_gives_no_window(tmp_path: Path) -> None:
    prepared, windows = windows_of(make_video(tmp_path / "v.mp4", 1.0))
    assert windows == [] and prepared.tracks == []
    assert prepared.speech is None


def test_a_picture_without_a_face_leaves_its_sound(tmp_path: Path) -> None:
    prepared, windows = windows_of(make_video(tmp_path / "v.mp4", 1.0, audio=tone(1.0)))
    assert [w.track for w in windows] == [None]
    assert prepared.speech is not None and prepared.speech.reason
    assert not windows[0].speech.any()


def test_a_finder_of_its_own_is_closed_and_a_lent_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []

    class Finder(FaceFinder):
        def close(self) -> None:
            closed.append(self)
            super().close()

    monkeypatch.setattr("avdetect.windows.FaceFinder", Finder)
    path = make_video(tmp_path / "empty.mp4", 0.2)
    lent = Finder()
    assert list(prepare(path, finder=lent)) == [] and closed == []
    assert list(prepare(path)) == [] and len(closed) == 1


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("no media")
    with pytest.raises(MediaError, match=r"a\.mp4"):
        prepare(path)


@pytest.fixture(scope="module")
def talking(talking_clip: Path) -> Walked:
    return windows_of(talking_clip, WindowSettings(1.6, 0.8))


def test_windows_of_a_talking_face_are_aligned(talking: Walked) -> None:
    prepared, windows = talking
    waveform = prepared.clip.waveform
    assert waveform is not None
    assert [(round(w.start * 25), w.steps) for w in windows] == prepared.spans()
    for window in windows:
        first, steps = round(window.start * 25), window.steps
        piece = waveform[first * STEP : (first + steps) * STEP]
        np.testing.assert_array_equal(window.waveform[: len(piece)], piece)
        assert window.found.mean() > 0.9
        assert window.landmarks.shape == (steps, 478, 3) and len(window.mouth_crops) == steps
        np.testing.assert_array_equal((window.crop_frames + first) % CROP_EVERY, 0)
        assert window.face_crops.shape == (len(window.crop_frames), 224, 224, 3)
        inside = (window.crop_landmarks > 0) & (window.crop_landmarks < 224)
        assert inside.mean() > 0.95
    assert {w.track for w in windows} == {track.id for track in prepared.tracks}
    assert sum(int(w.speech.sum()) for w in windows) > 10


def test_overlapping_windows_hold_the_same_frames(talking: Walked) -> None:
    _, (one, two, *_) = talking
    shift = round((two.start - one.start) * 25)
    np.testing.assert_array_equal(one.landmarks[shift:], two.landmarks[: one.steps - shift])
    np.testing.assert_array_equal(one.mouth_crops[shift:], two.mouth_crops[: one.steps - shift])
    np.testing.assert_array_equal(one.speech[shift:], two.speech[: one.steps - shift])


def test_the_stages_are_timed(talking: Walked) -> None:
    assert talking[0].seconds["decode"] > 0 and talking[0].seconds["faces"] > 0


def test_what_no_later_window_needs_is_forgotten() -> None:
    seen: dict[int, Any] = {0: {n: object() for n in range(100)}, 1: {n: object() for n in range(30)}}
    _forget(seen, 40)
    assert set(seen) == {0} and min(seen[0]) == 40 and len(seen[0]) == 60


def test_the_buffer_does_not_grow_with_the_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long clip's frames, as `_look` gives them, through the window loop."""
    duration, most = 120.0, 0
    one = _Seen(np.zeros((478, 3), np.float32), np.zeros((8, 8), np.uint8), None)

    def look(self: Prepared, seen: dict[int, dict[int, _Seen]]) -> Iterator[int]:
        nonlocal most
        for index in range(round(duration * 25) + 50):  # more frames than the duration says
            seen.setdefault(0, {})[index] = one
            most = max(most, sum(map(len, seen.values())))
            yield index + 1

    monkeypatch.setattr(Prepared, "_look", look)
    clip = Clip(Path("long.mp4"), duration, "", fps=25.0)
    windows = list(Prepared(clip, None, WindowSettings(4.0, 2.0), None))
    assert [w.start for w in windows] == [2.0 * n for n in range(59)]
    assert most <= 101


def ramp(n: int) -> Floats:
    return np.arange(n, dtype=np.float32)


def test_overlap_add_of_a_constant_is_the_constant() -> None:
    pieces = [(start, np.full(20, 0.7, np.float32), np.ones(20, bool)) for start in (0.0, 2.0, 3.4)]
    values, valid = overlap_add(pieces, 7.4, 5.0)
    assert len(values) == 37 and valid.all()
    np.testing.assert_allclose(values, 0.7, rtol=1e-6)


def test_overlap_add_gives_back_a_curve_that_windows_agree_on() -> None:
    curve = ramp(40)
    pieces = [(s / 5, curve[s : s + 20], np.ones(20, bool)) for s in (0, 10, 20)]
    np.testing.assert_allclose(overlap_add(pieces, 8.0, 5.0)[0], curve, rtol=1e-6)


def test_overlap_add_weighs_by_hand() -> None:
    """Tapers 1 2 2 1; the second window begins two steps later: (2*0 + 1*1) / 3, (1*0 + 2*1) / 3."""
    pieces = [
        (0.0, np.zeros(4, np.float32), np.ones(4, bool)),
        (0.4, np.ones(4, np.float32), np.ones(4, bool)),
    ]
    values, _ = overlap_add(pieces, 1.2, 5.0)
    np.testing.assert_allclose(values, [0, 0, 1 / 3, 2 / 3, 1, 1], rtol=1e-6)


def test_overlap_add_leaves_out_what_is_not_valid() -> None:
    one = (0.0, np.full(4, np.nan, np.float32), np.array([True, True, False, False]))
    one[1][:2] = 0.2
    two = (0.4, np.full(4, 0.8, np.float32), np.array([False, True, True, False]))
    values, valid = overlap_add([one, two], 1.2, 5.0)
    assert valid.tolist() == [True, True, False, True, True, False]
    np.testing.assert_allclose(values[valid], [0.2, 0.2, 0.8, 0.8], rtol=1e-6)


def test_overlap_add_of_nothing_knows_nothing() -> None:
    values, valid = overlap_add([], 2.0, 5.0)
    assert len(values) == 10 and not valid.any()


CURVE = np.array([0.1, 0.9, 0.9, 0.9, 0.2, 0.9, 0.7, 0.1, 0.1, 0.1, 0.1, 0.9, 0.1, 0.8, 0.8, 0.8], np.float32)


def spans(**settings: float) -> list[tuple[float, float, float | None]]:
    valid = np.ones(len(CURVE), bool)
    found = segments_of(CURVE, valid, 5.0, 0.6, Claim.VOICE_CLONING, **settings)
    assert all(s.claim is Claim.VOICE_CLONING for s in found)
    return [(s.start, s.end, None if s.score is None else round(s.score, 3)) for s in found]


def test_segments_are_runs_above_the_threshold() -> None:
    assert spans(shortest=0.0, gap=0.0) == [
        (0.2, 0.8, 0.9),
        (1.0, 1.4, 0.8),
        (2.2, 2.4, 0.9),
        (2.6, 3.2, 0.8),
    ]


def test_short_runs_are_left_out_and_short_holes_bridged() -> None:
    assert [s[:2] for s in spans(shortest=0.6, gap=0.0)] == [(0.2, 0.8), (2.6, 3.2)]
    assert [s[:2] for s in spans(shortest=0.6, gap=0.2)] == [(0.2, 1.4), (2.2, 3.2)]
    assert [s[:2] for s in spans(shortest=0.6, gap=0.8)] == [(0.2, 3.2)]


def test_segments_do_not_stand_where_nothing_is_known() -> None:
    valid = np.ones(len(CURVE), bool)
    valid[1:4] = False
    found = segments_of(CURVE, valid, 5.0, 0.6, Claim.FACE_MANIPULATION, track=3, shortest=0.4, gap=0.0)
    assert [(s.start, s.end, s.track) for s in found] == [(1.0, 1.4, 3), (2.6, 3.2, 3)]


def test_the_score_of_a_segment_is_the_mean_of_what_is_known_in_it() -> None:
    scores = np.array([0.9, 0.0, 0.7], np.float32)
    (found,) = segments_of(
        scores, np.array([True, False, True]), 5.0, 0.6, Claim.VOICE_CLONING, shortest=0.0, gap=0.2
    )
    assert found.score == pytest.approx(0.8) and found.length == pytest.approx(0.6)


def test_a_score_at_the_threshold_counts() -> None:
    scores = np.full(5, 0.6, np.float32)
    assert len(segments_of(scores, np.ones(5, bool), 5.0, float(np.float32(0.6)), Claim.VOICE_CLONING)) == 1
