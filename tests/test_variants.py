"""Degradations do what their names say, to the same effect each time; trials are resumed, and nothing is dropped."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import make_audio, make_video, picture, read_index
from commands import portrait
from commands import voice as spoken_by_nobody

from avdetect.degradations import DEGRADATIONS, Kind, Variant, chosen, setting_of
from avdetect.degradations.family import Encoding, Recipe
from avdetect.degradations.picture import rendered
from avdetect.degradations.sound import speech_level
from avdetect.errors import ConfigError, DatasetError, MediaError
from avdetect.media import frames, open_clip
from avdetect.scoring import alone
from avdetect.sweep import MOVED
from avdetect.types import (
    CLAIMS,
    SAMPLE_RATE,
    Claim,
    ClaimResult,
    Floats,
    Item,
    Label,
    ModelInfo,
    Outcome,
    Status,
    Verdict,
)
from avdetect.variants import Trial, judged
from avdetect.variants import trials as examined
from avdetect.windows import Prepared, WindowSettings

VOICE = Claim.VOICE_CLONING
SOUNDS = [one for one in chosen() if DEGRADATIONS[one.degradation].kind is Kind.SOUND]
PICTURES = [name for name, one in DEGRADATIONS.items() if one.kind is Kind.PICTURE]


@pytest.fixture(scope="module")
def voice() -> Floats:
    """Three seconds of synthetic speech [S]."""
    return spoken_by_nobody()[0]


def degraded(waveform: Floats, name: str, seed: int = 0) -> Floats:
    (variant,) = chosen([name])
    change = DEGRADATIONS[variant.degradation].build()
    return np.asarray(change(waveform, setting_of(variant), np.random.default_rng(seed)))


# Names


def test_a_degradation_stands_for_its_severities_and_a_severity_for_itself() -> None:
    assert [one.name for one in chosen(["opus", "short-2", "alaw", "opus-8"])] == [
        "short-2",
        "opus-32",
        "opus-16",
        "opus-8",
        "alaw",
    ]


def test_names_that_are_documented_are_known() -> None:
    names = ["trimmed", "mp3", "opus", "alaw", "gsm", "noise", "reverb", "short-1", "short-2", "short-4"]
    assert {one.degradation for one in chosen(names)} == {name.split("-")[0] for name in names}


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no variant is called 'opuss'; did you mean 'opus'"):
        chosen(["opuss"])


def test_what_moves_sound_against_the_picture_is_not_asked_about_lip_sync() -> None:
    asked = {one.degradation for one in chosen() if Claim.LIP_SYNC_MISMATCH in one.claims}
    assert not asked & {"trimmed", "short", "faster", "slower"} and {"mp3", "noise", "crf"} <= asked


# Sound


@pytest.mark.parametrize("variant", SOUNDS, ids=lambda one: one.name)
def test_sound_is_changed_alike_each_time(variant: Variant, voice: Floats) -> None:
    first, again = degraded(voice, variant.name), degraded(voice, variant.name)
    assert first.dtype == np.float32 and np.isfinite(first).all() and np.abs(first).max() <= 1.01
    assert np.array_equal(first, again)
    if DEGRADATIONS[variant.degradation].keeps_time:
        assert first.size == voice.size and np.abs(first - voice).max() > 1e-3


@pytest.mark.parametrize("variant", SOUNDS, ids=lambda one: one.name)
@pytest.mark.parametrize("size", [1, 700])
def test_sound_of_no_length_or_level_is_no_reason_to_fail(variant: Variant, size: int) -> None:
    with suppress(MediaError):  # too little for an encoder, which the trial then tells
        assert np.isfinite(degraded(np.zeros(size, np.float32), variant.name)).all()


@pytest.mark.parametrize("name", ["noise", "pink", "babble"])
def test_noise_is_as_loud_as_it_says(name: str, voice: Floats) -> None:
    added = degraded(0.2 * voice, f"{name}-10") - 0.2 * voice
    below = 20 * np.log10(speech_level(0.2 * voice) / np.std(added))
    assert below == pytest.approx(10, abs=0.2)


def test_babble_sounds_like_speech_and_pink_noise_falls(voice: Floats) -> None:
    def high_share(waveform: Floats) -> float:
        power = np.abs(np.fft.rfft(waveform)) ** 2
        return float(power[len(power) // 2 :].sum() / power.sum())

    white, pink, babble = (
        high_share(degraded(voice, f"{name}-0") - voice) for name in ("noise", "pink", "babble")
    )
    assert white == pytest.approx(0.5, abs=0.02) and pink < 0.2
    assert babble == pytest.approx(high_share(voice), abs=0.03)


@pytest.mark.parametrize(("name", "edge"), [("bandwidth-4000", 4500), ("alaw", 4500), ("gsm-4.75", 4500)])
def test_nothing_is_left_above_the_band(name: str, edge: float, voice: Floats) -> None:
    rng = np.random.default_rng(0)
    hissing = voice + rng.normal(0, 0.02, voice.size).astype(np.float32)
    power = np.abs(np.fft.rfft(degraded(hissing, name))) ** 2
    above = np.fft.rfftfreq(voice.size, 1 / SAMPLE_RATE) > edge
    assert power[above].sum() < 1e-3 * power.sum()


def test_a_lower_bit_rate_costs_more(voice: Floats) -> None:
    errors = [float(np.std(degraded(voice, f"mp3-{rate}") - voice)) for rate in (128, 32, 16)]
    assert errors[0] < errors[1] < errors[2]


def test_codecs_do_not_move_the_sound(voice: Floats) -> None:
    for name in ("mp3-64", "aac-32", "opus-16", "alaw", "gsm-12.2"):
        out = degraded(voice, name)
        lags = range(-240, 241, 8)
        fit = [float(np.dot(np.roll(out, -lag), voice)) for lag in lags]
        assert abs(lags[int(np.argmax(fit))]) <= 160, name  # 10 ms, a quarter of a frame


def test_silence_is_trimmed_and_speech_is_kept(voice: Floats) -> None:
    pause = np.zeros(SAMPLE_RATE, np.float32)
    gapped = np.concatenate([pause, voice, pause, voice, pause])
    edges, pauses = degraded(gapped, "trimmed-edges"), degraded(gapped, "trimmed-pauses")
    seconds = voice.size / SAMPLE_RATE
    assert edges.size / SAMPLE_RATE == pytest.approx(2 * seconds + 1, abs=0.5)
    assert 1.5 * seconds < pauses.size / SAMPLE_RATE < 2 * seconds + 0.3
    assert np.sum(pauses**2) > 0.95 * np.sum(gapped**2)


def test_the_short_piece_is_where_someone_speaks(voice: Floats) -> None:
    late = np.concatenate([np.zeros(3 * SAMPLE_RATE, np.float32), voice])
    piece = degraded(late, "short-2")
    assert piece.size == 2 * SAMPLE_RATE and np.std(piece) > 0.7 * np.std(voice)
    assert np.array_equal(degraded(voice, "short-4"), voice)  # it is shorter as it is


def test_speed_changes_length_and_pitch() -> None:
    tone = np.sin(2 * np.pi * 400 * np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    fast = degraded(tone, "faster-1.25")
    hertz = np.fft.rfftfreq(fast.size, 1 / SAMPLE_RATE)[np.argmax(np.abs(np.fft.rfft(fast)))]
    assert fast.size == pytest.approx(tone.size / 1.25, abs=2) and hertz == pytest.approx(500, abs=2)


def test_a_room_rings_for_as_long_as_it_says() -> None:
    click = np.zeros(2 * SAMPLE_RATE, np.float32)
    click[0] = 0.5
    tail = degraded(click, "reverb-0.5")[1 : SAMPLE_RATE // 2]
    start, end = (20 * np.log10(np.std(part)) for part in (tail[:800], tail[-800:]))
    assert start - end == pytest.approx(
        60 * 0.9, abs=4
    )  # from the middle of the first to that of the last 50 ms


# Pictures


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of pictures that tell their number."""
    return make_video(tmp_path_factory.mktemp("filmed") / "clip.mp4", 1.0, size=(320, 240))


