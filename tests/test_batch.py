"""From windows to tensors: lips in the head's own frame, and rows that lack what others have."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from avdetect.batch import LIPS, collate, label_row, mirrored, mouth_motion
from avdetect.types import FRAME_RATE, Floats, Label, Window

ANCHORS = {
    33: (-45, -30, 5),
    133: (-18, -30, 2),
    263: (45, -30, 5),
    362: (18, -30, 2),
    168: (0, -32, -8),
    6: (0, -22, -12),
    197: (0, -12, -16),
    10: (0, -90, 0),
    151: (0, -75, -3),
    9: (0, -60, -6),
}
"""Eyes, bridge of the nose and forehead of a face made by hand, pixels."""


def make_face(frames: int = 5, opening: float = 0.0) -> Floats:
    """Landmarks [T, 478, 3] of a symmetric upright face, its mouth open by `opening` pixels."""
    points = np.zeros((478, 3), np.float32)
    for index, place in ANCHORS.items():
        points[index] = place
    outer, inner = LIPS[:20], LIPS[20:40]
    for ring, width, height in ((outer, 25, 9), (inner, 20, 3)):
        upper, lower = ring[:11], ring[11:]
        for step, index in enumerate(upper):
            turn = math.pi * (1 - step / 10)
            points[index] = (width * math.cos(turn), 35 - height * math.sin(turn) - opening / 2, -10)
        for step, index in enumerate(lower, 1):
            turn = math.pi * (1 - step / 10)
            points[index] = (width * math.cos(turn), 35 + height * math.sin(turn) + opening / 2, -10)
    for index, x in zip(LIPS[40:], (0, -12, 12, 0, 0, 0), strict=True):
        points[index] = (x, 70 + opening, -5)
    return np.tile(points + np.float32([200, 150, 0]), (frames, 1, 1))


def turned(landmarks: Floats, roll: float = 0, yaw: float = 0, pitch: float = 0) -> Floats:
    """Rotated about the image's origin, degrees."""
    a, b, c = (math.radians(v) for v in (roll, yaw, pitch))
    about_z = [[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]]
    about_y = [[math.cos(b), 0, math.sin(b)], [0, 1, 0], [-math.sin(b), 0, math.cos(b)]]
    about_x = [[1, 0, 0], [0, math.cos(c), -math.sin(c)], [0, math.sin(c), math.cos(c)]]
    matrix = np.array(about_z) @ np.array(about_y) @ np.array(about_x)
    return (landmarks @ matrix.T).astype(np.float32)


@pytest.mark.parametrize(
    "moved",
    [
        pytest.param(lambda face: face + np.float32([80, -40, 12]), id="moved aside"),
        pytest.param(lambda face: face * np.float32(0.4), id="smaller"),
        pytest.param(lambda face: turned(face, roll=35), id="rolled"),
        pytest.param(lambda face: turned(face, yaw=30), id="turned"),
        pytest.param(lambda face: turned(face, pitch=-20), id="nodding"),
        pytest.param(lambda face: turned(face, 10, -25, 15) * 1.7 + 31, id="all at once"),
    ],
)
def test_the_head_may_move_as_it_likes(moved: object) -> None:
    face = make_face(opening=6)
    assert callable(moved)
    np.testing.assert_allclose(mouth_motion(moved(face)), mouth_motion(face), atol=2e-3)


def test_frames_are_read_one_by_one() -> None:
    frames = np.concatenate([make_face(1), turned(make_face(1, 12), roll=20), make_face(1, 5) * 2])
    alone = [mouth_motion(frame[None])[0] for frame in frames]
    np.testing.assert_allclose(mouth_motion(frames), np.stack(alone), atol=1e-5)


def test_opening_is_seen_in_units_of_the_eye_distance() -> None:
    closed, opened = mouth_motion(make_face(1)), mouth_motion(make_face(1, opening=20))
    moved = (opened - closed).reshape(-1, 2)
    assert closed.shape == (1, 2 * len(LIPS)) and closed.dtype == np.float32
    eyes = 63.0  # between the eyes' middles; the head's own vertical leans a little, with the nose
    lower = moved[LIPS.index(17)]
    assert lower[1] == pytest.approx(10 / eyes, rel=0.03)
    assert abs(lower[0]) < 1e-4
    assert moved[LIPS.index(0), 1] == pytest.approx(-10 / eyes, rel=0.03)


def test_a_mirrored_face_is_the_face_with_its_sides_changed() -> None:
    face = make_face(3, opening=8)
    face[:, LIPS[0]] += np.float32([5, 3, 0])  # one corner of the mouth pulled
    twice = mirrored(mirrored(face))
    used = [*LIPS, *ANCHORS]
    np.testing.assert_array_equal(twice[:, used], face[:, used])
    np.testing.assert_array_equal(mirrored(face)[:, 291], face[:, 61] * np.float32([-1, 1, 1]))
    plain, other = (mouth_motion(f).reshape(3, -1, 2) for f in (face, mirrored(face)))
    corner, opposite = LIPS.index(61), LIPS.index(291)
    np.testing.assert_allclose(other[:, opposite] * [-1, 1], plain[:, corner], atol=1e-4)
    assert np.abs(other[:, corner] - plain[:, corner]).max() > 0.01


