"""The contract of every forgery in the table: from the seed alone, labelled where it is, nothing else touched."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest
import soundfile
from commands import PORTRAIT, VOICE
from PIL import Image

from avdetect.errors import MissingDependencyError
from avdetect.faces import FaceFinder, crop_face
from avdetect.forgeries import CLAIM_OF, FORGERIES, WEIGHTS, Donor, Forged, Kind, draw, forge
from avdetect.forgeries.canvas import best_donor
from avdetect.forgeries.desync import UNNOTICED
from avdetect.forgeries.geometry import INNER_LIPS, OUTER_LIPS, warp
from avdetect.forgeries.text_to_speech import ENGINES
from avdetect.types import Claim, Floats, Window

SIZE, CROPS, STEPS = 112, 3, 50
FACES = [name for name, member in FORGERIES.items() if member.kind is Kind.FACE]
VOICES = [name for name, member in FORGERIES.items() if member.kind is Kind.VOICE]
SYNCS = [name for name, member in FORGERIES.items() if member.kind is Kind.SYNC]


@cache
def sound() -> Floats:
    samples, rate = soundfile.read(VOICE, dtype="float32")
    at = np.arange(int(len(samples) * 16_000 / rate)) * rate / 16_000
    return np.interp(at, np.arange(len(samples)), samples).astype(np.float32)


@cache
def face() -> tuple[np.ndarray, np.ndarray]:
    """A photograph's face [SIZE, SIZE, 3] and its landmarks [478, 2]."""
    image = np.asarray(Image.open(PORTRAIT).convert("RGB"))
    with FaceFinder() as finder:
        return crop_face(image, finder.find(image)[0], SIZE)


