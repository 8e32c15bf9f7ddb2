"""Folds and parts of a training run at the same time on one machine, each in a process of its own.

They leave behind what they would have left one after the other, and the run takes it over; where sums over several
threads differ in their last bits, so do these.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from avdetect.errors import AvdetectError, ConfigError
from avdetect.manifest import read_manifest
from avdetect.prepared import keep_all
from avdetect.processes import join
from avdetect.progress import track
from avdetect.recipe import TrainConfig
from avdetect.startup import cores
from avdetect.train import fold_folder, fold_is_done, of_splits, without_left_out
from avdetect.windows import WindowSettings

PAUSE = 0.1
"""Seconds between two looks whether a process has ended."""
PATIENCE = 10.0
"""Seconds that a process has to end when it is told to."""


@dataclass(frozen=True)
class Piece:
    """What one process trains: a fold, or with `fold` None what comes after a part's folds; `part` None: of no part."""

    part: str | None
    fold: int | None

    @property
    def name(self) -> str:
        """For people to read, and of its log."""
        named = [] if self.part is None else [self.part]
        return "-".join([*named, "all" if self.fold is None else f"fold-{self.fold}"])

    @property
    def arguments(self) -> list[str]:
        """That make a run train only this."""
        part = [] if self.part is None else ["--part", self.part]
        return [*part, *([] if self.fold is None else ["--fold", str(self.fold)])]

    def waits_for(self, other: Piece) -> bool:
        """Whether the other one has to be finished first."""
        return self.fold is None and other.fold is not None and self.part == other.part


def pieces_of(runs: Mapping[str | None, TrainConfig], fold: int | None, *, whole: bool) -> list[Piece]:
    """What is still to be trained of runs, by the names that they have as parts: their folds, or one `fold` of each.

    `whole`: and the model of all clips after them.
    """
    found = []
    for name, config in runs.items():
        run = config.training.out / config.name
        folds = range(config.training.folds) if fold is None else [fold]
        open_folds = [number for number in folds if not fold_is_done(fold_folder(run, number), config)]
        found += [Piece(name, number) for number in [*open_folds, *([None] if whole else [])]]
    return found


def train_pieces(
    pieces: Sequence[Piece], config: TrainConfig, command: Sequence[str], jobs: int, logs: Path
) -> None:
    """Trains the pieces, `jobs` at a time; what each of them says is written to a file in `logs`.

    `command`: what `avdetect train` would be given for the whole run. Clips are prepared first, once for all. Raises
    AvdetectError, and ends the others, where one fails.
    """
    if "LOCAL_RANK" in os.environ or join().num_processes > 1:
        raise ConfigError("--jobs starts processes of its own: give it without torchrun")
    if not pieces:
        return
    _prepare(config)
    logs.mkdir(parents=True, exist_ok=True)
    environment = {"OMP_NUM_THREADS": str(max(1, cores() // min(jobs, len(pieces)))), **os.environ}
    waiting, running = list(pieces), dict[Piece, subprocess.Popen[bytes]]()
    with _told_to_end():
        try:
            while waiting or running:
                open_ones = [*waiting, *running]
                ready = [one for one in waiting if not any(one.waits_for(other) for other in open_ones)]
                for piece in ready[: jobs - len(running)]:
                    running[piece] = _started(piece, command, environment, logs)
                    waiting.remove(piece)
                time.sleep(PAUSE)
                for piece in [one for one, process in running.items() if process.poll() is not None]:
                    _check(piece, running.pop(piece).returncode, logs)
                    print(f"{piece.name} is trained, {len(waiting) + len(running)} to go", file=sys.stderr)
        finally:
            for process in running.values():
                _end(process)


@contextmanager
def _told_to_end() -> Iterator[None]:
    """In here a signal that ends this process is an exception, so that others can be ended first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    signals = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = [(number, signal.signal(number, leave)) for number in signals]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and those that it has started."""
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGTERM)
        else:
            process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _prepare(config: TrainConfig) -> None:
    """All clips brought into the cache, where the processes will find them."""
    items = without_left_out(read_manifest(config.data.manifest), config.data.leave_out)
    wanted = [item for split in (config.data.train, config.data.validate) for item in of_splits(items, split)]
    settings = WindowSettings(config.data.window, config.data.window)
    for _ in track(keep_all(wanted, config.data.cache, settings), "preparing clips", len(wanted)):
        pass


def _log(piece: Piece, logs: Path) -> Path:
    return logs / f"{piece.name}.log"


def _started(
    piece: Piece, command: Sequence[str], environment: dict[str, str], logs: Path
) -> subprocess.Popen[bytes]:
    log = _log(piece, logs)
    print(f"{piece.name} begins, see {log}", file=sys.stderr)
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "avdetect", "train", *command, *piece.arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,  # so that all of it can be ended, and Ctrl-C reaches the run alone
        )


def _check(piece: Piece, code: int, logs: Path) -> None:
    if code:
        said = _log(piece, logs).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = said[-1] if said else "it said nothing"
        raise AvdetectError(f"{piece.name} ended with {code}: {last}; all of it is in {_log(piece, logs)}")
