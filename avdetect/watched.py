"""Clips whose faces other processes follow, the next ones' while one is scored."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from avdetect.ahead import Ahead
from avdetect.watcher import Watcher
from avdetect.windows import Prepared, WindowSettings, _Seen, prepare

ROOM = 20
"""Parts of a clip, a second each, that wait here for its turn; then its watcher waits."""
Opened = Callable[[], Prepared]


@dataclass
class Watched(Prepared):
    """A clip that was opened with `prepare`, and what a watcher tells of its pictures from the moment it was made."""

    told: Ahead[Any] | None = None

    @classmethod
    def by(cls, watcher: Watcher, prepared: Prepared) -> Watched:
        """The same clip, being watched."""
        known = {one.name: getattr(prepared, one.name) for one in fields(prepared)}
        if not prepared.clip.has_video:
            return cls(**known)
        silent = replace(prepared.clip, waveform=None)
        return cls(**known, told=Ahead(watcher.follow(silent, prepared.settings), ROOM))

    def _look(self, seen: dict[int, dict[int, _Seen]]) -> Iterator[int]:
        for told in self.told or ():
            if isinstance(told, list):
                for index, faces in told:
                    for track, face in faces.items():
                        seen.setdefault(track, {})[index] = face
                    yield index + 1
                continue
            self.tracks, warnings, seconds = told
            self.warnings.extend(warnings)
            for stage, spent in seconds.items():
                self.seconds[stage] += spent

    def close(self) -> None:
        """Its watcher is free for another clip."""
        if self.told is not None:
            self.told.close()


def opened(
    clips: Sequence[str], watchers: Sequence[Watcher], settings: WindowSettings, background: Executor
) -> Iterator[Opened]:
    """For each clip in turn what gives it, or raises what opening it raised; as many are open as there are watchers.

    A clip is done with when the next one is asked for. Speech is looked for in `background`.
    """
    count = len(watchers)

    def open_one(number: int) -> Watched:
        return Watched.by(
            watchers[number % count], prepare(Path(clips[number]), settings, background=background)
        )

    pool = ThreadPoolExecutor(count, "open")
    try:
        coming: deque[Future[Watched]] = deque(
            pool.submit(open_one, number) for number in range(min(count, len(clips)))
        )
        for following in range(count, len(clips) + count):
            current = coming.popleft()
            yield current.result
            with suppress(Exception):  # it was raised already
                current.result().close()
            if following < len(clips):
                coming.append(pool.submit(open_one, following))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # whoever interrupts us waits for no clip to be opened
