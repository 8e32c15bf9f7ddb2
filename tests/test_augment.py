"""What both classes go through: from a seed, at the same length, never broken by silence."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from avdetect.augment import AUDIO, CODECS, band_limit, degrade_audio, noise, quantise, transcode
from avdetect.augment_faces import FACES, colour, degrade_faces, reframe
from avdetect.types import Bytes, Floats

Rng = np.random.Generator
SoundChange = Callable[[Floats, Rng], Floats]
FaceChange = Callable[[Bytes, Rng], Bytes]


def speechlike(seconds: float = 1.5, seed: int = 0) -> Floats:
    """Harmonics of a gliding voice in syllables, with a little breath [S]."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * 16_000)) / 16_000
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * t)) / 16_000
    voice = sum(np.sin(k * phase + k) / k for k in range(1, 25))
    loud = np.clip(np.sin(2 * np.pi * 3.1 * t), 0, 1)
    return (0.08 * voice * loud + 0.003 * rng.standard_normal(len(t))).astype(np.float32)


def pictures(count: int = 2, size: int = 96) -> Bytes:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
    return np.stack([cv2.resize(c, (size, size), interpolation=cv2.INTER_CUBIC) for c in coarse])


@pytest.mark.parametrize("change", AUDIO, ids=lambda change: change.__name__)
class TestEverySoundChange:
    def test_is_drawn_from_the_seed_alone(self, change: SoundChange) -> None:
        one, again, *others = (change(speechlike(), np.random.default_rng(s)) for s in (3, 3, 4, 5, 6))
        np.testing.assert_array_equal(one, again)
        assert any(not np.array_equal(one, other) for other in others)

    def test_keeps_length_type_and_its_input(self, change: SoundChange) -> None:
        sound = speechlike()
        kept = sound.copy()
        for seed in range(6):
            out = change(sound, np.random.default_rng(seed))
            assert out.shape == sound.shape and out.dtype == np.float32 and np.isfinite(out).all()
        np.testing.assert_array_equal(sound, kept)

    def test_leaves_the_speech_where_it_was(self, change: SoundChange) -> None:
        sound = speechlike()
        for seed in range(4):
            out = change(sound, np.random.default_rng(seed))
            level = np.sqrt(np.mean(out**2) / np.mean(sound**2))
            assert 0.2 < level < 5
            lags = np.correlate(out[4000:20000], sound[4160:19840], "valid")
            assert abs(int(np.argmax(lags)) - 160) <= 16  # a millisecond

    def test_leaves_silence_finite_and_silent(self, change: SoundChange) -> None:
        silence = np.zeros(8000, np.float32)
        out = change(silence, np.random.default_rng(0))
        assert np.isfinite(out).all() and np.abs(out).max() < 1e-3


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("seconds", [0.1, 1.5])
def test_a_codec_keeps_length_and_alignment(codec: str, seconds: float) -> None:
    for rate in (min(CODECS[codec][3]), max(CODECS[codec][3])):
        sound = speechlike(1.5)[4000 : 4000 + round(seconds * 16_000)]
        out = transcode(sound, codec, rate)
        assert out.shape == sound.shape and out.dtype == np.float32
        if seconds < 1:
            continue
        assert not np.array_equal(out, sound)
        lags = np.correlate(out[200:19000], sound[240:18960], "valid")
        assert abs(int(np.argmax(lags)) - 40) <= 3


def test_silence_survives_every_codec() -> None:
    for codec, (_, _, _, rates) in CODECS.items():
        assert np.abs(transcode(np.zeros(8000, np.float32), codec, rates[0])).max() < 1e-3


def test_the_telephone_takes_the_upper_band() -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    power = np.abs(np.fft.rfft(transcode(sound, "a-law", 64_000))) ** 2
    assert power[10_000:].sum() < 0.01 * power.sum()  # above 5 kHz


