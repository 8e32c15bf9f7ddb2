"""A row per clip and claim: what an evaluation keeps, as csv while it runs and as parquet at its end.

A csv file that was cut off (power, SIGKILL) is mended where it is gone on with: its last line, if it is not whole,
is taken away, so that what follows gives the bytes that an uninterrupted run would have given.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from avdetect.errors import DatasetError
from avdetect.types import Claim, Item, ModelInfo, Status, Verdict

Stretch = tuple[float, float]
END = b"\r\n"
"""What ends a line of csv; a line feed alone may stand within a cell."""
CELL_LIMIT = 1 << 24
"""Characters of one cell: the proposals of a long clip outgrow csv's own limit."""


@dataclass(frozen=True)
class Row:
    """One clip's answer on one claim: `score` in 0..1, or None with the reason.

    `identity` is what intervals are drawn by, `dataset` where the clip comes from, `sha256` and `duration` (seconds)
    of the media. `faces` are (track, score) of each face that could be assessed, `proposals` (score, start, end) the
    stretches that look fake and `truth` those that are, seconds.
    """

    path: str
    claim: str
    fake: int
    score: float | None
    verdict: str
    reason: str
    method: str
    identity: str
    source: str
    dataset: str = ""
    audio_path: str = ""
    sha256: str = ""
    duration: float | None = None
    faces: tuple[tuple[int, float], ...] = ()
    proposals: tuple[tuple[float, float, float], ...] = ()
    truth: tuple[Stretch, ...] = ()
    model: str = ""
    model_sha256: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What a clip is known by: its file, and that of its voice where it lies apart."""
        return self.path, self.audio_path

    @property
    def name(self) -> str:
        """The clip's file name."""
        return self.path.rsplit("/", 1)[-1]


COLUMNS = tuple(one.name for one in fields(Row))
_NESTED = ("faces", "proposals", "truth")
_NUMBERS = ("score", "duration")


def key_of(item: Item) -> tuple[str, str]:
    """`Row.key` of the rows that an item gives."""
    return str(item.path), str(item.audio_path or "")


def rows_of(
    item: Item, verdict: Verdict, claims: Sequence[Claim], faces: Sequence[tuple[int, float]] = ()
) -> Iterator[Row]:
    """The rows of one clip, for the claims that it is labelled for; `faces` are the scores of each of its faces."""
    for claim in claims:
        known = item.label[claim]
        if known is None:
            continue
        result = verdict.claims.get(claim)
        assessed = result is not None and result.status is Status.ASSESSED
        reason = verdict.error or (result.reason if result else None) or ""
        yield Row(
            *key_of(item)[:1],
            claim.value,
            int(known),
            result.score if assessed and result else None,
            (result.verdict if result else verdict.outcome).value,
            "" if assessed else reason,
            item.method or "",
            " ".join(item.identities) or item.source or str(item.path),
            item.source or "",
            dataset=item.extra.get("dataset", ""),
            audio_path=key_of(item)[1],
            sha256=verdict.sha256 or "",
            duration=verdict.duration,
            faces=tuple(faces) if claim is Claim.FACE_MANIPULATION else (),
            proposals=proposals(result.timeline.times, result.timeline.scores) if result else (),
            truth=tuple((s.start, s.end) for s in item.label.segments if s.claim in (None, claim)),
            model=verdict.model.name,
            model_sha256=verdict.model.sha256,
        )


LEVELS = tuple(step / 20 for step in range(1, 20))
"""Thresholds at which a timeline is cut into proposals."""
MOST_PROPOSALS = 100
"""As many as AR@100 of LAV-DF looks at."""


def proposals(
    times: Sequence[float], scores: Sequence[float | None]
) -> tuple[tuple[float, float, float], ...]:
    """(score, start, end) of the stretches of a timeline that lie at or above any of LEVELS, best first.

    A stretch's score is the mean within it, so that of two nested ones the purer comes first; times in seconds. The
    same stretch at several levels is given once.
    """
    if len(times) < 2:
        return ()
    step = min((b - a for a, b in pairwise(times) if b > a), default=0.0)
    found: dict[Stretch, float] = {}
    for level in LEVELS:
        for first, last in _runs([score is not None and score >= level for score in scores]):
            inside = [score for score in scores[first : last + 1] if score is not None]
            span = round(max(0.0, times[first] - step / 2), 3), round(times[last] + step / 2, 3)
            found[span] = round(sum(inside) / len(inside), 4)
    ranked = sorted(((score, *span) for span, score in found.items()), key=lambda one: (-one[0], one[1]))
    return tuple(ranked[:MOST_PROPOSALS])


