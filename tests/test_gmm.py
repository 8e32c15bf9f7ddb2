"""LFCC-GMM: the features worked another way, fitting within bounds, files, and the commands."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from clips import make_audio
from commands import call
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from scipy.fft import dct
from scipy.signal import lfilter

from avdetect import gmm
from avdetect.errors import ConfigError, InputError, ModelError
from avdetect.gmm import DIM, HOP, WINDOW, GmmSettings, LfccGmm, Reservoir, lfcc
from avdetect.types import SAMPLE_RATE, Floats

SMALL = GmmSettings(components=4, frames=2000, iterations=5)


def voice(fake: bool, seed: int, seconds: float = 1.0) -> Floats:
    """Noise with a tilt; the fake kind lacks its highest octave."""
    white = np.random.default_rng(seed).normal(0, 0.1, round(seconds * SAMPLE_RATE))
    coloured = lfilter([0.5, 0.5] if fake else [1.0], [1, -0.7], white)
    return np.asarray(coloured, np.float32)


def voices(count: int) -> Iterator[tuple[Floats, bool]]:
    for seed in range(count):
        yield voice(bool(seed % 2), seed), bool(seed % 2)


@pytest.fixture(scope="module")
def model() -> LfccGmm:
    return LfccGmm.fit(voices(8), SMALL)


def test_cepstra_are_those_of_their_definition() -> None:
    sound = voice(False, 0, 0.1)
    emphasised = lfilter([1, -0.97], [1], sound)
    count = 1 + (len(sound) - WINDOW) // HOP
    frames = np.stack([emphasised[k * HOP : k * HOP + WINDOW] for k in range(count)])
    power = np.abs(np.fft.rfft(frames * np.hamming(WINDOW), 512)) ** 2
    frequency, edges = np.linspace(0, 8000, 257), np.linspace(0, 8000, 22)
    bands = np.stack(
        [np.interp(frequency, edges[k : k + 3], [0, 1, 0], left=0, right=0) for k in range(20)], 1
    )
    cepstra = dct(np.log(power @ bands + np.finfo(np.float32).eps), norm="ortho")
    seen = lfcc(sound)
    assert seen.shape == (count, DIM) and seen.dtype == np.float32
    np.testing.assert_allclose(seen[:, :20], cepstra, rtol=1e-3, atol=2e-3)
    np.testing.assert_allclose(seen[1:-1, 20:40], (cepstra[2:] - cepstra[:-2]) / 2, atol=5e-3)
    slopes = seen[:, 20:40]
    np.testing.assert_allclose(seen[1:-1, 40:], (slopes[2:] - slopes[:-2]) / 2, atol=1e-4)


@pytest.mark.parametrize("sound", [np.zeros(SAMPLE_RATE), np.zeros(1), np.full(400, 0.5)])
def test_silence_and_scraps_give_finite_features(sound: NDArray[np.float64]) -> None:
    seen = lfcc(sound.astype(np.float32))
    assert len(seen) >= 1 and np.isfinite(seen).all()


def test_a_sample_of_a_stream_is_bounded_and_even() -> None:
    chosen = np.zeros(300)
    for seed in range(200):
        kept = Reservoir(30, np.random.default_rng(seed))
        rows = np.repeat(np.arange(300, dtype=np.float32)[:, None], DIM, 1)
        for part in np.split(rows, [10, 25, 90, 91, 240]):
            kept.add(part)
        assert kept.rows.shape == (30, DIM) and kept.seen == 300
        picked = kept.rows[:, 0].astype(int)
        assert len(set(picked.tolist())) == 30
        chosen[picked] += 1
    for third in np.split(chosen, [10, 100, 200]):  # each row stays in one sample of ten
        assert third.mean() == pytest.approx(20, rel=0.15)


def test_a_short_stream_is_kept_whole() -> None:
    kept = Reservoir(30, np.random.default_rng(0))
    rows = np.random.default_rng(1).normal(size=(20, DIM)).astype(np.float32)
    kept.add(rows[:5])
    kept.add(rows[5:])
    np.testing.assert_array_equal(kept.rows, rows)


def test_fakes_score_above_real_voices(model: LfccGmm) -> None:
    real = [model.score(voice(False, seed)) for seed in range(20, 25)]
    fake = [model.score(voice(True, seed)) for seed in range(30, 35)]
    assert max(real) < 0 < min(fake)


def test_the_same_data_and_seed_give_the_same_model(model: LfccGmm) -> None:
    sound = voice(True, 40)
    assert LfccGmm.fit(voices(8), SMALL).score(sound) == model.score(sound)


def test_long_sound_is_worked_through_in_stretches(model: LfccGmm, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = voice(True, 41, 2.0)
    whole = model.frame_scores(sound)
    monkeypatch.setattr(gmm, "STRETCH", 37)
    parts = model.frame_scores(sound)
    assert len(parts) == 199
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-5)


def test_memory_is_bounded_by_the_frames_that_are_kept() -> None:
    few = GmmSettings(components=2, frames=50, iterations=1)
    assert LfccGmm.fit(voices(4), few).parameters == 2 * (2 + 2 * 2 * DIM)
    kept = Reservoir(50, np.random.default_rng(0))
    for sound, _ in voices(4):
        kept.add(lfcc(sound))
    assert len(kept.rows) == 50 < kept.seen


def test_too_few_frames_of_a_class_are_told() -> None:
    with pytest.raises(InputError, match="0 frames of fake voices are too few for 4 components"):
        LfccGmm.fit([(voice(False, 0), False)], SMALL)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"components": 0}, "components = 0"),
        ({"frames": 100}, "frames = 100 are fewer than components = 512"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, int], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        GmmSettings(**settings)


def test_digital_silence_is_learned_too() -> None:
    def gated(seed: int) -> Floats:
        sound = voice(bool(seed % 2), seed)
        sound[: SAMPLE_RATE // 2] = 0
        return sound

    learned = LfccGmm.fit(((gated(seed), bool(seed % 2)) for seed in range(8)), SMALL)
    for part in learned.values.values():
        assert np.isfinite(part).all()
    assert learned.frame_scores(gated(21))[60:].mean() > 0 > learned.frame_scores(gated(20))[60:].mean()


def test_a_model_goes_through_safetensors_unchanged(model: LfccGmm, tmp_path: Path) -> None:
    model.save(tmp_path / "m.safetensors")
    again = LfccGmm.load(tmp_path / "m.safetensors")
    assert again.settings == SMALL
    np.testing.assert_array_equal(again.frame_scores(voice(True, 42)), model.frame_scores(voice(True, 42)))


def test_what_is_no_model_is_refused(model: LfccGmm, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"m\.safetensors: cannot be read as safetensors"):
        LfccGmm.load(path)
    save_file({"x": np.zeros(2)}, path)
    with pytest.raises(ModelError, match=r"m\.safetensors: holds no LFCC-GMM"):
        LfccGmm.load(path)
    model.save(path)
    values, about = load_file(path), {"format": gmm.FORMAT, "settings": '{"components": 4}'}
    save_file({**values, "fake.means": np.zeros((3, DIM), np.float32)}, path, about)
    with pytest.raises(ModelError, match=r"the LFCC-GMM in it is damaged \(fake: not 4 components"):
        LfccGmm.load(path)
    save_file({**values, "real.covariances": -values["real.covariances"]}, path, about)
    with pytest.raises(ModelError, match="damaged"):
        LfccGmm.load(path)


# The commands


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight voices to learn from and eight to score, one of them not to be read."""
    folder = tmp_path_factory.mktemp("voices")
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "split", "voice_cloning", "method"])
        for seed in range(16):
            fake, name = bool(seed % 2), f"voice {seed}.wav"
            make_audio(folder / name, voice(fake, seed)[None])
            writer.writerow([name, "train" if seed < 8 else "val", int(fake), "low pass" if fake else ""])
        (folder / "broken.wav").write_bytes(b"RIFF")
        writer.writerow(["broken.wav", "val", 1, "low pass"])
        writer.writerow(["unknown.wav", "val", "", ""])
    return folder / "manifest.csv"


