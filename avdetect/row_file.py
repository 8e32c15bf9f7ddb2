"""Rows of results in a csv file that grows as they come, so that work which was cut off goes on where it stopped."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import Field, asdict, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

from avdetect.errors import DatasetError

R = TypeVar("R")


class RowFile(Generic[R]):
    """A csv file of one dataclass's rows, whose fields are str, int, or float | None (None: an empty cell).

    `rows` are those that stood there already; a last line that was cut off is dropped. A context manager.
    DatasetError where the file holds something else.
    """

    def __init__(self, path: Path, kind: Any) -> None:
        self.path = path
        self._fields: tuple[Field[Any], ...] = fields(kind)
        self._kind = kind
        self.rows: list[R] = []
        if path.is_file():
            _drop_half_a_line(path)
            self.rows = list(self._read())
        fresh = not path.is_file() or not path.stat().st_size
        try:
            self._file = path.open("ab", buffering=0)  # what is added is written whole, or hardly at all
        except OSError as error:
            raise DatasetError(f"{path}: cannot be written ({error.strerror})") from error
        if fresh:
            self._file.write(self._text([], header=True))

    def __enter__(self) -> RowFile[R]:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, rows: Iterable[R]) -> None:
        """Write rows, so that they are there even if the next ones never come."""
        self._file.write(self._text(rows))

    def _text(self, rows: Iterable[R], *, header: bool = False) -> bytes:
        text = io.StringIO()
        writer = csv.DictWriter(text, [one.name for one in self._fields], lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(asdict(row) for row in rows)  # type: ignore[call-overload]
        return text.getvalue().encode()

    def _read(self) -> Iterator[R]:
        with self.path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            header = [one.name for one in self._fields]
            if reader.fieldnames is None:
                return
            if list(reader.fieldnames) != header:
                raise DatasetError(f"{self.path}: holds no rows of {', '.join(header)}; name another folder")
            for raw in reader:
                try:
                    yield self._kind(**{one.name: _cell(one, raw[one.name]) for one in self._fields})
                except (TypeError, ValueError) as error:
                    raise DatasetError(
                        f"{self.path}: line {reader.line_num} cannot be read ({error}); remove it"
                    ) from None


def _cell(one: Field[Any], text: str) -> str | int | float | None:
    if "float" in str(one.type):
        return float(text) if text else None
    return int(text) if one.type == "int" else text


def _drop_half_a_line(path: Path) -> None:
    """Cut off what stands after the last end of a line: a process was killed while it wrote."""
    with path.open("rb+") as file:
        whole = file.read()
        file.truncate(whole.rfind(b"\n") + 1)
