"""Text tables of scores as people write them: which column holds the file, the score, the key and the attack.

Spaces, tabs, commas or semicolons between columns, with or without a header, in any order.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from avdetect.errors import DatasetError, InputError

KEYS = {
    "bonafide": False,
    "bona-fide": False,
    "bona_fide": False,
    "genuine": False,
    "human": False,
    "real": False,
    "spoof": True,
    "spoofed": True,
    "fake": True,
}
"""What a trial is, in the words that score files use; True = fake."""

_HEADERS = {
    "name": {
        "file",
        "filename",
        "file_name",
        "name",
        "path",
        "trial",
        "utt",
        "utt_id",
        "utterance",
        "clip",
        "id",
    },
    "score": {"score", "scores", "cm-score", "cm_score", "cm", "prediction", "pred", "logit", "llr"},
    "attack": {"attack", "system", "system_id", "attack_id", "method"},
}
_AUDIO = re.compile(r"\.(flac|wav|mp3|ogg|m4a|opus|mp4)$", re.IGNORECASE)
_ATTACK = re.compile(r"^(-|bonafide|[A-Z]{1,2}\d{1,2})$")


@dataclass(frozen=True)
class Table:
    """Columns of equally many cells; `lines` are the file's line numbers of the rows, from 1."""

    path: Path
    columns: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    header: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Roles:
    """Column numbers from 0 of what was recognised."""

    name: int
    score: int
    key: int | None = None
    attack: int | None = None


def trial_name(text: str) -> str:
    """A trial's bare name: without folder and without the ending of an audio or video file."""
    return _AUDIO.sub("", text.replace("\\", "/").rsplit("/", 1)[-1])


def as_number(text: str) -> float | None:
    """The number that the text is, NaN and infinity included, or None."""
    try:
        return float(text)
    except ValueError:
        return None


def read_lines(path: Path) -> list[tuple[int, list[str]]]:
    """The rows of a text table with their line numbers; blank lines are left out."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path}: not a text file (byte {error.start}); give the scores as text"
        ) from error
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); check the name and the rights"
        ) from error
    first = next((line for line in lines if line.strip()), "")
    mark = next((mark for mark in ",;" if mark in first), None)
    cells = (
        csv.reader(lines, delimiter=mark, skipinitialspace=True) if mark else (line.split() for line in lines)
    )
    rows = [(number, [cell.strip() for cell in row]) for number, row in enumerate(cells, 1)]
    rows = [(number, row) for number, row in rows if any(row)]
    if not rows:
        raise DatasetError(f"{path}: empty; a score file holds one line per trial")
    return rows


def read_table(path: Path, names: Set[str] = frozenset()) -> Table:
    """The file as columns. A first row without any number or known trial name is its header.

    DatasetError for a binary or empty file and for rows of unequal length.
    """
    rows = read_lines(path)
    header: tuple[str, ...] | None = None
    first = rows[0][1]
    if len(rows) > 1 and all(as_number(cell) is None and trial_name(cell) not in names for cell in first):
        header = tuple(cell.lower() for cell in first)
        rows = rows[1:]
    width = len(rows[0][1])
    for number, row in rows:
        if len(row) != width:
            raise DatasetError(f"{path}: line {number} has {len(row)} columns, line {rows[0][0]} has {width}")
    columns = tuple(zip(*(row for _, row in rows), strict=True))
    named = header if header and len(header) == width else None
    return Table(path, columns, tuple(number for number, _ in rows), named)


def find_roles(table: Table, names: Set[str], score_column: int | None = None) -> Roles:
    """Which column is which, by header or by content; `names` are the protocol's trials (empty: no protocol).

    `score_column` (from 1) settles the score where several columns could be it. DatasetError where the file
    or score column cannot be told.
    """
    named = _headed(table)
    count = len(table.columns)
    name = _name_column(table, names, named.get("name"))
    others = [column for column in range(count) if column != name]
    key = next((c for c in others if {cell.lower() for cell in table.columns[c]} <= set(KEYS)), None)
    if score_column is None:
        score = _score_column(table, [column for column in others if column != key], named.get("score"))
    elif 1 <= score_column <= count:
        score = score_column - 1
    else:
        raise InputError(f"{table.path}: no column {score_column}; it has {count}, counted from 1")
    attack = next(
        (
            c
            for c in others
            if c not in (key, score) and all(_ATTACK.match(cell) for cell in table.columns[c])
        ),
        named.get("attack"),
    )
    return Roles(name, score, key, attack)


def _headed(table: Table) -> dict[str, int]:
    """Columns that the header names; a role that it names twice is left to the content."""
    found: dict[str, int] = {}
    for role, words in _HEADERS.items():
        columns = [index for index, cell in enumerate(table.header or ()) if cell in words]
        if len(columns) == 1:
            found[role] = columns[0]
    return found


def _name_column(table: Table, names: Set[str], named: int | None) -> int:
    if not names:
        if named is not None:
            return named
        for index, column in enumerate(table.columns):
            if as_number(column[0]) is None and len(set(column)) == len(column):
                return index
        raise DatasetError(
            f"{table.path}: no column names each trial once; give the protocol with --cm-protocol"
        )
    known = [sum(trial_name(cell) in names for cell in column) for column in table.columns]
    best = known.index(max(known))
    if known[best] == 0:
        example = next(iter(sorted(names)))
        raise DatasetError(
            f"{table.path}: no trial of it is in the protocol (which has {example}, …); "
            "give scores and protocol of the same part (dev or eval)"
        )
    return best


def _score_column(table: Table, candidates: list[int], named: int | None) -> int:
    if named is not None:
        return named
    numeric = [column for column in candidates if as_number(table.columns[column][0]) is not None]
    if len(numeric) > 1:
        # A column of two values beside a finer one is a label, and says nothing of which of the two is fake.
        numeric = [column for column in numeric if len(set(table.columns[column])) > 2] or numeric
    if len(numeric) == 1:
        return numeric[0]
    found = (
        "no column of numbers"
        if not numeric
        else f"columns {', '.join(str(c + 1) for c in numeric)} are numbers"
    )
    raise DatasetError(f"{table.path}: {found}; say which is the score with --score-column")


def numbers(table: Table, column: int) -> list[float]:
    """The column as finite numbers; DatasetError naming the first line that is none."""
    values: list[float] = []
    for line, cell in zip(table.lines, table.columns[column], strict=True):
        value = as_number(cell)
        if value is None or not math.isfinite(value):
            raise DatasetError(
                f"{table.path}: line {line}: score {cell!r} is not a finite number; "
                "leave the trial out and it is counted as missing"
            )
        values.append(value)
    return values
