"""Work done before it is asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


class Ahead(Iterator[Item], Generic[Item]):
    """The items of `source`, up to `room` of them made in a thread of its own before they are asked for.

    What `source` raises is raised here, in its place. `close` waits for the item in the making, and for no more.
    """

    def __init__(self, source: Generator[Item, Any, Any], room: int) -> None:
        self._source, self._end = source, object()
        self._pool = ThreadPoolExecutor(1, "ahead")
        self._coming = deque(self._next() for _ in range(room))

    def _next(self) -> Any:
        return self._pool.submit(next, self._source, self._end)

    def __next__(self) -> Item:
        if not self._coming:
            raise StopIteration
        try:
            item: Item = self._coming.popleft().result()
        except BaseException:
            self.close()
            raise
        if item is self._end:
            self.close()
            raise StopIteration
        self._coming.append(self._next())
        return item

    def close(self) -> None:
        """Ends it, and `source` with it."""
        self._coming.clear()
        self._pool.shutdown(cancel_futures=True)
        self._source.close()
