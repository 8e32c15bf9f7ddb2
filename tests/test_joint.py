"""Clips with picture and sound together, as training draws them: cut in time, forged in several respects, labelled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_recordings import FAKE, REAL, examples, recording

from avdetect import joint
from avdetect.errors import ConfigError
from avdetect.joint import forged_together, whole_piece
from avdetect.recordings import ExampleSet, MixSettings, Recording, collate_examples
from avdetect.types import CLAIMS, Claim, Item, Label

ONLY = {"voice": 0, "face": 0, "sync": 0, "whole": 4}


def test_a_piece_keeps_mouth_sound_and_crops_of_the_same_moments() -> None:
    window = recording(0).window
    assert window.face_crops is not None and window.waveform is not None and window.landmarks is not None
    numbered = replace(
        window,
        crop_landmarks=np.arange(8, dtype=np.float32)[:, None, None] + np.zeros((8, 478, 2), np.float32),
    )
    for seed in range(8):
        piece = whole_piece(numbered, np.random.default_rng(seed), 1.0, 2.0)
        assert piece.landmarks is not None and piece.waveform is not None and piece.crop_frames is not None
        (first,) = np.flatnonzero((window.landmarks == piece.landmarks[0]).all((1, 2)))[:1]
        assert np.array_equal(piece.waveform, window.waveform[first * 640 :][: len(piece.waveform)])
        assert piece.crop_landmarks is not None and len(piece.crop_frames) >= 1
        if first <= 35:  # the window's last crop is that of frame 35
            number = piece.crop_landmarks[:, 0, 0]
            assert np.allclose(number * 5 - first, piece.crop_frames)


def test_forgeries_of_a_real_clip_are_labelled_and_others_stay_as_known() -> None:
    window = whole_piece(recording(0).window, np.random.default_rng(0), 2.0, 2.0)
    donor = whole_piece(recording(1).window, np.random.default_rng(1), 2.0, 2.0)
    seen, repainted = set(), []
    for seed in range(30):
        changed, label = forged_together(window, REAL, donor, np.random.default_rng(seed))
        assert any(label[claim] for claim in CLAIMS)
        assert label[Claim.FACE_MANIPULATION] is not None and label[Claim.VOICE_CLONING] is not None
        assert changed.steps == window.steps
        if label.voice_cloning:
            assert not np.array_equal(changed.waveform, window.waveform)  # type: ignore[arg-type]
        if label.face_manipulation:
            repainted.append(not np.array_equal(changed.face_crops, window.face_crops))  # type: ignore[arg-type]
        seen.add(tuple(label[claim] for claim in CLAIMS))
    assert np.mean(repainted) > 0.7  # some do little to a still without texture
    assert len(seen) > 4  # alone and together


def test_only_what_is_known_to_be_real_is_forged() -> None:
    window = whole_piece(recording(0).window, np.random.default_rng(0), 2.0, 2.0)
    for known in (Label(face_manipulation=True), Label()):
        assert forged_together(window, known, window, np.random.default_rng(0)) == (window, known)
    for seed in range(6):
        _, label = forged_together(
            window, Label(face_manipulation=True, voice_cloning=False), window, np.random.default_rng(seed)
        )
        assert (
            label.face_manipulation is True
            and label.voice_cloning is True
            and label.lip_sync_mismatch is None
        )


def test_what_cannot_be_done_to_a_clip_is_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    window = whole_piece(recording(0).window, np.random.default_rng(0), 2.0, 2.0)
    silent = Label(voice_cloning=False)
    names = iter(["swap_same_sex", "swap_same_sex", "griffin_lim"])
    monkeypatch.setattr(joint, "draw", lambda *_, **__: next(names))
    _, label = forged_together(
        window, silent, replace(window, waveform=0 * window.waveform), np.random.default_rng(0)
    )
    assert label.voice_cloning is True
    monkeypatch.setattr(joint, "draw", lambda *_, **__: "swap_same_sex")
    assert forged_together(
        window, silent, replace(window, waveform=0 * window.waveform), np.random.default_rng(0)
    ) == (window, silent)


def test_every_second_example_is_fake_and_all_have_all_streams() -> None:
    drawn = examples([recording(0), recording(1, sign=-1.0, source="b"), recording(2, FAKE)], **ONLY)
    labels = [drawn[index].label for index in range(16)]
    for index, label in enumerate(labels):
        assert any(label[claim] for claim in CLAIMS) is bool(index % 2)
    batch = collate_examples([drawn[index] for index in range(4)])
    assert {"waveform", "mouth", "faces", "labels"} <= batch.keys()
    assert bool((batch["face_lengths"] > 0).all()) and bool((batch["mouth_lengths"] > 0).all())


def test_clips_without_sound_cannot_be_drawn_whole() -> None:
    silent = recording(0)
    silent = Recording(Item(silent.item.path, REAL), replace(silent.window, waveform=None, speech=None))
    with pytest.raises(ConfigError, match=r"fit for 'whole' examples; set mix.whole=0"):
        ExampleSet([silent], MixSettings(**ONLY), 1, 0)
