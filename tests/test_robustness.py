"""Tables of degraded clips against counts made by hand, plots and page, and the commands as a user gives them."""

from __future__ import annotations

import csv
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from clips import make_audio
from commands import call
from commands import voice as spoken_by_nobody

from avdetect.degradations import chosen
from avdetect.manifest import read_manifest
from avdetect.prepared import Cache
from avdetect.robustness import table, to_text
from avdetect.robustness_cli import fewer
from avdetect.robustness_page import Section, page
from avdetect.robustness_plots import as_png, as_svg, drawn
from avdetect.types import Claim, Item, Label
from avdetect.variants import Trial
from avdetect.windows import WindowSettings

VOICE = Claim.VOICE_CLONING
FACTS = {
    "model": {"name": "<base>", "version": "1", "sha256": "ab" * 32},
    "seed": 3,
    "command": "evaluate <m>.csv",
    "date": "2026-01-01",
    "avdetect": "1",
}


def trial(number: int, variant: str, fake: bool, score: float | None) -> Trial:
    verdict = "not assessable" if score is None else "manipulated" if score >= 0.8 else "inconclusive"
    return Trial(
        f"{number}.wav", "", "", variant, VOICE.value, int(fake), score, verdict, "", "m", f"p{number}"
    )


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    """Three real and three fake clips, told apart as they are; with noise one of each changes places, one is lost."""
    untouched = [(False, 0.1), (False, 0.2), (False, 0.3), (True, 0.7), (True, 0.8), (True, 0.9)]
    noisy = [(False, 0.1), (False, 0.85), (False, None), (True, 0.3), (True, 0.8), (True, 0.9)]
    trials = [trial(n, "untouched", *one) for n, one in enumerate(untouched)]
    trials += [trial(n, "noise-10", *one) for n, one in enumerate(noisy)]
    return table(trials, VOICE, chosen(["noise-10", "alaw"]), rounds=50)


def test_a_row_counts_what_was_scored_and_compares_like_with_like(rows: list[dict[str, Any]]) -> None:
    assert [row["variant"] for row in rows] == ["untouched", "noise-10"]  # nobody asked for a-law
    as_it_is, noisy = rows
    assert as_it_is["auc"] == 1 and as_it_is["coverage"] == 1 and as_it_is["change"] is None
    assert (noisy["trials"], noisy["scored"], noisy["n_real"], noisy["n_fake"]) == (6, 5, 2, 3)
    assert noisy["auc"] == pytest.approx(4 / 6)  # of 2 x 3 pairs the real one at .85 beats two fakes
    assert noisy["false_alarms"] == 0.5 and noisy["caught"] == pytest.approx(2 / 3)
    change = noisy["change"]
    assert change["auc"] == pytest.approx(4 / 6 - 1) and (change["n_real"], change["n_fake"]) == (2, 3)
    assert change["drift_real"] == pytest.approx(0.65 / 2) and change["drift_fake"] == pytest.approx(-0.4 / 3)
    assert change["auc_ci"][0] <= change["auc"] <= change["auc_ci"][1] <= 0
    assert noisy["quantiles"]["fake"][2] == pytest.approx(0.8)


def test_one_class_alone_has_a_drift_but_no_auc() -> None:
    trials = [trial(1, "untouched", False, 0.2), trial(1, "alaw", False, 0.4)]
    row = table(trials, VOICE, chosen(["alaw"]), rounds=10)[1]
    assert row["auc"] is None and row["change"]["auc"] is None and row["change"]["auc_p"] is None
    assert row["change"]["drift_real"] == pytest.approx(0.2) and row["change"]["drift_fake"] is None
    assert "alaw" in to_text({"voice_cloning": [row]})


def test_the_plot_draws_every_degradation_and_is_the_same_each_time(rows: list[dict[str, Any]]) -> None:
    figure = drawn(rows, "Voices")
    assert [at.get_title(loc="left") for at in figure.axes if at.get_visible()] == [rows[1]["title"]]
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == "AUC"]
    assert [float(y) for y in line.get_ydata()] == pytest.approx([1, 4 / 6])
    assert as_png(figure).startswith(b"\x89PNG")
    assert as_svg(drawn(rows, "Voices")) == as_svg(drawn(rows, "Voices"))


def test_the_page_opens_offline_and_says_what_was_measured(rows: list[dict[str, Any]]) -> None:
    text = page(FACTS, {"voice_cloning": Section(rows, "<svg></svg>")}, {})
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", text) and "Content-Security-Policy" in text
    assert "&lt;base&gt;" in text and "noise-10" in text and "0.667" in text and "-0.333" in text
    assert "Attacked clips" not in text


def test_fewer_takes_the_same_ones_of_each_class_in_any_order() -> None:
    items = [Item(Path(f"{n}.wav"), Label(voice_cloning=n % 3 == 0)) for n in range(30)]
    kept = fewer(items, [VOICE], 4)
    assert [item.label[VOICE] for item in kept].count(True) == 4 and len(kept) == 8
    assert {item.path for item in fewer(items[::-1], [VOICE], 4)} == {item.path for item in kept}
    assert {item.path for item in fewer(items, [VOICE], 3)} < {item.path for item in kept}
    assert fewer(items, [VOICE], None) == items