def shot(path: Path, recipe: Recipe, folder: Path, seed: int = 0) -> list[Any]:
    out = rendered(open_clip(path), recipe, folder, np.random.default_rng(seed))
    assert list(folder.iterdir()) == [out]  # the files of earlier passes are gone
    return [frame.image for frame in frames(open_clip(out))]


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_keep_their_moments(name: str, filmed: Path, tmp_path: Path) -> None:
    setting = next(iter(DEGRADATIONS[name].severities.values()))
    images = shot(filmed, DEGRADATIONS[name].build()(setting), tmp_path)
    assert len(images) == 25
    if name not in ("crop", "mirror", "rate"):
        assert [read_index(image) for image in images[::6]] == [0, 6, 12, 18, 24]


def test_sizes_rates_and_mirrors(filmed: Path, tmp_path: Path) -> None:
    def made(name: str) -> list[Any]:
        (variant,) = chosen([name])
        folder = tmp_path / name
        folder.mkdir()
        return shot(filmed, DEGRADATIONS[variant.degradation].build()(setting_of(variant)), folder)

    assert made("size-120")[0].shape == (120, 160, 3)
    assert made("crop-0.75")[0].shape == (180, 240, 3)
    assert len({image.tobytes() for image in made("rate-6")}) <= 7
    mirrored = made("mirror")[9]
    assert np.abs(mirrored[:, ::-1].astype(int) - picture(9, (320, 240))).mean() < 4
    assert made("dark-3")[0].mean() < 0.7 * made("crf-12")[0].mean() < made("bright-0.33")[0].mean()


