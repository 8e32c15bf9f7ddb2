"""Many samples in few files: tar shards as WebDataset lays them out, one member `<key>.<suffix>` per sample.

Any number of processes may read and add at once: each adds to a shard of its own, which it holds locked. A member's
header is written after its content, so that a process killed at any moment leaves whole samples and a valid archive;
whoever adds next goes on behind them.
"""

from __future__ import annotations

import fcntl
import os
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

CACHE = Path(".cache/prepared")
"""The folder of shards in which training and evaluation look for prepared clips unless told otherwise."""
SHARD_BYTES = 1 << 30
"""A shard takes in no more samples once it is this large."""
_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)  # two empty blocks end an archive


@dataclass(frozen=True)
class Place:
    """Where a sample's content lies: `size` bytes from `start` of a shard."""

    shard: Path
    start: int
    size: int


class Shards:
    """The samples in a folder of shards, by key: members called `key` + `suffix`, of which the last one stands."""

    def __init__(self, folder: Path, suffix: str) -> None:
        self.folder, self.suffix = folder, suffix
        self._places: dict[str, list[Place]] = {}
        self._seen: dict[Path, int] = {}
        self._own: BinaryIO | None = None

    def places(self, key: str) -> list[Place]:
        """Where samples of that key lie, the one added last first; looks again for what others have added."""
        if key not in self._places:
            self._look()
        return self._places.get(key, [])

    def add(self, key: str, content: bytes) -> Place:
        """Keep a sample. Raises OSError where it cannot be written."""
        file = self._own_shard()
        at = file.tell()
        member = tarfile.TarInfo(f"{key}{self.suffix}")
        member.size = len(content)
        file.seek(at + _BLOCK)
        file.write(content)
        file.write(bytes(-len(content) % _BLOCK) + _END)
        file.flush()
        file.seek(at)
        file.write(member.tobuf(tarfile.GNU_FORMAT))  # only now the sample is there
        file.flush()
        file.seek(_end(at, member.size))
        place = Place(Path(file.name), at + _BLOCK, member.size)
        self._places.setdefault(key, []).insert(0, place)
        return place

    def _look(self) -> None:
        """Take in what has been added to the shards since the last look."""
        for shard in sorted(self.folder.glob("*.tar")):
            seen = self._seen.get(shard, 0)
            try:
                if shard.stat().st_size <= seen + len(_END):
                    continue
                with shard.open("rb") as file:
                    for name, place in _members(file, shard, seen):
                        self._seen[shard] = _end(place.start - _BLOCK, place.size)
                        places = self._places.setdefault(name.removesuffix(self.suffix), [])
                        if place not in places:
                            places.insert(0, place)
            except OSError:
                continue  # taken away by somebody: what was in it is not there

    def _own_shard(self) -> BinaryIO:
        """The shard that this object adds to, at its end; another one once that is full."""
        if self._own is not None and self._own.tell() < SHARD_BYTES:
            return self._own
        self.folder.mkdir(parents=True, exist_ok=True)
        self._own = self._unfinished() or self._fresh()
        return self._own

    def _unfinished(self) -> BinaryIO | None:
        """A shard with room that nobody is adding to, cut behind its last whole sample."""
        for shard in sorted(self.folder.glob("*.tar")):
            file = cast("BinaryIO", shard.open("r+b"))
            if _locked(file):
                end = 0
                for _, place in _members(file, shard, 0):
                    end = _end(place.start - _BLOCK, place.size)
                if end < SHARD_BYTES:
                    file.truncate(end)
                    file.seek(end)
                    return file
            file.close()
        return None

    def _fresh(self) -> BinaryIO:
        while True:
            name = f"{time.time_ns():020}-{os.getpid()}.tar"
            file = cast("BinaryIO", (self.folder / name).open("x+b"))
            if _locked(file):
                return file
            file.close()  # somebody was quicker to go on with it


def read_place(place: Place, size: int | None = None) -> bytes:
    """A sample's content, or its first `size` bytes; fewer where the shard has been cut off or taken away."""
    try:
        with place.shard.open("rb") as file:
            file.seek(place.start)
            return file.read(place.size if size is None else min(size, place.size))
    except FileNotFoundError:
        return b""


def _locked(file: BinaryIO) -> bool:
    """Whether the file is now ours to add to, until it is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _end(at: int, size: int) -> int:
    """Where the member after one of `size` bytes with its header at `at` begins."""
    return at + _BLOCK + -(-size // _BLOCK) * _BLOCK


def _members(file: BinaryIO, shard: Path, at: int) -> Iterator[tuple[str, Place]]:
    """Whole members from `at` on, by name; what follows a damaged header is not looked at."""
    total = os.fstat(file.fileno()).st_size
    while True:
        file.seek(at)
        try:
            member = tarfile.TarInfo.frombuf(file.read(_BLOCK), "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            return
        if at + _BLOCK + member.size > total:
            return
        yield member.name, Place(shard, at + _BLOCK, member.size)
        at = _end(at, member.size)
