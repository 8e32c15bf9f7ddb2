"""Numbers to SVG geometry and images to data URIs, for the HTML report.

Plots are drawn in a box of 1000 x 100 units that the page stretches to whatever width it has: x is time over
the clip's duration, y is 100 for a score of 0 and 0 for a score of 1.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from avdetect.types import CLAIMS, Bytes, Claim, ClaimResult, Segment, Verdict
from avdetect.wording import clock

WIDTH, HEIGHT = 1000, 100
"""Plot units."""
MAX_POINTS = 600
"""No curve is drawn with more points than this, however long the clip."""

_STEPS = (
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    14400,
)

Point = tuple[float, float | None]
"""Time in seconds and score in 0..1, None where nothing can be said."""


@dataclass(frozen=True)
class Mark:
    """A marked stretch on a plot: left edge and width in plot units."""

    x: float
    width: float


@dataclass(frozen=True)
class Lane:
    """One claim's row of the time axis; `areas` close `lines` down to zero; `points` feed the tooltip."""

    result: ClaimResult
    lines: tuple[str, ...]
    areas: tuple[str, ...]
    marks: tuple[Mark, ...]
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Plot:
    """The time axis: lanes of the claims that have a curve or marks, the sound's outline, and ticks.

    `waveform` is an SVG path or None, `sound_marks` the marked stretches that concern the sound, `ticks`
    pairs of position (percent) and label, `duration` seconds.
    """

    duration: float
    lanes: tuple[Lane, ...]
    waveform: str | None
    sound_marks: tuple[Mark, ...]
    ticks: tuple[tuple[float, str], ...]


def plot(verdict: Verdict) -> Plot | None:
    """The time axis of a verdict, or None where there is nothing to draw over time."""
    duration = _duration(verdict)
    if duration <= 0:
        return None
    results = [verdict.claims[claim] for claim in CLAIMS if claim in verdict.claims]
    lanes = tuple(
        lane(r, duration) for r in results if any(_number(s) for s in r.timeline.scores) or r.segments
    )
    if not lanes and not verdict.waveform_peaks:
        return None
    of_sound = (Claim.VOICE_CLONING, Claim.LIP_SYNC_MISMATCH)
    heard = [segment for r in results if r.claim in of_sound for segment in r.segments]
    outline = waveform_path(verdict.waveform_peaks)
    return Plot(duration, lanes, outline, marks(heard, duration), ticks(duration))


def _duration(verdict: Verdict) -> float:
    """Seconds that the axis spans: the clip's own, or else what its curves and marks reach to."""
    if _number(verdict.duration) and verdict.duration:
        return verdict.duration
    ends = [s.end for r in verdict.claims.values() for s in r.segments]
    ends += [t for r in verdict.claims.values() for t in r.timeline.times if _number(t)]
    return max(ends, default=0.0)


def _number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def lane(result: ClaimResult, duration: float) -> Lane:
    """One claim's curve, broken where nothing can be said, with its marked stretches."""
    timeline = result.timeline
    pairs = [
        (t, s if _number(s) else None)
        for t, s in zip(timeline.times, timeline.scores, strict=True)
        if _number(t)
    ]
    points = thin(pairs)
    runs = [[(_x(t, duration), HEIGHT * (1 - s)) for t, s in run] for run in _runs(points)]
    lines = tuple(_line(run) for run in runs)
    areas = tuple(f"{_line(run)}V{HEIGHT}H{_left(run):.1f}Z" for run in runs)
    return Lane(result, lines, areas, marks(result.segments, duration), tuple(points))


def thin(points: Sequence[Point], limit: int = MAX_POINTS) -> list[Point]:
    """At most `limit` of `points`: the lowest and the highest of each stretch, so that no peak is lost."""
    if len(points) <= limit:
        return list(points)
    buckets = limit // 2
    edges = [round(i * len(points) / buckets) for i in range(buckets + 1)]
    kept: list[Point] = []
    for start, end in pairwise(edges):
        bucket = points[start:end]
        scored = sorted((p for p in bucket if p[1] is not None), key=lambda p: p[1] or 0.0)
        kept += sorted({scored[0], scored[-1]}) if scored else bucket[:1]
    return kept


def _runs(points: Iterable[Point]) -> list[list[tuple[float, float]]]:
    """Stretches of points that have a score."""
    runs: list[list[tuple[float, float]]] = [[]]
    for time, score in points:
        if score is not None:
            runs[-1].append((time, min(1.0, max(0.0, score))))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _x(time: float, duration: float) -> float:
    return WIDTH * min(1.0, max(0.0, time / duration))


def _left(run: Sequence[tuple[float, float]]) -> float:
    return run[0][0] - (3 if len(run) == 1 else 0)


def _line(run: Sequence[tuple[float, float]]) -> str:
    """An SVG path through a run; a lone point, which would not show, becomes a short dash."""
    if len(run) == 1:
        x, y = run[0]
        return f"M{x - 3:.1f} {y:.1f}H{x + 3:.1f}"
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in run)


def marks(segments: Iterable[Segment], duration: float) -> tuple[Mark, ...]:
    """Segments in plot units, overlapping ones joined, none too narrow to see."""
    joined: list[list[float]] = []
    for start, end in sorted((_x(s.start, duration), _x(s.end, duration)) for s in segments):
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(end, joined[-1][1])
        else:
            joined.append([start, end])
    return tuple(Mark(round(start, 1), round(max(end - start, 3), 1)) for start, end in joined)


def waveform_path(peaks: Sequence[float]) -> str | None:
    """The outline of sound levels in 0..1, mirrored about the middle of the box; None without any."""
    levels = [min(1.0, max(0.0, p)) if _number(p) else 0.0 for p in peaks]
    if not levels:
        return None
    size = math.ceil(len(levels) / MAX_POINTS)
    tops = [max(levels[i : i + size]) for i in range(0, len(levels), size)]
    step, middle = WIDTH / len(tops), HEIGHT / 2
    heights = [max(0.6, level * middle * 0.96) for level in tops]
    upper = [f"{(i + 0.5) * step:.1f} {middle - h:.1f}" for i, h in enumerate(heights)]
    lower = [f"{(i + 0.5) * step:.1f} {middle + h:.1f}" for i, h in enumerate(heights)]
    return "M" + "L".join([f"0 {middle:g}", *upper, f"{WIDTH} {middle:g}", *reversed(lower)]) + "Z"


def ticks(duration: float) -> tuple[tuple[float, str], ...]:
    """At most nine labelled moments on round times: position in percent of the clip, and label."""
    step = next((s for s in _STEPS if duration / s <= 8), duration)
    times = [i * step for i in range(int(duration / step + 1e-6) + 1)]
    return tuple(
        (round(100 * t / duration, 2), clock(t) if step >= 1 else f"{round(t, 2):g} s") for t in times
    )


def data_uri(image: Bytes, side: int = 176) -> str | None:
    """`image` [H, W, 3] RGB as a JPEG data URI, scaled down to `side` pixels; None if it has no pixels."""
    from PIL import Image

    if not image.size:
        return None
    picture = Image.fromarray(image)
    picture.thumbnail((side, side))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
