"""A verdict as JSON for programs, as text for a terminal, and as one HTML page that opens offline.

All are pure functions. Names and metadata come from strangers: nothing in them steers a terminal or a page.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np

from avdetect import charts, wording
from avdetect.types import CLAIMS, Claim, ClaimResult, Outcome, Segment, Timeline, TrackSummary, Verdict

if TYPE_CHECKING:
    from jinja2 import Template
    from rich.text import Text

SCHEMA_VERSION = 1
"""Raised when a key of the JSON goes away or changes its meaning; new keys may come without that."""
MAX_FACES = 12
"""The HTML page shows pictures of this many face tracks at most."""

HELPERS: tuple[Callable[..., Any], ...] = (
    wording.clock,
    wording.instant,
    wording.limit_text,
    wording.moments,
    wording.offset_text,
    wording.score_text,
    wording.stretch,
    wording.summary,
    wording.worst,
)
"""What the page's templates may call."""

STYLES = {
    Outcome.MANIPULATED: "bold red",
    Outcome.NO_MANIPULATION_FOUND: "bold green",
    Outcome.INCONCLUSIVE: "bold yellow",
    Outcome.NOT_ASSESSABLE: "dim",
    Outcome.ERROR: "bold red",
}


# --- JSON ---------------------------------------------------------------------------------------------------


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) that every `to_dict` answer obeys."""
    text = files("avdetect").joinpath("schema/verdict.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def to_json_line(verdict: Verdict) -> str:
    """`to_dict` as one line of ASCII, without the line break."""
    return json.dumps(to_dict(verdict), allow_nan=False)


def to_dict(verdict: Verdict) -> dict[str, Any]:
    """The contract for programs, schema 1: plain JSON types, scores to 4 decimals, times to 3, never NaN."""
    timing, model = verdict.timing, verdict.model
    return {
        "schema": SCHEMA_VERSION,
        "path": wording.encodable(str(verdict.path)),
        "sha256": verdict.sha256,
        "duration": _rounded(verdict.duration, 3),
        "verdict": verdict.outcome.value,
        "score": _rounded(verdict.score, 4) if verdict.error is None else None,
        "error": _text(verdict.error),
        "claims": {c.value: _claim(verdict.claims[c]) for c in CLAIMS if verdict.error is None},
        "tracks": [_track(track) for track in verdict.tracks],
        "warnings": [wording.encodable(warning) for warning in verdict.warnings],
        "model": {"name": _text(model.name), "version": _text(model.version), "sha256": model.sha256},
        "timing": {
            "decode_s": _rounded(timing.decode_s, 3) or 0.0,
            "faces_s": _rounded(timing.faces_s, 3) or 0.0,
            "model_s": _rounded(timing.model_s, 3) or 0.0,
            "total_s": _rounded(timing.total_s, 3) or 0.0,
            "realtime_factor": _rounded(timing.realtime_factor, 3),
        },
        "media": _plain(verdict.media),
    }


def _claim(result: ClaimResult) -> dict[str, Any]:
    answer = {
        "status": result.status.value,
        "reason": _text(result.reason),
        "score": _rounded(result.score, 4),
        "verdict": result.verdict.value,
        "low": _rounded(result.low, 4),
        "high": _rounded(result.high, 4),
        "track": result.track,
        "segments": [_segment(segment) for segment in result.segments],
        "timeline": _timeline(result.timeline),
    }
    if result.claim is Claim.LIP_SYNC_MISMATCH:
        answer["offset_ms"] = _rounded(result.offset_ms, 1)
        answer["sync_confidence"] = _rounded(result.sync_confidence, 2)
    return answer


def _segment(segment: Segment) -> dict[str, Any]:
    return {
        "start": _rounded(segment.start, 3),
        "end": _rounded(segment.end, 3),
        "score": _rounded(segment.score, 4),
        "track": segment.track,
    }


def _timeline(timeline: Timeline) -> dict[str, Any]:
    pairs = zip(timeline.times, timeline.scores, strict=True)
    points = [(_rounded(time, 3), _rounded(score, 4)) for time, score in pairs if math.isfinite(time)]
    return {"times": [time for time, _ in points], "scores": [score for _, score in points]}


def _track(track: TrackSummary) -> dict[str, Any]:
    return {
        "id": track.id,
        "start": _rounded(track.start, 3),
        "end": _rounded(track.end, 3),
        "size": _rounded(track.size, 1),
        "blur": _rounded(track.blur, 1),
        "yaw": _rounded(track.yaw, 1),
        "found": _rounded(track.found, 4),
        "mouth": _rounded(track.mouth, 4),
        "reason": _text(track.reason),
    }


def _text(value: str | None) -> str | None:
    return None if value is None else wording.encodable(value)


def _rounded(value: float | None, digits: int) -> float | None:
    """`value` as a plain float, None for what JSON has no number for."""
    if value is None or not math.isfinite(value):
        return None
    return round(float(value), digits) + 0.0  # + 0.0 turns -0.0 into 0.0


def _plain(value: Any) -> Any:
    """A media fact (any type a container may hold) in JSON's own types."""
    if value is None or isinstance(value, bool | np.bool_):
        return None if value is None else bool(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):  # also numpy's and fractions.Fraction, which frame rates come as
        return _rounded(float(value), 3)
    if isinstance(value, Mapping):
        return {wording.encodable(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return wording.encodable(str(value))


# --- text ---------------------------------------------------------------------------------------------------


def to_text(verdict: Verdict, width: int | None = None) -> Text:
    """The verdict for people, ending without a line break.

    `width` columns to wrap at (a terminal's), None to leave long lines whole (a pipe). Print it with rich's
    `console.print(text, soft_wrap=True)`, which neither wraps again nor crops, and has no colours on a pipe.
    """
    from rich.text import Text

    out = Text()
    out.append(wording.printable(str(verdict.path)), "bold").append("\n  ")
    out.append(verdict.outcome.value.upper(), STYLES[verdict.outcome])
    if verdict.error is None and verdict.score is not None:
        out.append(f"  score {wording.score_text(verdict.score)}")
    _append(out, wording.summary(verdict) if verdict.error is None else verdict.error, 2, width, newline=True)
    for claim in CLAIMS:
        if claim in verdict.claims:
            _append_claim(out, verdict.claims[claim], width)
    for warning in verdict.warnings:
        _append(out, f"Warning: {warning}", 2, width, "yellow", newline=True)
    model = verdict.model
    _append(out, f"Model {model.name} {model.version} ({model.sha256[:12]})", 2, width, "dim", newline=True)
    return out


def _append_claim(out: Text, result: ClaimResult, width: int | None) -> None:
    """Score, verdict, and why or where: columns of 18, 6 and 23, then words."""
    score = "-" if result.score is None else wording.score_text(result.score, result.low, result.high)
    out.append(f"\n  {wording.TITLES[result.claim]:<18}{score:>6}  ")
    out.append(f"{result.verdict.value:<23}", STYLES[result.verdict])
    notes = [result.reason or ""]
    if result.segments:
        notes.append(f"worst at {wording.moments(result)}")
    if result.offset_ms is not None and math.isfinite(result.offset_ms):
        notes.append(wording.offset_text(result.offset_ms))
    _append(out, "; ".join(note for note in notes if note), 51, width)


def _append(
    out: Text, words: str, indent: int, width: int | None, style: str = "", *, newline: bool = False
) -> None:
    """Add `words`, made harmless and wrapped at `width` under a hanging `indent`."""
    words = wording.printable(words)
    narrow = width is not None and width - indent < 24
    if narrow:  # no room beside the columns: go on under them
        indent, newline = 4, True
    lines = [words] if width is None else _wrap(words, max(20, width - indent))
    if lines and lines[0]:
        joint = "\n" + " " * indent
        out.append((joint if newline else "") + joint.join(lines), style)
    out.rstrip()


def _wrap(words: str, width: int) -> list[str]:
    """Lines of at most `width`, with "(face 0)" kept in one piece."""
    held = words.replace("(face ", "(face\u00a0")
    lines = textwrap.wrap(held, width, break_on_hyphens=False)
    return [line.replace("(face\u00a0", "(face ") for line in lines]


# --- HTML ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FaceView:
    """A face track on the page: its picture and its worst moments, as data URIs."""

    track: TrackSummary
    picture: str | None
    moments: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class ClipView:
    """One clip's section of the page; `windows` counts what was looked at for each claim."""

    anchor: str
    verdict: Verdict
    plot: charts.Plot | None
    faces: tuple[FaceView, ...]
    windows: Mapping[Claim, int]
    facts: tuple[tuple[str, str], ...]


def to_html(verdicts: Verdict | Sequence[Verdict]) -> str:
    """One self-contained page for one clip, or for several with a summary table that links to each.

    It asks nothing of any network (its content policy forbids it) and reads without scripts too.
    """
    several = [verdicts] if isinstance(verdicts, Verdict) else list(verdicts)
    return _template().render(clips=[_view(verdict, f"clip-{i}") for i, verdict in enumerate(several, 1)])


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("avdetect", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {helper.__name__: helper for helper in HELPERS}
    environment.globals |= {
        "TITLES": wording.TITLES,
        "QUESTIONS": wording.QUESTIONS,
        "FINDINGS": wording.FINDINGS,
    }
    environment.globals |= {"CLAIMS": CLAIMS, "MAX_FACES": MAX_FACES}
    return environment.get_template("report.html.j2")


def _harmless(value: Any) -> Any:
    """Whatever the template prints goes through here before it is escaped; markup of its own macros stays."""
    return value if hasattr(value, "__html__") else wording.printable(str(value))


def _view(verdict: Verdict, anchor: str) -> ClipView:
    windows = {claim: sum(evidence.claim is claim for evidence in verdict.evidence) for claim in CLAIMS}
    faces = tuple(_face(verdict, track) for track in _shown(verdict))
    return ClipView(anchor, verdict, charts.plot(verdict), faces, windows, tuple(_facts(verdict)))


def _shown(verdict: Verdict) -> list[TrackSummary]:
    """The faces that have a place on the page, in order: where they are too many, those with the highest scores."""
    worst: dict[int, float] = {}
    for evidence in verdict.evidence:
        if evidence.track is not None:
            worst[evidence.track] = max(worst.get(evidence.track, 0.0), evidence.score)
    kept = sorted(verdict.tracks, key=lambda track: -worst.get(track.id, -1.0))[:MAX_FACES]
    return sorted(kept, key=lambda track: track.id)


def _face(verdict: Verdict, track: TrackSummary) -> FaceView:
    picture = None if track.thumbnail is None else charts.data_uri(track.thumbnail)
    pairs = [(time, charts.data_uri(image)) for time, image in verdict.thumbnails.get(track.id, ())]
    return FaceView(track, picture, tuple((time, uri) for time, uri in pairs if uri is not None))


def _facts(verdict: Verdict) -> list[tuple[str, str]]:
    """Labels and values of what is known of the file, in the order that the reader of the file gave them."""
    duration = verdict.duration
    facts = []
    if duration is not None and math.isfinite(duration):
        facts.append(("duration", f"{wording.clock(duration)} ({duration:.2f} s)"))
    media = {key: value for key, value in _plain(verdict.media).items() if value not in (None, "")}
    if "width" in media and "height" in media:
        facts.append(("picture", f"{media.pop('width')} \u00d7 {media.pop('height')} px"))
    if "fps" in media:
        facts.append(("frame rate", f"{media.pop('fps')} fps"))
    unit = {key: " Hz" for key in media if key.endswith("sample_rate")}
    return facts + [(key.replace("_", " "), f"{value}{unit.get(key, '')}") for key, value in media.items()]
