"""How well a model does on a labelled manifest: every clip through the whole detector, a row per clip and claim.

A clip that cannot be scored is counted, never dropped: coverage stands beside every number. Rows are written as they
come, so that an evaluation that was cut off goes on where it stopped.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from avdetect.detect import Detector
from avdetect.errors import DatasetError
from avdetect.prepared import Cache
from avdetect.summary import summary
from avdetect.types import CLAIMS, Claim, Item, Status, Verdict


class Slice(StrEnum):
    """Which fakes are set against the real clips."""

    AUDIO_ONLY = "audio-only"
    VIDEO_ONLY = "video-only"
    BOTH = "both"
    ALL = "all"

    def holds(self, item: Item) -> bool:
        """Real clips belong to every slice; a fake one by what is fake about it."""
        face, voice = bool(item.label.face_manipulation), bool(item.label.voice_cloning)
        wanted = {self.AUDIO_ONLY: (False, True), self.VIDEO_ONLY: (True, False), self.BOTH: (True, True)}
        return not item.label.is_fake or self is Slice.ALL or (face, voice) == wanted[self]


@dataclass(frozen=True)
class Row:
    """One clip's answer on one claim: `score` in 0..1 or empty with the reason."""

    path: str
    claim: str
    fake: int
    score: float | None
    verdict: str
    reason: str
    method: str
    identity: str
    source: str


def rows_of(item: Item, verdict: Verdict, claims: Sequence[Claim]) -> Iterator[Row]:
    """The rows of one clip, for the claims that it is labelled for."""
    for claim in claims:
        known = item.label[claim]
        if known is None:
            continue
        result = verdict.claims.get(claim)
        assessed = result is not None and result.status is Status.ASSESSED
        reason = verdict.error or (result.reason if result else None) or ""
        yield Row(
            str(item.path),
            claim.value,
            int(known),
            result.score if assessed and result else None,
            (result.verdict if result else verdict.outcome).value,
            "" if assessed else reason,
            item.method or "",
            " ".join(item.identities) or item.source or str(item.path),
            item.source or "",
        )


def read_rows(path: Path) -> list[Row]:
    """Rows of an earlier run; DatasetError where the file is something else."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != [f.name for f in fields(Row)]:
            raise DatasetError(f"{path}: holds no evaluation rows; give another --csv file")
        rows = []
        for raw in reader:
            try:
                rows.append(_row(raw))
            except ValueError as error:
                raise DatasetError(
                    f"{path}: line {reader.line_num} cannot be read ({error}); remove it"
                ) from None
        return rows


def _row(raw: dict[str, str | None]) -> Row:
    cells = {name: value for name, value in raw.items() if value is not None}
    if len(cells) < len(fields(Row)):
        raise ValueError("it was cut off")
    fake, score = int(cells.pop("fake")), cells.pop("score")
    path, claim, verdict, reason, method, identity, source = cells.values()
    known = float(score) if score else None
    return Row(path, claim, fake, known, verdict, reason, method, identity, source)


def evaluate(
    detector: Detector,
    items: Sequence[Item],
    claims: Sequence[Claim],
    csv_path: Path | None = None,
    cache: Cache | None = None,
) -> Iterator[list[Row]]:
    """Rows item by item, also appended to `csv_path`. Clips that `cache` holds are not decoded again.

    Items whose claims all stand there already are read, not scored again; claims that were not asked for
    before are added. All rows of one file must come from one model.
    """
    done: dict[str, list[Row]] = {}
    if csv_path is not None and csv_path.is_file() and csv_path.stat().st_size:
        for row in read_rows(csv_path):
            done.setdefault(row.path, []).append(row)
    writer = _Writer(csv_path, fresh=not done) if csv_path is not None else None
    try:
        for item in items:
            rows = [row for row in done.get(str(item.path), []) if row.claim in claims]
            stand = {row.claim for row in rows}
            wanted = [claim for claim in claims if item.label[claim] is not None and claim not in stand]
            if wanted:
                fresh = list(rows_of(item, _verdict(detector, item, cache), wanted))
                if writer is not None:
                    writer.write(fresh)
                rows += fresh
            yield rows
    finally:
        if writer is not None:
            writer.close()


def _verdict(detector: Detector, item: Item, cache: Cache | None) -> Verdict:
    try:
        prepared = cache.find(item, detector.settings) if cache is not None else None
    except OSError:
        prepared = None  # the clip itself cannot be read: the detector says so in words
    return detector.detect(item.path, audio_path=item.audio_path, prepared=prepared)


class _Writer:
    def __init__(self, path: Path, *, fresh: bool) -> None:
        self._file = path.open("w" if fresh else "a", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, [f.name for f in fields(Row)])
        if fresh:
            self._writer.writeheader()

    def write(self, rows: Sequence[Row]) -> None:
        self._writer.writerows(asdict(row) for row in rows)
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def tables(rows: Sequence[Row], claims: Sequence[Claim] = CLAIMS) -> dict[str, dict[str, Any]]:
    """Claim -> summary row with intervals by identity, per method, and coverage."""
    out: dict[str, dict[str, Any]] = {}
    for claim in claims:
        mine = [row for row in rows if row.claim == claim.value]
        scored = [row for row in mine if row.score is not None]
        if not mine:
            continue
        table = summary(
            [row.score for row in scored if row.score is not None],
            [bool(row.fake) for row in scored],
            groups=[row.method or None for row in scored],
            clusters=[row.identity for row in scored],
        )
        false_alarms = [row for row in scored if not row.fake and row.verdict == "manipulated"]
        table["trials"], table["scored"] = len(mine), len(scored)
        table["coverage"] = len(scored) / len(mine)
        table["false_alarms"] = len(false_alarms) / max(1, sum(not row.fake for row in scored))
        out[claim.value] = table
    return out
