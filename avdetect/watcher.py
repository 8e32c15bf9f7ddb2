"""Faces followed in a process of their own, while this one listens to the sound and imports PyTorch.

Both are many short steps of Python: in one process they wait for each other's lock. Importing this module costs
nothing, so that the process can be started before anything else.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from avdetect.errors import AvdetectError
from avdetect.startup import brisk

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from avdetect.types import Clip
    from avdetect.windows import Prepared, WindowSettings

TOGETHER = 25
"""Pictures that are told of at once."""
MOST = 4
"""Watchers of one call: more clips than they look at, one detector does not score."""


class Watcher:
    """A process that follows the faces of one clip after the other, as `windows.Prepared` does.

    It is started by `multiprocessing`, afresh: a program that makes one guards its main module, as that asks for.
    """

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other,), name="faces", daemon=True)
        with _uninterrupted():
            self._process.start()
        other.close()

    def follow(self, clip: Clip, settings: WindowSettings) -> Generator[Any, None, None]:
        """Lists of (frame, {face: what was seen of it}), and at last (tracks, warnings, seconds) of the clip.

        Raises what following the faces here would have raised; RuntimeError where the process was ended.
        """
        done = False
        try:
            if not self._process.is_alive():
                self._start()
            self._pipe.send((clip, settings))
            while not done:
                told = self._pipe.recv()
                done = not isinstance(told, list)
                if isinstance(told, Exception):
                    raise told
                yield told
        except (EOFError, OSError):
            raise RuntimeError("the process that looks for faces was ended") from None
        finally:
            if not done:  # it is in the middle of a clip that nobody wants any more
                self.close()

    def close(self) -> None:
        """Ends the process."""
        self._process.terminate()  # first: a thread that waits for it is woken by that alone
        self._process.join()
        self._pipe.close()


def started(clips: int) -> list[Watcher]:
    """Watchers for so many clips, each of them running; none where there is no second core for them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    watchers: list[Watcher] = []
    if cores > 1:
        with suppress(OSError):  # no more processes for us
            for _ in range(min(clips, cores, MOST)):
                watchers.append(Watcher())
    return watchers


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """A process that is started in here hears no interrupt from the first on; this one hears it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Connection) -> None:
    """Follows the faces of the clips that come through the pipe until its other end is gone."""
    brisk()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's goes to both; the other one says it
    from avdetect.faces import FaceFinder
    from avdetect.windows import Prepared

    finder: FaceFinder | None = None
    failure: Exception | None = None
    try:
        finder = FaceFinder()
    except Exception as error:
        failure = _crossing(error)
    with suppress(EOFError, OSError):
        while True:
            clip, settings = pipe.recv()
            if failure is not None:
                pipe.send(failure)
                continue
            for part in _parts(Prepared(clip, None, settings, finder)):
                pipe.send(part)


def _parts(prepared: Prepared) -> Iterator[Any]:
    """What `Watcher.follow` gives for one clip, and what it raises as a last part."""
    seen: dict[int, dict[int, Any]] = {}
    part: list[tuple[int, dict[int, Any]]] = []
    try:
        for count in prepared._look(seen):
            part.append((count - 1, {track: frames[count - 1] for track, frames in seen.items()}))
            seen.clear()
            if len(part) == TOGETHER:
                yield part
                part = []
    except Exception as error:
        yield _crossing(error)
        return
    yield part
    yield prepared.tracks, prepared.warnings, prepared.seconds


def _crossing(error: Exception) -> Exception:
    """The error as it can be told to another process: those of other packages may not survive the way."""
    return error if isinstance(error, AvdetectError) else RuntimeError(f"{type(error).__name__}: {error}")
