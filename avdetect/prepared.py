"""Prepared clips on disk: each decoded and searched for speech and faces once, for any windows.

What `prepare` finds out about a clip before it cuts windows is kept in tar shards, one safetensors file per clip, keyed
by the SHA-256 of the clip's content and of everything that changes what is found. So nothing stale is ever used, and
training, with its long pieces, and evaluation, with the detector's short windows, read the same files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from avdetect.errors import InputError
from avdetect.looked import Looked, decoded, encoded, facts_of, header_size
from avdetect.shards import Place, Shards, read_place
from avdetect.startup import cores
from avdetect.types import CROP_EVERY, Item, Window
from avdetect.windows import WindowSettings, prepare

FORMAT = 5
"""Raised whenever `prepare` gives something else for the same clip and settings."""


@dataclass(frozen=True)
class PreparedClip:
    """The windows of one item, faces that cannot be assessed left out, or the `reason` why there are none."""

    item: Item
    windows: tuple[Window, ...]
    reason: str | None = None


@dataclass(frozen=True)
class Kept:
    """A clip in the cache: its `key`, `seconds` and `size` in bytes there; or the `reason` why it is not."""

    item: Item
    key: str = ""
    seconds: float = 0.0
    size: int = 0
    reason: str | None = None


class Cache:
    """Prepared clips in the shards of a folder, which need not be there. Not for two threads at once."""

    def __init__(self, folder: Path) -> None:
        self.shards = Shards(folder, ".safetensors")

    def find(self, item: Item, settings: WindowSettings) -> Looked | None:
        """What is kept of the clip, to be cut as `settings` say; None where nothing whole is there.

        Raises OSError where the clip itself cannot be read.
        """
        return self._read(key_of(item, settings), item, settings)

    def keep(self, item: Item, settings: WindowSettings) -> Kept:
        """Make sure that the clip is there; a clip that cannot be read gives a reason, no error."""
        try:
            key = key_of(item, settings)
        except OSError as error:
            return Kept(item, reason=f"{error.filename or item.path}: {error.strerror}")
        for place in self.shards.places(key):
            seconds = _seconds(place)
            if seconds is not None:
                return Kept(item, key, seconds, place.size)
        try:
            return self._make(key, item, settings)
        except InputError as error:
            return Kept(item, reason=str(error))

    def clip(self, kept: Kept, settings: WindowSettings) -> PreparedClip:
        """The windows of a clip that `keep` has kept; it is made anew where it was damaged since."""
        if kept.reason is not None:
            return PreparedClip(kept.item, (), kept.reason)
        looked = self._read(kept.key, kept.item, settings)
        if looked is None:
            self._make(kept.key, kept.item, settings)
            looked = self._read(kept.key, kept.item, settings)
        if looked is None:
            raise OSError(f"{self.shards.folder}: what is written there cannot be read again")
        return PreparedClip(kept.item, looked.usable_windows())

    def _read(self, key: str, item: Item, settings: WindowSettings) -> Looked | None:
        for place in self.shards.places(key):
            try:
                return decoded(read_place(place), item.path, settings)
            except ValueError:
                continue  # written by a machine that died, or damaged since: an older one, or none
        return None

    def _make(self, key: str, item: Item, settings: WindowSettings) -> Kept:
        whole = replace(settings, mouths=True)  # one kept clip is read for any model
        looked = Looked.at(prepare(item.path, whole, audio_path=item.audio_path))
        place = self.shards.add(key, encoded(looked))
        return Kept(item, key, looked.clip.duration, place.size)


def key_of(item: Item, settings: WindowSettings) -> str:
    """The name under which a clip, with its voice in `audio_path` if anywhere else, is kept.

    How windows are cut does not matter. Raises OSError where a file cannot be read.
    """
    made = json.dumps({"format": FORMAT, "every": CROP_EVERY, "faces": settings.max_faces})
    content = " ".join(_digest(one) for one in (item.path, item.audio_path) if one is not None)
    return hashlib.sha256(f"{content} {made}".encode()).hexdigest()


def _seconds(place: Place) -> float | None:
    """How long a kept clip is, from its header alone; None where that is damaged."""
    try:
        start = read_place(place, 8)
        return float(facts_of(read_place(place, header_size(start)))["clip"]["duration"])
    except (KeyError, TypeError, ValueError):
        return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Many clips


def prepare_cached(item: Item, folder: Path, settings: WindowSettings) -> PreparedClip:
    """The item's windows, from the cache where they are; a clip that cannot be read gives a reason, no error."""
    cache = Cache(folder)
    return cache.clip(cache.keep(item, settings), settings)


def prepare_all(
    items: Sequence[Item], folder: Path, settings: WindowSettings, workers: int | None = None
) -> Iterator[PreparedClip]:
    """Every item's windows, in order, made by `workers` processes (as many as there are cores)."""
    cache = Cache(folder)
    for kept in keep_all(items, folder, settings, workers):
        yield cache.clip(kept, settings)


def keep_all(
    items: Sequence[Item], folder: Path, settings: WindowSettings, workers: int | None = None
) -> Iterator[Kept]:
    """Every item brought into the cache, in order, by `workers` processes (as many as there are cores)."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    count = workers or cores()
    with ProcessPoolExecutor(count, get_context("spawn"), initializer=_start, initargs=(folder,)) as pool:
        yield from pool.map(_keep, items, [settings] * len(items))


_cache: Cache
"""A worker process's own."""


def _start(folder: Path) -> None:
    """What a worker process begins with: one thread, and the cache that it adds to."""
    global _cache
    import torch

    torch.set_num_threads(1)
    _cache = Cache(folder)


def _keep(item: Item, settings: WindowSettings) -> Kept:
    return _cache.keep(item, settings)
