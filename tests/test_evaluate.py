"""Evaluation: a row per clip and claim, nothing dropped, nothing scored twice."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from clips import make_audio, noise
from commands import detector
from commands import voice as spoken_by_nobody

from avdetect.errors import DatasetError
from avdetect.evaluate import Row, Slice, evaluate, read_rows, rows_of, tables
from avdetect.prepared import Cache
from avdetect.types import (
    CLAIMS,
    Claim,
    ClaimResult,
    Item,
    Label,
    ModelInfo,
    Outcome,
    Status,
    Verdict,
)
from avdetect.windows import Prepared, WindowSettings, prepare

VOICE = Claim.VOICE_CLONING
MODEL = ModelInfo("stand-in", "0", "0")


def verdict(path: Path, score: float | None) -> Verdict:
    """All claims with one score, or none assessable."""
    results = {
        claim: ClaimResult(claim, Status.NOT_ASSESSABLE, Outcome.NOT_ASSESSABLE, reason="no speech, no face")
        if score is None
        else ClaimResult(
            claim,
            Status.ASSESSED,
            Outcome.MANIPULATED if score >= 0.5 else Outcome.NO_MANIPULATION_FOUND,
            score,
        )
        for claim in CLAIMS
    }
    return Verdict(path, Outcome.INCONCLUSIVE, MODEL, claims=results)


class StandIn:
    """A detector whose scores are written in the file's name: 0.7.wav, none.wav, error.wav."""

    def __init__(self) -> None:
        self.asked: list[Path] = []

    def detect(self, path: Path, **_: object) -> Verdict:
        self.asked.append(path)
        if path.stem.startswith("error"):
            return Verdict(path, Outcome.ERROR, MODEL, error=f"{path}: is empty")
        score = None if path.stem.startswith("none") else float(path.stem.split("_")[0])
        return verdict(path, score)


def item(name: str, fake: bool | None, method: str | None = None, who: str = "") -> Item:
    label = Label(voice_cloning=fake)
    return Item(Path(name), label, method=method, identities=(who,) if who else (), source="repo")


ITEMS = [
    item("0.1.wav", False, who="ann"),
    item("0.6.wav", False, who="bob"),
    item("0.9.wav", True, "tts", who="ann"),
    item("0.8_b.wav", True, "vc", who="bob"),
    item("none.wav", True, "tts"),
    item("error.wav", False),
]


def run(items: Sequence[Item], path: Path | None = None, detector: StandIn | None = None) -> list[Row]:
    found = evaluate(detector or StandIn(), items, CLAIMS, path)  # type: ignore[arg-type]
    return [row for rows in found for row in rows]


def test_a_row_says_what_was_known_and_what_was_answered() -> None:
    (row,) = rows_of(ITEMS[2], verdict(Path("0.9.wav"), 0.9), CLAIMS)
    assert row == Row("0.9.wav", "voice_cloning", 1, 0.9, "manipulated", "", "tts", "ann", "repo")


def test_claims_without_a_label_have_no_row() -> None:
    both = Item(Path("x"), Label(face_manipulation=True, voice_cloning=False))
    rows = list(rows_of(both, verdict(Path("x"), 0.4), CLAIMS))
    assert [(r.claim, r.fake) for r in rows] == [("face_manipulation", 1), ("voice_cloning", 0)]
    assert [r.claim for r in rows_of(both, verdict(Path("x"), 0.4), [VOICE])] == ["voice_cloning"]


def test_a_clip_that_was_not_scored_keeps_its_row_and_the_reason() -> None:
    rows = run(ITEMS)
    assert (rows[4].score, rows[4].verdict, rows[4].reason) == (None, "not assessable", "no speech, no face")
    assert (rows[5].score, rows[5].verdict, rows[5].reason) == (None, "error", "error.wav: is empty")


def test_rows_come_back_from_the_file_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    rows = run(ITEMS, path)
    assert read_rows(path) == rows and len(rows) == 6


def test_an_evaluation_that_was_cut_off_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path, first = tmp_path / "scores.csv", StandIn()
    walk = evaluate(first, ITEMS, CLAIMS, path)  # type: ignore[arg-type]
    for _ in range(3):
        next(walk)
    walk.close()  # type: ignore[attr-defined]
    second = StandIn()
    rows = run(ITEMS, path, second)
    assert first.asked + second.asked == [i.path for i in ITEMS]
    assert read_rows(path) == rows == run(ITEMS)
    assert path.read_text().count("voice_cloning") == 6


