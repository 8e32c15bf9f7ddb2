"""Prepared clips on disk: made once, keyed by content, the same windows bit by bit, made anew where damaged."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import make_audio, make_video, noise, tone
from commands import detector, portrait, voice

from avdetect import prepared as module
from avdetect.data_cli import add_arguments, run
from avdetect.errors import AvdetectError, InputError
from avdetect.looked import Looked, decoded, encoded
from avdetect.manifest import write_manifest
from avdetect.prepared import Cache, Kept, PreparedClip, key_of, prepare_all, prepare_cached
from avdetect.recipe import DataSettings
from avdetect.shards import CACHE
from avdetect.types import Item, Label, Window
from avdetect.windows import Prepared, WindowSettings, prepare

SETTINGS = WindowSettings(2.0, 2.0)


def item_of(path: Path) -> Item:
    return Item(path, Label(voice_cloning=False))


@pytest.fixture
def clip(tmp_path: Path) -> Item:
    return item_of(make_audio(tmp_path / "a.wav", noise(3.0)))


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Item:
    """2.4 s: two faces, a cut to one, and speech."""
    pair = np.concatenate([portrait(256, 300, (240, 360)), portrait(200, 235, (240, 360))], 1)
    images = [pair] * 30 + [portrait(300, 352, (480, 360))] * 30
    path = tmp_path_factory.mktemp("clips") / "talking.mp4"
    return item_of(make_video(path, size=(480, 360), images=images, seconds=2.4, audio=voice(2.4)))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were decoded."""
    files: list[Path] = []

    def counted(path: Path, settings: WindowSettings, *, audio_path: Path | None = None) -> Prepared:
        files.append(path)
        return prepare(path, settings, audio_path=audio_path)

    monkeypatch.setattr(module, "prepare", counted)
    return files


def alike(one: Any, other: Any) -> bool:
    """Equal through and through, arrays in kind and bit by bit."""
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(alike(a, b) for a, b in zip(one, other, strict=True))
    if hasattr(one, "__dataclass_fields__"):
        return type(one) is type(other) and all(
            alike(getattr(one, each.name), getattr(other, each.name)) for each in fields(one)
        )
    return bool(one == other)


def same(one: PreparedClip, other: PreparedClip) -> bool:
    return alike(one.windows, other.windows)


# What is kept is what `prepare` gives


@pytest.mark.parametrize("length, hop", [(10.0, 10.0), (4.0, 2.0), (1.0, 0.4), (0.2, 0.2)])
def test_windows_of_any_settings_are_those_of_the_clip(
    talking: Item, tmp_path_factory: pytest.TempPathFactory, length: float, hop: float
) -> None:
    cache = Cache(tmp_path_factory.getbasetemp() / "any")  # one for all settings
    settings = WindowSettings(length, hop)
    cache.keep(talking, settings)
    found, direct = cache.find(talking, settings), prepare(talking.path, settings)
    assert found is not None
    windows = list(direct)
    assert any(window.face_crops is not None for window in windows) and len(direct.tracks) > 1
    assert alike(list(found), windows) and alike(list(found), windows)  # and may be walked again
    for name in ("clip", "speech", "tracks", "warnings", "settings"):
        assert alike(getattr(found, name), getattr(direct, name)), name
    assert len(list((tmp_path_factory.getbasetemp() / "any").glob("*.tar"))) == 1


def test_mouths_are_kept_for_others_and_only_cropped_where_wanted(talking: Item, tmp_path: Path) -> None:
    without = replace(SETTINGS, mouths=False)
    blind = Looked.at(prepare(talking.path, without))
    assert all(window.mouth_crops is None for window in blind)
    back = decoded(encoded(blind), talking.path, without)
    assert [w.mouth_crops is None and w.landmarks is not None for w in back] == [True] * len(list(blind))
    cache = Cache(tmp_path / "cache")
    cache.keep(talking, without)
    found = cache.find(talking, SETTINGS)
    assert found is not None
    assert all(window.mouth_crops is not None for window in found if window.track is not None)


