"""Rows of results in a csv file that grows as they come, so that work which was cut off goes on where it stopped.

A file whose last line is not whole (power, SIGKILL) is mended where it is gone on with: that line is taken away, so
that what follows gives the bytes that an uninterrupted run would have given.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

from avdetect.errors import DatasetError

R = TypeVar("R")

END = "\r\n"
"""What ends a line; a line feed alone may stand within a cell."""
CELL_LIMIT = 1 << 24
"""Characters of one cell: the proposals of a long clip outgrow csv's own limit."""


@dataclass(frozen=True)
class Layout(Generic[R]):
    """How rows of the dataclass `kind` stand in a file; `what` they are called in errors.

    Its fields are str, int, `float | None` (None: an empty cell) or tuples of such, kept as JSON. Files from before the
    last `later` fields were there are read with the defaults of those.
    """

    kind: Callable[..., R]
    what: str
    later: int = 0

    @property
    def fields(self) -> tuple[Field[Any], ...]:
        """One for each column."""
        found: tuple[Field[Any], ...] = fields(self.kind)  # type: ignore[arg-type]  # a dataclass
        return found

    @property
    def columns(self) -> tuple[str, ...]:
        """The header of a file that is written now."""
        return tuple(one.name for one in self.fields)

    def knows(self, header: Sequence[str]) -> bool:
        """Whether these are the columns of such rows, written now or earlier."""
        known = self.columns
        return tuple(header) == known[: len(header)] and len(header) >= len(known) - self.later

    def cells(self, row: R) -> dict[str, Any]:
        """A row as flat values."""
        found = asdict(row)  # type: ignore[call-overload]  # a dataclass
        for name, value in found.items():
            if isinstance(value, tuple):
                found[name] = json.dumps(value, separators=(",", ":")) if value else ""
        return dict(found)

    def row(self, cells: Mapping[str, Any]) -> R:
        """A row from text cells; ValueError where one cannot be read."""
        if any(value is None for value in cells.values()):
            raise ValueError("it was cut off")
        return self.kind(
            **{one.name: _value(one, str(cells[one.name])) for one in self.fields if one.name in cells}
        )

    def numbered(self, cells: Mapping[str, Any], path: Path, line: int) -> R:
        """As `row`; DatasetError with the line where that fails."""
        try:
            return self.row(cells)
        except (TypeError, ValueError) as error:
            raise DatasetError(f"{path}: line {line} cannot be read ({error}); remove it") from None

    def to_csv(self, rows: Iterable[R], *, header: bool = False, end: str = END) -> bytes:
        """Rows as lines of csv."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator=end)
        if header:
            writer.writeheader()
        writer.writerows(map(self.cells, rows))
        return text.getvalue().encode("utf-8", "surrogateescape")

    def refuse(self, path: Path) -> DatasetError:
        """What is said of a file that holds something else."""
        return DatasetError(f"{path}: holds no {self.what}; give another file")


def _value(one: Field[Any], text: str) -> Any:
    kind = str(one.type)
    if kind.startswith("tuple"):
        return _tuples(json.loads(text)) if text else ()
    if "float" in kind:
        return float(text) if text else None
    return int(text) if kind == "int" else text


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def read_csv(path: Path, layout: Layout[R]) -> list[R]:
    """Rows of a csv file; DatasetError where it holds something else, or a line cannot be read."""
    csv.field_size_limit(CELL_LIMIT)
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            reader = csv.DictReader(file)
            if not layout.knows(reader.fieldnames or ()):
                raise layout.refuse(path)
            return [layout.numbered(cells, path, reader.line_num) for cells in reader]
    except csv.Error as error:
        raise DatasetError(f"{path}: not csv ({error}); give another file") from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from None


def header_of(path: Path) -> list[str]:
    """The cells of a file's first line, whole or not; none where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.readline(4096).rstrip().decode("utf-8", "replace").split(",")
    except OSError:
        return []


class RowFile(Generic[R]):
    """A csv file of rows that grows; `rows` are those that stood there already. A context manager.

    A file of an older layout is brought to the present one, and rows that `keep` does not want are taken away.
    DatasetError where it holds something else.
    """

    def __init__(self, path: Path, layout: Layout[R], keep: Callable[[R], bool] = lambda _: True) -> None:
        self.path, self._layout = path, layout
        self._end = _mend(path, layout)
        there = path.is_file() and path.stat().st_size > 0
        every = read_csv(path, layout) if there else []
        self.rows: list[R] = [row for row in every if keep(row)]
        self._check()
        try:
            if there and (header_of(path) != list(layout.columns) or len(self.rows) < len(every)):
                _replace(path, layout.to_csv(self.rows, header=True, end=self._end))
            self._file = path.open("ab", buffering=0)  # what is added is written whole, or hardly at all
        except OSError as error:
            raise DatasetError(f"{path}: cannot be written ({error.strerror}); name another file") from None
        if not there:
            self._file.write(layout.to_csv([], header=True))

    def __enter__(self) -> RowFile[R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self) -> None:
        """Whether one may go on with `rows`; an error where not."""

    def write(self, rows: Iterable[R]) -> None:
        """Add rows, so that they are there even if the next ones never come."""
        self._file.write(self._layout.to_csv(rows, end=self._end))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _mend(path: Path, layout: Layout[Any]) -> str:
    """Take away a last line that is not whole, and tell how lines end there; others' files are left as they are."""
    if not path.is_file() or not layout.knows(header_of(path)):
        return END
    with path.open("rb+") as file:
        end = "\n" if _ends_plainly(file.readline()) else END
        file.seek(0)
        whole = file.read()
        last = whole.rfind(end.encode())
        file.truncate(last + len(end) if last >= 0 else 0)
    return end


def _ends_plainly(header: bytes) -> bool:
    return header.endswith(b"\n") and not header.endswith(END.encode())


def _replace(path: Path, content: bytes) -> None:
    """The file appears whole, or stays as it was."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)