def test_a_complete_evaluation_is_not_run_again(tmp_path: Path) -> None:
    path, again = tmp_path / "scores.csv", StandIn()
    rows = run(ITEMS, path)
    before = path.read_bytes()
    assert run(ITEMS, path, again) == rows
    assert again.asked == [] and path.read_bytes() == before


def test_rows_are_written_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    for count, _ in enumerate(evaluate(StandIn(), ITEMS, CLAIMS, path), 1):  # type: ignore[arg-type]
        assert len(path.read_text().splitlines()) == count + 1


def test_another_file_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DatasetError, match=r"mine\.csv: holds no evaluation rows"):
        run(ITEMS, path)
    assert path.read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize(("column", "value"), [("fake", "yes"), ("score", "high")])
def test_a_cell_that_is_no_number_is_told(tmp_path: Path, column: str, value: str) -> None:
    path = tmp_path / "scores.csv"
    run(ITEMS, path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[1][column] = value
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(DatasetError, match=rf"scores\.csv: .*{value}") as error:
        read_rows(path)
    assert "\n" not in str(error.value)


def test_a_line_that_was_cut_off_is_told(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    run(ITEMS, path)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DatasetError, match=r"scores\.csv"):
        read_rows(path)


def test_tables_count_what_was_not_scored() -> None:
    table = tables(run(ITEMS))
    assert set(table) == {"voice_cloning"}
    row = table["voice_cloning"]
    assert (row["trials"], row["scored"], row["n_real"], row["n_fake"]) == (6, 4, 2, 2)
    assert row["coverage"] == pytest.approx(4 / 6)
    assert row["false_alarms"] == pytest.approx(1 / 2)
    assert row["auc"] == 1.0 and set(row["groups"]) == {"tts", "vc"}


def test_a_table_of_failures_alone_has_no_numbers_but_coverage() -> None:
    row = tables(run(ITEMS[4:]))["voice_cloning"]
    assert (row["coverage"], row["auc"], row["trials"]) == (0.0, None, 2)


def labelled(face: bool | None, voice: bool | None) -> Item:
    return Item(Path("x"), Label(face_manipulation=face, voice_cloning=voice))


@pytest.mark.parametrize(
    ("piece", "held"),
    [
        (Slice.AUDIO_ONLY, {(False, True), (None, True)}),
        (Slice.VIDEO_ONLY, {(True, False), (True, None)}),
        (Slice.BOTH, {(True, True)}),
        (Slice.ALL, {(False, True), (None, True), (True, False), (True, None), (True, True)}),
    ],
)
def test_a_slice_holds_its_fakes_and_every_real_clip(
    piece: Slice, held: set[tuple[bool | None, bool | None]]
) -> None:
    fakes = {(False, True), (None, True), (True, False), (True, None), (True, True)}
    assert {kind for kind in fakes if piece.holds(labelled(*kind))} == held
    for real in ((False, False), (None, False), (False, None), (None, None)):
        assert piece.holds(labelled(*real))


def test_scores_from_the_cache_are_those_of_the_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = Item(make_audio(tmp_path / "a.wav", noise(1.5)), Label(voice_cloning=False))
    items = [
        Item(make_audio(tmp_path / "b.wav", spoken_by_nobody(1.5)), Label(voice_cloning=True)),
        replace(quiet, audio_path=make_audio(tmp_path / "voice.wav", spoken_by_nobody(2.0))),
        Item(tmp_path / "gone.wav", Label(voice_cloning=True)),
        quiet,
    ]
    direct = list(evaluate(detector(), items, CLAIMS))
    assert [rows[0].score is None for rows in direct] == [False, False, True, True]
    cache = Cache(tmp_path / "cache")
    for item in items[:3]:  # the last one is not there: it is decoded
        cache.keep(item, WindowSettings(10.0, 10.0))
    opened: list[Path] = []

    def counted(path: Path, *settings: object, **more: object) -> Prepared:
        opened.append(path)
        return prepare(path, *settings, **more)  # type: ignore[arg-type]  # handed on

    monkeypatch.setattr("avdetect.detect.prepare", counted)
    assert list(evaluate(detector(), items, CLAIMS, cache=cache)) == direct
    assert opened == [items[2].path, quiet.path]