def fit(manifest: Path, out: Path) -> Path:
    answer = call("gmm", "train", manifest, "--out", out, "--components", 4, "--frames", 2000)
    assert (answer.code, answer.err) == (0, [])
    assert answer.out == f"{out}: 8 voices, two mixtures of 4\n"
    return out


def test_trains_and_scores_what_evaluate_reads(manifest: Path, tmp_path: Path) -> None:
    path = fit(manifest, tmp_path / "m.safetensors")
    answer = call("gmm", "score", path, manifest, "--split", "val", "--out", tmp_path / "s.txt")
    assert answer.code == 1 and answer.out == f"{tmp_path / 's.txt'}: 8 scores\n"
    assert len(answer.err) == 1 and "broken.wav" in answer.err[0]
    rows = [line.split() for line in (tmp_path / "s.txt").read_text().splitlines()]
    assert [row[:3] for row in rows[:2]] == [["voice_8", "-", "bonafide"], ["voice_9", "low_pass", "spoof"]]
    model = LfccGmm.load(path)
    assert float(rows[1][3]) == pytest.approx(-model.score(voice(True, 9)), abs=0.2)  # 16 bits on the way
    told = call("evaluate", "scores", "--scores", tmp_path / "s.txt", "--higher", "bonafide")
    assert (
        told.code == 0
        and "8 trials (4 bona fide, 4 spoof)" in told.out
        and "EER                0.000 %" in told.out
    )