def test_passes_follow_each_other(filmed: Path, tmp_path: Path) -> None:
    one = Recipe(passes=(Encoding(40),))
    (tmp_path / "1").mkdir(), (tmp_path / "3").mkdir()
    once = shot(filmed, one, tmp_path / "1")
    thrice = shot(
        filmed, replace(one, passes=(Encoding(40, side=120), Encoding(40), Encoding(40))), tmp_path / "3"
    )
    assert once[0].shape[0] == 240 and thrice[0].shape[0] == 120


# Trials


class Ear:
    """A stand-in for a model: a voice's score is its level; it counts what it is asked."""

    model_info = ModelInfo("ear", "0", "0")
    settings = WindowSettings()

    def __init__(self) -> None:
        self.asked = 0
        self.heard: list[Floats] = []

    def detect(
        self, path: Path, *, audio_path: Path | None = None, prepared: Prepared | None = None
    ) -> Verdict:
        self.asked += 1
        assert prepared is not None and prepared.clip.waveform is not None
        self.heard.append(prepared.clip.waveform)
        score = min(1.0, 3 * float(np.std(prepared.clip.waveform)))
        outcome = Outcome.MANIPULATED if score > 0.5 else Outcome.NO_MANIPULATION_FOUND
        claims = {claim: ClaimResult(claim, Status.ASSESSED, outcome, score) for claim in CLAIMS}
        return Verdict(path, outcome, self.model_info, claims=claims)


@pytest.fixture
def items(tmp_path: Path, voice: Floats) -> list[Item]:
    """Two voices, one of them labelled fake, and a file that is none."""
    names = ("real.wav", "fake.wav")
    paths = [
        make_audio(tmp_path / name, voice[None] * level)
        for name, level in zip(names, (0.3, 0.6), strict=True)
    ]
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"nothing")
    labels = [Label(voice_cloning=False), Label(voice_cloning=True), Label(voice_cloning=False)]
    return [Item(path, label, method="m") for path, label in zip([*paths, broken], labels, strict=True)]


def trials(scorer: Ear, items: Sequence[Item], path: Path, *names: str, **options: Any) -> list[Trial]:
    ask = alone(scorer, None, examined)
    return [row for rows in judged(ask, items, [VOICE], chosen(names), path, **options) for row in rows]


