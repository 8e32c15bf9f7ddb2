"""Prepared clips on disk: made once, keyed by content, and made anew where the file is damaged."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import make_audio, make_video, noise, tone

from avdetect import prepared as module
from avdetect.prepared import ARRAYS, PreparedClip, cache_path, prepare_all, prepare_cached
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

    def counted(path: Path, settings: WindowSettings) -> object:
        decoded.append(path)
        return original(path, settings)

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
