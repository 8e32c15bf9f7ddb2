"""The contract of every forgery in the table: from the seed alone, labelled where it is, nothing else touched."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cache
from itertools import pairwise

import cv2
import numpy as np
import pytest
import soundfile
from commands import PORTRAIT, VOICE
from PIL import Image

from avdetect.errors import MissingDependencyError
from avdetect.faces import FaceFinder, crop_face
from avdetect.forgeries import (
    CLAIM_OF,
    FORGERIES,
    WEIGHTS,
    Act,
    Donor,
    Forged,
    Kind,
    clash,
    compose,
    draw,
    forge,
)
from avdetect.forgeries.canvas import best_donor
from avdetect.forgeries.desync import UNNOTICED, reordered, same_sound
from avdetect.forgeries.family import chained, united
from avdetect.forgeries.geometry import EYES, INNER_LIPS, OUTER_LIPS, SKULL, placed, similarity, warp
from avdetect.forgeries.text_to_speech import ENGINES
from avdetect.forgeries.voicing import median_pitch, pulses, same_sex
from avdetect.types import Bools, Claim, Floats, Label, Segment, Window

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
def mouths() -> np.ndarray:
    """[STEPS, 32, 32] pictures of which each is its own."""
    noise = np.random.default_rng(0).integers(0, 256, (STEPS, 32, 32), dtype=np.uint8)
    return np.stack([cv2.GaussianBlur(one, (0, 0), 2) for one in noise])


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
        mouth_crops=mouths(),
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


@pytest.mark.parametrize("name", ["swap", "swap_same_sex", "swap_same_person", "dubbed"])
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


@pytest.mark.parametrize("name", ["shift", "swap", "drift", "retimed"])
def test_silence_about_the_speech_stays_as_it_was(name: str) -> None:
    """Where a clip begins and ends to speak would tell the class."""
    for seed in range(4):
        out = made(name, seed).window
        assert out.waveform is not None and window().waveform is not None
        np.testing.assert_array_equal(out.waveform[: 5 * 640], window().waveform[: 5 * 640])  # type: ignore[index]
        np.testing.assert_array_equal(out.waveform[45 * 640 :], window().waveform[45 * 640 :])  # type: ignore[index]


@pytest.mark.parametrize("name", ["swap", "dubbed"])
def test_exchanged_sound_is_as_loud_as_what_it_replaces(name: str) -> None:
    quiet = replace(window(True), waveform=window(True).waveform * np.float32(0.1))  # type: ignore[operator]
    for seed in range(4):
        out = forge(name, window(), np.random.default_rng(seed), quiet).window.waveform
        assert np.std(out) == pytest.approx(np.std(window().waveform), rel=0.03)  # type: ignore[arg-type]


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


def hummed(hertz: float) -> Floats:
    """Two seconds of a voice whose pitch goes up and down by a twentieth."""
    turn = np.sin(2 * np.pi * 2.5 * np.arange(32_000) / 16_000)
    return 0.1 * pulses((hertz * (1 + 0.05 * turn)).astype(np.float32))


def test_sex_is_told_by_the_median_pitch_of_what_is_voiced() -> None:
    half = np.concatenate([hummed(110), np.zeros(32_000, np.float32)])
    assert median_pitch(half) == pytest.approx(110, rel=0.05)
    assert same_sex(hummed(110), hummed(150)) and same_sex(hummed(180), hummed(260))
    assert not same_sex(hummed(110), hummed(220)) and not same_sex(hummed(220), np.zeros(32_000, np.float32))


def test_speech_of_the_same_sex_is_not_taken_from_the_other() -> None:
    man, woman = (replace(window(), waveform=hummed(hertz)) for hertz in (110, 220))
    with pytest.raises(ValueError, match="of the other sex"):
        forge("swap_same_sex", man, np.random.default_rng(0), woman)


def test_a_recording_is_known_again_moved_noisy_and_in_part() -> None:
    one, rng = sound()[:48_000], np.random.default_rng(0)
    noisy = np.roll(one, 7000) + rng.normal(0, 0.1 * one.std(), len(one)).astype(np.float32)
    assert same_sound(one, noisy) and same_sound(one, one[16_000:34_000])
    assert not same_sound(one, sound()[50_000:98_000])
    with pytest.raises(ValueError, match="part of the clip's own"):
        forge("swap", window(), rng, window())


def spans(forged: Forged, claim: Claim) -> Bools:
    """[STEPS] where the label's segments of a claim are."""
    inside = np.zeros(STEPS, bool)
    for s in forged.label.segments:
        if s.claim is claim:
            inside[round((s.start - 4) * 25) : round((s.end - 4) * 25)] = True
    return inside


