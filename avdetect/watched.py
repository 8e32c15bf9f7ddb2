"""A clip whose faces are followed by another process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

from avdetect.watcher import Watcher
from avdetect.windows import Prepared, _Seen


@dataclass
class Watched(Prepared):
    """A clip that was opened with `prepare`; `watcher` reads its pictures when its windows are walked through."""

    watcher: Watcher | None = None

    @classmethod
    def by(cls, watcher: Watcher, prepared: Prepared) -> Watched:
        """The same clip, to be watched."""
        known = {one.name: getattr(prepared, one.name) for one in fields(prepared)}
        return cls(**known, watcher=watcher)

    def _look(self, seen: dict[int, dict[int, _Seen]]) -> Iterator[int]:
        if not self.clip.has_video or self.watcher is None:
            return
        for told in self.watcher.follow(replace(self.clip, waveform=None), self.settings):
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