def test_every_clip_is_judged_in_every_variant(items: list[Item], tmp_path: Path) -> None:
    rows = trials(Ear(), items, tmp_path / "rows.csv", "noise-10", "alaw")
    assert [row.variant for row in rows] == ["untouched", "alaw", "noise-10"] * 3
    assert [row.fake for row in rows[::3]] == [0, 1, 0] and rows[5].score is not None
    assert rows[5].score > (rows[3].score or 1)  # noise makes it louder
    assert {(row.verdict, row.score) for row in rows[6:]} == {("error", None)} and "broken.wav" in rows[
        6
    ].reason


def test_what_is_there_is_not_made_again(items: list[Item], tmp_path: Path) -> None:
    path, scorer = tmp_path / "rows.csv", Ear()
    first = trials(scorer, items, path, "noise-10")
    asked = scorer.asked
    assert trials(scorer, items, path, "noise-10") == first and scorer.asked == asked
    trials(scorer, items, path, "noise-10", "alaw")
    assert scorer.asked == asked + 2


def test_a_killed_sweep_goes_on_to_the_same_bytes(items: list[Item], tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.csv", tmp_path / "cut.csv"
    trials(Ear(), items, whole, "noise", "reverb-0.5")
    content = whole.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    trials(Ear(), items, cut, "noise", "reverb-0.5")
    assert cut.read_bytes() == content


def test_both_classes_get_the_same_and_the_seed_decides(items: list[Item], tmp_path: Path) -> None:
    turned = [replace(item, label=Label(voice_cloning=not item.label.voice_cloning)) for item in items[:2]]
    heard = []
    for number, (some, seed) in enumerate([(items[:2], 0), (turned, 0), (items[:2], 1)]):
        scorer = Ear()
        trials(scorer, some, tmp_path / f"{number}.csv", "babble-10", seed=seed)
        heard.append(scorer.heard)
    assert all(np.array_equal(a, b) for a, b in zip(heard[0], heard[1], strict=True))
    assert np.array_equal(heard[0][0], heard[2][0]) and not np.array_equal(heard[0][1], heard[2][1])


def test_a_clip_in_sync_is_judged_again_with_its_sound_moved(tmp_path: Path, voice: Floats) -> None:
    face = portrait(120, 150)
    path = make_video(
        tmp_path / "clip.mp4", 1.0, size=(480, 360), images=[face] * 25, audio=voice[None, :SAMPLE_RATE]
    )
    item, scorer = Item(path, Label(lip_sync_mismatch=False)), Ear()
    sync = [Claim.LIP_SYNC_MISMATCH]
    ask = alone(scorer, None, examined)
    found = judged(ask, [item], sync, chosen(["alaw", "mirror", "short-1"]), tmp_path / "rows.csv")
    rows = [row for rows in found for row in rows]
    assert [(row.variant, row.made, row.fake) for row in rows] == [
        (name, made, fake) for name in ("untouched", "alaw", "mirror") for made, fake in (("", 0), (MOVED, 1))
    ]
    assert np.array_equal(np.roll(scorer.heard[0], round(0.4 * SAMPLE_RATE)), scorer.heard[1])
    assert np.array_equal(scorer.heard[0], scorer.heard[4])  # a picture that was changed keeps its sound
    known = [item, Item(path, Label(lip_sync_mismatch=True))]
    rows = [row for rows in judged(ask, known, sync, [], tmp_path / "known.csv") for row in rows]
    assert {row.made for row in rows} == {""}


def test_nothing_is_left_in_the_temporary_folder(
    items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    trials(Ear(), items, tmp_path / "rows.csv", "mp3-32", "gsm-4.75")
    assert list(scratch.iterdir()) == []


def test_a_file_of_other_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DatasetError, match=r"rows\.csv: holds no trials of degraded clips"):
        trials(Ear(), [], path)
    assert path.read_text() == "a,b\n1,2\n"