def test_voices_without_labels_get_scores_alone(manifest: Path, tmp_path: Path) -> None:
    path = fit(manifest, tmp_path / "m.safetensors")
    bare = manifest.with_name("bare.csv")
    bare.write_text("file\nvoice 8.wav\n")
    assert call("gmm", "score", path, bare, "--out", tmp_path / "s.txt").code == 0
    (row,) = (line.split() for line in (tmp_path / "s.txt").read_text().splitlines())
    assert row[0] == "voice_8" and float(row[1]) > 0


def test_files_of_one_name_keep_their_folders(manifest: Path, tmp_path: Path) -> None:
    path = fit(manifest, tmp_path / "m.safetensors")
    for folder in "ab":
        (tmp_path / folder).mkdir()
        make_audio(tmp_path / folder / "x.wav", voice(False, 1)[None])
    (tmp_path / "two.csv").write_text("file\na/x.wav\nb/x.wav\n")
    assert call("gmm", "score", path, tmp_path / "two.csv", "--out", tmp_path / "s.txt").code == 0
    first, second = (line.split()[0] for line in (tmp_path / "s.txt").read_text().splitlines())
    assert first.endswith("_a_x") and second.endswith("_b_x")


def test_wrong_use_ends_in_one_line(manifest: Path, tmp_path: Path) -> None:
    path = fit(manifest, tmp_path / "m.safetensors")
    again = call("gmm", "train", manifest, "--out", path)
    assert again.code == 2 and again.err == [
        f"avdetect: --out {path}: is there already; remove it or name another file"
    ]
    nobody = call("gmm", "train", manifest, "--split", "test", "--out", tmp_path / "n.safetensors")
    assert nobody.code == 1 and "no row in split test with a label on voice_cloning" in nobody.err[0]
    many = call("gmm", "train", manifest, "--out", tmp_path / "n.safetensors", "--components", 5000)
    assert many.code == 1 and "are too few for 5000 components" in many.err[0]
    strange = call("gmm", "score", manifest, manifest, "--out", tmp_path / "s.txt")
    assert strange.code == 1 and "manifest.csv: cannot be read as safetensors" in strange.err[0]
    assert not (tmp_path / "n.safetensors").exists() and not (tmp_path / "s.txt").exists()