def mouth_shape(landmarks: Floats) -> Floats:
    """Inner lips [T, K, 2] as seen from the skull of the first row."""
    skull, lips = list(SKULL), list(INNER_LIPS)
    first = landmarks[0, skull, :2]
    return np.stack([placed(one[lips, :2], similarity(one[skull, :2], first)) for one in landmarks])


def test_a_held_mouth_stands_or_loops_while_the_rest_of_the_face_goes_on() -> None:
    plain, seen = window(), set()
    assert plain.landmarks is not None and plain.mouth_crops is not None
    for seed in range(12):
        forged = made("frozen_mouth", seed)
        held = spans(forged, Claim.LIP_SYNC_MISMATCH)
        np.testing.assert_array_equal(held, spans(forged, Claim.FACE_MANIPULATION))
        out, mouths = forged.window.landmarks, forged.window.mouth_crops
        assert out is not None and mouths is not None and forged.window.waveform is plain.waveform
        np.testing.assert_array_equal(out[~held], plain.landmarks[~held])
        np.testing.assert_array_equal(out[:, list(EYES)], plain.landmarks[:, list(EYES)])
        np.testing.assert_array_equal(mouths[~held], plain.mouth_crops[~held])
        np.testing.assert_array_equal(mouths[:, [0, -1]], plain.mouth_crops[:, [0, -1]])
        seen.add(forged.method)
        if forged.method == "frozen mouth":
            assert np.ptp(mouth_shape(out[held]), axis=0).max() < 0.01
            assert np.abs(np.diff(mouths[held, 8:-8, 8:-8].astype(int), axis=0)).max() <= 1
    assert seen == {"frozen mouth", "looped mouth"}


def test_a_held_mouth_is_painted_in_its_stretch_within_its_mask() -> None:
    plain, full = window().face_crops, window().crop_frames
    assert plain is not None and full is not None
    for seed in range(8):
        forged = made("frozen_mouth", seed)
        crops, masks = forged.window.face_crops, forged.masks
        assert crops is not None and masks is not None
        held = spans(forged, Claim.LIP_SYNC_MISMATCH)[full]
        assert masks[held].max(initial=1.0) > 0.9 and not masks[~held].any()
        assert not np.abs(crops.astype(int) - plain).max(-1)[masks == 0].any()


def test_a_face_that_is_out_of_view_has_no_held_mouth() -> None:
    hidden = np.ones(STEPS, bool)
    hidden[20:30] = False
    forged = forge("frozen_mouth", replace(window(), found=hidden), np.random.default_rng(1))
    assert not spans(forged, Claim.FACE_MANIPULATION)[20:30].any()
    blind = replace(window(), face_crops=None, crop_frames=None, crop_landmarks=None)
    assert forge("frozen_mouth", blind, np.random.default_rng(1)).label.face_manipulation is None


TOGETHER = [
    ("mouth", "griffin_lim"),
    ("self_blended", "swap"),
    ("looped", "frozen_mouth"),
    ("shift", "word_edit", "flicker"),
    ("frozen", "looped", "dubbed"),
]


