"""The report of an evaluation: plots worked by hand, a page that stands alone, JSON with all that is needed."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from clips import make_audio
from commands import call, voice

from avdetect import curves
from avdetect.evaluate import tables
from avdetect.evaluate_cli import to_text
from avdetect.evaluation_page import percent_range, rate_text, to_html
from avdetect.evaluation_report import Evaluation, Throughput, described
from avdetect.evaluation_run import trained_on
from avdetect.rows import Row, read_rows
from avdetect.types import Item, Label, ModelInfo

MODEL = ModelInfo("base", "1.2", "ab" * 32)
FAKE = np.array([False, False, True, True])
SCORES = np.array([0.1, 0.6, 0.4, 0.9])


def test_the_roc_goes_through_every_operating_point() -> None:
    found = curves.plots(SCORES, FAKE)
    # none called fake; .9: half the fakes; .6: half the reals too; .4: all fakes; .1: all
    assert found.roc == "M0 100L0 50L50 50L50 0L100 0"


def test_trials_of_one_score_are_one_operating_point() -> None:
    found = curves.plots(np.full(4, 0.5), FAKE)
    assert found.roc == "M0 100L100 0"


def test_det_axes_are_those_of_the_normal_distribution() -> None:
    assert curves.det_axis(0.001) == 0 and curves.det_axis(0) == 0 and curves.det_axis(0.95) == 100
    middle = curves.det_axis(0.5)
    assert curves.det_axis(0.8) - middle == pytest.approx(middle - curves.det_axis(0.2))


def test_a_histogram_shows_each_class_to_its_own_scale() -> None:
    real, fake = curves.histogram(np.array([0.0, 0.01, 0.99, 1.0]), np.array([False, False, False, True]))
    assert [(bar.x, bar.height) for bar in real] == [(0, 100), (96, 50)]
    assert [(bar.x, bar.y, bar.height) for bar in fake] == [(96, 0, 100)]


def test_reliability_dots_lie_where_the_bins_are() -> None:
    (low, high) = curves.dots(np.array([0.12, 0.18, 0.9, 0.9]), FAKE)
    assert (low.x, low.y, low.share) == (15, 100, 0.5)
    assert (high.x, high.y) == (90, 0)
    assert curves.dots(np.array([-1.0, 2.0]), np.array([False, True])) == ()


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    x = np.linspace(0, 100, 5000)
    points = re.findall(r"[ML]([\d.]+) ([\d.]+)", curves.path(x, x))
    assert len(points) <= curves.MAX_POINTS and (points[0], points[-1]) == (("0", "0"), ("100", "100"))


def rows() -> list[Row]:
    found = []
    for number in range(20):
        fake = number % 2
        score = (number * 7 % 20) / 20 * 0.5 + 0.4 * fake
        found.append(
            Row(
                f"/x/<i>{number}<i>.wav", "voice_cloning", fake, score, "inconclusive", "", "tts" if fake else "",
                f"p{number % 5}", "", sha256=str(number), duration=2.0,
            )
        )  # fmt: skip
    silent = replace(
        found[0], path="/x/silent.wav", score=None, verdict="not assessable", reason="there is no sound"
    )
    gone = replace(
        found[0], path="/x/gone.wav", score=None, verdict="error", reason="/x/gone.wav: no such file"
    )
    return [*found, silent, gone]


def evaluation(some: list[Row]) -> Evaluation:
    about = described(["m.csv", "--csv", "a b.csv"], MODEL, ["m.csv"], some, Throughput(22, 44.0, 4.0, 1), 3)
    probes = {
        "voice_cloning": {
            "all": {"n_real": 10, "n_fake": 10, "auc_random_folds": 0.9, "auc_held_out_sources": None}
        }
    }
    return Evaluation(
        about, tables(some, rounds=50), probes, some, {("/x/<i>14<i>.wav", ""): "r-clips/001.html"}
    )


class Parsed(HTMLParser):
    """Tags that must be closed are; what is linked and loaded is listed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.links += [values["href"] or ""] if tag == "a" else []
        self.loaded += [values[key] or "" for key in ("src", "data", "srcset") if key in values]
        self.ids |= {values["id"] or ""} if "id" in values else set()
        if tag not in ("meta", "path", "rect", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "rect"):
            assert self.open.pop() == tag


