"""Probes: what is taken out is gone, what is left is untouched."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avdetect.forgeries.geometry import OVAL
from avdetect.prepared import PreparedClip
from avdetect.probes import Hidden, without
from avdetect.types import Item, Label, Window

SIZE = 100


def clip(**fields: object) -> PreparedClip:
    window = Window(0.0, 2.0, **fields)  # type: ignore[arg-type]
    return PreparedClip(Item(Path("x.mp4"), Label()), (window,))


def face() -> tuple[np.ndarray, np.ndarray]:
    """A noisy crop and landmarks whose outline is a circle of radius 25 about its middle."""
    crop = np.random.default_rng(0).integers(0, 255, (1, SIZE, SIZE, 3), np.uint8)
    points = np.full((1, 478, 2), SIZE / 2, np.float32)
    turn = np.linspace(0, 2 * np.pi, len(OVAL), endpoint=False)
    points[0, list(OVAL)] += 25 * np.stack([np.cos(turn), np.sin(turn)], 1).astype(np.float32)
    return crop, points


def test_a_hidden_face_leaves_its_background() -> None:
    crop, points = face()
    given = clip(face_crops=crop, crop_landmarks=points, crop_frames=np.zeros(1, np.int64), track=0)
    shown = without(given, Hidden.FACES).windows[0].face_crops
    assert shown is not None
    away = np.hypot(*np.indices((SIZE, SIZE)) - SIZE / 2)
    assert np.ptp(shown[0][away < 24].reshape(-1, 3), axis=0).max() == 0
    np.testing.assert_array_equal(shown[0][away > 34], crop[0][away > 34])


def test_hidden_speech_leaves_the_pauses() -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    speech = np.arange(50) < 30
    window = without(clip(waveform=sound, speech=speech), Hidden.SPEECH).windows[0]
    assert window.waveform is not None and window.speech is not None
    assert not window.waveform[: 30 * 640].any()
    np.testing.assert_array_equal(window.waveform[30 * 640 :], sound[30 * 640 :])
    np.testing.assert_array_equal(window.speech, ~speech)


def test_nothing_hidden_is_the_clip_itself() -> None:
    given = clip(waveform=np.zeros(32_000, np.float32), speech=np.ones(50, bool))
    assert without(given, Hidden.NOTHING) is given
