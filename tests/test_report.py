"""The JSON contract, text that steers no terminal, and a page that asks for no network and runs nothing."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from rich.console import Console

from avdetect import charts, report, wording
from avdetect.types import (
    CLAIMS,
    Claim,
    ClaimResult,
    Evidence,
    ModelInfo,
    Outcome,
    Segment,
    Status,
    Timeline,
    Timing,
    TrackSummary,
    Verdict,
)

MODEL = ModelInfo("base", "0.1.0", "9f2c" * 16)
FACE, VOICE, SYNC = CLAIMS
NO_CURVE = Timeline()
DOCS = Path(__file__).parent.parent / "docs" / "json.md"


def curve(duration: float, *bumps: tuple[float, float], floor: float = 0.12) -> Timeline:
    """A low curve with a smooth bump over each of `bumps`, seconds."""
    times = np.arange(0.1, duration, 0.2)
    scores = floor + 0.03 * np.sin(times * 2.1) + 0.02 * np.sin(times * 5.3 + floor * 40)
    for start, end in bumps:
        scores += (0.94 - floor) * np.exp(-(((times - (start + end) / 2) / (end - start) * 2) ** 4))
    return Timeline(tuple(times.tolist()), tuple(np.clip(scores, 0, 1).tolist()))


def assessed(claim: Claim, score: float, timeline: Timeline = NO_CURVE, **more: Any) -> ClaimResult:
    """A claim's result with thresholds 0.35 and 0.65, its verdict read from them."""
    low, high = 0.35, 0.65
    outcome = Outcome.MANIPULATED if score >= high else Outcome.INCONCLUSIVE
    if score < low:
        outcome = Outcome.NO_MANIPULATION_FOUND
    return ClaimResult(claim, Status.ASSESSED, outcome, score, timeline=timeline, low=low, high=high, **more)


def unseen(claim: Claim, reason: str) -> ClaimResult:
    """A claim that could not be assessed."""
    return ClaimResult(claim, Status.NOT_ASSESSABLE, Outcome.NOT_ASSESSABLE, reason=reason)


def verdict_of(*results: ClaimResult, **more: Any) -> Verdict:
    """A verdict whose score is its worst claim's."""
    scored = [r for r in results if r.score is not None]
    top = max(scored, key=lambda r: r.score or 0.0, default=None)
    facts: dict[str, Any] = {
        "duration": 12.3,
        "sha256": "ab" * 32,
        "timing": Timing(0.4, 1.9, 0.8, 3.1, 0.25),
    } | more
    return Verdict(
        facts.pop("path", Path("interview.mp4")),
        top.verdict if top else Outcome.NOT_ASSESSABLE,
        MODEL,
        score=top.score if top else None,
        claims={r.claim: r for r in results},
        **facts,
    )


