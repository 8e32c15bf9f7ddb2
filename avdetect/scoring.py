"""Clips through a detector, one after the other or over several processes, answers always in the clips' order.

A `Scorer` is anything that gives a verdict on a file: a fusion model, or another system by a prefix of its name in
SCORERS (`aasist:AASIST.pth`).
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from typing import Any, Protocol, TypeVar, cast

from avdetect.detect import Detector, probability
from avdetect.errors import AvdetectError, ConfigError
from avdetect.pooling import ClipEvidence
from avdetect.prepared import Cache
from avdetect.rows import Journal, Row, key_of, rows_of, true_offset
from avdetect.startup import cores
from avdetect.types import Claim, Item, ModelInfo, Outcome, Verdict
from avdetect.windows import Prepared, WindowSettings

logger = logging.getLogger(__name__)

AHEAD = 4
"""Clips that each process has in hand or waiting."""

T = TypeVar("T")
R = TypeVar("R")


class Scorer(Protocol):
    """What an evaluation asks: verdicts of one model."""

    model_info: ModelInfo
    settings: WindowSettings

    def detect(
        self, path: Path, *, audio_path: Path | None = None, prepared: Prepared | None = None
    ) -> Verdict:
        """The verdict on a file; one that cannot be read gives a verdict with `error` set."""
        ...


class FaceByFace(Detector):
    """A detector that also keeps what each face of the last clip scored: `faces`, (track, score in 0..1)."""

    faces: tuple[tuple[int, float], ...] = ()

    def detect(self, path: str | Path, *args: Any, **options: Any) -> Verdict:
        """As Detector.detect."""
        self.faces = ()
        return super().detect(path, *args, **options)

    def _judge(self, prepared: Prepared, evidence: ClipEvidence) -> Verdict:
        claim, config = Claim.FACE_MANIPULATION, cast("Any", self.model.config)
        found = {
            track.id: evidence.pool(self.model, claim, prepared.clip.duration, {track.id})
            for track in prepared.tracks
            if track.assessable
        }
        self.faces = tuple(
            (track, float(probability(one.logit, config, claim))) for track, one in found.items() if one
        )
        return super()._judge(prepared, evidence)


SCORERS: dict[str, str] = {"aasist": "baselines:AasistScorer", "gmm": "baselines:GmmScorer"}
"""Prefix of a model's name -> `module:class`, which takes the rest of the name and the device."""


def make_scorer(model: str, device: str = "cpu") -> Scorer:
    """The scorer of that name: a shipped or trained fusion model, or PREFIX:PATH of SCORERS."""
    prefix, parted, rest = model.partition(":")
    if parted and prefix in SCORERS and not Path(model).exists():
        if not rest:
            raise ConfigError(f"--model {model}: name its checkpoint, as in {prefix}:FILE")
        module, name = SCORERS[prefix].split(":")
        made: Scorer = getattr(import_module(f"avdetect.{module}"), name)(Path(rest), device)
        return made
    return FaceByFace(model, device=device)


@dataclass(frozen=True)
class Task:
    """A clip, and the claims that are still to be answered."""

    item: Item
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class Answer:
    """What came of a task: its rows, and the seconds that it took."""

    rows: tuple[Row, ...]
    seconds: float


Ask = Callable[[Iterable[T]], Generator[R, None, None]]
"""Tasks in, what comes of each in their order; closing it ends the processes behind it."""
Work = Callable[[Scorer, T, Cache | None], R]
"""What is done about a task: a function of a module, so that other processes can be told of it."""


def answer(scorer: Scorer, task: Task, cache: Cache | None = None) -> Answer:
    """A clip's rows; what `cache` holds of it is not decoded again."""
    began = time.perf_counter()
    item = task.item
    try:
        prepared = cache.find(item, scorer.settings) if cache is not None else None
    except OSError:
        prepared = None  # the clip itself cannot be read: the detector says so in words
    verdict = guarded(
        item.path,
        scorer.model_info,
        lambda: scorer.detect(item.path, audio_path=item.audio_path, prepared=prepared),
    )
    faces: Sequence[tuple[int, float]] = getattr(scorer, "faces", ())
    rows = tuple(rows_of(item, verdict, task.claims, faces))
    return Answer(rows, time.perf_counter() - began)


def guarded(path: Path, model: ModelInfo, judge: Callable[[], Verdict]) -> Verdict:
    """What `judge` says, an error where avdetect itself fails on a clip: a million others are still to be done."""
    try:
        return judge()
    except AvdetectError:
        raise
    except Exception as error:
        logger.debug("%s", path, exc_info=True)
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        failed = f"{path}: could not be scored, avdetect failed ({reason}); please report it"
        return Verdict(path, Outcome.ERROR, model, error=failed)


