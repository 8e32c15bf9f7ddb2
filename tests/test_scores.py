"""Score files in the shapes that people write them, the official formats, and `evaluate scores`."""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from avdetect.errors import DatasetError, InputError
from avdetect.scores import (
    Export,
    Higher,
    Trials,
    read_asv_scores,
    read_scores,
    read_trials,
    write_scores,
)
from avdetect.scores_cli import add_arguments
from avdetect.scores_cli import run as run_command

ATTACKS = ("A07", "A08")
NAMES = tuple(f"LA_E_{number:07d}" for number in range(40))
SPOOF = tuple(index % 4 != 0 for index in range(40))
SYSTEMS = tuple(ATTACKS[index % 2] if fake else "-" for index, fake in enumerate(SPOOF))
# Higher = bona fide; every tenth trial is on the wrong side.
OFFICIAL = tuple((-1.0 if fake != (i % 10 == 3) else 1.0) * (1 + i / 100) for i, fake in enumerate(SPOOF))

Writer = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    def to_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return to_file


@pytest.fixture
def protocol(write: Writer) -> Path:
    rows = zip(NAMES, SYSTEMS, SPOOF, strict=True)
    lines = [f"LA_{i % 5:04d} {n} - {s} {'spoof' if f else 'bonafide'}" for i, (n, s, f) in enumerate(rows)]
    return write("cm.trl.txt", "\n".join(lines) + "\n")


@pytest.fixture
def trials(protocol: Path) -> Trials:
    return read_trials(protocol, "asvspoof2019-la")


@pytest.fixture
def asv_file(write: Writer) -> Path:
    lines = [f"bonafide target {value}" for value in (4, 5, 6, 1.5)]
    lines += [f"bonafide nontarget {value}" for value in (-3, -2, 2, -1)]
    lines += [f"{attack} spoof {value}" for attack in ATTACKS for value in (3, 4, -5, 5)]
    return write("asv.txt", "\n".join(lines) + "\n")


def key(fake: bool) -> str:
    return "spoof" if fake else "bonafide"


def lines_of(shape: str) -> str:
    """The same 40 scores as different programs write them."""
    rows = list(zip(NAMES, SYSTEMS, SPOOF, OFFICIAL, strict=True))
    random.Random(0).shuffle(rows)
    written = {
        "file system key score": [f"{n} {s} {key(f)} {v}" for n, s, f, v in rows],
        "file score": [f"{n} {v}" for n, _, _, v in rows],
        "score first, tabs": [f"{v}\t{n}" for n, _, _, v in rows],
        "whole protocol line": [f"LA_0001 {n} - {s} {key(f)} {v}" for n, s, f, v in rows],
        "path, csv, header": ["path,label,score", *(f"/x/{n}.flac,{int(f)},{v}" for n, _, f, v in rows)],
        "numeric label, no header": [f"{n};{int(not f)};{v}" for n, _, f, v in rows],
        "asvspoof5": ["filename\tcm-score", *(f"{n}\t{v}" for n, _, _, v in rows)],
        "blank lines": [line for n, _, _, v in rows for line in (f"{n}   {v}", "")],
    }
    return "\n".join(written[shape]) + "\n"


SHAPES = (
    "file system key score",
    "file score",
    "score first, tabs",
    "whole protocol line",
    "path, csv, header",
    "numeric label, no header",
    "asvspoof5",
    "blank lines",
)


@pytest.mark.parametrize("shape", SHAPES)
def test_columns_in_any_usual_order(shape: str, write: Writer, trials: Trials) -> None:
    scored = read_scores(write("scores", lines_of(shape)), trials)
    assert scored.names == NAMES
    assert scored.scores.tolist() == [-value for value in OFFICIAL]
    assert scored.labels.tolist() == list(SPOOF)
    assert scored.attacks == tuple(None if system == "-" else system for system in SYSTEMS)
    assert scored.higher is Higher.BONA_FIDE and scored.sign.startswith("detected: EER 0.1")
    assert scored.missing == () and scored.unknown == 0


def test_sign_is_detected_given_or_assumed(write: Writer, trials: Trials) -> None:
    turned = write("fake_high", "".join(f"{n} {-v}\n" for n, v in zip(NAMES, OFFICIAL, strict=True)))
    assert read_scores(turned, trials).scores.tolist() == [-value for value in OFFICIAL]
    assert read_scores(turned, trials).higher is Higher.FAKE
    given = read_scores(turned, trials, Higher.BONA_FIDE)
    assert given.scores.tolist() == list(OFFICIAL) and given.sign == "given"
    # Every four trials in a row hold one bona fide trial, so their number says nothing.
    chance = write("chance", "".join(f"{n} {i + 0.5}\n" for i, n in enumerate(NAMES)))
    assert read_scores(chance, trials).sign.startswith("assumed as in ASVspoof: scores near chance")