def test_noise_stands_at_its_level_under_the_speech() -> None:
    sound = speechlike()
    for seed in range(8):
        hiss = noise(sound, np.random.default_rng(seed)) - sound
        assert -46 < 20 * np.log10(hiss.std() / sound.std()) < -11


def test_rumble_is_taken_out_and_the_voices_band_left() -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    for seed in range(8):
        power = np.abs(np.fft.rfft(band_limit(sound, np.random.default_rng(seed)))) ** 2
        assert power[500:3000].mean() > 20 * power[:10].mean()


def test_quantising_leaves_few_levels() -> None:
    assert len(np.unique(quantise(speechlike(), np.random.default_rng(1)))) < 2**14


@pytest.mark.parametrize("change", FACES, ids=lambda change: change.__name__)
class TestEveryFaceChange:
    def test_is_drawn_from_the_seed_alone(self, change: FaceChange) -> None:
        one, again = (change(pictures(), np.random.default_rng(3)) for _ in range(2))
        np.testing.assert_array_equal(one, again)
        others = [change(pictures(), np.random.default_rng(seed)) for seed in range(4, 8)]
        assert any(not np.array_equal(one, other) for other in others)

    def test_keeps_shape_type_and_its_input(self, change: FaceChange) -> None:
        crops = pictures()
        kept = crops.copy()
        for seed in range(8):
            out = change(crops, np.random.default_rng(seed))
            assert out.shape == crops.shape and out.dtype == np.uint8
            assert out.mean() == pytest.approx(crops.mean(), abs=60)
        np.testing.assert_array_equal(crops, kept)

    def test_does_the_same_to_every_crop_of_a_window(self, change: FaceChange) -> None:
        crop = pictures(1)
        out = change(np.concatenate([crop, crop]), np.random.default_rng(5)).astype(int)
        if change.__name__ != "grain":  # noise is new in every picture
            np.testing.assert_array_equal(out[0], out[1])
        else:
            assert out[0].std() == pytest.approx(out[1].std(), rel=0.05)

    def test_changes_something(self, change: FaceChange) -> None:
        assert any(
            not np.array_equal(change(pictures(), np.random.default_rng(s)), pictures()) for s in range(4)
        )


def test_colour_keeps_black_dark_and_white_light() -> None:
    ends = np.zeros((1, 8, 8, 3), np.uint8)
    ends[:, 4:] = 255
    for seed in range(10):
        out = colour(ends, np.random.default_rng(seed))
        assert out[:, :4].max() < 60 and out[:, 4:].min() > 120


def test_reframing_mirrors_half_of_the_time() -> None:
    crops = np.zeros((1, 64, 64, 3), np.uint8)
    crops[:, :, :32] = 255
    sides = [reframe(crops, np.random.default_rng(seed))[0, 32, :8].mean() > 128 for seed in range(60)]
    assert 0.3 < np.mean(sides) < 0.7


def test_strength_zero_changes_nothing_and_strength_one_nearly_always_something() -> None:
    sound, crops = speechlike(0.5), pictures(1, 48)
    np.testing.assert_array_equal(degrade_audio(sound, np.random.default_rng(0), 0.0), sound)
    np.testing.assert_array_equal(degrade_faces(crops, np.random.default_rng(0), 0.0), crops)
    heard = [not np.array_equal(degrade_audio(sound, np.random.default_rng(s)), sound) for s in range(20)]
    seen = [not np.array_equal(degrade_faces(crops, np.random.default_rng(s)), crops) for s in range(20)]
    assert np.mean(heard) > 0.6 and np.mean(seen) > 0.9


def test_lossy_codecs_have_a_chance_of_their_own() -> None:
    sound = 0.1 * np.random.default_rng(0).standard_normal(8000).astype(np.float32)

    def changed(codecs: float) -> int:
        seeds = range(12)
        return sum(
            not np.array_equal(degrade_audio(sound, np.random.default_rng(s), 1e-6, codecs), sound)
            for s in seeds
        )

    assert changed(1e6) == 12 and changed(0.0) == 0
