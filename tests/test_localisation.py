"""AP@IoU, AR@N and lip-sync offsets against cases worked by hand."""

from __future__ import annotations

import math

import pytest

from avdetect import localisation
from avdetect.localisation import ClipSegments, Proposal
from avdetect.metrics import UndefinedMetricError

CLIPS = [
    ClipSegments([Proposal(0.7, 5, 6.2), Proposal(0.9, 0, 2), Proposal(0.8, 5, 5.4)], [(0, 2), (5, 6)]),
    ClipSegments([Proposal(0.85, 1, 2)], []),
]


def test_iou_by_hand() -> None:
    table = localisation.iou([(0, 2), (1, 1)], [(1, 3), (5, 6), (0, 2)])
    assert table.tolist() == [[pytest.approx(1 / 3), 0, 1], [0, 0, 0]]


def test_average_precision_at_iou_by_hand() -> None:
    # Ranked: hit (IoU 1), false alarm in the real clip, IoU .4, IoU .833.
    assert localisation.average_precision_at_iou(CLIPS) == {0.5: 0.75, 0.75: 0.75, 0.95: 0.5}


def test_a_true_stretch_is_found_once_and_only_beyond_the_threshold() -> None:
    twice = [ClipSegments([Proposal(0.9, 0, 2), Proposal(0.8, 0, 2), Proposal(0.7, 4, 6)], [(0, 2), (4, 6)])]
    assert localisation.average_precision_at_iou(twice, [0.5]) == {0.5: pytest.approx((1 + 2 / 3) / 2)}
    half = [ClipSegments([Proposal(0.9, 0, 1)], [(0, 2)])]
    assert localisation.average_precision_at_iou(half, [0.5]) == {0.5: 0.0}


def test_average_recall_by_hand() -> None:
    found = localisation.average_recall(CLIPS, [1, 10])
    assert found == {1: pytest.approx(0.5), 10: pytest.approx((7 * 1 + 3 * 0.5) / 10)}
    silent = [*CLIPS, ClipSegments([], [(0, 1), (2, 3)])]
    assert localisation.average_recall(silent, [1]) == {1: pytest.approx(0.25)}
    assert localisation.average_precision_at_iou(silent, [0.95]) == {0.95: pytest.approx(0.25)}


def test_localisation_needs_something_to_find() -> None:
    with pytest.raises(UndefinedMetricError, match="nothing to find"):
        localisation.average_recall([CLIPS[1]])
    with pytest.raises(ValueError, match="ends before it starts"):
        localisation.average_recall([ClipSegments([Proposal(0.5, 2, 1)], [(0, 1)])])
    assert localisation.average_precision_at_iou([ClipSegments([], [(0, 1)])], [0.5]) == {0.5: 0.0}


def test_sync_offsets_by_hand() -> None:
    found = localisation.sync_offsets([0, 40, -80, 120], [0, 0, 0, 40])
    assert found == localisation.SyncOffsets(4, 50.0, 60.0, 0.5)
    with pytest.raises(ValueError, match="not finite"):
        localisation.sync_offsets([math.nan], [0])
