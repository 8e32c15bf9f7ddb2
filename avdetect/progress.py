"""Progress bars on stderr, only where somebody is looking."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def track(things: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
    """Walks through `things` with a bar on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield from things
        return
    from rich.console import Console
    from rich.progress import track as rich_track

    yield from rich_track(things, title, total, console=Console(stderr=True))
