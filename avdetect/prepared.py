"""Prepared clips on disk: `prepare` run once per clip, kept as safetensors, keyed by content and settings.

The key holds the file's SHA-256 and everything that changes what `prepare` gives, so nothing stale is ever used.
A file appears under its name only when it is complete; a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from avdetect.errors import InputError
from avdetect.types import CROP_EVERY, Item, Window
from avdetect.windows import WindowSettings, prepare

FORMAT = 2
"""Raised whenever `prepare` gives something else for the same clip and settings."""
ARRAYS = (
    "waveform",
    "speech",
    "found",
    "landmarks",
    "mouth_crops",
    "face_crops",
    "crop_frames",
    "crop_landmarks",
)


@dataclass(frozen=True)
class PreparedClip:
    """The windows of one item, faces that cannot be assessed left out, or the `reason` why there are none."""

    item: Item
    windows: tuple[Window, ...]
    reason: str | None = None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_path(cache: Path, path: Path, settings: WindowSettings, audio_path: Path | None = None) -> Path:
    """Where the prepared form of `path`, with its voice in `audio_path` if anywhere else, lies."""
    key = json.dumps({"format": FORMAT, "every": CROP_EVERY, **asdict(settings)}, sort_keys=True)
    content = " ".join(_digest(one) for one in (path, audio_path) if one is not None)
    name = hashlib.sha256(f"{content} {key}".encode()).hexdigest()
    return cache / name[:2] / f"{name}.safetensors"


def _save(target: Path, windows: Sequence[Window]) -> None:
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    facts = []
    for number, window in enumerate(windows):
        facts.append({"start": window.start, "end": window.end, "track": window.track})
        for name in ARRAYS:
            value = getattr(window, name)
            if value is not None:
                arrays[f"{number}.{name}"] = np.ascontiguousarray(value)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}.partial")
    save_file(arrays or {"empty": np.zeros(1, np.uint8)}, partial, {"windows": json.dumps(facts)})
    partial.replace(target)


def _load(source: Path) -> tuple[Window, ...]:
    with safe_open(source, "np") as file:
        facts = json.loads(file.metadata()["windows"])
        keys = set(file.keys())
        return tuple(
            Window(
                **fact,
                **{name: file.get_tensor(f"{n}.{name}") for name in ARRAYS if f"{n}.{name}" in keys},
            )
            for n, fact in enumerate(facts)
        )


def prepare_cached(item: Item, cache: Path, settings: WindowSettings) -> PreparedClip:
    """The item's windows, from the cache where they are; a clip that cannot be read gives a reason, no error."""
    try:
        target = cache_path(cache, item.path, settings, item.audio_path)
    except OSError as error:
        return PreparedClip(item, (), f"{error.filename or item.path}: {error.strerror}")
    if target.is_file():
        try:
            return PreparedClip(item, _load(target))
        except (SafetensorError, KeyError, TypeError, ValueError):
            target.unlink()  # written by a machine that died: made anew below
    try:
        prepared = prepare(item.path, settings, audio_path=item.audio_path)
        windows = list(prepared)
    except InputError as error:
        return PreparedClip(item, (), str(error))
    usable = {track.id for track in prepared.tracks if track.assessable}
    kept = [window for window in windows if window.track is None or window.track in usable]
    _save(target, kept)
    return PreparedClip(item, tuple(kept))


def prepare_all(
    items: Sequence[Item], cache: Path, settings: WindowSettings, workers: int | None = None
) -> Iterator[PreparedClip]:
    """Every item's windows, in order, made by `workers` processes (as many as there are cores)."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    count = workers or len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(count, get_context("spawn"), initializer=_single_thread) as pool:
        missing = [pool.submit(_make, item, cache, settings) for item in items]
        for item, made in zip(items, missing, strict=True):
            reason = made.result()
            yield PreparedClip(item, (), reason) if reason else prepare_cached(item, cache, settings)


def _make(item: Item, cache: Path, settings: WindowSettings) -> str | None:
    return prepare_cached(item, cache, settings).reason


def _single_thread() -> None:
    import torch

    torch.set_num_threads(1)
