"""Where a face's parts lie in a crop, and warps that move one face's landmarks onto another's."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from avdetect.types import Floats

Rng = np.random.Generator

# fmt: off
OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
    148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)
LOWER = (
    234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361,
    323, 454, 4,
)
AROUND_MOUTH = (
    57, 186, 92, 165, 167, 164, 393, 391, 322, 410, 287, 273, 335, 406, 313, 18, 83, 182, 106, 43,
    200,
)
OUTER_LIPS = (
    61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146,
)
INNER_LIPS = (
    78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95,
)
EYES = (
    33, 163, 145, 154, 133, 157, 159, 161, 263, 390, 374, 381, 362, 384, 386, 388,
)
BROWS = (70, 105, 107, 336, 334, 300)
NOSE = (168, 197, 5, 4, 2, 98, 327, 48, 278)
CHEEKS = (50, 280, 205, 425, 187, 411, 199, 18, 151)
# fmt: on
SKULL = (33, 133, 362, 263, 168, 6, 2, 98, 327, 234, 454)
"""Points that speech does not move."""
CONTROL = (*OVAL, *OUTER_LIPS, *INNER_LIPS, *EYES, *BROWS, *NOSE, *CHEEKS)
"""Points that a dense warp follows."""

_CELL = 4  # pixels between the points where a warp is worked out


def hull_mask(points: Floats, size: int, soft: float = 0.0) -> Floats:
    """[size, size] in 0..1: the convex hull of points [K, 2], its edge `soft` pixels wide (standard deviation)."""
    mask = np.zeros((size, size), np.float32)
    hull = cv2.convexHull(np.round(np.clip(points, -4 * size, 5 * size)).astype(np.int32))
    cv2.fillConvexPoly(mask, hull, (1.0,))
    return softened(mask, soft)


def box_mask(box: Floats, size: int, soft: float = 0.0) -> Floats:
    """[size, size] in 0..1: the box [4] left, top, right, bottom, its edge `soft` pixels wide."""
    left, top, right, bottom = np.round(np.clip(box, 0, size)).astype(int)
    mask = np.zeros((size, size), np.float32)
    mask[top:bottom, left:right] = 1.0
    return softened(mask, soft)


def softened(mask: Floats, soft: float) -> Floats:
    """The mask with an edge `soft` pixels wide (standard deviation)."""
    if soft <= 0.2:
        return mask
    return np.clip(cv2.GaussianBlur(mask, (0, 0), soft), 0, 1).astype(
        np.float32
    )  # sums of weights may exceed 1


def grown(points: Floats, factor: float) -> Floats:
    """Points [K, 2] `factor` times as far from their middle."""
    centre = points.mean(0)
    return np.asarray((points - centre) * factor + centre, np.float32)


def box_of(points: Floats) -> Floats:
    """[4] left, top, right, bottom of points [K, 2]."""
    return np.concatenate([points.min(0), points.max(0)])


def similarity(source: Floats, target: Floats) -> Floats:
    """[2, 3]: the turn, scale and move that bring points [K, 2] closest to others (least squares)."""
    ours, theirs = (np.asarray(p, np.float64) @ (1, 1j) for p in (source, target))
    middle = ours.mean()
    around = ours - middle
    turn = np.vdot(around, theirs - theirs.mean()) / max(np.vdot(around, around).real, 1e-6)
    move = theirs.mean() - turn * middle
    rows = [[turn.real, -turn.imag, move.real], [turn.imag, turn.real, move.imag]]
    return np.asarray(rows, np.float32)


def placed(points: Floats, matrix: Floats) -> Floats:
    """Points [K, 2] brought through a similarity [2, 3]."""
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2], np.float32)


def frame_points(size: int, per_side: int = 5) -> Floats:
    """[4 * (per_side - 1), 2] points on a crop's edge, which hold the background of a warp in place."""
    line = np.linspace(0, size - 1, per_side, dtype=np.float32)
    near, far = np.zeros(per_side - 1, np.float32), np.full(per_side - 1, size - 1, np.float32)
    sides = [(line[:-1], near), (far, line[:-1]), (line[1:], far), (near, line[1:])]
    return np.concatenate([np.stack(side, 1) for side in sides])


def warp(image: Any, source: Floats, target: Floats, border: int = cv2.BORDER_REPLICATE) -> Any:
    """The image [S, S] or [S, S, 3] with points `source` [K, 2] moved to `target` [K, 2], and all between them alike.

    Displacements are weighted by the inverse fourth power of the distance (Shepard, "A two-dimensional interpolation
    function for irregularly-spaced data", 1968).
    """
    size = image.shape[0]
    cells = -(-size // _CELL)
    line = (np.arange(cells, dtype=np.float32) + 0.5) * _CELL - 0.5
    grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    far = (grid**2).sum(1)[:, None] + (target**2).sum(1) - 2 * grid @ target.T
    weights = 1 / np.square(np.maximum(far, 0) + 1.0)
    weights /= weights.sum(1, keepdims=True)
    moves = (weights @ (source - target)).astype(np.float32).reshape(cells, cells, 2)
    full = cv2.resize(moves, (cells * _CELL, cells * _CELL), interpolation=cv2.INTER_LINEAR)[:size, :size]
    at = np.arange(size, dtype=np.float32)
    return cv2.remap(
        image, full[..., 0] + at, full[..., 1] + at[:, None], cv2.INTER_LINEAR, borderMode=border
    )


def moved(image: Any, matrix: Floats) -> Any:
    """The image [S, S, ...] brought through a similarity [2, 3]."""
    size = image.shape[0]
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
