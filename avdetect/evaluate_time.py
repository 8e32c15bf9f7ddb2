"""What an evaluation says of time: which stretches are fake, step by step, and how late the sound is.

Everything here is drawn from the rows of one claim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avdetect.localisation import (
    AR_COUNTS,
    ClipSegments,
    Proposal,
    SyncOffsets,
    average_precision_at_iou,
    average_recall,
    sync_offsets,
)
from avdetect.metrics import UndefinedMetricError
from avdetect.rows import Row
from avdetect.summary import GROUP_ROUNDS, brief

ONE_FRAME = 40.0
"""Milliseconds of a frame of the 25 fps grid."""

Errors = NDArray[np.float64]


def stretches(rows: Sequence[Row]) -> dict[str, Any]:
    """AP@IoU and AR@N over the clips that were scored; those that were not count as clips without proposals."""
    clips = [ClipSegments([Proposal(*one) for one in row.proposals], row.truth) for row in rows]
    try:
        precision, recall = average_precision_at_iou(clips), average_recall(clips)
    except UndefinedMetricError:
        return {}
    return {
        "clips": len(clips),
        "stretches": sum(len(clip.truth) for clip in clips),
        "ap": {f"{level:g}": value for level, value in precision.items()},
        "ar": {str(count): recall[count] for count in AR_COUNTS},
    }


def steps(rows: Sequence[Row], rounds: int, seed: int) -> dict[str, Any]:
    """Every step of the timelines (0.2 s, more in very long clips) a trial: fake where its middle lies in a stretch.

    As `summary.brief`, and `clips`; `within` has the same of the partial fakes alone: there, only where counts. Steps
    are of fakes whose stretches are stated and of the real clips of the same sets; nothing where there are none.
    """
    partial = [row for row in rows if row.fake and row.truth and row.steps]
    if not partial:
        return {}
    sets = {row.dataset for row in partial}
    real = [row for row in rows if not row.fake and row.steps and row.dataset in sets]
    return {
        "clips": len(partial) + len(real),
        **_by_step([*partial, *real], rounds, seed),
        "within": {"clips": len(partial), **_by_step(partial, rounds, seed)},
    }


def _by_step(rows: Sequence[Row], rounds: int, seed: int) -> dict[str, Any]:
    return brief(
        [score for row in rows for _, score in row.steps],
        [any(start <= time < end for start, end in row.truth) for row in rows for time, _ in row.steps],
        [row.identity for row in rows for _ in row.steps],
        min(rounds, GROUP_ROUNDS),
        seed,
    )


def offsets(rows: Sequence[Row], rounds: int, seed: int) -> dict[str, Any]:
    """How far the estimated lip-sync offsets are off, over the clips whose true one is known; nothing where none is.

    known, and of these clips, which have an estimate; mean_error_ms, median_error_ms and within_one_frame (share 0..1
    within ±40 ms), the last two with `*_ci`, by a bootstrap over people.
    """
    known = [row for row in rows if row.true_offset_ms is not None]
    if not known:
        return {}
    people: dict[str, list[float]] = {}
    for row in known:
        if row.offset_ms is not None and row.true_offset_ms is not None:
            people.setdefault(row.identity, []).append(abs(row.offset_ms - row.true_offset_ms))
    errors = [np.asarray(one) for one in people.values()]
    if not errors:
        return {"known": len(known), "clips": 0}
    found = _measured(np.concatenate(errors))
    return {
        "known": len(known),
        "clips": found.clips,
        "mean_error_ms": found.mean_error_ms,
        "median_error_ms": found.median_error_ms,
        "median_error_ms_ci": _interval(errors, lambda some: _measured(some).median_error_ms, rounds, seed),
        "within_one_frame": found.within_one_frame,
        "within_one_frame_ci": _interval(errors, lambda some: _measured(some).within_one_frame, rounds, seed),
    }


def _measured(errors: Errors) -> SyncOffsets:
    return sync_offsets(errors, np.zeros_like(errors), ONE_FRAME)


def _interval(
    people: Sequence[Errors], statistic: Callable[[Errors], float], rounds: int, seed: int
) -> list[float] | None:
    """95 % of the resamples that draw whole people; None for fewer than two."""
    from scipy.stats import bootstrap

    if not rounds or len(people) < 2:
        return None
    found = bootstrap(
        (np.arange(len(people)),),
        lambda drawn: statistic(np.concatenate([people[one] for one in drawn])),
        vectorized=False,
        method="percentile",
        n_resamples=rounds,
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return [float(found.low), float(found.high)]
