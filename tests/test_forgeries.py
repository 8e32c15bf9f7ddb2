"""Forgeries made on the fly: same words, same face, same level, and yet not the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_augment import pictures, speechlike

from avdetect.forgeries.desync import shift, swapped
from avdetect.forgeries.resynthesis import RESYNTHESES, draw_resynthesis, resynthesise
from avdetect.forgeries.self_blending import REGIONS, self_blended
from avdetect.types import Claim, Floats, Label, Window

SIZE = 112


@pytest.mark.parametrize("kind", RESYNTHESES)
class TestEveryResynthesis:
    def test_is_drawn_from_the_seed_alone(self, kind: str) -> None:
        one, again, other = (resynthesise(speechlike(), np.random.default_rng(s), kind)[0] for s in (3, 3, 5))
        np.testing.assert_array_equal(one, again)
        assert not np.array_equal(one, other)

    def test_keeps_length_level_type_and_its_input(self, kind: str) -> None:
        sound = speechlike()
        kept = sound.copy()
        for seed in range(4):
            out, name = resynthesise(sound, np.random.default_rng(seed), kind)
            assert name == kind and out.shape == sound.shape and out.dtype == np.float32
            assert np.sqrt(np.mean(out**2)) == pytest.approx(np.sqrt(np.mean(sound**2)), rel=1e-3)
        np.testing.assert_array_equal(sound, kept)

    def test_says_the_same_at_the_same_time_in_another_way(self, kind: str) -> None:
        sound = speechlike(2.0)
        for seed in range(8):
            out, _ = resynthesise(sound, np.random.default_rng(seed), kind)
            loudness = [np.sqrt(np.mean(x.reshape(-1, 640) ** 2, 1)) for x in (sound, out)]
            assert np.corrcoef(*loudness)[0, 1] > 0.85
            assert np.mean((out - sound) ** 2) > 1e-3 * np.mean(sound**2)

    def test_leaves_silence_finite_and_silent(self, kind: str) -> None:
        out, _ = resynthesise(np.zeros(24_000, np.float32), np.random.default_rng(0), kind)
        assert np.isfinite(out).all() and np.abs(out).max() < 1e-3

    def test_takes_the_shortest_piece_that_training_gives_it(self, kind: str) -> None:
        out, _ = resynthesise(speechlike(0.8), np.random.default_rng(0), kind)
        assert len(out) == 12_800 and np.isfinite(out).all()

    def test_leaves_torchs_own_dice_alone(self, kind: str) -> None:
        import torch

        torch.manual_seed(0)
        expected = torch.rand(1)
        torch.manual_seed(0)
        resynthesise(speechlike(0.8), np.random.default_rng(0), kind)
        assert torch.equal(torch.rand(1), expected)


def test_a_resynthesis_is_drawn_where_none_is_named() -> None:
    rng = np.random.default_rng(0)
    assert {draw_resynthesis(rng) for _ in range(200)} == set(RESYNTHESES)
    assert resynthesise(speechlike(0.8), np.random.default_rng(4))[1] in RESYNTHESES


def face_window(crops: int = 2) -> Window:
    """A window with textured crops and landmarks in a disc about their middle."""
    turn, reach = np.random.default_rng(0).uniform(0, 1, (2, 478))
    points = SIZE / 2 + 28 * np.sqrt(reach)[:, None] * np.stack(
        [np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn)], 1
    )
    return Window(
        0.0,
        crops / 5,
        track=0,
        face_crops=pictures(crops, SIZE),
        crop_frames=np.arange(crops) * 5,
        crop_landmarks=np.tile(points.astype(np.float32), (crops, 1, 1)),
    )


def blended(seed: int) -> tuple[Window, Label]:
    return self_blended(face_window(), np.random.default_rng(seed))


def crops_of(window: Window) -> np.ndarray:
    assert window.face_crops is not None
    return window.face_crops


def test_a_self_blended_face_is_labelled_as_one_and_drawn_from_the_seed() -> None:
    window, label = blended(3)
    assert label == Label(face_manipulation=True)
    np.testing.assert_array_equal(crops_of(window), crops_of(blended(3)[0]))
    assert not np.array_equal(crops_of(window), crops_of(blended(4)[0]))


def test_self_blending_leaves_its_input_and_everything_but_the_crops() -> None:
    window = face_window()
    kept = crops_of(window).copy()
    out, _ = self_blended(window, np.random.default_rng(0))
    np.testing.assert_array_equal(crops_of(window), kept)
    assert crops_of(out).shape == kept.shape and crops_of(out).dtype == np.uint8
    assert out.crop_landmarks is window.crop_landmarks and out.crop_frames is window.crop_frames


def test_self_blending_changes_the_face_and_often_leaves_what_surrounds_it() -> None:
    plain, seeds = crops_of(face_window()), range(24)
    border = np.ones((SIZE, SIZE), bool)
    border[6:-6, 6:-6] = False
    untouched = 0
    for seed in seeds:
        out = crops_of(blended(seed)[0])
        assert np.abs(out.astype(int) - plain).mean() > 0.2, seed
        untouched += np.array_equal(out[:, border], plain[:, border])
    assert len(seeds) / 3 < untouched < len(seeds)


def test_blending_a_face_with_its_like_darkens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing changed and nothing moved, the forgery is the picture: no trace of arithmetic is left."""
    import avdetect.forgeries.self_blending as module

    monkeypatch.setattr(module, "_changed", lambda crops, rng: crops)
    monkeypatch.setattr(module, "_moved", lambda crop, *_: crop)
    for seed in range(4):
        np.testing.assert_array_equal(crops_of(blended(seed)[0]), crops_of(face_window()))