def test_a_file_with_its_own_keys_needs_no_protocol(write: Writer) -> None:
    scored = read_scores(write("scores", lines_of("file system key score")))
    assert dict(zip(scored.names, scored.scores, strict=True)) == {
        name: -value for name, value in zip(NAMES, OFFICIAL, strict=True)
    }
    assert set(scored.attacks) == {None, *ATTACKS} and scored.speakers is None
    with pytest.raises(DatasetError, match="--cm-protocol"):
        read_scores(write("bare", lines_of("file score")))


def test_missing_and_foreign_trials_are_counted(write: Writer, trials: Trials) -> None:
    path = write("scores", "\n".join([*lines_of("file score").splitlines()[5:], "LA_D_1 0.5"]))
    scored = read_scores(path, trials)
    assert len(scored.names) == 35 and len(scored.missing) == 5 and scored.unknown == 1
    assert set(scored.names) | set(scored.missing) == set(NAMES)


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "empty"),
        (f"{NAMES[0]} 1\n{NAMES[1]} nan\n", "line 2: score 'nan'"),
        (f"{NAMES[0]} 1\n{NAMES[1]} broken\n", "line 2: score 'broken'"),
        (f"{NAMES[0]} 1\n{NAMES[1]}\n", "line 2 has 1 columns, line 1 has 2"),
        (f"{NAMES[0]} 1\n{NAMES[1]} 2\n{NAMES[0]} 3\n", "stands twice, in lines 1 and 3"),
        ("LA_D_0000001 0.5\n", "same part"),
        (f"{NAMES[0]} 0.5 0.1\n{NAMES[1]} 0.4 0.2\n{NAMES[2]} 0.3 0.9\n", "columns 2, 3 are numbers"),
        (f"{NAMES[0]} spoof 0.5\n", "line 1 says spoof, the protocol bonafide"),
        (f"{NAMES[0]}\n{NAMES[1]}\n", "no column of numbers"),
    ],
)
def test_bad_files_are_named_by_line(text: str, words: str, write: Writer, trials: Trials) -> None:
    with pytest.raises(DatasetError, match=words) as caught:
        read_scores(write("scores.txt", text), trials)
    assert "scores.txt" in str(caught.value) and "\n" not in str(caught.value)


def test_unreadable_files(tmp_path: Path, trials: Trials) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_scores(tmp_path / "none.txt", trials)
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    with pytest.raises(DatasetError, match="not a text file"):
        read_scores(tmp_path / "binary", trials)


def test_score_column_can_be_named(write: Writer, trials: Trials) -> None:
    rows = [f"{name} {i / 7} {value}" for i, (name, value) in enumerate(zip(NAMES, OFFICIAL, strict=True))]
    path = write("logits", "\n".join(rows))
    assert read_scores(path, trials, score_column=3).scores.tolist() == [-value for value in OFFICIAL]
    with pytest.raises(InputError, match="no column 4; it has 3"):
        read_scores(path, trials, score_column=4)


# ------------------------------------------------------------------------------------------ protocols


def test_protocol_traps(write: Writer, protocol: Path) -> None:
    with pytest.raises(DatasetError, match="line 1 has 5 columns; a asvspoof5 protocol has 10"):
        read_trials(protocol, "asvspoof5")
    with pytest.raises(InputError, match="'asvspoof2015' is unknown"):
        read_trials(protocol, "asvspoof2015")
    with pytest.raises(DatasetError, match="neither bonafide nor spoof"):
        read_trials(write("bad", "LA_1 LA_E_1 - A07 fake\n"), "asvspoof2019-la")


def test_later_challenges_and_their_subsets(write: Writer) -> None:
    la = "LA_0009 LA_E_9332881 alaw ita_tx A07 spoof notrim eval\n"
    la += "LA_0020 LA_E_1 alaw ita_tx - bonafide notrim progress\n"
    assert read_trials(write("la", la), "asvspoof2021-la").names == ("LA_E_9332881",)
    assert read_trials(write("la", la), "asvspoof2021-la", "progress").labels.tolist() == [False]
    df = "LA_0023 DF_E_2000011 nocodec asvspoof A14 spoof notrim progress traditional_vocoder - - - -\n"
    with pytest.raises(DatasetError, match="no trial of subset 'eval'"):
        read_trials(write("df", df), "asvspoof2021-df")
    five = "E_0001 E_0000000001 F - - - AC1 A17 spoof -\n"
    assert read_trials(write("five", five), "asvspoof5").attacks == ("A17",)


