"""Prepared clips on disk: made once, keyed by content, and made anew where the file is damaged."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import make_audio, make_video, noise, tone

from avdetect import prepared as module
from avdetect.data_cli import add_arguments, run
from avdetect.errors import AvdetectError, InputError
from avdetect.manifest import write_manifest
from avdetect.prepare_cli import WINDOW
from avdetect.prepared import ARRAYS, PreparedClip, cache_path, prepare_all, prepare_cached
from avdetect.train import DataSettings
from avdetect.types import Item, Label, Window
from avdetect.windows import WindowSettings

SETTINGS = WindowSettings(2.0, 2.0)


def item_of(path: Path) -> Item:
    return Item(path, Label(voice_cloning=False))


@pytest.fixture
def clip(tmp_path: Path) -> Item:
    return item_of(make_audio(tmp_path / "a.wav", noise(3.0)))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were decoded."""
    decoded: list[Path] = []
    original = module.prepare

    def counted(path: Path, settings: WindowSettings, audio_path: Path | None = None) -> object:
        decoded.append(path)
        return original(path, settings, audio_path=audio_path)

    monkeypatch.setattr(module, "prepare", counted)
    return decoded


def same(one: PreparedClip, other: PreparedClip) -> bool:
    if len(one.windows) != len(other.windows):
        return False
    for a, b in zip(one.windows, other.windows, strict=True):
        if (a.start, a.end, a.track) != (b.start, b.end, b.track):
            return False
        for name in ARRAYS:
            x, y = getattr(a, name), getattr(b, name)
            if (x is None) != (y is None) or (
                x is not None and (x.dtype != y.dtype or not np.array_equal(x, y))
            ):
                return False
    return True


def test_a_clip_is_decoded_once(clip: Item, tmp_path: Path, made: list[Path]) -> None:
    first = prepare_cached(clip, tmp_path / "cache", SETTINGS)
    second = prepare_cached(clip, tmp_path / "cache", SETTINGS)
    assert made == [clip.path]
    assert len(first.windows) == 2 and first.reason is None and same(first, second)


def test_the_same_content_under_another_name_is_the_same_clip(
    clip: Item, tmp_path: Path, made: list[Path]
) -> None:
    prepare_cached(clip, tmp_path / "cache", SETTINGS)
    copy = item_of(tmp_path / "b.wav")
    shutil.copy(clip.path, copy.path)
    assert prepare_cached(copy, tmp_path / "cache", SETTINGS).item is copy
    assert made == [clip.path]


def test_other_content_or_settings_are_another_clip(clip: Item, tmp_path: Path, made: list[Path]) -> None:
    cache = tmp_path / "cache"
    keys = {cache_path(cache, clip.path, SETTINGS), cache_path(cache, clip.path, replace(SETTINGS, hop=1.0))}
    old = prepare_cached(clip, cache, SETTINGS)
    make_audio(clip.path, noise(3.0, seed=5))
    keys.add(cache_path(cache, clip.path, SETTINGS))
    new = prepare_cached(clip, cache, SETTINGS)
    assert len(keys) == 3 and len(made) == 2 and not same(old, new)


