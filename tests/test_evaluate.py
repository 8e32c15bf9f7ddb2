"""Evaluation: a row per clip and claim, nothing dropped, nothing scored twice."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from clips import make_audio, noise
from commands import call, detector, environment
from commands import voice as spoken_by_nobody

from avdetect.errors import ConfigError, DatasetError
from avdetect.evaluate import Slice, distinct, evaluate, fingerprint, sliced, tables, worst
from avdetect.evaluate_cli import to_text
from avdetect.metrics import det_curve
from avdetect.prepared import Cache
from avdetect.rows import Row, read_rows, rows_of
from avdetect.scores import read_asv_scores
from avdetect.types import (
    CLAIMS,
    Claim,
    ClaimResult,
    Item,
    Label,
    ModelInfo,
    Outcome,
    Status,
    Timeline,
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
        self.model_info = MODEL
        self.settings = WindowSettings()
        self.faces: tuple[tuple[int, float], ...] = ()

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
    found = evaluate(detector or StandIn(), items, CLAIMS, path)
    return [row for rows in found for row in rows]


def test_a_row_says_what_was_known_and_what_was_answered() -> None:
    (row,) = rows_of(ITEMS[2], verdict(Path("0.9.wav"), 0.9), CLAIMS)
    known = Row("0.9.wav", "voice_cloning", 1, 0.9, "manipulated", "", "tts", "ann", "repo")
    assert row == replace(known, model="stand-in", model_sha256="0")


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
    walk = evaluate(first, ITEMS, CLAIMS, path)
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
    for count, _ in enumerate(evaluate(StandIn(), ITEMS, CLAIMS, path), 1):
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


def test_fakes_of_one_method_are_a_slice() -> None:
    assert [i.path.name for i in sliced(ITEMS, "vc")] == ["0.1.wav", "0.6.wav", "0.8_b.wav", "error.wav"]
    assert sliced(ITEMS, "audio-only") == ITEMS and sliced(ITEMS, "both") == sliced(ITEMS, "video-only")
    with pytest.raises(ConfigError, match=r"--slice ttts: .* did you mean 'tts'"):
        sliced(ITEMS, "ttts")


def test_a_clip_that_stands_twice_is_scored_once() -> None:
    other_voice = replace(ITEMS[0], audio_path=Path("voice.wav"))
    assert distinct([*ITEMS, ITEMS[0], other_voice]) == ([*ITEMS, other_voice], 1)


def test_one_picture_with_two_voices_is_two_clips(tmp_path: Path) -> None:
    path, items = tmp_path / "rows.csv", [ITEMS[0], replace(ITEMS[0], audio_path=Path("voice.wav"))]
    run(items, path)
    again = StandIn()
    assert [row.audio_path for row in run(items, path, again)] == ["", "voice.wav"] and again.asked == []


def test_a_clip_that_avdetect_fails_on_is_told_and_the_others_are_scored() -> None:
    class Fragile(StandIn):
        def detect(self, path: Path, **more: object) -> Verdict:
            if path.name == "0.6.wav":
                raise RuntimeError("two\nlines")
            return super().detect(path, **more)

    rows = run(ITEMS, detector=Fragile())
    assert [row.verdict for row in rows].count("error") == 2 and len(rows) == 6
    assert rows[1].reason.startswith(
        "0.6.wav: could not be scored, avdetect failed (RuntimeError: two lines)"
    )


def test_scores_of_another_model_are_not_added_to(tmp_path: Path) -> None:
    path, other = tmp_path / "rows.csv", StandIn()
    run(ITEMS[:2], path)
    other.model_info = ModelInfo("other", "0", "1")
    with pytest.raises(DatasetError, match="holds scores of model stand-in"):
        run(ITEMS, path, other)
    assert other.asked == []


def face_row(name: str, fake: int, faces: Sequence[float], **more: object) -> Row:
    numbered = tuple(enumerate(faces))
    row = Row(
        name, "face_manipulation", fake, max(faces), "inconclusive", "", "swap" if fake else "", name, "s"
    )
    return replace(row, faces=numbered, **more)  # type: ignore[arg-type]


def test_every_face_is_a_trial_but_for_fakes_that_show_several() -> None:
    rows = [
        face_row("a", 0, [0.1, 0.4]),
        face_row("b", 0, [0.6]),
        face_row("c", 1, [0.5]),
        face_row("d", 1, [0.9, 0.2]),
    ]
    faces = tables(rows)["face_manipulation"]["faces"]
    assert (faces["clips"], faces["n_real"], faces["n_fake"], faces["left_out"]) == (3, 3, 1, 2)
    assert faces["auc"] == pytest.approx(2 / 3)


def test_true_stretches_are_looked_for_in_all_clips() -> None:
    rows = [
        face_row("a", 1, [0.9], proposals=((0.9, 1.0, 2.0), (0.3, 0.0, 4.0)), truth=((1.0, 2.0),)),
        face_row("b", 0, [0.8], proposals=((0.95, 0.0, 4.0),)),
    ]
    found = tables(rows)["face_manipulation"]["localisation"]
    # Ranked: false alarm in the real clip, then the hit.
    assert found["ap"] == {"0.5": 0.5, "0.75": 0.5, "0.95": 0.5}
    assert found["ar"]["10"] == 1.0 and (found["clips"], found["stretches"]) == (2, 1)


def test_steps_of_partial_fakes_are_told_from_real_ones_and_by_themselves() -> None:
    half = ((0.1, 0.6), (0.3, 0.2), (0.5, 0.9))
    rows = [
        face_row(
            "a", 1, [0.9], steps=half, truth=((0.0, 0.1), (0.4, 0.6))
        ),  # 0.1 lies behind the first stretch
        face_row("b", 0, [0.1], steps=((0.1, 0.1), (0.3, 0.95))),
        face_row("c", 1, [0.9], steps=((0.1, 0.0),)),  # nobody states where
        face_row("d", 0, [0.9], steps=((0.1, 1.0),), dataset="another"),
        face_row("e", 1, [0.9], truth=((0.0, 9.0),)),  # not scored
    ]
    table = tables(rows, rounds=20)["face_manipulation"]["steps"]
    assert (table["clips"], table["n_real"], table["n_fake"], table["auc"]) == (2, 4, 1, 0.75)
    assert (table["within"]["n_real"], table["within"]["n_fake"], table["within"]["auc"]) == (2, 1, 1.0)
    assert "steps" not in tables(rows[1:4], rounds=0)["face_manipulation"]
    assert "within partial fakes" in to_text(tables(rows, rounds=0))


def sync_row(who: str, offset: float | None, true: float | None) -> Row:
    row = Row(who, "lip_sync_mismatch", 0, 0.1, "inconclusive", "", "", who, "s")
    return replace(row, offset_ms=offset, true_offset_ms=true)


def test_offsets_are_measured_where_the_truth_is_known() -> None:
    rows = [sync_row("ann", 40.0, 0.0), sync_row("ann", -80.0, 0.0), sync_row("bob", 200.0, 190.0)]
    rows += [sync_row("cy", None, 0.0), sync_row("dee", 5.0, None)]
    table = tables(rows, rounds=50)["lip_sync_mismatch"]
    found = table["offsets"]
    assert (found["clips"], found["known"], found["median_error_ms"]) == (3, 4, 40.0)
    assert found["within_one_frame"] == pytest.approx(2 / 3)
    # Whole people are drawn: ann twice, both, bob twice.
    assert found["median_error_ms_ci"] == [10.0, 60.0] and found["within_one_frame_ci"] == [0.5, 1.0]
    assert "sound offset, 3 of 4 clips: median error 40 ms (10-60), within ±40 ms 66.7%" in to_text(
        {"lip_sync_mismatch": table}
    )
    assert tables(rows[3:], rounds=0)["lip_sync_mismatch"]["offsets"] == {"known": 1, "clips": 0}
    assert "offsets" not in tables(rows[4:], rounds=0)["lip_sync_mismatch"]


def test_a_row_keeps_the_offset_and_the_timeline() -> None:
    sync = Claim.LIP_SYNC_MISMATCH
    said = verdict(Path("x"), 0.4)
    result = replace(said.claims[sync], offset_ms=-40.0, timeline=Timeline((0.1, 0.3), (None, 0.123456)))
    said = replace(said, claims={**said.claims, sync: result})
    item = Item(Path("x"), Label(lip_sync_mismatch=False, voice_cloning=False))
    voice, lips = rows_of(item, said, [VOICE, sync])
    assert (lips.offset_ms, lips.true_offset_ms, lips.steps) == (-40.0, 0.0, ((0.3, 0.1235),))
    assert (voice.offset_ms, voice.true_offset_ms, voice.steps) == (None, None, ())


def test_an_offset_that_is_no_number_is_told_before_anything_is_scored() -> None:
    scorer, last = StandIn(), replace(ITEMS[1], extra={"offset_ms": "late"})
    with pytest.raises(DatasetError, match=r"0\.6\.wav: offset_ms is 'late'"):
        run([ITEMS[0], last], detector=scorer)
    assert scorer.asked == []


def test_several_sets_are_told_together_and_apart() -> None:
    rows = [replace(row, dataset="one") for row in run(ITEMS[:4])] + [
        replace(row, dataset="two", fake=1 - row.fake) for row in run(ITEMS[:4])
    ]
    table = tables(rows, rounds=0)["voice_cloning"]
    assert table["datasets"]["one"]["auc"] == 1.0 and table["datasets"]["two"]["auc"] == 0.0
    assert table["n_real"] == 4 and "datasets" not in tables(rows[:4], rounds=0)["voice_cloning"]


def test_tables_count_by_class_and_reason_and_name_every_metric() -> None:
    table = tables(run(ITEMS), rounds=50)["voice_cloning"]
    assert (table["coverage_real"], table["coverage_fake"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert table["unscored"] == {"no speech, no face": 1, "is empty": 1}
    assert table["found"] == 1.0 and table["groups"]["tts"]["coverage"] == 0.5
    assert (table["acc"], table["acc_real"], table["acc_fake"], table["threshold"]) == (0.75, 0.5, 1.0, 0.5)
    for name in ("auc", "eer", "ap", "ece", "brier", "cllr", "act_dcf", "min_dcf", "acc"):
        assert table[name] is not None and f"{name}_ci" in table


def test_the_fingerprint_knows_contents_and_labels_but_not_where_clips_lie() -> None:
    rows = [replace(row, sha256=f"{number}") for number, row in enumerate(run(ITEMS[:4]))]
    moved = [replace(row, path="/elsewhere/" + row.path) for row in reversed(rows)]
    assert fingerprint(moved) == fingerprint(rows)
    assert fingerprint([replace(rows[0], fake=1), *rows[1:]]) != fingerprint(rows)
    assert fingerprint([replace(rows[0], sha256="9"), *rows[1:]]) != fingerprint(rows)


def test_the_worst_errors_come_worst_first() -> None:
    assert [row.path for row in worst(run(ITEMS), VOICE, 1)] == ["0.6.wav", "0.8_b.wav"]
    assert [row.path for row in worst(run(ITEMS), VOICE, 5)] == ["0.6.wav", "0.1.wav", "0.8_b.wav", "0.9.wav"]


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


def asv_scores(path: Path, attacks: Sequence[str]) -> Path:
    """The organisers' layout: ASV scores in which each attack passes for half of its trials."""
    lines = [f"bonafide target {3 + n / 10}\nbonafide nontarget {-3 - n / 10}" for n in range(5)]
    lines += [f"{attack} spoof {score}" for attack in attacks for score in (4, -4)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_asv_scores_give_both_tdcfs_of_the_set_and_of_each_attack(tmp_path: Path) -> None:
    lines = ["file,voice_cloning,method,identity"]
    for number in range(6):
        clip = make_audio(tmp_path / f"{number}.wav", spoken_by_nobody(1.5) * (0.2 + number / 10))
        method = ("A07", "A08")[number % 2] if number > 2 else ""
        lines.append(f"{clip.name},{int(number > 2)},{method},p{number % 3}")
    manifest, rows = tmp_path / "manifest.csv", tmp_path / "rows.csv"
    manifest.write_text("\n".join(lines) + "\n")
    asv = asv_scores(tmp_path / "asv.txt", ["A07", "A08"])
    command = ("evaluate", manifest, "--jobs", "1", "--rounds", "20", "--csv", rows, "--asv-scores")
    said = call(*command, asv, "--json", "-")
    assert said.code == 0, said.err
    found = json.loads(said.out)["voice_cloning"]
    scored = [(row.score, bool(row.fake)) for row in read_rows(rows) if row.score is not None]
    rates = read_asv_scores(asv).rates()
    assert len(scored) == 6 and (rates.miss, rates.false_alarm, rates.spoof_false_alarm) == (0, 0.2, 0.5)
    # By hand: a miss costs .9405 less 10 * .0095 * .2, a spoof accepted 10 * .05 / 2, the ASV system's own errors .019.
    det = det_curve(*zip(*scored, strict=True))
    least = float(np.min(0.9215 * det.real_rejected + 0.25 * det.fake_accepted))
    assert found["min_tdcf_legacy"] == pytest.approx(least / 0.25)
    assert found["min_tdcf_revised"] == pytest.approx((0.019 + least) / 0.269)
    for name in ("min_tdcf_legacy", "min_tdcf_revised"):
        assert found[f"{name}_ci"][0] <= found[name] <= found[f"{name}_ci"][1]
    assert all(part["min_tdcf_legacy"] is not None for part in found["groups"].values())
    assert "min_tdcf_legacy" in call(*command, asv).out
    other = call(*command, asv_scores(tmp_path / "dev.txt", ["A01"]))
    assert other.code == 1 and "the ASV scores have no attack A07 (they have A01)" in other.err[0]


def manifest_of(folder: Path, clips: int) -> Path:
    lines = ["file,voice_cloning"]
    for number in range(clips):
        make_audio(folder / f"{number}.wav", spoken_by_nobody(1.2 + number / 20))
        lines.append(f"{number}.wav,{number % 2}")
    path = folder / "manifest.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_killed_evaluation_on_several_cores_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, 12)
    whole, cut = tmp_path / "whole.csv", tmp_path / "cut.csv"
    command = [sys.executable, "-m", "avdetect", "evaluate", str(manifest), "--rounds", "0", "--jobs"]
    run_it = partial(subprocess.run, capture_output=True, check=True, env=environment(), cwd=tmp_path)
    run_it([*command, "1", "--csv", str(whole)])
    killed = subprocess.Popen([*command, "2", "--csv", str(cut)], env=environment(), cwd=tmp_path)
    until = time.monotonic() + 100
    while not (cut.is_file() and cut.read_bytes().count(b"\n") > 3) and time.monotonic() < until:
        time.sleep(0.005)
    workers = children(killed.pid)
    killed.kill()
    killed.wait()
    assert 3 < cut.read_bytes().count(b"\n") < 13 and workers
    with cut.open("ab") as file:
        file.write(b"half a li")
    run_it([*command, "2", "--csv", str(cut)])
    assert cut.read_bytes() == whole.read_bytes() and len(read_rows(whole)) == 12
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