def test_training_gets_no_face_that_cannot_be_assessed_but_what_is_heard_meanwhile(
    talking: Item, tmp_path: Path
) -> None:
    direct = prepare(talking.path, SETTINGS)
    windows = list(direct)
    usable = {track.id for track in direct.tracks if track.assessable}
    kept = prepare_cached(talking, tmp_path / "cache", SETTINGS).windows
    seen = [window for window in kept if window.track is not None]
    assert seen and alike(seen, [window for window in windows if window.track in usable])
    assert {window.start for window in kept} == {window.start for window in windows}

    small = item_of(
        make_video(tmp_path / "s.mp4", size=(480, 360), images=[portrait(64, 75)] * 30, seconds=1.2)
    )
    assert any(window.track is not None for window in prepare(small.path, SETTINGS))
    assert prepare_cached(small, tmp_path / "cache", SETTINGS).windows == ()  # it has no sound
    spoken = replace(small, audio_path=talking.path)
    (heard,) = prepare_cached(spoken, tmp_path / "cache", SETTINGS).windows
    (whole,) = prepare(small.path, SETTINGS, audio_path=talking.path)
    assert whole.track is not None and whole.speech is not None
    assert alike(heard, Window(0.0, whole.end, waveform=whole.waveform, speech=whole.speech))


def test_a_detector_answers_the_same_from_the_cache(talking: Item, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.keep(talking, SETTINGS)
    found = cache.find(talking, detector().settings)
    one, other = detector().detect(talking.path), detector().detect(talking.path, prepared=found)
    assert one.score is not None and one.tracks
    assert alike(replace(one, thumbnails={}, timing=other.timing), replace(other, thumbnails={}))
    assert one.thumbnails.keys() == other.thumbnails.keys()
    assert all(alike(one.thumbnails[track], other.thumbnails[track]) for track in one.thumbnails)


def test_a_clip_is_decoded_once(clip: Item, tmp_path: Path, made: list[Path]) -> None:
    first = prepare_cached(clip, tmp_path / "cache", SETTINGS)
    second = prepare_cached(clip, tmp_path / "cache", SETTINGS)
    other = prepare_cached(clip, tmp_path / "cache", WindowSettings(1.0, 1.0))
    assert made == [clip.path]
    assert len(first.windows) == 2 and first.reason is None and same(first, second)
    assert len(other.windows) == 3


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
    keys = {key_of(clip, SETTINGS), key_of(clip, replace(SETTINGS, max_faces=1))}
    old = prepare_cached(clip, cache, SETTINGS)
    make_audio(clip.path, noise(3.0, seed=5))
    keys.add(key_of(clip, SETTINGS))
    new = prepare_cached(clip, cache, SETTINGS)
    assert len(keys) == 3 and len(made) == 2 and not same(old, new)


def test_a_raised_format_makes_everything_anew(clip: Item, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of(clip, SETTINGS)
    monkeypatch.setattr(module, "FORMAT", module.FORMAT + 1)
    assert key_of(clip, SETTINGS) != before


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.98])
def test_a_truncated_shard_is_made_anew(clip: Item, tmp_path: Path, made: list[Path], keep: float) -> None:
    first = prepare_cached(clip, tmp_path, SETTINGS)
    (shard,) = tmp_path.glob("*.tar")
    data = shard.read_bytes()
    shard.write_bytes(data[: int(len(data) * keep)])
    assert same(first, prepare_cached(clip, tmp_path, SETTINGS)) and len(made) == 2
    assert shard.read_bytes() == data


@pytest.mark.parametrize("place", [530, 700, 100_000])
def test_a_damaged_clip_is_found_out_and_made_anew_once(
    clip: Item, tmp_path: Path, made: list[Path], place: int
) -> None:
    first = prepare_cached(clip, tmp_path, SETTINGS)
    (shard,) = tmp_path.glob("*.tar")
    data = bytearray(shard.read_bytes())
    data[place] ^= 0x55  # in the header, in the facts, in the sound
    shard.write_bytes(data)
    assert Cache(tmp_path).find(clip, SETTINGS) is None
    for _ in range(2):
        assert same(first, prepare_cached(clip, tmp_path, SETTINGS)) and len(made) == 2