def composed(names: tuple[str, ...], seed: int = 0, strength: float = 0.6) -> Forged:
    return compose(names, window(), np.random.default_rng(seed), window(True), strength)


@pytest.mark.parametrize("names", TOGETHER, ids="+".join)
class TestEveryComposition:
    def test_is_drawn_from_the_seed_alone_whatever_the_order_of_names(self, names: tuple[str, ...]) -> None:
        one, turned = composed(names, 3), composed(names[::-1], 3)
        assert same(one.window, turned.window) and one.label == turned.label and one.method == turned.method
        assert not all(same(one.window, composed(names, seed).window) for seed in (4, 5, 6))

    def test_makes_every_claim_true_with_segments_apart(self, names: tuple[str, ...]) -> None:
        forged = composed(names)
        assert forged.method.count(" + ") == len(names) - 1
        for claim in {CLAIM_OF[FORGERIES[name].kind] for name in names}:
            stretches = [s for s in forged.label.segments if s.claim is claim]
            assert forged.label[claim] is True and stretches
            assert all(a.end < b.start for a, b in pairwise(stretches))

    def test_touches_nothing_outside_the_union(self, names: tuple[str, ...]) -> None:
        for seed in range(3):
            forged = composed(names, seed)
            shown = window() if forged.frames is None else reordered(window(), forged.frames)
            heard = spans(forged, Claim.LIP_SYNC_MISMATCH) | spans(forged, Claim.VOICE_CLONING)
            if any(FORGERIES[name].act in (Act.MOVE_SOUND, Act.REPLACE_SOUND, Act.SPEAK) for name in names):
                apart = (forged.window.waveform != shown.waveform).reshape(STEPS, 640)  # type: ignore[union-attr]
                edges = heard | np.roll(heard, 1) | np.roll(heard, -1)  # words begin within a frame
                assert not apart[~edges].any()
            moved = np.arange(STEPS) if forged.frames is None else forged.frames
            assert np.array_equal(moved[~heard], np.arange(STEPS)[~heard])
            crops, plain = forged.window.face_crops, shown.face_crops
            assert crops is not None and plain is not None
            touched = np.zeros(crops.shape[:3], bool) if forged.masks is None else forged.masks > 0
            np.testing.assert_array_equal(crops[~touched], plain[~touched])


def test_a_chain_joins_labels_masks_and_orders() -> None:
    def stretch(a: float, b: float, claim: Claim) -> Segment:
        return Segment(a, b, claim)

    face, sync = Claim.FACE_MANIPULATION, Claim.LIP_SYNC_MISMATCH
    one = Forged(
        window(),
        Label(None, None, True, (stretch(4, 5, sync),)),
        "one",
        np.full((1, 2, 2), 0.25, np.float32),
        np.array([0, 0, 1]),
    )
    two = Forged(
        window(True),
        Label(True, None, True, (stretch(4.5, 6, sync), stretch(4, 4.2, face))),
        "two",
        np.float32([[[0, 1], [0, 0]]]),
        np.array([2, 1, 1]),
    )
    both = chained(one, two)
    assert both.window is two.window and both.method == "one + two"
    assert both.label == Label(True, None, True, (stretch(4, 4.2, face), stretch(4, 6, sync)))
    np.testing.assert_array_equal(both.masks, np.float32([[[0.25, 1], [0.25, 0.25]]]))  # type: ignore[arg-type]
    np.testing.assert_array_equal(both.frames, [1, 0, 0])  # type: ignore[arg-type]
    assert united([stretch(2, 3, sync), stretch(0, 1, sync)]) == (stretch(0, 1, sync), stretch(2, 3, sync))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), "one or more"),
        (("mouth", "mouth"), "none of them twice"),
        (("drift", "mouth", "shift"), "moves the sound twice"),
    ],
)
def test_what_cannot_be_composed_is_told(names: tuple[str, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        composed(names)
    assert clash(("shift", "swap", "griffin_lim", "mouth")) is None
