"""Metrics of *when*: manipulated segments found (AP@IoU, AR@N) and lip-sync offsets estimated.

Times are seconds. AP and AR as the evaluation code of LAV-DF and AV-Deepfake1M defines them, without its
fixed 25 fps: those files hold frame numbers, so a reader divides by the frame rate first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from avdetect.metrics import UndefinedMetricError

Values = NDArray[np.float64]
Pair = tuple[float, float]

AP_IOUS = (0.5, 0.75, 0.95)
"""LAV-DF's thresholds; AV-Deepfake1M adds 0.9."""
AR_IOUS = tuple(step / 100 for step in range(50, 100, 5))
"""0.5, 0.55 … 0.95: what recall is averaged over."""
AR_COUNTS = (100, 50, 20, 10)
"""LAV-DF's numbers of proposals; AV-Deepfake1M uses 50, 30, 20, 10, 5."""


class Proposal(NamedTuple):
    """A stretch that a system calls manipulated, seconds; a higher score is more certain, on any scale."""

    score: float
    start: float
    end: float


class ClipSegments(NamedTuple):
    """One clip: what the system proposes, and the true manipulated stretches (none: a real clip)."""

    proposals: Sequence[Proposal]
    truth: Sequence[Pair]


class SyncOffsets(NamedTuple):
    """How far estimated lip-sync offsets are off, milliseconds, and the share 0..1 within one frame."""

    clips: int
    mean_error_ms: float
    median_error_ms: float
    within_one_frame: float


def iou(first: ArrayLike, second: ArrayLike) -> Values:
    """Intersection over union [P, T], 0..1, of stretches [P, 2] with stretches [T, 2], seconds.

    A stretch of no length overlaps nothing.
    """
    a = np.asarray(first, dtype=np.float64).reshape(-1, 2)[:, None]
    b = np.asarray(second, dtype=np.float64).reshape(-1, 2)[None]
    shared = np.maximum(np.minimum(a[..., 1], b[..., 1]) - np.maximum(a[..., 0], b[..., 0]), 0)
    union = (a[..., 1] - a[..., 0]) + (b[..., 1] - b[..., 0]) - shared
    overlap: Values = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlap


class _Overlaps(NamedTuple):
    """A clip's proposals by falling score: `scores` [P], and their IoU with each true stretch [P, T]."""

    scores: Values
    ious: Values


def _overlaps(clip: ClipSegments) -> _Overlaps:
    proposals = np.asarray(clip.proposals, dtype=np.float64).reshape(-1, 3)
    truth = np.asarray(clip.truth, dtype=np.float64).reshape(-1, 2)
    if not (np.isfinite(proposals).all() and np.isfinite(truth).all()):
        raise ValueError("a proposal or true stretch holds a number that is not finite")
    if (proposals[:, 1] > proposals[:, 2]).any() or (truth[:, 0] > truth[:, 1]).any():
        raise ValueError("a proposal or true stretch ends before it starts")
    proposals = proposals[np.argsort(-proposals[:, 0], kind="stable")]
    return _Overlaps(proposals[:, 0], iou(proposals[:, 1:], truth))


def _measured(clips: Sequence[ClipSegments]) -> tuple[list[_Overlaps], int]:
    overlaps = [_overlaps(clip) for clip in clips]
    total = sum(clip.ious.shape[1] for clip in overlaps)
    if total == 0:
        raise UndefinedMetricError("no clip holds a manipulated stretch: there is nothing to find")
    return overlaps, total


def _hits(ious: Values, threshold: float) -> NDArray[np.bool_]:
    """Which proposals [P] count: each true stretch takes the first free one that overlaps it by more."""
    taken = np.zeros(len(ious), dtype=np.bool_)
    overlapping = ious > threshold
    for column in overlapping.T:
        free = np.flatnonzero(column & ~taken)
        if free.size:
            taken[free[0]] = True
    return taken


def average_precision_at_iou(
    clips: Sequence[ClipSegments], thresholds: Sequence[float] = AP_IOUS
) -> dict[float, float]:
    """AP@IoU 0..1 over all clips together, for each threshold (exceeded, not met), as LAV-DF's `AP`.

    Proposals of all clips are ranked by score; precision is made to fall with recall; proposals in real clips
    are false alarms. UndefinedMetricError where no clip holds a true stretch.
    """
    overlaps, total = _measured(clips)
    order = np.argsort(-np.concatenate([clip.scores for clip in overlaps]), kind="stable")
    found: dict[float, float] = {}
    for threshold in thresholds:
        hits = np.concatenate([_hits(clip.ious, threshold) for clip in overlaps])[order]
        precision = np.cumsum(hits) / np.arange(1, hits.size + 1)
        best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
        # Each hit raises recall by 1/total, at the best precision still to be had from there on.
        found[threshold] = float(best_from_here[hits].sum() / total)
    return found


def average_recall(
    clips: Sequence[ClipSegments], counts: Sequence[int] = AR_COUNTS, thresholds: Sequence[float] = AR_IOUS
) -> dict[int, float]:
    """AR@N 0..1: recall with each clip's N best proposals, averaged over IoU thresholds, as LAV-DF's `AR`.

    A true stretch is found where any of the N exceeds the threshold; one proposal may find several. Clips
    without proposals count as missed (AV-Deepfake1M's code leaves them out, which flatters such a system).
    UndefinedMetricError where no clip holds a true stretch.
    """
    if any(count < 1 for count in counts):
        raise ValueError(f"AR@N needs N of at least 1, not {list(counts)}")
    overlaps, total = _measured(clips)
    levels = np.asarray(thresholds, dtype=np.float64)[:, None]
    found: dict[int, float] = {}
    for count in counts:
        best = np.concatenate([clip.ious[:count].max(axis=0, initial=0.0) for clip in overlaps])
        found[count] = float((best > levels).sum(axis=1).mean() / total)
    return found


def sync_offsets(estimated_ms: ArrayLike, true_ms: ArrayLike, frame_ms: float = 40.0) -> SyncOffsets:
    """How well offsets [N] between sound and picture were estimated, ms (positive: the sound is late).

    `within_one_frame` is the share within ±`frame_ms` (25 fps: 40 ms), as sync papers since SyncNet (Chung
    and Zisserman 2016) count it.
    """
    estimated, true = np.asarray(estimated_ms, dtype=np.float64), np.asarray(true_ms, dtype=np.float64)
    if estimated.shape != true.shape or estimated.ndim != 1:
        raise ValueError(f"offsets {estimated.shape} and {true.shape} must be two lists of one length")
    if estimated.size == 0:
        raise UndefinedMetricError("there are no offsets")
    errors = np.abs(estimated - true)
    if not np.isfinite(errors).all():
        raise ValueError("an offset is not finite: leave clips without an estimate out, and count them")
    # A frame's length is rarely exact in floating point; a microsecond decides nothing.
    within = errors <= frame_ms + 1e-3
    return SyncOffsets(errors.size, float(errors.mean()), float(np.median(errors)), float(within.mean()))