@cache
def window(other: bool = False) -> Window:
    """Two seconds of speech and a face whose mouth opens from crop to crop; `other`: another person's."""
    crop, points = face()
    crops, landmarks = [], []
    for step in range(CROPS):
        moved = points.copy()
        moved[list(OUTER_LIPS[11:])] += (0, 1.5 * step)
        moved[list(INNER_LIPS[11:])] += (0, 1.5 * step)
        crops.append(warp(crop, points, moved))
        landmarks.append(moved)
    images, places = np.stack(crops), np.stack(landmarks).astype(np.float32)
    if other:
        turn = cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), 4, 0.95)
        images = np.stack(
            [255 - cv2.warpAffine(i, turn, (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT) for i in images]
        )
        places = (places @ turn[:, :2].T + turn[:, 2]).astype(np.float32)
    begin = 56_000 if other else 8_000
    speech = np.zeros(STEPS, bool)
    speech[5:45] = True
    mesh = np.pad(places[np.arange(STEPS) * CROPS // STEPS], ((0, 0), (0, 0), (0, 1)))
    mesh[..., 0] += np.linspace(0, 5, STEPS)[:, None]  # every frame is its own
    return Window(
        4.0,
        4.0 + STEPS / 25,
        waveform=sound()[begin : begin + STEPS * 640],
        speech=speech,
        track=0,
        found=np.ones(STEPS, bool),
        landmarks=mesh.astype(np.float32),
        face_crops=images,
        crop_frames=np.arange(CROPS) * 5,
        crop_landmarks=places,
    )


def made(name: str, seed: int = 0, strength: float = 1.0) -> Forged:
    if name == "text_to_speech" and not any(shutil.which(program) for program in ENGINES):
        pytest.skip(f"none of {', '.join(ENGINES)} is installed")
    return forge(name, window(), np.random.default_rng(seed), window(True), strength)


def content(one: Window) -> list[np.ndarray]:
    """What a forgery may change."""
    parts = (one.waveform, one.face_crops, one.landmarks, one.speech)
    assert all(part is not None for part in parts)
    return [np.asarray(part) for part in parts]


def same(one: Window, other: Window) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(content(one), content(other), strict=True))


def change(forged: Forged) -> float:
    """How far what is heard, or seen of the face, lies from the source."""
    return sum(
        float(np.mean(np.abs(a.astype(np.float64) - b)))
        for a, b in zip(content(forged.window)[:3], content(window())[:3], strict=True)
    )


def test_every_forgery_has_a_weight_and_every_weight_a_forgery() -> None:
    listed = {name: kind for kind, weights in WEIGHTS.items() for name in weights}
    assert listed == {name: member.kind for name, member in FORGERIES.items()}
    assert all(weight >= 0 for weights in WEIGHTS.values() for weight in weights.values())


@pytest.mark.parametrize("kind", Kind)
def test_a_kind_is_drawn_by_its_weights_and_needs_no_donor_where_there_is_none(kind: Kind) -> None:
    rng = np.random.default_rng(0)
    drawn = {draw(kind, rng, donor=True) for _ in range(400)}
    assert drawn == {name for name, weight in WEIGHTS[kind].items() if weight}
    alone = {draw(kind.value, rng) for _ in range(200)}
    assert alone == {name for name in drawn if FORGERIES[name].donor is not Donor.NEEDED}


@pytest.mark.parametrize("name", FORGERIES)
class TestEveryForgery:
    def test_is_drawn_from_the_seed_alone(self, name: str) -> None:
        one, again = made(name, 3), made(name, 3)
        assert same(one.window, again.window) and one.label == again.label
        assert not all(same(one.window, made(name, seed).window) for seed in (4, 5, 6))

    def test_leaves_its_inputs_alone(self, name: str) -> None:
        kept = [part.copy() for source in (window(), window(True)) for part in content(source)]
        made(name, 1)
        after = [part for source in (window(), window(True)) for part in content(source)]
        assert all(np.array_equal(a, b) for a, b in zip(kept, after, strict=True))

    def test_keeps_shapes_and_types(self, name: str) -> None:
        for a, b in zip(content(made(name).window), content(window()), strict=True):
            assert a.shape == b.shape and a.dtype == b.dtype and np.isfinite(a).all()

    def test_makes_its_claim_true_within_the_window(self, name: str) -> None:
        claim = CLAIM_OF[FORGERIES[name].kind]
        for seed in range(3):
            forged = made(name, seed)
            assert forged.label[claim] is True and forged.method
            spans = [s for s in forged.label.segments if s.claim is claim]
            assert spans and all(4.0 <= s.start < s.end <= 6.0 for s in spans)
            assert not same(forged.window, window())

    def test_is_nothing_at_strength_zero_and_grows_with_it(self, name: str) -> None:
        assert same(made(name, 2, 0.0).window, window())
        weak, half, full = (np.mean([change(made(name, s, x)) for s in range(4)]) for x in (0.25, 0.5, 1.0))
        assert 0 < weak <= half <= full and weak < full

    def test_says_what_it_lacks(self, name: str) -> None:
        if name == "text_to_speech":
            made(name)
        with pytest.raises(ValueError, match=r"needs|only where"):
            forge(name, Window(0.0, 1.0), np.random.default_rng(0), window(True))
        if FORGERIES[name].donor is Donor.NEEDED:
            with pytest.raises(ValueError, match="needs a donor"):
                forge(name, window(), np.random.default_rng(0))


@pytest.mark.parametrize("name", FACES)
def test_a_forged_face_is_touched_within_its_mask_alone(name: str) -> None:
    plain = window().face_crops
    assert plain is not None
    for seed in range(6):
        forged = made(name, seed)
        crops, masks = forged.window.face_crops, forged.masks
        assert crops is not None and masks is not None and masks.shape == crops.shape[:3]
        assert masks.min() >= 0 and masks.max() <= 1
        apart = np.abs(crops.astype(int) - plain).max(-1)
        assert not apart[masks == 0].any()
        assert (apart[masks > 0.5] > 0).mean() > 0.05
        kept = replace(forged.window, face_crops=plain)
        assert kept == replace(window(), face_crops=plain) or same(kept, replace(window(), face_crops=plain))


@pytest.mark.parametrize("name", VOICES)
def test_a_forged_voice_is_heard_within_its_segments_alone(name: str) -> None:
    plain = window().waveform
    assert plain is not None
    for seed in range(4):
        forged = made(name, seed)
        inside = np.zeros(len(plain), bool)
        for segment in forged.label.segments:
            first, end = round((segment.start - 4.0) * 16_000), round((segment.end - 4.0) * 16_000)
            inside[first:end] = True
            assert np.mean(plain[first:end] != forged.window.waveform[first:end]) > 0.9  # type: ignore[index]
        assert forged.window.waveform is not None
        np.testing.assert_array_equal(forged.window.waveform[~inside], plain[~inside])
        assert np.array_equal(forged.window.face_crops, window().face_crops)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["partial_resynthesis", "word_edit"])
def test_a_partial_edit_leaves_most_of_the_sentence(name: str) -> None:
    shares = [
        sum(s.length for s in made(name, seed).label.segments if s.claim is Claim.VOICE_CLONING)
        for seed in range(8)
    ]
    assert all(0.1 < share < 2.0 for share in shares) and len({round(s, 3) for s in shares}) > 4


@pytest.mark.parametrize("name", ["word_edit", "text_to_speech"])
def test_other_words_are_a_mismatch_where_a_mouth_is_seen(name: str) -> None:
    assert made(name).label.lip_sync_mismatch is True
    unseen = replace(window(), track=None, found=None, landmarks=None)
    assert forge(name, unseen, np.random.default_rng(0)).label.lip_sync_mismatch is None


@pytest.mark.parametrize("name", ["swap", "dubbed"])
def test_exchanged_sound_stays_within_its_segments(name: str) -> None:
    plain = window().waveform
    for seed in range(4):
        forged = made(name, seed, 0.6)
        inside = np.zeros(STEPS, bool)
        for s in forged.label.segments:
            inside[round((s.start - 4) * 25) : round((s.end - 4) * 25)] = True
        assert forged.window.waveform is not None and plain is not None
        apart = (forged.window.waveform != plain).reshape(STEPS, 640).mean(1)
        assert not apart[~inside].any() and (apart[inside] > 0.9).all()


@pytest.mark.parametrize("name", ["shift", "drift", "retimed"])
def test_moved_sound_is_off_by_more_than_is_noticed_within_its_segments_and_by_less_outside(
    name: str,
) -> None:
    """A sound that counts its own samples tells where each came from."""
    counting = np.arange(STEPS * 640, dtype=np.float32) + 1
    counted = replace(window(), waveform=counting)
    for seed in range(6):
        forged = forge(name, counted, np.random.default_rng(seed))
        out = forged.window.waveform
        assert out is not None
        lag = np.abs(np.arange(STEPS) * 640 + 1 - out[::640]) / 640
        inside = np.zeros(STEPS, bool)
        for s in forged.label.segments:
            inside[round((s.start - 4) * 25) : round((s.end - 4) * 25)] = True
        known = out[::640] > 0  # beyond the clip's ends there is nothing to move
        assert (lag[inside & known] > UNNOTICED - 0.01).all() and (
            lag[~inside & known] <= UNNOTICED + 0.01
        ).all()


@pytest.mark.parametrize("name", ["frozen", "looped"])
def test_a_reordered_picture_tells_which_frames_it_shows(name: str) -> None:
    for seed in range(4):
        forged = made(name, seed)
        assert forged.frames is not None and window().landmarks is not None
        np.testing.assert_array_equal(forged.window.landmarks, window().landmarks[forged.frames])  # type: ignore[index]
        assert np.array_equal(forged.window.waveform, window().waveform)  # type: ignore[arg-type]
        (segment,) = forged.label.segments
        first, end = round((segment.start - 4) * 25), round((segment.end - 4) * 25)
        moved = forged.frames != np.arange(STEPS)
        assert not moved[:first].any() and not moved[end:].any() and moved[first:end].mean() > 0.8


def test_shifted_sound_leaves_no_silence_behind() -> None:
    for seed in range(4):
        out = made("shift", seed).window.waveform
        assert out is not None and sorted(out.tolist()) == sorted(
            sound()[8_000 : 8_000 + STEPS * 640].tolist()
        )


def test_the_best_donor_looks_the_same_way() -> None:
    turned = window(True)
    assert turned.crop_landmarks is not None
    squeezed = replace(turned, crop_landmarks=turned.crop_landmarks * np.float32([0.4, 1.0]))
    assert best_donor(window(), [squeezed, turned]) is turned
    assert best_donor(window(), [Window(0.0, 1.0)]) is None


def test_a_machine_without_a_speech_engine_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from avdetect.forgeries import text_to_speech

    monkeypatch.setattr(text_to_speech.shutil, "which", lambda program: None)
    text_to_speech.engine.cache_clear()
    with pytest.raises(MissingDependencyError, match=r"no speech engine .*espeak-ng"):
        forge("text_to_speech", window(), np.random.default_rng(0))
    text_to_speech.engine.cache_clear()