def alone(scorer: Scorer, cache: Cache | None, work: Work[T, R]) -> Ask[T, R]:
    """The work is done in this process."""
    return lambda tasks: (work(scorer, task, cache) for task in tasks)


@dataclass(frozen=True)
class Machine:
    """What processes are given: a model by its name, `device`, the folder of prepared clips; and how many there are."""

    model: str
    device: str
    cache: Path
    jobs: int

    def ask(self, scorer: Scorer, work: Work[T, R]) -> Ask[T, R]:
        """The work is shared, or done by `scorer` in this process; what comes of it is the same."""
        if self.jobs > 1:
            return together(self, work)
        one_thread()
        return alone(scorer, Cache(self.cache), work)


def jobs_for(wanted: int | None, device: str, tasks: int, worthwhile: int) -> int:
    """Processes for so many tasks: `wanted`, or else all cores (one of a GPU) and at most as many as are worth it."""
    if wanted is not None:
        return max(1, min(wanted, tasks))
    return max(1, min(1 if device != "cpu" else cores(), tasks, worthwhile))


def together(machine: Machine, work: Work[T, R]) -> Ask[T, R]:
    """The work is done by processes with one thread each, in the tasks' order; few tasks are read ahead."""

    def ask(tasks: Iterable[T]) -> Generator[R, None, None]:
        # started afresh: a process that has already run threads must not be forked
        context = get_context("spawn")
        with ProcessPoolExecutor(machine.jobs, context, initializer=_start, initargs=(machine,)) as pool:
            waiting: deque[Future[R]] = deque()
            try:
                for task in tasks:
                    waiting.append(pool.submit(_done, work, task))
                    if len(waiting) >= AHEAD * machine.jobs:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            except BrokenProcessPool:
                raise AvdetectError(
                    "a process was ended from outside (out of memory?); run the same command again to go on, "
                    f"with fewer --jobs than {machine.jobs}"
                ) from None
            finally:
                for future in waiting:
                    future.cancel()

    return ask


@dataclass(frozen=True)
class Scored:
    """An item's rows; `seconds` it took to score what was not there already, None where all was."""

    rows: list[Row]
    seconds: float | None = None


def unscored(items: Sequence[Item], claims: Sequence[Claim], rows: Iterable[Row]) -> list[Task]:
    """What is still to be asked, in the items' order, where `rows` are there already.

    DatasetError for a true offset that cannot be read: before hours of scoring, not after them.
    """
    stand = {(row.key, row.claim) for row in rows}
    tasks = []
    for item in items:
        known = [claim for claim in claims if item.label[claim] is not None]
        wanted = tuple(claim for claim in known if (key_of(item), claim.value) not in stand)
        if wanted:
            true_offset(item)
            tasks.append(Task(item, wanted))
    return tasks


def walk(
    ask: Ask[Task, Answer], items: Sequence[Item], claims: Sequence[Claim], journal: Journal | None = None
) -> Iterator[Scored]:
    """Each item's rows in the items' order, what is new also written to `journal`, which is closed at the end."""
    done: dict[tuple[str, str], list[Row]] = {}
    for row in journal.rows if journal is not None else ():
        if row.claim in claims:
            done.setdefault(row.key, []).append(row)
    tasks = unscored(items, claims, (row for rows in done.values() for row in rows))
    waiting = {key_of(task.item) for task in tasks}
    try:
        with closing(ask(tasks)) as answers:
            for item in items:
                answer = next(answers) if key_of(item) in waiting else None
                if answer is not None and journal is not None:
                    journal.write(answer.rows)
                yield _scored(done.get(key_of(item), []), answer)
    finally:
        if journal is not None:
            journal.close()


def _scored(there: list[Row], answer: Answer | None) -> Scored:
    return Scored(there) if answer is None else Scored([*there, *answer.rows], answer.seconds)


# Worker processes


_scorer: Scorer
"""A worker process's own."""
_cache: Cache


def one_thread() -> None:
    """Keep PyTorch to one thread: sums, and so scores, then don't depend on how many processes share the work."""
    import torch

    torch.set_num_threads(1)


def _start(machine: Machine) -> None:
    global _scorer, _cache
    Thread(target=_end_with_parent, daemon=True).start()
    one_thread()
    _scorer, _cache = make_scorer(machine.model, machine.device), Cache(machine.cache)


def _end_with_parent() -> None:
    """A parent that was killed tells its processes nothing; they would wait for tasks for ever."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _done(work: Work[T, R], task: T) -> R:
    return work(_scorer, task, _cache)
