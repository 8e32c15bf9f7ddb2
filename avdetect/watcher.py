"""Faces followed in a process of their own, while this one listens to the sound and imports PyTorch.

Both are many short steps of Python: in one process they wait for each other's lock. Importing this module costs
nothing, so that the process can be started before anything else.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from avdetect.errors import AvdetectError
from avdetect.startup import brisk, cores

if TYPE_CHECKING:
    from avdetect.types import Clip
    from avdetect.windows import Prepared, WindowSettings

TOGETHER = 25
"""Pictures that are told of at once."""
MOST = 4
"""Watchers of one call: more clips than they look at, one detector does not score."""
SERVE = "import sys; sys.path[:] = sys.argv[2:]; from avdetect.watcher import serve; serve(int(sys.argv[1]))"
"""What the process runs, which imports what this one would; `multiprocessing` takes an interpreter more for it."""


class _Pipe:
    """One of two ends through which two processes of ours tell each other Python's objects."""

    def __init__(self, end: socket.socket) -> None:
        self._file = end.makefile("rwb")
        end.close()  # the file keeps it open

    def send(self, told: Any) -> None:
        """OSError where the other end is gone."""
        try:
            pickle.dump(told, self._file, pickle.HIGHEST_PROTOCOL)
            self._file.flush()
        except ValueError:  # this end was closed
            raise BrokenPipeError from None

    def recv(self) -> Any:
        """EOFError, or OSError, where the other end is gone."""
        try:
            return pickle.load(self._file)
        except (
            pickle.UnpicklingError,
            ValueError,
        ):  # it went away in the middle of a word, or this end was closed
            raise EOFError from None

    def close(self) -> None:
        """Tells the other end, where it waits for something, that nothing comes."""
        with suppress(OSError):  # what is still to be sent reaches nobody
            self._file.close()


class Watcher:
    """A process that follows the faces of one clip after the other, as `windows.Prepared` does."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        end, other = socket.socketpair()
        self._pipe = _Pipe(end)
        with other, _beyond_standard_streams(other) as number, _uninterrupted():
            self._process = subprocess.Popen(
                [sys.executable, "-c", SERVE, str(number), *sys.path],
                pass_fds=[number],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    def follow(self, clip: Clip, settings: WindowSettings) -> Generator[Any, None, None]:
        """Lists of (frame, {face: what was seen of it}), and at last (tracks, warnings, seconds) of the clip.

        Raises what following the faces here would have raised; RuntimeError where the process was ended.
        """
        done = False
        try:
            if self._process.poll() is not None:
                self._pipe.close()
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
        self._process.wait()
        self._pipe.close()


def started(clips: int) -> list[Watcher]:
    """Watchers for so many clips, each of them running; none where there is no second core for them."""
    watchers: list[Watcher] = []
    if (count := cores()) > 1:
        with suppress(OSError):  # no more processes for us
            for _ in range(min(clips, count, MOST)):
                watchers.append(Watcher())
    return watchers


@contextmanager
def _beyond_standard_streams(end: socket.socket) -> Iterator[int]:
    """A descriptor of `end` that is none of the first three, which the process gets others of."""
    number = fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3)
    try:
        yield number
    finally:
        os.close(number)


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


def serve(end: int) -> None:
    """Follows the faces of the clips that come through the socket `end` until its other end is gone."""
    pipe = _Pipe(socket.socket(fileno=end))
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