def test_a_raised_format_makes_everything_anew(
    clip: Item, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cache_path(tmp_path, clip.path, SETTINGS)
    monkeypatch.setattr(module, "FORMAT", module.FORMAT + 1)
    assert cache_path(tmp_path, clip.path, SETTINGS) != before


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_made_anew(clip: Item, tmp_path: Path, made: list[Path], keep: float) -> None:
    cache = tmp_path / "cache"
    first = prepare_cached(clip, cache, SETTINGS)
    path = cache_path(cache, clip.path, SETTINGS)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    again = prepare_cached(clip, cache, SETTINGS)
    assert len(made) == 2 and same(first, again)
    assert path.read_bytes() == data


def test_a_safetensors_file_of_another_kind_is_made_anew(
    clip: Item, tmp_path: Path, made: list[Path]
) -> None:
    from safetensors.numpy import save_file

    cache = tmp_path / "cache"
    path = cache_path(cache, clip.path, SETTINGS)
    path.parent.mkdir(parents=True)
    save_file({"x": np.zeros(3)}, path)
    assert len(prepare_cached(clip, cache, SETTINGS).windows) == 2 and len(made) == 1


def test_nothing_half_written_stands_under_a_clips_name(
    clip: Item, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(arrays: object, path: Path, metadata: object) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare_cached(clip, tmp_path / "cache", SETTINGS)
    assert not cache_path(tmp_path / "cache", clip.path, SETTINGS).exists()


def test_what_cannot_be_read_has_a_reason(tmp_path: Path) -> None:
    text, absent = tmp_path / "a.mp4", tmp_path / "absent.mp4"
    text.write_text("no media")
    for path in (text, absent, tmp_path):
        found = prepare_cached(item_of(path), tmp_path / "cache", SETTINGS)
        assert found.windows == () and found.reason is not None
        assert str(path) in found.reason and "\n" not in found.reason


def test_a_clip_without_windows_is_kept_too(tmp_path: Path, made: list[Path]) -> None:
    item = item_of(make_video(tmp_path / "v.mp4", 0.4))
    for _ in range(2):
        assert prepare_cached(item, tmp_path / "cache", SETTINGS) == PreparedClip(item, ())
    assert len(made) == 1


def test_every_array_of_a_window_comes_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    window = Window(
        1.0,
        1.4,
        waveform=rng.normal(size=6400).astype(np.float32),
        speech=rng.random(10) > 0.5,
        track=3,
        found=rng.random(10) > 0.5,
        landmarks=rng.normal(size=(10, 478, 3)).astype(np.float32),
        mouth_crops=rng.integers(0, 256, (10, 8, 8), dtype=np.uint8),
        face_crops=rng.integers(0, 256, (2, 224, 224, 3), dtype=np.uint8),
        crop_frames=np.array([0, 5]),
        crop_landmarks=rng.normal(size=(2, 478, 2)).astype(np.float32),
    )
    assert all(getattr(window, name) is not None for name in ARRAYS)
    item = item_of(Path("x.mp4"))
    module._save(tmp_path / "ab" / "x.safetensors", [window, Window(2.0, 3.0)])
    loaded = module._load(tmp_path / "ab" / "x.safetensors")
    assert same(PreparedClip(item, loaded), PreparedClip(item, (window, Window(2.0, 3.0))))
    assert [p.name for p in (tmp_path / "ab").iterdir()] == ["x.safetensors"]


def test_many_clips_come_in_order_from_other_processes(tmp_path: Path) -> None:
    items = [item_of(make_audio(tmp_path / f"{n}.wav", tone(1.0 + n, hz=200.0 + n))) for n in range(2)]
    items.insert(1, item_of(tmp_path / "absent.wav"))
    found = list(prepare_all(items, tmp_path / "cache", SETTINGS, workers=1))
    assert [clip.item for clip in found] == items
    assert [len(clip.windows) for clip in found] == [1, 0, 1]
    assert found[1].reason is not None and "absent.wav" in found[1].reason


# A voice in another file than the picture


def test_a_voice_of_its_own_replaces_the_clips_sound(tmp_path: Path, made: list[Path]) -> None:
    own, other = tone(3.0, hz=300.0), noise(5.0)
    plain = item_of(make_audio(tmp_path / "a.wav", own))
    voiced = replace(plain, audio_path=make_audio(tmp_path / "b.wav", other))
    cache = tmp_path / "cache"
    before, after = prepare_cached(plain, cache, SETTINGS), prepare_cached(voiced, cache, SETTINGS)
    assert len(made) == 2  # the one is not taken for the other
    first, second = before.windows[0].waveform, after.windows[0].waveform
    assert first is not None and np.allclose(first, own[0, : first.size], atol=1e-3)
    assert second is not None and np.allclose(second, other[0, : second.size], atol=1e-3)
    assert after.windows[-1].end == pytest.approx(5.0)
    make_audio(tmp_path / "b.wav", noise(5.0, seed=9))
    assert not same(after, prepare_cached(voiced, cache, SETTINGS))


def test_a_picture_gets_as_much_of_a_voice_as_it_lasts(tmp_path: Path) -> None:
    picture = make_video(tmp_path / "v.mp4", 2.0, audio=tone(2.0, hz=300.0))
    voice = make_audio(tmp_path / "b.wav", noise(5.0))
    prepared = module.prepare(picture, SETTINGS, audio_path=voice)
    assert prepared.clip.duration == pytest.approx(2.0, abs=0.07) and prepared.clip.audio_codec == "pcm_s16le"
    (window,) = prepared
    assert window.waveform is not None
    assert np.allclose(window.waveform[:30_000], noise(5.0)[0, :30_000], atol=1e-3)


def test_a_voice_that_is_not_there_or_holds_no_sound_has_a_reason(tmp_path: Path) -> None:
    clip = item_of(make_audio(tmp_path / "a.wav", noise(2.0)))
    for sound in (tmp_path / "absent.wav", make_video(tmp_path / "mute.mp4", 0.4)):
        reason = prepare_cached(replace(clip, audio_path=sound), tmp_path / "cache", SETTINGS).reason
        assert reason is not None and sound.name in reason


# `data prepare`


def test_the_cache_is_the_one_that_training_reads() -> None:
    assert DataSettings.window == WINDOW


def prepare_command(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser.add_subparsers())
    return run(parser.parse_args(["data", "prepare", *map(str, words)]))


def test_a_manifest_is_prepared_and_what_it_costs_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = [item_of(make_audio(tmp_path / f"{n}.wav", noise(3.0, seed=n))) for n in range(2)]
    items[1] = replace(items[1], audio_path=make_audio(tmp_path / "voice.wav", noise(4.0)))
    write_manifest(items, tmp_path / "m.csv")
    cache, report = tmp_path / "cache", tmp_path / "report.json"
    words = (tmp_path / "m.csv", "--cache", cache, "--workers", "1", "--window", "2", "--json", report)
    assert prepare_command(*words) == 0
    said = json.loads(report.read_text())
    assert (said["clips"], said["windows"], said["left_out"]) == (2, 4, [])
    assert said["hours"] == pytest.approx(7 / 3600)
    # per window 2 s of sound (float32, 16 kHz) and 50 speech flags
    assert said["bytes"] == 4 * (2 * 16_000 * 4 + 50)
    assert said["bytes_per_hour"] == pytest.approx(said["bytes"] * 3600 / 7)
    files = {path: path.stat().st_mtime_ns for path in cache.glob("*/*.safetensors")}
    assert said["cache_bytes"] == sum(path.stat().st_size for path in files) > said["bytes"]
    assert "2 clips prepared, 4 windows" in capsys.readouterr().out
    assert {cache_path(cache, one.path, SETTINGS, one.audio_path) for one in items} == set(files)
    assert prepare_command(*words) == 0  # training finds what is there; nothing is made again
    assert files == {path: path.stat().st_mtime_ns for path in cache.glob("*/*.safetensors")}


def test_clips_that_cannot_be_prepared_are_named_and_make_it_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = item_of(make_audio(tmp_path / "a.wav", noise(2.0)))
    (tmp_path / "b.mp4").write_text("no media")
    write_manifest([good, item_of(tmp_path / "b.mp4"), item_of(tmp_path / "gone.mp4")], tmp_path / "m.csv")
    assert prepare_command(tmp_path / "m.csv", "--cache", tmp_path / "cache", "--workers", "1") == 1
    said = capsys.readouterr()
    assert "1 clips prepared" in said.out and "2 clips could not be prepared" in said.err
    assert "b.mp4" in said.err and "gone.mp4" in said.err


def test_impossible_settings_of_the_cache_are_refused(tmp_path: Path) -> None:
    write_manifest([item_of(tmp_path / "a.wav")], tmp_path / "m.csv")
    (tmp_path / "file").write_text("")
    for words, said in (
        (("--cache", tmp_path / "c", "--window", "2", "--hop", "3"), "--hop at most --window"),
        (("--cache", tmp_path / "c", "--window", "nan"), "must be 0.2 to 600.0 s"),
        (("--cache", tmp_path / "c", "--window", "inf"), "must be 0.2 to 600.0 s"),
        (("--cache", tmp_path / "c", "--hop", "0"), "must be 0.2 to 600.0 s"),
        (("--cache", tmp_path / "c", "--workers", "0"), "--workers at least 1"),
        (("--cache", tmp_path / "file"), "cannot be a cache folder"),
    ):
        with pytest.raises(InputError, match=said):
            prepare_command(tmp_path / "m.csv", *words)


def test_a_killed_worker_is_told_of_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*arguments: object) -> Iterator[PreparedClip]:
        yield PreparedClip(item_of(tmp_path / "a.wav"), ())
        raise BrokenProcessPool

    write_manifest([item_of(tmp_path / "a.wav")], tmp_path / "m.csv")
    monkeypatch.setattr(module, "prepare_all", killed)
    with pytest.raises(AvdetectError, match="a worker was killed"):
        prepare_command(tmp_path / "m.csv", "--cache", tmp_path / "cache")