def test_clips_of_sources_that_the_model_was_trained_on_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = to_html(evaluation(rows()))
    assert "3 of these clips are of sources that this model was trained on" in page

    (tmp_path / "config.json").write_text('{"model_type": "avdetect", "sources": ["lab", "street"]}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    items = [Item(Path(f"{n}.wav"), Label(), source=source) for n, source in enumerate(("lab", "sea", None))]
    assert trained_on(str(tmp_path), items) == 1
    assert "1 of 3 clips are of sources that" in capsys.readouterr().err
    assert trained_on(str(tmp_path), items[1:]) == 0 and capsys.readouterr().err == ""


def test_the_page_stands_alone_and_says_what_it_rests_on() -> None:
    result = evaluation(rows())
    page = to_html(result)
    parsed = Parsed(page)
    assert parsed.open == [] and parsed.loaded == []
    inner = {link[1:] for link in parsed.links if link.startswith("#")}
    assert inner <= parsed.ids and set(parsed.links) - {f"#{one}" for one in inner} == {"r-clips/001.html"}
    assert "<i>14" not in page and "&lt;i&gt;14&lt;i&gt;.wav" in page
    for words in (
        "python -m avdetect evaluate m.csv --csv &#39;a b.csv&#39;",
        MODEL.sha256,
        str(result.about["data"]["fingerprint"]),
        "11.0 × real time",
        "there is no sound",
        "/x/gone.wav: no such file",
        "file facts alone",
        "20 of 22 clips",
        ">Cllr<",
    ):
        assert words in page, words


def test_the_page_tells_of_steps_and_offsets() -> None:
    some = [
        replace(
            row,
            claim="lip_sync_mismatch",
            steps=((0.1, 0.2 + 0.5 * row.fake), (0.3, 0.3)),
            truth=((0.0, 0.2),) if row.fake else (),
            offset_ms=80.0 if row.fake else 20.0,
            true_offset_ms=0.0,
        )
        for row in rows()
    ]
    page = to_html(evaluation(some))
    assert Parsed(page).open == []
    for words in (
        "34 real and 10 fake steps of 22 clips",
        "Within partial fakes alone: AUC 1.000",
        "Median error 20 ms",
    ):
        assert words in page, words
    assert "Estimated in 22 of 22 clips" in page and "Step by step" not in to_html(evaluation(rows()))


def test_the_json_has_everything_and_no_nan() -> None:
    found = json.loads(json.dumps(evaluation(rows()).to_dict(), allow_nan=False))
    assert found["voice_cloning"]["coverage"] == pytest.approx(20 / 22)
    assert found["voice_cloning"]["shortcuts"]["all"]["auc_random_folds"] == 0.9
    assert found["voice_cloning"]["worst"][0]["fake"] == 0
    about = found["evaluation"]
    assert about["failed"] == [{"path": "/x/gone.wav", "reason": "/x/gone.wav: no such file"}]
    assert about["model"]["sha256"] == MODEL.sha256 and about["throughput"]["times_real_time"] == 11.0
    assert about["data"]["clips"] == 22 and about["date"].endswith("+00:00")


@pytest.mark.parametrize("kept", [lambda row: not row.fake, lambda row: row.score is None])
def test_a_page_of_one_class_or_of_failures_alone_is_a_page(kept: object) -> None:
    some = [row for row in rows() if kept(row)]  # type: ignore[operator]
    page = to_html(evaluation(some))
    assert Parsed(page).open == [] and ">ROC<" not in page


def test_numbers_that_are_not_there_are_dashes() -> None:
    assert (rate_text(None), rate_text(0.25), percent_range(None), percent_range([0.1, 0.2])) == (
        "–", "0.250", "", "10.0 to 20.0 %",
    )  # fmt: skip


def test_the_command_writes_rows_json_page_and_clip_reports(tmp_path: Path) -> None:
    for number in range(3):
        make_audio(tmp_path / f"{number}.wav", voice(1.5 + number / 4))
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("file,voice_cloning\n0.wav,0\n1.wav,1\n2.wav,1\ngone.wav,0\n")
    parquet, page, table = tmp_path / "rows.parquet", tmp_path / "page.html", tmp_path / "table.json"
    answer = call(
        "evaluate", manifest, "--parquet", parquet, "--html", page, "--json", table,
        "--clip-reports", "1", "--jobs", "1", "--rounds", "20",
    )  # fmt: skip
    assert answer.code == 1 and len(answer.err) == 1 and "gone.wav" in answer.err[0]
    found = read_rows(parquet)
    assert [row.score is None for row in found] == [False, False, False, True]
    assert {row.model for row in found} == {"base"} and len(found[0].model_sha256) == 64
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []
    links = [link for link in Parsed(page.read_text()).links if not link.startswith("#")]
    assert sorted(links) == ["page-clips/001.html", "page-clips/002.html"]
    assert all("<html" in (tmp_path / link).read_text() for link in links)
    whole = json.loads(table.read_text())
    assert whole["evaluation"]["throughput"]["clips"] == 4
    again = call("evaluate", manifest, "--parquet", parquet, "--jobs", "1", "--rounds", "20", "--json", table)
    assert again.out == answer.out
    assert json.loads(table.read_text())["evaluation"]["throughput"]["times_real_time"] is None


def test_what_could_not_be_read_is_tried_again_on_request(tmp_path: Path) -> None:
    make_audio(tmp_path / "a.wav", voice(1.5))
    manifest, rows = tmp_path / "m.csv", tmp_path / "rows.csv"
    manifest.write_text("file,voice_cloning\nlate.wav,1\na.wav,0\n")
    command = ("evaluate", manifest, "--csv", rows, "--jobs", "1", "--rounds", "0")
    assert call(*command).code == 1
    before = rows.read_bytes()
    make_audio(tmp_path / "late.wav", voice(1.6))
    assert call(*command).code == 1 and rows.read_bytes() == before
    assert call(*command, "--retry").code == 0
    found = read_rows(rows)
    assert [(row.name, row.score is None) for row in found] == [("a.wav", False), ("late.wav", False)]


def test_other_systems_stand_beside_the_model(tmp_path: Path) -> None:
    names = [f"{number}.wav" for number in range(4)]
    for number, name in enumerate(names):
        make_audio(tmp_path / name, voice(1.5 + number / 10))
    manifest, page = tmp_path / "m.csv", tmp_path / "page.html"
    manifest.write_text("file,voice_cloning\n" + "".join(f"{name},{n % 2}\n" for n, name in enumerate(names)))
    scores = tmp_path / "other.txt"
    scores.write_text("".join(f"{n} {n % 2 + n / 10}\n" for n in range(4)))
    command = ("evaluate", manifest, "--jobs", "1", "--rounds", "20", "--csv", tmp_path / "rows.csv")
    asked = (*command, "--claim", "voice_cloning", "--html", page, "--probes", "0")
    said = call(*asked, "--beside", f"theirs={scores}", "--json", "-")
    beside = json.loads(said.out)["voice_cloning"]["beside"]
    assert [one["name"] for one in beside["systems"]] == ["base", "theirs", "late fusion", "chance"]
    assert beside["clips"] == 4 and beside["systems"][1]["auc"] == 1
    assert "Beside other systems" in page.read_text() and "base less theirs" in page.read_text()
    assert "base - theirs" in call(*asked, "--beside", f"theirs={scores}").out
    rows = read_rows(tmp_path / "rows.csv")
    assert len(rows) == 4
    unclear = call(*command, "--beside", scores)
    assert unclear.code == 2 and "say with --claim which one they are of" in unclear.err[0]


def test_methods_are_told_by_set(tmp_path: Path) -> None:
    some = [
        replace(row, dataset=name, method="m" if row.fake else "") for row in rows()[:20] for name in "ab"
    ]
    text = to_text(tables(some, rounds=0)).splitlines()
    assert [line.split()[0] for line in text[2:]] == ["a", "m", "b", "m"]
    page = to_html(evaluation(some))
    assert page.count('<tr class="within">') == 0  # one method says what its set says
    two = [replace(row, method="n") if row.fake and row.score and row.score > 0.6 else row for row in some]
    assert to_html(evaluation(two)).count('<tr class="within">') == 4


def test_a_parquet_file_keeps_what_was_asked_before(tmp_path: Path) -> None:
    make_audio(tmp_path / "a.wav", voice(1.5))
    manifest, parquet = tmp_path / "m.csv", tmp_path / "rows.parquet"
    manifest.write_text("file,voice_cloning,face_manipulation\na.wav,1,0\n")
    for claim in ("voice_cloning", "face_manipulation"):
        assert call("evaluate", manifest, "--parquet", parquet, "--claim", claim).code == 0
    assert [row.claim for row in read_rows(parquet)] == ["voice_cloning", "face_manipulation"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["dffd", "/x"],
            "'dffd' is neither a manifest (.csv, .parquet) nor a named set; did you mean 'dfd'?",
        ),
        (["dfd"], "dfd: give the folder that the set lies in"),
        (["m.csv", "--clip-reports", "3"], "--clip-reports go beside a report"),
        (["m.csv", "--parquet", "rows.csv"], "name a .parquet file of its own"),
        (["m.csv", "--retry"], "--retry is about rows of an earlier run"),
        (["m.csv", "--beside", "gone.txt"], "--beside gone.txt: no such file"),
        (["m.csv", "--slice", "tts2"], "--slice tts2: is no slice"),
        (["m.csv", "--model", "aasist:"], "--model aasist:: name its checkpoint"),
    ],
)
def test_wrong_usage_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    (tmp_path / "m.csv").write_text("file,voice_cloning,method\na.wav,1,tts\n")
    monkeypatch.chdir(tmp_path)
    answer = call("evaluate", *arguments)
    assert answer.code == 2 and len(answer.err) == 1 and words in answer.err[0]


def test_help_names_every_way_to_evaluate() -> None:
    said = call("evaluate", "--help").out
    for words in (
        "evaluate scores",
        "evaluate compare",
        "evaluate export",
        "--clip-reports",
        "faceforensics-c23",
    ):
        assert words in said
    for command in ("scores", "compare", "export"):
        assert call("evaluate", command, "--help").code == 0