def test_regions_name_landmarks_of_the_mesh_once() -> None:
    for name, points in REGIONS.items():
        assert len(set(points)) == len(points) and all(0 <= p < 478 for p in points), name


def sound_window(seconds: float = 2.0, seed: int = 0) -> Window:
    speech = np.zeros(round(seconds * 25), bool)
    speech[10:30] = True
    return Window(0.0, seconds, waveform=speechlike(seconds, seed), speech=speech)


def waveform_of(window: Window) -> Floats:
    assert window.waveform is not None
    return window.waveform


def speech_of(window: Window) -> np.ndarray:
    assert window.speech is not None
    return window.speech


def test_sound_moved_by_a_positive_number_of_frames_is_late() -> None:
    window = sound_window()
    late, early = shift(window, 5), shift(window, -5)
    np.testing.assert_array_equal(waveform_of(late)[3200:], waveform_of(window)[:-3200])
    assert not waveform_of(late)[:3200].any() and not waveform_of(early)[-3200:].any()
    np.testing.assert_array_equal(waveform_of(early)[:-3200], waveform_of(window)[3200:])
    assert np.flatnonzero(speech_of(late))[0] == 15 and np.flatnonzero(speech_of(early))[0] == 5
    np.testing.assert_array_equal(waveform_of(shift(window, 0)), waveform_of(window))


def test_moving_leaves_its_input_alone() -> None:
    window = sound_window()
    kept = waveform_of(window).copy()
    shift(window, 7)
    np.testing.assert_array_equal(waveform_of(window), kept)


@pytest.mark.parametrize("frames", [25, -25, 15, -15, 10, -10])
def test_sound_moved_out_of_a_short_window_is_silence(frames: int) -> None:
    window = Window(0.0, 0.4, waveform=speechlike(0.4), speech=np.ones(10, bool))
    out = shift(window, frames)
    assert len(waveform_of(out)) == 6400 and not waveform_of(out).any() and not speech_of(out).any()


def test_a_swap_takes_the_others_sound_and_speech_and_keeps_the_picture() -> None:
    window, other = replace(sound_window(), track=0, found=np.ones(50, bool)), sound_window(seed=1)
    out, label = swapped(window, other)
    assert label[Claim.LIP_SYNC_MISMATCH] is True and label[Claim.VOICE_CLONING] is None
    np.testing.assert_array_equal(waveform_of(out), waveform_of(other))
    np.testing.assert_array_equal(speech_of(out), speech_of(other))
    assert out.found is window.found and out.track == 0


def test_a_shorter_sound_starts_over_and_a_longer_one_is_cut() -> None:
    short, long = sound_window(1.6), sound_window(3.0)
    out, _ = swapped(sound_window(2.0), short)
    np.testing.assert_array_equal(waveform_of(out)[25_600:], waveform_of(short)[:6400])
    assert len(waveform_of(swapped(short, long)[0])) == 25_600
    assert len(speech_of(swapped(short, long)[0])) == 40


def test_forgeries_say_what_they_lack() -> None:
    mute = Window(0.0, 1.0)
    with pytest.raises(ValueError, match="needs sound"):
        shift(mute, 3)
    with pytest.raises(ValueError, match="needs sound in both"):
        swapped(sound_window(), mute)
    with pytest.raises(ValueError, match="needs face crops"):
        self_blended(mute, np.random.default_rng(0))