def test_a_sample_of_another_kind_is_none(clip: Item, tmp_path: Path) -> None:
    from safetensors.numpy import save

    cache = Cache(tmp_path)
    cache.shards.add(key_of(clip, SETTINGS), save({"x": np.zeros(3)}))
    assert cache.find(clip, SETTINGS) is None
    cache.shards.add(key_of(clip, SETTINGS), b"")
    assert cache.find(clip, SETTINGS) is None
    assert len(prepare_cached(clip, tmp_path, SETTINGS).windows) == 2


def test_a_kept_clip_says_how_long_it_is(clip: Item, tmp_path: Path) -> None:
    kept = [Cache(tmp_path).keep(clip, SETTINGS) for _ in range(2)]
    assert kept[0] == kept[1] and kept[0].seconds == pytest.approx(3.0) and kept[0].size > 3 * 64_000


def test_a_clip_without_sound_and_faces_comes_back_too(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", 0.4)
    looked = Looked.at(prepare(path, SETTINGS))
    back = decoded(encoded(looked), path, SETTINGS)
    assert alike(back.clip, looked.clip) and back.speech is None and list(back) == []


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
    assert DataSettings.cache == CACHE


def prepare_command(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser.add_subparsers())
    return run(parser.parse_args(["data", "prepare", *map(str, words)]))


def test_a_manifest_is_prepared_and_what_it_costs_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], made: list[Path]
) -> None:
    items = [item_of(make_audio(tmp_path / f"{n}.wav", noise(3.0, seed=n))) for n in range(2)]
    items[1] = replace(items[1], audio_path=make_audio(tmp_path / "voice.wav", noise(4.0)))
    write_manifest(items, tmp_path / "m.csv")
    cache, report = tmp_path / "cache", tmp_path / "report.json"
    words = (tmp_path / "m.csv", "--cache", cache, "--workers", "1", "--json", report)
    assert prepare_command(*words) == 0
    said = json.loads(report.read_text())
    assert (said["clips"], said["left_out"]) == (2, [])
    assert said["hours"] == pytest.approx(7 / 3600)
    assert 7 * 16_000 * 4 < said["bytes"] < 7 * 16_000 * 4 + 4096  # float32 at 16 kHz, and the facts
    assert said["bytes_per_hour"] == pytest.approx(said["bytes"] * 3600 / 7)
    files = {path: path.read_bytes() for path in cache.glob("*.tar")}
    assert said["cache_bytes"] == sum(map(len, files.values())) > said["bytes"]
    assert "2 clips prepared, 0.00 hours" in capsys.readouterr().out
    assert prepare_command(*words) == 0  # nothing is made again
    assert files == {path: path.read_bytes() for path in cache.glob("*.tar")}
    for settings in (WindowSettings(10.0, 10.0), WindowSettings()):  # as training and evaluation cut
        assert all(Cache(cache).find(item, settings) is not None for item in items)


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
        (("--cache", tmp_path / "c", "--workers", "0"), "--workers is 0, must be at least 1"),
        (("--cache", tmp_path / "file"), "cannot be a cache folder"),
    ):
        with pytest.raises(InputError, match=said):
            prepare_command(tmp_path / "m.csv", *words)


def test_a_report_that_cannot_be_written_is_told_before_any_work(tmp_path: Path) -> None:
    write_manifest([item_of(tmp_path / "a.wav")], tmp_path / "m.csv")
    with pytest.raises(AvdetectError, match=r"--json .*cannot be written"):
        prepare_command(tmp_path / "m.csv", "--cache", tmp_path / "c", "--json", tmp_path / "no" / "r.json")
    assert not (tmp_path / "c").exists()


def test_a_killed_worker_is_told_of_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*arguments: object) -> Iterator[Kept]:
        yield Kept(item_of(tmp_path / "a.wav"), "key", 1.0, 1)
        raise BrokenProcessPool

    write_manifest([item_of(tmp_path / "a.wav")], tmp_path / "m.csv")
    monkeypatch.setattr(module, "keep_all", killed)
    with pytest.raises(AvdetectError, match="a worker was killed"):
        prepare_command(tmp_path / "m.csv", "--cache", tmp_path / "cache")
