"""Progress bars on stderr, only where somebody is looking."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


def watched() -> bool:
    """Whether stderr is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def track(things: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
    """Walks through `things` with a bar on stderr where that is a terminal."""
    if not watched():
        yield from things
        return
    from rich.console import Console
    from rich.progress import track as rich_track

    yield from rich_track(things, title, total, console=Console(stderr=True))


@contextmanager
def share_bar(title: str) -> Iterator[Callable[[float], None]]:
    """A bar on stderr that is gone again afterwards; calling what it gives with a share, 0..1, moves it there."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=1.0)
        yield lambda share: progress.update(task, completed=share)