def _runs(above: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """First and last index of each run of True."""
    first: int | None = None
    for index, is_above in enumerate([*above, False]):
        if is_above and first is None:
            first = index
        elif not is_above and first is not None:
            yield first, index - 1
            first = None


# Text


def _cells(row: Row) -> dict[str, Any]:
    cells = asdict(row)
    for name in _NESTED:
        cells[name] = json.dumps(cells[name], separators=(",", ":")) if cells[name] else ""
    return cells


def _as_csv(rows: Iterable[Row], *, header: bool = False) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator=END.decode())
    if header:
        writer.writeheader()
    writer.writerows(map(_cells, rows))
    return text.getvalue().encode("utf-8", "surrogateescape")


def _row(cells: dict[str, Any]) -> Row:
    """A row from text cells; ValueError where one cannot be read."""
    if any(cells.get(name) is None for name in COLUMNS):
        raise ValueError("it was cut off")
    read: dict[str, Any] = {name: str(cells[name]) for name in COLUMNS}
    read["fake"] = int(read["fake"])
    for name in _NUMBERS:
        read[name] = float(read[name]) if read[name] else None
    for name in _NESTED:
        read[name] = tuple(tuple(one) for one in json.loads(read[name])) if read[name] else ()
    return Row(**read)


def read_rows(path: Path) -> list[Row]:
    """Rows of an earlier evaluation, csv or parquet; DatasetError where the file is something else."""
    if path.suffix.lower() == ".parquet":
        return _read_parquet(path)
    csv.field_size_limit(CELL_LIMIT)
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise DatasetError(f"{path}: holds no evaluation rows; give another file")
            return [_numbered(cells, path, reader.line_num) for cells in reader]
    except csv.Error as error:
        raise DatasetError(f"{path}: not csv ({error}); give another file") from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from None


def _numbered(cells: dict[str, Any], path: Path, line: int) -> Row:
    try:
        return _row(cells)
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{path}: line {line} cannot be read ({error}); remove it") from None


def holds_rows(path: Path) -> bool:
    """Whether a csv or parquet file begins as one of `read_rows`."""
    if path.suffix.lower() == ".parquet":
        return True
    try:
        with path.open("rb") as file:
            return file.readline(4096).rstrip() == ",".join(COLUMNS).encode()
    except OSError:
        return False


# A file that grows


class Journal:
    """Rows in a csv file that grows clip by clip; what stands there already is in `rows`.

    All rows of one file come from one model: DatasetError where others stand there, or where the file is no journal.
    """

    def __init__(self, path: Path, model: ModelInfo) -> None:
        _mend(path)
        self.rows = read_rows(path) if path.is_file() and path.stat().st_size else []
        for row in self.rows:
            if row.model_sha256 != model.sha256:
                raise DatasetError(
                    f"{path}: holds scores of model {row.model} ({row.model_sha256[:12]}), not of {model.name} "
                    f"({model.sha256[:12]}); give another file"
                )
        try:
            self._file = path.open("ab")
        except OSError as error:
            raise DatasetError(f"{path}: cannot be written ({error.strerror}); name another file") from None
        if not self.rows and not path.stat().st_size:
            self._put(_as_csv([], header=True))

    def write(self, rows: Sequence[Row]) -> None:
        """Adds a clip's rows, at once and whole."""
        self._put(_as_csv(rows))

    def _put(self, text: bytes) -> None:
        self._file.write(text)
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _mend(path: Path) -> None:
    """Take away a last line that is not whole; a file of others is left as it is."""
    if not path.is_file() or not holds_rows(path):
        return
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(END) + len(END) if END in content else 0
        if whole < len(content):
            file.truncate(whole)


# Parquet


def write_parquet(rows: Sequence[Row], path: Path) -> None:
    """All rows as one parquet file, which appears whole or not at all; nested values as JSON text."""
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {"fake": pa.int8(), "score": pa.float64(), "duration": pa.float64()}
    cells = [_cells(row) for row in rows]
    table = pa.table(
        {name: pa.array([one[name] for one in cells], kinds.get(name, pa.string())) for name in COLUMNS}
    )
    partial = path.with_name(f".{path.name}.partial")
    try:
        parquet.write_table(table, partial)
        os.replace(partial, path)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        partial.unlink(missing_ok=True)


def _read_parquet(path: Path) -> list[Row]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(
            f"{path}: not a readable parquet file ({str(error).splitlines()[0][:120]})"
        ) from None
    if tuple(table.column_names) != COLUMNS:
        raise DatasetError(f"{path}: holds no evaluation rows; give another file")
    return [
        _numbered({name: "" if value is None else value for name, value in cells.items()}, path, number)
        for number, cells in enumerate(table.to_pylist(), 1)
    ]


def journal_of(parquet: Path) -> Path:
    """Where rows grow until they become `parquet`: hidden beside it, begun with what stands in it already."""
    path = parquet.with_name(f".{parquet.name}.rows.csv")
    if not path.is_file() and parquet.is_file():
        rows = read_rows(parquet)
        try:
            path.write_bytes(_as_csv(rows, header=True))
        except OSError as error:
            raise DatasetError(f"{path}: cannot be written ({error.strerror})") from None
    return path
