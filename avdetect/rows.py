"""A row per clip and claim: what an evaluation keeps, as csv while it runs (`row_file`) and as parquet at its end."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from avdetect.errors import DatasetError
from avdetect.row_file import Layout, RowFile, header_of, read_csv
from avdetect.types import Claim, ClaimResult, Item, ModelInfo, Outcome, Status, Verdict

Stretch = tuple[float, float]
OFFSET = "offset_ms"
"""The column of a manifest that states by how many milliseconds a clip's sound lags behind its picture."""


@dataclass(frozen=True)
class Row:
    """One clip's answer on one claim: `score` in 0..1, or None with the reason.

    `identity` is what intervals are drawn by, `dataset` where the clip comes from, `sha256` and `duration` (seconds)
    of the media. `faces` are (track, score) of each face that could be assessed, `proposals` (score, start, end) the
    stretches that look fake and `truth` those that are, seconds. Of lip-sync alone: how many ms the sound lags behind
    the picture, as estimated, `offset_ms`, and in truth, `true_offset_ms` (see `true_offset`). `steps` are (time,
    score) of the timeline where it says something.
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
    offset_ms: float | None = None
    true_offset_ms: float | None = None
    steps: tuple[tuple[float, float], ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """What a clip is known by: its file, and that of its voice where it lies apart."""
        return self.path, self.audio_path

    @property
    def name(self) -> str:
        """The clip's file name."""
        return self.path.rsplit("/", 1)[-1]


ROWS = Layout(Row, "evaluation rows", later=3)
COLUMNS = ROWS.columns


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
            offset_ms=result.offset_ms if result else None,
            true_offset_ms=true_offset(item) if claim is Claim.LIP_SYNC_MISMATCH else None,
            steps=_steps(result) if result else (),
        )


def true_offset(item: Item) -> float | None:
    """By how many ms a clip's sound lags: what its manifest states in OFFSET, 0 where it is known to be in sync.

    None where nobody knows; DatasetError for a cell that is no number.
    """
    stated = item.extra.get(OFFSET, "").strip()
    if not stated:
        return 0.0 if item.label.lip_sync_mismatch is False else None
    try:
        value = float(stated)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DatasetError(f"{item.path}: {OFFSET} is '{stated[:40]}', must be milliseconds or empty")
    return value


def _steps(result: ClaimResult) -> tuple[tuple[float, float], ...]:
    line = result.timeline
    pairs = zip(line.times, line.scores, strict=True)
    return tuple((time, round(score, 4)) for time, score in pairs if score is not None)


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


def read_rows(path: Path) -> list[Row]:
    """Rows of an earlier evaluation, csv or parquet; DatasetError where the file is something else."""
    return _read_parquet(path) if path.suffix.lower() == ".parquet" else read_csv(path, ROWS)


def holds_rows(path: Path) -> bool:
    """Whether a csv or parquet file begins as one of `read_rows`."""
    return path.suffix.lower() == ".parquet" or ROWS.knows(header_of(path))


class Journal(RowFile[Row]):
    """Rows in a csv file that grows clip by clip, all from one model: DatasetError where others stand there.

    With `retry` those of clips that could not be read, or that avdetect failed on, are taken away.
    """

    def __init__(self, path: Path, model: ModelInfo, *, retry: bool = False) -> None:
        self._model = model
        super().__init__(path, ROWS, lambda row: not retry or row.verdict != Outcome.ERROR.value)

    def _check(self) -> None:
        mine = self._model
        for row in self.rows:
            if row.model_sha256 != mine.sha256:
                raise DatasetError(
                    f"{self.path}: holds scores of model {row.model} ({row.model_sha256[:12]}), not of {mine.name} "
                    f"({mine.sha256[:12]}); give another file"
                )


# Parquet


def write_parquet(rows: Sequence[Row], path: Path) -> None:
    """All rows as one parquet file, which appears whole or not at all; nested values as JSON text."""
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {"fake": pa.int8()} | {
        one.name: pa.float64() for one in ROWS.fields if str(one.type).startswith("float")
    }
    cells = [ROWS.cells(row) for row in rows]
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
    if not ROWS.knows(table.column_names):
        raise ROWS.refuse(path)
    return [
        ROWS.numbered({name: "" if value is None else value for name, value in cells.items()}, path, number)
        for number, cells in enumerate(table.to_pylist(), 1)
    ]


def journal_of(parquet: Path) -> Path:
    """Where rows grow until they become `parquet`: hidden beside it, begun with what stands in it already."""
    path = parquet.with_name(f".{parquet.name}.rows.csv")
    if not path.is_file() and parquet.is_file():
        rows = read_rows(parquet)
        try:
            path.write_bytes(ROWS.to_csv(rows, header=True))
        except OSError as error:
            raise DatasetError(f"{path}: cannot be written ({error.strerror})") from None
    return path