def test_a_symmetric_face_is_its_own_mirror_image() -> None:
    face = turned(make_face(2, opening=8), roll=15)
    np.testing.assert_allclose(mouth_motion(mirrored(face)), mouth_motion(face), atol=1e-4)


def test_a_face_without_extent_gives_numbers() -> None:
    assert np.isfinite(mouth_motion(np.zeros((2, 478, 3), np.float32))).all()


def make_window(seconds: float, *, sound: bool = False, face: bool = False, crops: int = 0) -> Window:
    frames = round(seconds * FRAME_RATE)
    rng = np.random.default_rng(frames)
    return Window(
        0.0,
        seconds,
        waveform=rng.normal(0, 0.1, frames * 640).astype(np.float32) if sound else None,
        speech=np.ones(frames, bool) if sound else None,
        track=0 if face or crops else None,
        found=np.ones(frames, bool) if face else None,
        landmarks=make_face(frames) if face else None,
        face_crops=rng.integers(0, 256, (crops, 96, 96, 3), dtype=np.uint8) if crops else None,
        crop_frames=np.arange(crops) * 5 if crops else None,
        crop_landmarks=np.zeros((crops, 478, 2), np.float32) if crops else None,
    )


def test_windows_of_every_kind_share_a_batch() -> None:
    sound, mute, full = (
        make_window(1.0, sound=True),
        make_window(2.0, face=True, crops=4),
        make_window(1.6, sound=True, face=True, crops=2),
    )
    batch = collate([sound, mute, full])
    assert batch["waveform"].shape == (3, 40 * 640)
    assert batch["waveform_lengths"].tolist() == [16000, 0, 25600]
    assert batch["mouth"].shape == (3, 50, 2 * len(LIPS)) and batch["mouth_lengths"].tolist() == [0, 50, 40]
    assert batch["faces"].shape == (3, 10, 3, 96, 96) and batch["face_lengths"].tolist() == [0, 10, 8]
    assert batch["faces"].dtype is torch.uint8
    assert batch["speech"].sum(1).tolist() == [25, 0, 40] and batch["found"].sum(1).tolist() == [0, 50, 40]


def test_rows_hold_their_own_content_and_zeros_after_it() -> None:
    short, long = make_window(1.0, sound=True, crops=5), make_window(2.0, sound=True, crops=10)
    batch = collate([short, long])
    assert short.waveform is not None and short.face_crops is not None
    np.testing.assert_array_equal(batch["waveform"][0, :16000].numpy(), short.waveform)
    assert not batch["waveform"][0, 16000:].any() and not batch["faces"][0, 5:].any()
    np.testing.assert_array_equal(batch["faces"][0, 1].permute(1, 2, 0).numpy(), short.face_crops[1])


@pytest.mark.parametrize(
    ("frames", "held"),
    [
        ([0, 5, 10, 15, 20], [0, 1, 2, 3, 4]),
        ([0, 10], [0, 0, 1, 1, 1]),
        ([15], [0, 0, 0, 0, 0]),
        ([3, 8, 13, 18, 23], [0, 1, 2, 3, 4]),  # a window that starts between two crops
    ],
)
def test_face_crops_stand_at_their_time_and_are_held_where_one_is_missing(
    frames: list[int], held: list[int]
) -> None:
    window = replace(make_window(1.0, crops=len(frames)), crop_frames=np.array(frames))
    faces = collate([window])["faces"][0].permute(0, 2, 3, 1).numpy()
    assert window.face_crops is not None
    np.testing.assert_array_equal(faces, window.face_crops[held])


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ({"sound": True}, {"waveform", "waveform_lengths", "speech"}),
        ({"face": True}, {"mouth", "mouth_lengths", "found"}),
        ({"crops": 2}, {"faces", "face_lengths"}),
    ],
)
def test_what_no_window_has_is_not_in_the_batch(kind: dict[str, Any], names: set[str]) -> None:
    assert set(collate([make_window(1.0, **kind)] * 2)) == names


def test_sound_is_brought_to_whole_video_frames() -> None:
    window = make_window(1.0, sound=True)
    assert window.waveform is not None
    cut = Window(0.0, 1.0, waveform=window.waveform[:15_900])
    batch = collate([cut])
    assert batch["waveform"].shape == (1, 16000) and batch["waveform_lengths"].tolist() == [15_900]


def test_labels_stand_in_the_order_of_the_claims() -> None:
    row = label_row(Label(face_manipulation=True, lip_sync_mismatch=False))
    assert row[0] == 1 and math.isnan(row[1]) and row[2] == 0
