"""Work done before it is asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def ahead(source: Iterator[Item], room: int) -> Iterator[Item]:
    """The items of `source`, up to `room` of them made in a thread of their own while earlier ones are in use.

    What `source` raises is raised here, in its place. Closing this waits for the item in the making, and for no more.
    """
    end = object()
    with ThreadPoolExecutor(1, "ahead") as pool:
        coming = deque(pool.submit(next, source, end) for _ in range(room))
        try:
            while (item := coming.popleft().result()) is not end:
                coming.append(pool.submit(next, source, end))
                yield item  # type: ignore[misc]  # mypy cannot tell `end` from an item
        finally:
            pool.shutdown(cancel_futures=True)
