"""Evaluation rows as csv and parquet: whole, mended, of one model."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from avdetect.errors import DatasetError
from avdetect.rows import (
    COLUMNS,
    ROWS,
    Journal,
    Row,
    holds_rows,
    journal_of,
    proposals,
    read_rows,
    true_offset,
    write_parquet,
)
from avdetect.types import Item, Label, ModelInfo

MODEL = ModelInfo("base", "1", "ab" * 32)
PLAIN = Row(
    "/x/a.wav", "voice_cloning", 1, 0.25, "manipulated", "", "tts", "ann", "repo", "corpus",
    model=MODEL.name, model_sha256=MODEL.sha256,
)  # fmt: skip
FULL = replace(
    PLAIN,
    path='/x/odd, "name"\nof two lines.mp4',
    claim="face_manipulation",
    score=None,
    reason="no face",
    audio_path="/x/b.wav",
    sha256="cd" * 32,
    duration=4.04,
    faces=((0, 0.125), (3, 0.75)),
    proposals=((0.9, 0.0, 1.2),),
    truth=((0.4, 1.0), (2.0, 2.5)),
    offset_ms=-40.0,
    true_offset_ms=0.0,
    steps=((0.1, 0.25), (0.3, 0.75)),
)


def kept(path: Path, rows: list[Row], model: ModelInfo = MODEL) -> None:
    journal = Journal(path, model)
    for row in rows:
        journal.write([row])
    journal.close()


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_rows_come_back_as_they_were(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".csv":
        kept(path, [PLAIN, FULL])
    else:
        write_parquet([PLAIN, FULL], path)
    assert read_rows(path) == [PLAIN, FULL] and holds_rows(path)


def test_names_that_are_no_utf8_come_back(tmp_path: Path) -> None:
    odd = replace(PLAIN, path=b"/x/\xff.wav".decode("utf-8", "surrogateescape"))
    kept(tmp_path / "rows.csv", [odd])
    assert read_rows(tmp_path / "rows.csv") == [odd]


@pytest.mark.parametrize("cut", [1, 2, 30, 200])
def test_a_file_that_was_cut_off_goes_on_to_the_same_bytes(tmp_path: Path, cut: int) -> None:
    whole, path = tmp_path / "whole.csv", tmp_path / "cut.csv"
    rows = [PLAIN, FULL, replace(PLAIN, path="/x/c.wav")]
    kept(whole, rows)
    path.write_bytes(whole.read_bytes()[:-cut])
    stand = Journal(path, MODEL)
    assert stand.rows == rows[: len(stand.rows)] and len(stand.rows) < 3
    for row in rows[len(stand.rows) :]:
        stand.write([row])
    stand.close()
    assert path.read_bytes() == whole.read_bytes()


def test_a_cut_within_the_header_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(",".join(COLUMNS).encode()[:20])
    with pytest.raises(DatasetError, match=r"rows\.csv: holds no evaluation rows"):
        Journal(path, MODEL)
    path.write_bytes(",".join(COLUMNS).encode())  # whole but for the end of its line
    kept(path, [PLAIN])
    assert read_rows(path) == [PLAIN]


def test_rows_of_two_models_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    kept(path, [PLAIN])
    before = path.read_bytes()
    with pytest.raises(
        DatasetError, match=r"scores of model base \(abababababab\), not of mine \(efef"
    ) as error:
        Journal(path, ModelInfo("mine", "1", "ef" * 32))
    assert path.read_bytes() == before and "\n" not in str(error.value)


def before_offsets(path: Path, rows: list[Row], end: str = "\r\n") -> None:
    """A csv file as it was before offsets and steps were kept."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS[:18], extrasaction="ignore", lineterminator=end)
        writer.writeheader()
        writer.writerows(ROWS.cells(row) for row in rows)


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_a_file_of_fewer_columns_is_read_and_gone_on_with(tmp_path: Path, end: str) -> None:
    path, whole = tmp_path / "rows.csv", tmp_path / "whole.csv"
    before_offsets(path, [PLAIN, replace(PLAIN, path="/x/c.wav")], end)
    assert holds_rows(path) and [row.offset_ms for row in read_rows(path)] == [None, None]
    path.write_bytes(path.read_bytes()[:-3])
    kept(path, [FULL])
    kept(whole, [PLAIN, FULL])
    assert read_rows(path) == [PLAIN, FULL]
    assert path.read_bytes() == whole.read_bytes().replace(b"\r\n", end.encode())
    pd.read_csv(path)[list(COLUMNS[:18])].to_parquet(tmp_path / "rows.parquet")
    assert [row.path for row in read_rows(tmp_path / "rows.parquet")] == [PLAIN.path, FULL.path]


def test_a_clip_in_sync_is_at_zero_unless_its_manifest_says_otherwise() -> None:
    known, late = Label(lip_sync_mismatch=False), {"offset_ms": " 120.5"}
    items = [Item(Path("x"), label, extra=extra) for label in (known, Label()) for extra in ({}, late)]
    assert [true_offset(item) for item in items] == [0.0, 120.5, None, 120.5]
    for cell in ("late", "nan"):
        with pytest.raises(DatasetError, match=f"x: offset_ms is '{cell}', must be milliseconds"):
            true_offset(Item(Path("x"), known, extra={"offset_ms": cell}))


def test_a_journal_begins_with_what_stands_in_the_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write_parquet([PLAIN, FULL], path)
    assert Journal(journal_of(path), MODEL).rows == [PLAIN, FULL]


def test_a_parquet_file_of_something_else_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    pd.DataFrame({"a": [1]}).to_parquet(path)
    with pytest.raises(DatasetError, match=r"mine\.parquet: holds no evaluation rows"):
        read_rows(path)
    path.write_bytes(b"not parquet")
    with pytest.raises(DatasetError, match="not a readable parquet file"):
        read_rows(path)


def test_proposals_are_the_stretches_above_any_level_purest_first() -> None:
    times, scores = (0.1, 0.3, 0.5, 0.7, 0.9), (0.1, 0.8, 0.9, None, 0.3)
    found = proposals(times, scores)
    assert found[0] == (0.9, 0.4, 0.6)  # alone above .8
    assert (0.85, 0.2, 0.6) in found  # both above .15 to .8
    assert (0.3, 0.8, 1.0) in found
    assert (0.6, 0.0, 0.6) in found  # all three above .05
    assert len(found) == 4 and [one[0] for one in found] == sorted((one[0] for one in found), reverse=True)


def test_a_timeline_of_one_step_proposes_nothing() -> None:
    assert proposals((0.1,), (0.9,)) == () == proposals((), ())