def test_asv_scores_per_attack(asv_file: Path, write: Writer) -> None:
    asv = read_asv_scores(asv_file)
    assert asv.rates() == asv.rates("A07")
    assert asv.rates().spoof_false_alarm == 0.75
    with pytest.raises(DatasetError, match="line 1 is not CM_KEY ASV_KEY SCORE"):
        read_asv_scores(write("asv", "bonafide impostor 1\n"))
    with pytest.raises(DatasetError, match="no nontarget trials"):
        read_asv_scores(write("asv", "bonafide target 1\n"))


# ------------------------------------------------------------------------------------------- exporters


@pytest.mark.parametrize("layout", list(Export))
def test_exported_files_are_turned_and_read_back(layout: Export, tmp_path: Path, trials: Trials) -> None:
    path = tmp_path / "out.txt"
    inside = [-value for value in OFFICIAL]
    write_scores(path, layout, NAMES, inside, SPOOF, [s if s != "-" else None for s in SYSTEMS])
    assert float(path.read_text().splitlines()[-1].split()[-1]) == OFFICIAL[-1]
    scored = read_scores(path, trials, Higher.BONA_FIDE)
    assert scored.names == NAMES and scored.scores.tolist() == inside


def test_official_2019_line(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    write_scores(path, Export.ASVSPOOF2019, ["a", "b"], [2.5, 0.0], [True, False], ["A07", None])
    assert path.read_text() == "a A07 spoof -2.5\nb - bonafide 0.0\n"


@pytest.mark.parametrize(
    "names, scores", [(["a b"], [1.0]), (["a", "a"], [1.0, 2.0]), (["a"], [float("nan")])]
)
def test_exporter_refuses_what_no_reader_could_use(
    names: list[str], scores: list[float], tmp_path: Path
) -> None:
    with pytest.raises(ValueError):
        write_scores(tmp_path / "out.txt", Export.ASVSPOOF2021, names, scores)


# ----------------------------------------------------------------------------------------- command line


def run(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run_command(parser.parse_args([str(argument) for argument in arguments]))


def test_json_of_evaluate_scores(
    write: Writer, protocol: Path, asv_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = write("scores", lines_of("file score"))
    common: Sequence[str | Path] = (
        "--scores",
        scores,
        "--cm-protocol",
        protocol,
        "--rounds",
        "50",
        "--json",
        "-",
    )
    assert run(*common, "--asv-scores", asv_file) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["trials"] == 40 and result["bonafide"] == 10 and result["coverage"] == 1
    assert result["eer"] == pytest.approx(0.1, abs=0.02)
    assert 0 < result["min_tdcf_legacy"] < 1 and result["min_tdcf_legacy"] != result["min_tdcf_revised"]
    for name in ("min_tdcf_legacy", "min_tdcf_revised"):
        low, high = result[f"{name}_ci"]
        assert low <= result[name] <= high and low < high
    assert set(result["per_attack"]) == set(ATTACKS)
    assert result["per_attack"]["A07"]["trials"] == SYSTEMS.count("A07")
    assert result["higher"] == "bonafide" and "higher = bonafide (detected" in captured.err
    assert run(*common) == 0
    without = json.loads(capsys.readouterr().out)
    assert without["min_tdcf_legacy"] is None and without["min_tdcf_legacy_ci"] is None
    assert run(*common[:-2], "--asv-scores", asv_file) == 0
    table = [line.split("  ") for line in capsys.readouterr().out.splitlines() if "min t-DCF" in line]
    assert len(table) == 2 and all(line[-1].startswith("(95 %: ") for line in table)


def test_missing_trials_end_in_exit_code_one(
    write: Writer, protocol: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = write("scores", "\n".join(lines_of("file score").splitlines()[4:]))
    out = tmp_path / "result.json"
    assert run("--scores", scores, "--cm-protocol", protocol, "--rounds", "0", "--json", out) == 1
    result = json.loads(out.read_text())
    assert (result["missing"], result["coverage"], result["eer_ci"]) == (4, 0.9, None)
    assert "4 of 40 trials have no score" in capsys.readouterr().err


def test_table_for_people(
    write: Writer, protocol: Path, asv_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = write("scores", lines_of("file score"))
    command = ("--scores", scores, "--cm-protocol", protocol, "--rounds", "0")
    assert run(*command) == 0
    text = capsys.readouterr().out
    assert "40 trials (10 bona fide, 30 spoof), coverage 100.000 %" in text and "A08" in text
    assert "t-DCF legacy 0." not in text
    assert run(*command, "--asv-scores", asv_file) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("  A08"))
    assert " t-DCF legacy 0." in line and " t-DCF revised 0." in line


def test_dev_asv_scores_with_an_eval_protocol_are_refused(
    write: Writer, protocol: Path, asv_file: Path
) -> None:
    dev = write("dev", asv_file.read_text().replace("A07", "A01").replace("A08", "A02"))
    scores = write("scores", lines_of("file score"))
    with pytest.raises(DatasetError, match=r"no attack A07 .*same part"):
        run("--scores", scores, "--cm-protocol", protocol, "--asv-scores", dev, "--rounds", "0")


def test_decisions_instead_of_scores_are_told(
    write: Writer, protocol: Path, asv_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = write("hard", "".join(f"{n} {int(v > 0)}\n" for n, v in zip(NAMES, OFFICIAL, strict=True)))
    assert run("--scores", scores, "--cm-protocol", protocol, "--asv-scores", asv_file, "--json", "-") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["min_tdcf_legacy"] is None and "look like decisions" in captured.err


def test_a_system_that_verifies_speakers_too_has_an_a_dcf(
    write: Writer, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        ("target", 3.0),
        ("target", 2.0),
        ("target", 0.5),
        ("nontarget", -1.0),
        ("nontarget", 1.0),
        ("spoof", 0.0),
    ]
    lines = [
        "filename cm-score sasv-score key",
        *(f"T{i} 0.5 {s} {kind}" for i, (kind, s) in enumerate(rows)),
    ]
    path = write("track2.tsv", "\n".join(lines) + "\n")
    assert run("--protocol", "asvspoof5-track2", "--scores", path, "--rounds", "50", "--json", "-") == 0
    result = json.loads(capsys.readouterr().out)
    # From .5 on no target is lost, and one of two other speakers is let in: .5 / 2 over min(.5 + 1, .9).
    assert result["min_a_dcf"] == pytest.approx(0.25 / 0.9)
    assert (result["target"], result["nontarget"], result["spoof"]) == (3, 2, 1)
    assert result["min_a_dcf_ci"][0] <= result["min_a_dcf"] <= result["min_a_dcf_ci"][1]
    assert run("--protocol", "asvspoof5-track2", "--scores", path, "--rounds", "0") == 0
    assert "3 target, 2 nontarget, 1 spoof trials" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a 0.5 spoof\nb 0.1 bonafide\n", "no column of target, nontarget and spoof"),
        ("a 0.5 spoof\nb 0.1 target\n", "no nontarget trials"),
        (
            "a 0.5 0.1 spoof\nb 0.1 0.2 target\n",
            "2 columns are numbers; say which is the score with --score-column",
        ),
        ("a 0.5 spoof\nb nan target\n", "line 2: score 'nan' is not a finite number"),
    ],
)
def test_joint_scores_that_cannot_be_read_are_told(text: str, words: str, write: Writer) -> None:
    with pytest.raises(DatasetError, match=words):
        run("--protocol", "asvspoof5-track2", "--scores", write("mine.txt", text), "--rounds", "0")


def test_official_anchor_through_the_command(shared_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shared_dir / "fixtures" / "asvspoof2019"
    code = run(
        "--scores", folder / "cm_RawGAT_ST_mul_LA_eval.txt",
        "--cm-protocol", folder / "ASVspoof2019.LA.cm.eval.trl.txt",
        "--asv-scores", folder / "ASVspoof2019.LA.asv.eval.gi.trl.scores.txt",
        "--rounds", "20", "--json", "-",
    )  # fmt: skip
    result = json.loads(capsys.readouterr().out)
    assert code == 0 and result["trials"] == 71237
    assert round(100 * result["eer"], 3) == 1.060
    assert round(result["min_tdcf_legacy"], 4) == 0.0335
    assert round(100 * result["asv"]["eer"], 3) == 2.458
    assert round(100 * result["per_attack"]["A18"]["eer"], 2) == 3.09
    assert result["intervals_over"] == "speakers"


def test_a_real_dev_and_eval_mix_is_refused(shared_dir: Path) -> None:
    folder = shared_dir / "fixtures" / "asvspoof2019"
    scores = folder / "cm_RawGAT_ST_mul_LA_eval.txt"
    with pytest.raises(DatasetError, match="same part"):
        run("--scores", scores, "--cm-protocol", folder / "ASVspoof2019.LA.cm.dev.trl.txt", "--rounds", "0")


def test_the_command_is_light_to_import() -> None:
    code = (
        "import sys, avdetect.scores_cli, avdetect.intervals, avdetect.localisation; "
        "print([name for name in ('torch', 'sklearn', 'pandas', 'scipy') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_reading_is_in_float64(write: Writer, trials: Trials) -> None:
    scored = read_scores(write("scores", lines_of("file score")), trials)
    assert scored.scores.dtype == np.float64
