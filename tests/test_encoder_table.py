"""The command that makes the table of encoders: results from score files, costs, and what it keeps of earlier calls."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    mark = "<!-- table: examples/encoder_table.py -->\nold\n<!-- end of table -->"
    (tmp_path / "encoders.md").write_text(f"before\n{mark}\nafter\n")
    (tmp_path / "manifest.csv").write_text(
        "file,voice_cloning,source\n" + "".join(f"c{n}.wav,{n % 2},s{n // 2}\n" for n in range(8))
    )
    return tmp_path


def table(docs: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "examples" / "encoder_table.py", "--docs", docs, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)


def rows(docs: Path) -> dict[str, dict[str, str]]:
    with (docs / "encoders.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def test_results_of_runs_and_of_score_files(docs: Path) -> None:
    lines = [f"c{n}.wav,voice_cloning,,{n % 2},{n % 2 + n / 100}" for n in range(8)]
    lines += [f"c{n}.wav,lip_sync_mismatch,,{1 - n % 2},{n}" for n in range(8)]
    (docs / "run.csv").write_text("file,claim,variant,fake,logit\n" + "\n".join(lines) + "\n")
    keys = ("bonafide", "spoof")
    wrong = [f"c{n} - {keys[n % 2]} {n % 2 + n / 100}\n" for n in range(8)]  # fakes higher: turned, all wrong
    (docs / "b02.txt").write_text("".join(wrong))
    done = table(
        docs, "results", docs / "manifest.csv", f"tdnn={docs / 'run.csv'}", f"lfcc-gmm={docs / 'b02.txt'}"
    )
    assert done.returncode == 0, done.stderr
    found = rows(docs)
    assert (found["tdnn"]["auc"], found["tdnn"]["eer"], found["tdnn"]["clips"]) == ("1.000", "0.000", "4 / 4")
    assert found["lfcc-gmm"]["auc"] == "0.000" and found["lfcc-gmm"]["low"] == "0.000"
    page = (docs / "encoders.md").read_text()
    assert page.startswith("before\n<!-- table") and page.endswith("<!-- end of table -->\nafter\n")
    assert "old" not in page and "| tdnn |  |  |  |  | 4 / 4 | 1.000 (1.000 to 1.000) | 0.000 |" in page


def test_costs_stand_beside_earlier_results(docs: Path) -> None:
    (docs / "encoders.csv").write_text("name,auc,eer,clips\ntdnn,0.900,0.100,4 / 4\n")
    done = table(docs, "cost", "tdnn", "--runs", "1")
    assert done.returncode == 0, done.stderr
    row = rows(docs)["tdnn"]
    assert row["auc"] == "0.900" and row["input"] == "audio"
    assert int(row["weights"]) == 420_160 and int(row["mmacs"]) > 10 and float(row["cpu"]) > 0


def test_wrong_names_and_files_end_in_one_line(docs: Path) -> None:
    unknown = table(docs, "cost", "tdn")
    assert unknown.returncode == 2 and "no row is called 'tdn'" in unknown.stderr
    (docs / "other.csv").write_text("a,b\n1,2\n")
    other = table(docs, "results", docs / "manifest.csv", f"tdnn={docs / 'other.csv'}")
    assert other.returncode == 1
    assert other.stderr.startswith("encoder_table: ") and "is no scores.csv of a run" in other.stderr
    assert len(other.stderr.splitlines()) == 1 and not (docs / "encoders.csv").exists()