def picture(shade: int = 120) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A small image [64, 48, 3]."""
    return np.full((64, 48, 3), shade, np.uint8)


def full(duration: float = 12.3, **more: Any) -> Verdict:
    """All three claims assessed, two faces, a marked stretch each for face and lip-sync."""
    segments = (Segment(7.9, 8.6, FACE, 0.71, 0), Segment(1.2, 3.4, FACE, 0.97, 0))
    lips = (Segment(8.3, 9.4, SYNC, 0.88, 0),)
    faces = tuple(
        TrackSummary(i, 0.0, duration, 141.0, 210.0, 8.0, 0.98, thumbnail=picture(), reason=reason)
        for i, reason in enumerate((None, "the face is turned away (62 degrees) for most of the clip"))
    )
    times = np.linspace(0, 1, 800)
    peaks = np.abs(np.sin(times * 40)) * (0.3 + 0.6 * np.abs(np.sin(times * 7)))
    settings: dict[str, Any] = {
        "tracks": faces,
        "evidence": tuple(Evidence(FACE, t, t + 2.0, 0.4, 0) for t in range(6)),
        "warnings": ("3 corrupt packets were skipped near 00:09.",),
        "media": {
            "container": "mp4",
            "video_codec": "h264",
            "width": 1280,
            "height": 720,
            "fps": 29.97002997,
        },
        "waveform_peaks": tuple(peaks.tolist()),
        "thumbnails": {0: ((2.1, picture(90)), (2.9, picture(60)))},
    }
    return verdict_of(
        assessed(FACE, 0.93, curve(duration, (1.2, 3.4), (7.9, 8.6)), segments=segments, track=0),
        assessed(VOICE, 0.12, curve(duration)),
        assessed(SYNC, 0.51, curve(duration, (8.2, 9.5), floor=0.3), offset_ms=-40.04, segments=lips),
        **{"duration": duration} | settings | more,
    )


def broken(**more: Any) -> Verdict:
    """A clip that could not be read."""
    text = "cut.mp4: the index (moov) is missing; record or copy the file again"
    facts: dict[str, Any] = {"path": Path("cut.mp4"), "error": text} | more
    return Verdict(outcome=Outcome.ERROR, model=MODEL, **facts)


AUDIO_ONLY = verdict_of(
    unseen(FACE, "the clip has no picture"),
    assessed(VOICE, 0.88, curve(4.0, (1.0, 2.5)), segments=(Segment(1.0, 2.5, VOICE, 0.95),)),
    unseen(SYNC, "the clip has no picture"),
    path=Path("call.flac"),
    duration=4.0,
    waveform_peaks=(0.1, 0.8, 0.4),
)
SILENT = verdict_of(
    assessed(FACE, 0.05, curve(9.0), track=0),
    unseen(VOICE, "the clip has no sound"),
    unseen(SYNC, "the clip has no sound"),
    duration=9.0,
)
NOTHING = verdict_of(*(unseen(claim, "there is no face and no speech") for claim in CLAIMS), duration=0.0)
STATES = {
    "full": full(),
    "audio-only": AUDIO_ONLY,
    "silent": SILENT,
    "nothing": NOTHING,
    "error": broken(),
    "hour": full(3725.0),
}
HOSTILE = Path("/tmp/[red]x[/red]\x1b[31m\u202egpj<script>alert(1)</script>\udcff.mp4")


@pytest.fixture(params=STATES, ids=str)
def verdict(request: pytest.FixtureRequest) -> Verdict:
    """Each state that a clip may end in."""
    return STATES[request.param]


def printed(shown: Verdict, width: int | None = None, *, terminal: bool = False) -> str:
    """What a console would show."""
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=terminal, color_system="truecolor" if terminal else "auto", width=80
    )
    console.print(report.to_text(shown, width), soft_wrap=True)
    return out.getvalue()


class Page(HTMLParser):
    """Collects tags with their attributes, ids, and the text between tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the tag."""
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Keep the words."""
        self.words += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of every such tag."""
        return [attributes for name, attributes in self.tags if name == tag]


def validator() -> Any:
    """A validator of the shipped schema, itself checked."""
    schema = report.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


# --- JSON ---------------------------------------------------------------------------------------------------


def test_json_of_every_state_obeys_the_schema(verdict: Verdict) -> None:
    line = report.to_json_line(verdict)
    assert len(line.splitlines()) == 1
    answer = json.loads(line)
    validator().validate(answer)
    assert answer == report.to_dict(verdict)


def test_json_values() -> None:
    answer = report.to_dict(full())
    face, sync = answer["claims"]["face_manipulation"], answer["claims"]["lip_sync_mismatch"]
    assert (answer["schema"], answer["verdict"], answer["score"]) == (1, "manipulated", 0.93)
    assert list(answer["claims"]) == ["face_manipulation", "voice_cloning", "lip_sync_mismatch"]
    assert face["segments"][1] == {"start": 1.2, "end": 3.4, "score": 0.97, "track": 0}
    assert (face["low"], face["high"], face["track"]) == (0.35, 0.65, 0)
    assert sync["offset_ms"] == -40.0
    assert "offset_ms" not in face
    assert answer["media"]["fps"] == 29.97
    assert answer["timing"]["realtime_factor"] == 0.25


def test_json_of_an_error_claims_nothing() -> None:
    answer = report.to_dict(broken(score=0.4))
    assert (answer["verdict"], answer["score"], answer["claims"]) == ("error", None, {})
    assert answer["error"].startswith("cut.mp4: the index (moov) is missing")


def test_json_has_no_nan() -> None:
    holes = Timeline((0.0, 1.0, math.nan), (math.nan, 0.123456, 0.5))
    odd = full(
        media={
            "fps": math.nan,
            "rate": np.float64(math.inf),
            "channels": np.int64(2),
            "at": (1, Fraction(1, 2), np.True_),
        }
    )
    claims = {**odd.claims, VOICE: replace(odd.claims[VOICE], timeline=holes, offset_ms=math.nan)}
    odd = replace(
        odd, claims=claims, duration=math.inf, timing=Timing(realtime_factor=math.inf, total_s=math.nan)
    )
    answer = json.loads(report.to_json_line(odd), parse_constant=pytest.fail)
    validator().validate(answer)
    assert answer["claims"]["voice_cloning"]["timeline"] == {"times": [0.0, 1.0], "scores": [None, 0.1235]}
    assert answer["duration"] is None
    assert "nan" not in Page(report.to_html(odd)).words.split("</style>")[-1].lower().split()
    assert answer["media"] == {"fps": None, "rate": None, "channels": 2, "at": [1, 0.5, True]}


def test_json_of_a_name_that_is_no_utf8_can_be_written() -> None:
    line = report.to_json_line(full(path=HOSTILE, warnings=("\udcfe",)))
    answer = json.loads(line.encode("utf-8"))
    assert answer["path"].endswith("</script>\ufffd.mp4")
    assert "\x1b" in answer["path"] and "\x1b" not in line
    assert answer["warnings"] == ["\ufffd"]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"score": 1.2}, "score"),
        ({"verdict": "fake"}, "verdict"),
        ({"claims": {}}, "claims"),
        ({"schema": 2}, "schema"),
        ({"error": "no such file"}, "error"),
    ],
)
def test_schema_refuses_what_breaks_the_contract(change: dict[str, Any], part: str) -> None:
    errors = list(validator().iter_errors(report.to_dict(full()) | change))
    assert any(part in error.json_path or part in str(error.validator_value) for error in errors)


def test_schema_ties_score_and_reason_to_the_status() -> None:
    for change in ({"score": None}, {"status": "not assessable"}, {"verdict": "not assessable"}):
        answer = report.to_dict(full())
        answer["claims"]["voice_cloning"] |= change
        assert not validator().is_valid(answer), change


def keys(part: Any) -> set[str]:
    """Every property name that a schema defines."""
    if isinstance(part, list):
        return set().union(*map(keys, part)) if part else set()
    if not isinstance(part, dict):
        return set()
    return set(part.get("properties", {})) | set().union(*map(keys, part.values()))


def emitted(part: Any) -> set[str]:
    """Every key of an answer, media facts aside."""
    if isinstance(part, list):
        return set().union(*map(emitted, part)) if part else set()
    if not isinstance(part, dict):
        return set()
    return set(part) | set().union(*(emitted(value) for key, value in part.items() if key != "media"))


def test_schema_code_and_documentation_name_the_same_keys() -> None:
    defined = keys(report.json_schema())
    assert emitted(report.to_dict(full())) == defined
    text = DOCS.read_text(encoding="utf-8")
    assert [key for key in sorted(defined) if f"`{key}`" not in text] == []


def test_documented_example_obeys_the_schema() -> None:
    found = re.search(r"```json\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    validator().validate(json.loads(found[1]))


# --- text ---------------------------------------------------------------------------------------------------


def test_text_says_all_on_a_pipe() -> None:
    lines = printed(full()).splitlines()
    assert lines[0] == "interview.mp4"
    assert lines[1] == "  MANIPULATED  score 0.93"
    face = next(line for line in lines if "Face manipulation " in line)
    assert " ".join(face.split()).replace("\u2013", "-") == (
        "Face manipulation 0.93 manipulated worst at 00:01-00:03 (face 0), 00:07-00:08 (face 0)"
    )
    assert any("Lip-sync mismatch" in line and "runs ahead of the picture by 40 ms" in line for line in lines)
    assert "Warning: 3 corrupt packets were skipped near 00:09." in lines[-2]
    assert lines[-1].strip() == "Model base 0.1.0 (9f2c9f2c9f2c)"


def test_text_gives_reasons_and_errors() -> None:
    assert re.search(r"Face manipulation +- +not assessable +the clip has no picture", printed(AUDIO_ONLY))
    assert "moov" in printed(broken()) and "ERROR" in printed(broken())


def test_text_of_every_state_wraps_to_the_terminal(verdict: Verdict) -> None:
    for width in (40, 80, 120):
        lines = report.to_text(verdict, width).plain.splitlines()
        assert max(map(len, lines[2:])) <= max(width, 52), lines
    assert "\x1b" not in printed(verdict)
    assert "\x1b[" in printed(verdict, 80, terminal=True)


def test_text_of_a_hostile_name_does_nothing() -> None:
    bad = "\x1b]0;title\x07[bold]"
    hostile = full(path=HOSTILE, warnings=(bad,), media={bad: bad})
    shown = printed(hostile)
    assert not set(shown) & set("\x1b\x07\u202e\udcff")
    assert "[red]x[/red]\ufffd[31m" in shown
    assert "[bold]" in shown
    shown.encode("utf-8")


# --- HTML ---------------------------------------------------------------------------------------------------


def test_html_of_every_state_says_the_verdict_first(verdict: Verdict) -> None:
    page = Page(report.to_html(verdict))
    words = page.words.split("</style>")[-1]
    heading = "Could not be read" if verdict.error else verdict.outcome.value.capitalize()
    assert heading in words
    for result in verdict.claims.values():
        assert words.index(heading) < words.index(wording.TITLES[result.claim])
        assert result.reason is None or result.reason in words
    assert verdict.error is None or verdict.error in words
    assert ("Faces" in words) == bool(verdict.tracks)


def test_html_asks_for_nothing_from_outside(verdict: Verdict) -> None:
    source = report.to_html([verdict, full()])
    page = Page(source)
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy and policy.startswith("default-src 'none'")
    assert {tag for tag, _ in page.tags} & {"link", "iframe", "object", "embed", "form", "base"} == set()
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "poster", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/jpeg;base64,", "#")), (tag, name, value)
    assert not re.search(r"https?://|@import|url\((?!#)", source)


def test_html_of_a_hostile_name_runs_nothing() -> None:
    evil = '"><img src=x onerror=alert(1)>\x1b\u202e'
    claims = {**full().claims, FACE: replace(full().claims[FACE], reason=evil)}
    shown = replace(full(path=HOSTILE, warnings=(evil,), media={evil: evil}), claims=claims)
    shown = replace(shown, model=ModelInfo(evil, "<b>", "'\"><script>"))
    for source in (
        report.to_html(shown),
        report.to_html([shown, replace(broken(), error=evil, path=HOSTILE)]),
    ):
        page = Page(source)
        assert len(page.all("script")) == 1
        assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
        assert all((image["src"] or "").startswith("data:") for image in page.all("img"))
        assert "<script>alert(1)</script>" in page.words and "<script>alert(1)" not in source
        assert not set(source) & set("\x1b\u202e\udcff")
        source.encode("utf-8")


def test_html_points_lead_somewhere_and_ids_are_unique() -> None:
    page = Page(report.to_html(list(STATES.values())))
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    links = [a["href"] for a in page.all("a")]
    assert links == [f"#clip-{i}" for i in range(1, len(STATES) + 1)]
    used = re.findall(r"url\(#([^)]+)\)", report.to_html(list(STATES.values())))
    assert {link.removeprefix("#") for link in links if link} | set(used) <= set(ids)


def test_html_of_one_clip_has_no_overview() -> None:
    assert not Page(report.to_html(full())).all("a")
    assert report.to_html([full()]) == report.to_html(full())


def test_html_of_an_hour_stays_small() -> None:
    page = Page(report.to_html(STATES["hour"]))
    curves = [json.loads(div["data-points"] or "") for div in page.all("div") if "data-points" in div]
    assert [len(points) <= charts.MAX_POINTS for points in curves] == [True] * 3
    assert max(score for _, score in curves[0]) == pytest.approx(
        max(s or 0 for s in full(3725.0).claims[FACE].timeline.scores)
    )
    assert "1:00:00" in page.words


def test_html_shows_faces_up_to_a_limit() -> None:
    crowd = tuple(replace(full().tracks[0], id=i) for i in range(40))
    page = Page(report.to_html(full(tracks=crowd)))
    assert len([i for i in page.all("img") if i.get("class") == "portrait"]) == report.MAX_FACES
    assert "And 28 more faces" in page.words


@pytest.mark.parametrize(
    ("offset", "ends", "place"), [(-40.0, 500, 46.0), (500.0, 500, 100.0), (800.0, 1000, 90.0)]
)
def test_the_offset_stands_on_a_scale_that_holds_it(offset: float, ends: int, place: float) -> None:
    whole = full()
    claims = {**whole.claims, SYNC: replace(whole.claims[SYNC], offset_ms=offset)}
    page = report.to_html(replace(whole, claims=claims))
    assert f"<span>{ends} ms early</span><span>0</span><span>{ends} ms late</span>" in page
    assert f'<i class="pin" style="left:{place:.2f}%">' in page


def test_html_of_a_crowd_shows_the_faces_that_decide() -> None:
    crowd = tuple(replace(full().tracks[0], id=i) for i in range(40))
    evidence = tuple(Evidence(FACE, 0.0, 2.0, 0.9 if i == 33 else 0.2 + i / 1000, i) for i in range(40))
    shown = [track.id for track in report._shown(full(tracks=crowd, evidence=evidence))]
    assert 33 in shown and shown == sorted(shown) and len(shown) == report.MAX_FACES


# --- words and charts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.0, "00:00"), (59.99, "00:59"), (61.0, "01:01"), (3600.0, "1:00:00"), (2.9999999, "00:03")],
)
def test_clock(seconds: float, expected: str) -> None:
    assert wording.clock(seconds) == expected


def test_instant_has_tenths() -> None:
    assert [wording.instant(t) for t in (0.0, 1.3, 59.99, 3661.25)] == [
        "00:00.0",
        "00:01.3",
        "00:59.9",
        "1:01:01.2",
    ]


def test_a_shown_score_stays_on_its_side_of_the_thresholds() -> None:
    assert wording.score_text(0.6481, 0.35, 0.65) == "0.648"
    assert wording.score_text(0.64999, 0.35, 0.64999) == "0.65"
    assert wording.score_text(0.12, 0.35, 0.65) == "0.12"
    assert wording.limit_text(0.5) == "0.50" and wording.limit_text(0.6375) == "0.6375"


def test_offset_in_words() -> None:
    assert wording.offset_text(80.0) == "sound lags behind the picture by 80 ms"
    assert wording.offset_text(-40.0) == "sound runs ahead of the picture by 40 ms"
    assert wording.offset_text(0.2) == "sound and picture are in step"


def test_thin_keeps_peaks_troughs_and_gaps() -> None:
    points: list[charts.Point] = [(float(i), 0.5) for i in range(9000)]
    points[4321], points[777] = (4321.0, 1.0), (777.0, 0.0)
    points[6000:7000] = [(float(i), None) for i in range(6000, 7000)]
    kept = charts.thin(points)
    assert len(kept) <= charts.MAX_POINTS
    assert {(4321.0, 1.0), (777.0, 0.0)} <= set(kept)
    assert [p[0] for p in kept] == sorted(p[0] for p in kept)
    assert any(score is None and 6000 <= time < 7000 for time, score in kept)


def test_lane_breaks_its_curve_where_nothing_is_known() -> None:
    timeline = Timeline((0.0, 1.0, 2.0, 3.0, 4.0), (0.0, 0.5, None, 1.0, math.nan))
    lane = charts.lane(assessed(FACE, 0.5, timeline), 4.0)
    assert lane.lines == ("M0.0 100.0L250.0 50.0", "M747.0 0.0H753.0")
    assert lane.areas[0] == "M0.0 100.0L250.0 50.0V100H0.0Z"


def test_marks_are_joined_and_never_too_narrow() -> None:
    segments = [Segment(5.0, 5.0), Segment(1.0, 3.0), Segment(2.0, 4.0)]
    assert charts.marks(segments, 10.0) == (charts.Mark(100.0, 300.0), charts.Mark(500.0, 3))


@pytest.mark.parametrize("duration", [0.1, 1.0, 12.3, 600.0, 3725.0, 90_000.0])
def test_ticks_are_few_round_and_inside(duration: float) -> None:
    places = [place for place, _ in charts.ticks(duration)]
    assert 2 <= len(places) <= 9
    assert places[0] == 0 and places[-1] <= 100.01


def test_nothing_to_draw_makes_no_plot() -> None:
    assert charts.plot(NOTHING) is None
    assert charts.plot(broken()) is None
    unknown = charts.plot(replace(full(), duration=None))
    assert unknown is not None and unknown.duration == pytest.approx(12.3, abs=0.2)


def test_pictures_become_small_jpegs() -> None:
    uri = charts.data_uri(np.zeros((900, 600, 3), np.uint8))
    assert uri is not None and uri.startswith("data:image/jpeg;base64,") and len(uri) < 10_000
    assert charts.data_uri(np.zeros((0, 0, 3), np.uint8)) is None
