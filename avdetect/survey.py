"""A data set as it is published (`Dataset`) and as it lies on somebody's disk (`Survey`)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from avdetect.errors import DatasetError
from avdetect.types import Item

_VIDEO = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"}
_SOUND = {".flac", ".wav", ".mp3", ".m4a", ".aac", ".ogg", ".opus"}
MEDIA_SUFFIXES = frozenset(_VIDEO | _SOUND)
"""Files with these endings are clips: an empty one is an unfinished download."""

_TICK = 2_000  # files between two reports of progress


@dataclass(frozen=True)
class Dataset:
    """A published data set: what `data list` says of it, and `read`, which turns a folder into items.

    `read` yields an item for each clip that is there and whose label the set states, in any order, and tells
    the survey what it expected, found and could not make sense of. `layout` names the files it looks for.
    """

    title: str
    labels: str
    size: str
    licence: str
    access: str
    citation: str
    layout: str
    read: Callable[[Survey], Iterator[Item]]


class Survey:
    """One look at a folder: its files, and the account of what a reader expected, found, could not read."""

    def __init__(self, root: Path | str, progress: Callable[[int], None] | None = None) -> None:
        """`root` is the folder, or a manifest's file; `progress` is called with the number of files seen.

        Raises DatasetError where there is no such folder.
        """
        self.root = Path(root)
        if not self.root.exists():
            raise DatasetError(f"{self.root}: no such folder")
        self._progress = progress
        self.expected: dict[str, int] = {}
        self.found: Counter[str] = Counter()
        self.remarks: dict[str, list[str]] = {}

    @cached_property
    def files(self) -> tuple[str, ...]:
        """Every file below the root that is not hidden or an empty clip: posix paths from there, sorted."""
        if not self.root.is_dir():
            return ()
        return tuple(sorted(self._walk()))

    @cached_property
    def named(self) -> dict[str, str]:
        """Paths by file name alone; of two files with one name the first in order stands."""
        return {path.rsplit("/", 1)[-1]: path for path in reversed(self.files)}

    def path(self, relative: str) -> Path:
        """Where a file of `files` lies."""
        return self.root / relative

    def folder(self, relative: str) -> str:
        """The folder of a file of `files`, with a closing slash, or nothing for the root."""
        return relative[: relative.rfind("/") + 1]

    def expect(self, group: str, number: int) -> None:
        """`number` more clips of `group` should be there."""
        self.expected[group] = self.expected.get(group, 0) + number

    def see(self, group: str) -> None:
        """A clip of `group` is there."""
        self.found[group] += 1

    def remark(self, text: str, example: str) -> None:
        """Something that the user should know, said once with its number and the first examples."""
        self.remarks.setdefault(text, []).append(example)

    def report(self) -> list[str]:
        """A line for each group and each remark."""
        groups = list(dict.fromkeys([*self.expected, *self.found]))
        lines = [_count_line(group, self.found[group], self.expected.get(group)) for group in groups]
        for text, examples in self.remarks.items():
            more = f" and {len(examples) - 2:,} more" if len(examples) > 2 else ""
            lines.append(f"{text}: {', '.join(examples[:2])}{more}")
        return lines

    def _walk(self) -> Iterator[str]:
        """Paths below the root. os.scandir tells files from folders without asking the disk for each."""
        base = str(self.root)
        pending = [""]
        linked: set[str] = set()
        seen = 0
        while pending:
            folder = pending.pop()
            try:
                entries = list(os.scandir(os.path.join(base, folder)))
            except OSError as error:
                self.remark(f"folders that could not be read ({error.strerror})", folder or ".")
                continue
            for entry in entries:
                if entry.name.startswith(
                    "."
                ):  # also the "._clip.mp4" that some archives carry beside each clip
                    continue
                path = folder + entry.name
                if entry.is_dir():
                    if self._is_new(entry, linked):
                        pending.append(path + "/")
                elif self._is_whole(entry, path):
                    yield path
                    seen += 1
                    if self._progress is not None and seen % _TICK == 0:
                        self._progress(seen)
        if self._progress is not None:
            self._progress(seen)

    def _is_new(self, entry: os.DirEntry[str], linked: set[str]) -> bool:
        """Whether a folder should be walked: one behind a link only once, and never if it holds the link."""
        if not entry.is_symlink():
            return True
        target = os.path.realpath(entry.path)
        if target in linked or f"{os.path.realpath(self.root)}/".startswith(f"{target}/"):
            return False
        linked.add(target)
        return True

    def _is_whole(self, entry: os.DirEntry[str], path: str) -> bool:
        if os.path.splitext(entry.name)[1].lower() not in MEDIA_SUFFIXES:
            return True
        try:
            whole = entry.stat().st_size > 0
        except OSError:  # a link to nowhere
            whole = False
        if not whole:
            self.remark("empty files or dead links (unfinished download?), left out", path)
        return whole


def clips(paths: Iterable[str]) -> Iterator[str]:
    """Those of `paths` that are media files by their ending."""
    return (path for path in paths if os.path.splitext(path)[1].lower() in MEDIA_SUFFIXES)


def _count_line(group: str, found: int, expected: int | None) -> str:
    if expected is None:
        return f"{group}: {found:,} files"
    return f"{group}: {found:,} of {expected:,} files"
