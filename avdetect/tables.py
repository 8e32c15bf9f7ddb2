"""Text tables that data sets come with: protocols, csv, json; errors name file, row and value."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from avdetect.errors import DatasetError

T = TypeVar("T")


def one_of(words: Mapping[str, T], word: str, column: str, where: str) -> T:
    """What `word` stands for. Raises DatasetError, naming `where` it stood, for a word that nobody knows."""
    if word not in words:
        raise DatasetError(f"{where}: {column} is '{word}', must be one of {', '.join(words)}")
    return words[word]


def protocol_rows(path: Path, columns: int) -> Iterator[tuple[str, list[str]]]:
    """Rows of a table without a header whose cells are parted by blanks: where each stands, and its cells.

    Raises DatasetError for a row that has not exactly `columns` cells.
    """
    for number, line in enumerate(_text(path).splitlines(), start=1):
        cells = line.split()
        if not cells:
            continue
        if len(cells) != columns:
            raise DatasetError(
                f"{path}, row {number}: {len(cells)} columns, expected {columns} ('{line[:80]}')"
            )
        yield f"{path}, row {number}", cells


def lines(path: Path) -> list[str]:
    """The lines that are not empty, stripped."""
    return [stripped for line in _text(path).splitlines() if (stripped := line.strip())]


def csv_cells(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Rows of a csv file, the header among them: where each stands, and its cells, stripped."""
    reader = csv.reader(_text(path).splitlines())
    try:
        for cells in reader:
            if any(cells):
                yield f"{path}, row {reader.line_num}", [cell.strip() for cell in cells]
    except csv.Error as error:
        raise DatasetError(f"{path}, row {reader.line_num}: not csv ({error})") from error


def csv_rows(path: Path, required: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a csv file by column. Raises DatasetError where a `required` column or a cell is missing."""
    rows = csv_cells(path)
    _, header = next(rows, ("", []))
    for column in required:
        if column not in header:
            raise DatasetError(f"{path}: no column '{column}'; its header is {', '.join(header) or 'empty'}")
    for where, cells in rows:
        row = dict(zip(header, cells, strict=False))
        for column in required:
            if column not in row:
                raise DatasetError(f"{where}: no cell for column '{column}'")
        yield where, row


def read_json(path: Path) -> Any:
    """Content of a json file. Raises DatasetError where it is not json."""
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: not json ({error}); is the download complete?") from error


def field(row: Any, name: str, kind: type[T], where: str) -> T:
    """`row[name]`, which must be of type `kind`. Raises DatasetError where it is missing or is not."""
    if not isinstance(row, dict) or name not in row:
        raise DatasetError(f"{where}: no field '{name}'")
    value = row[name]
    if not isinstance(value, kind):
        raise DatasetError(f"{where}: {name} is {value!r}, must be {kind.__name__}")
    return value


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8 text ({error.reason})") from error
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror or error})") from error