# The command


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A voice as it is and at another level, labelled real and fake."""
    folder = tmp_path_factory.mktemp("clips")
    path = folder / "manifest.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "voice_cloning"])
        for number in range(4):
            clip = make_audio(
                folder / f"{number}.wav", spoken_by_nobody()[:, number * 2000 :] * (0.3 + 0.1 * number)
            )
            writer.writerow([clip.name, number % 2])
    return path


def test_variants_give_a_table_and_files_and_are_not_made_again(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("evaluate", manifest, "--variants", "alaw,noise-10", "--out", out, "--rounds", "20")
    said = call(*command)
    assert said.code == 0 and [line.split()[0] for line in said.out.splitlines()] == [
        *("voice_cloning", "variant", "untouched", "alaw", "noise-10")
    ]
    answer = json.loads((out / "variants.json").read_text())
    assert answer["model"]["name"] == "base" and len(answer["claims"]["voice_cloning"]) == 3
    before = (out / "variants.csv").read_bytes()
    assert call(*command).out == said.out and (out / "variants.csv").read_bytes() == before
    assert not (out / "robustness.html").exists()


def test_clips_as_they_are_can_be_asked_for_alone(manifest: Path, tmp_path: Path) -> None:
    said = call("evaluate", manifest, "--variants", "untouched", "--out", tmp_path, "--rounds", "0")
    assert said.code == 0 and [line.split()[0] for line in said.out.splitlines()][2:] == ["untouched"]


def test_robustness_draws_what_it_is_asked_for(manifest: Path, tmp_path: Path) -> None:
    said = call(
        "evaluate", manifest, "--robustness", "--variants", "quiet", "--out", tmp_path, "--rounds", "20"
    )
    assert said.code == 0, said.err
    assert (tmp_path / "voice_cloning-degraded.png").read_bytes().startswith(b"\x89PNG")
    assert "quiet-40" in (tmp_path / "robustness.html").read_text()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--variants", "mp33"), "no variant is called 'mp33'; did you mean 'mp3'?"),
        (("--robustness", "--csv", "x.csv"), "--csv is of a plain evaluation"),
        (("--robustness", "--most", "0"), "--most 0: give 1 or more"),
    ],
)
def test_wrong_usage_is_one_line_and_makes_nothing(
    options: tuple[str, ...], reason: str, manifest: Path, tmp_path: Path
) -> None:
    said = call("evaluate", manifest, *options, "--out", tmp_path / "out")
    assert said.code == 2 and len(said.err) == 1 and reason in said.err[0]
    assert not (tmp_path / "out").exists()


def test_what_a_killed_sweep_left_is_cleared_and_nothing_lies_elsewhere(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, used = tmp_path / "out", []

    class Watched(tempfile.TemporaryDirectory[str]):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            used.append((Path(self.name).parent, sorted(one.name for one in (out / ".scratch").iterdir())))

    monkeypatch.setattr(tempfile, "TemporaryDirectory", Watched)
    command = ("evaluate", manifest, "--variants", "mp3-32", "--most", "1", "--out", out, "--rounds", "0")
    before = tempfile.gettempdir()
    assert call(*command).code == 0 and not (out / ".scratch").exists()
    (out / "variants.csv").unlink()
    (out / ".scratch").mkdir()
    (out / ".scratch" / "avdetect-left").write_bytes(b"half a clip")
    assert call(*command).code == 0 and not (out / ".scratch").exists()
    assert len(used) == 4 and tempfile.gettempdir() == before
    assert all(where == (out / ".scratch").resolve() and len(there) == 1 for where, there in used)


def test_clips_of_the_cache_are_not_decoded_again(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("evaluate", manifest, "--variants", "alaw", "--most", "1", "--rounds", "0", "--out")
    plain = call(*command, tmp_path / "plain", "--cache", tmp_path / "none")
    cache = Cache(tmp_path / "cache")
    for item in read_manifest(manifest):
        assert cache.keep(item, WindowSettings(10.0, 10.0)).reason is None
    monkeypatch.setattr("avdetect.variants.prepare", lambda *_, **__: pytest.fail("it is in the cache"))
    said = call(*command, tmp_path / "out", "--cache", cache.shards.folder)
    assert (said.code, said.out) == (0, plain.out)
    rows = [(tmp_path / name / "variants.csv").read_bytes() for name in ("plain", "out")]
    assert rows[0] == rows[1]


def test_a_sweep_that_goes_on_over_several_processes_ends_in_the_same_bytes(
    manifest: Path, tmp_path: Path
) -> None:
    command = (
        *("evaluate", manifest, "--variants", "mp3-32,noise-10", "--adversarial", "--most", "1"),
        *("--rounds", "0", "--out"),
    )
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    assert call(*command, alone, "--jobs", "1").code == 0
    shutil.copytree(alone, shared)
    whole = (alone / "variants.csv").read_bytes()
    (shared / "variants.csv").write_bytes(whole[: len(whole) // 3])
    for name in ("adversarial.csv", "variants.json", "adversarial.json"):
        (shared / name).unlink()
    assert call(*command, shared, "--jobs", "2").code == 0
    assert sorted(one.name for one in shared.iterdir()) == sorted(one.name for one in alone.iterdir())
    for name in ("variants", "adversarial"):
        assert (shared / f"{name}.csv").read_bytes() == (alone / f"{name}.csv").read_bytes()
        found = [json.loads((folder / f"{name}.json").read_text()) for folder in (alone, shared)]
        assert found[0]["claims"] == found[1]["claims"] and "--jobs 2" in found[1]["command"]


def test_results_of_another_seed_are_not_mixed_in(manifest: Path, tmp_path: Path) -> None:
    command = ("evaluate", manifest, "--variants", "quiet-20", "--out", tmp_path / "out", "--rounds", "0")
    assert call(*command).code == 0
    said = call(*command, "--seed", "1")
    assert said.code == 1 and "holds results of other settings" in said.err[0]
