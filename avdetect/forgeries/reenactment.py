"""A still picture made to move: one frame warped by landmarks, all of a sequence from a single source.

As first-order-model, SadTalker or VASA animate a portrait: identity, texture and background come from one picture and
are bent smoothly from frame to frame; what it does not show (the inside of a mouth) is made up and blurred.
Siarohin et al., "First order motion model for image animation" (2019).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

from avdetect.forgeries.canvas import Faces, Painted, laid
from avdetect.forgeries.generator import Trace, drawn, rendered
from avdetect.forgeries.geometry import (
    CONTROL,
    INNER_LIPS,
    OVAL,
    SKULL,
    frame_points,
    grown,
    hull_mask,
    placed,
    similarity,
    warp,
)
from avdetect.types import Bytes, Floats

Rng = np.random.Generator


@dataclass(frozen=True)
class _Style:
    """One tool: how much of the motion it follows, how smoothly, what it does with background and mouth."""

    amount: float
    calm: float
    drag: float
    inner: float
    face_only: float | None
    soft: float
    traces: list[Trace]

    @classmethod
    def drawn(cls, rng: Rng, size: int) -> _Style:
        return cls(
            amount=float(rng.uniform(0.6, 1.2)),
            calm=float(rng.choice([0.0, rng.uniform(0.02, 0.12)])),
            drag=float(rng.choice([0.0, 0.0, rng.uniform(0.3, 1.0)])),
            inner=float(rng.uniform(0.8, 2.5)),
            face_only=float(rng.uniform(0.95, 1.25)) if rng.random() < 0.35 else None,
            soft=float(rng.uniform(0.01, 0.06)) * size,
            traces=drawn(rng, size, 2) if rng.random() < 0.7 else [],
        )


def reenacted(faces: Faces, rng: Rng, donor: Faces | None = None) -> Painted:
    """Every crop warped from one of them, driven by the clip's own motion, or half of the time by the donor's."""
    style, size = _Style.drawn(rng, faces.size), faces.size
    still = int(rng.integers(len(faces)))
    borrowed = donor is not None and rng.random() < 0.5
    goals = _motion(faces, still, donor if borrowed else None, style)
    source, edge = faces.landmarks[still], frame_points(size)
    start = np.concatenate([source[list(CONTROL)], edge])
    images = np.empty_like(faces.images)
    for index, goal in enumerate(goals):
        drift = style.drag * (goal[list(SKULL)] - source[list(SKULL)]).mean(0)
        end = np.concatenate([goal[list(CONTROL)], edge + drift]).astype(np.float32)
        images[index] = warp(faces.images[still], start, end)
        if not borrowed:
            images[index] = _mouth_inside(images[index], faces.images[index], goal, style)
    if style.traces:
        images = rendered(images, style.traces)
    return Painted(images, _masks(faces, goals, style))


def _motion(faces: Faces, still: int, donor: Faces | None, style: _Style) -> Floats:
    """Where the still's landmarks go, [N, 478, 2]: the clip's own, or its still's plus how the donor's moved."""
    source, steps = faces.landmarks[still], np.arange(len(faces))
    if donor is None:
        goals = source + np.float32(style.amount) * (faces.landmarks - source)
    else:
        track = donor.landmarks[_there_and_back(steps, len(donor))]
        matrix = similarity(track[0][list(SKULL)], source[list(SKULL)])
        driver = np.stack([placed(points, matrix) for points in track])
        goals = source + np.float32(style.amount) * (driver - driver[0])
    if style.calm:
        goals = gaussian_filter1d(goals, style.calm * faces.rate, axis=0)
    return np.asarray(goals, np.float32)


def _there_and_back(steps: np.ndarray[tuple[int], np.dtype[np.int64]], length: int) -> Floats:
    """Indices below `length`, forwards and backwards for as long as it takes."""
    turn = max(1, 2 * (length - 1))
    at = steps % turn
    return np.minimum(at, turn - at)


def _mouth_inside(image: Bytes, real: Bytes, points: Floats, style: _Style) -> Bytes:
    """The open mouth, which a still does not show, as a blurred guess at the real one."""
    lips = points[list(INNER_LIPS)]
    if float(np.ptp(lips[:, 1])) < 0.01 * image.shape[0]:
        return image
    mask = hull_mask(grown(lips, 1.1), image.shape[0], 0.8)
    return laid(image, np.asarray(cv2.GaussianBlur(real, (0, 0), style.inner), np.uint8), mask)


def _masks(faces: Faces, goals: Floats, style: _Style) -> Floats:
    """The whole crop, or the face where the tool pastes it back."""
    if style.face_only is None:
        return np.ones(faces.images.shape[:3], np.float32)
    hulls = zip(faces.landmarks[:, list(OVAL)], goals[:, list(OVAL)], strict=True)
    return np.stack(
        [hull_mask(grown(np.concatenate(pair), style.face_only), faces.size, style.soft) for pair in hulls]
    )
