"""One person's face on another's head: warped by landmarks, matched in colour, blended in.

As face-swap tools do it: the donor's face in the head's geometry or partly in its own, at the swapper's resolution,
pasted within the face's hull with a feathered edge, by Poisson's equation (Perez et al., 2003) or band by band.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from avdetect.forgeries.canvas import Faces, Painted, colour_matched, laid, most_alike
from avdetect.forgeries.generator import Trace, drawn, rendered
from avdetect.forgeries.geometry import (
    CONTROL,
    OVAL,
    SKULL,
    frame_points,
    grown,
    hull_mask,
    moved,
    placed,
    similarity,
    warp,
)
from avdetect.types import Bytes, Floats

Rng = np.random.Generator


@dataclass(frozen=True)
class _Style:
    """One tool: blending, share of the head's own shape, mask, resolution, colour match, traces."""

    blend: str
    shape: float
    grow: float
    soft: float
    side: float
    match: float
    jitter: float
    traces: list[Trace]

    @classmethod
    def drawn(cls, rng: Rng, size: int) -> _Style:
        return cls(
            blend=str(rng.choice(["feather", "poisson", "bands"], p=[0.6, 0.2, 0.2])),
            shape=float(rng.choice([1.0, 1.0, rng.uniform(0.3, 1.0)])),
            grow=float(rng.uniform(0.82, 1.02)),
            soft=float(rng.uniform(0.006, 0.045)) * size,
            side=float(rng.choice([0.35, 0.5, 0.7, 1.0], p=[0.15, 0.3, 0.3, 0.25])),
            match=float(rng.uniform(0.6, 1.0)),
            jitter=float(rng.choice([0.0, 0.003, 0.008])) * size,
            traces=drawn(rng, size, 2) if rng.random() < 0.5 else [],
        )


def face_swapped(faces: Faces, rng: Rng, donor: Faces | None = None) -> Painted:
    """The donor's face on every crop, from the moments that look most alike; ValueError without a donor."""
    if donor is None:
        raise ValueError("a face swap needs a donor with face crops")
    style, size = _Style.drawn(rng, faces.size), faces.size
    still = bool(rng.random() < 0.2)  # one photograph of the donor for the whole clip
    alike, _ = most_alike(faces, donor)
    images, masks = np.empty_like(faces.images), np.empty(faces.images.shape[:3], np.float32)
    for index in range(len(faces)):
        other = alike[0] if still else alike[index]
        images[index], goal = _onto(faces, index, donor, other, style, rng)
        masks[index] = _mask(faces.landmarks[index], goal, size, style)
    if style.side < 1:
        images = _fewer_pixels(images, style.side)
    if style.traces:
        images = rendered(images, style.traces)
    for index in range(len(faces)):
        images[index] = colour_matched(images[index], faces.images[index], masks[index], style.match)
    return _blended(faces, images, masks, style)


def _onto(
    faces: Faces, index: int, donor: Faces, other: int, style: _Style, rng: Rng
) -> tuple[Bytes, Floats]:
    """The donor's picture on this head, and where its landmarks [478, 2] came to lie."""
    points, theirs = faces.landmarks[index], donor.landmarks[other]
    matrix = similarity(theirs[list(SKULL)], points[list(SKULL)])
    matrix[:, 2] += rng.normal(0, style.jitter, 2).astype(np.float32)
    over, theirs = moved(donor.images[other], matrix), placed(theirs, matrix)
    goal = theirs + np.float32(style.shape) * (points - theirs)
    edge = frame_points(faces.size)
    picture = warp(
        over, np.concatenate([theirs[list(CONTROL)], edge]), np.concatenate([goal[list(CONTROL)], edge])
    )
    return picture, goal


def _mask(points: Floats, goal: Floats, size: int, style: _Style) -> Floats:
    """Where both faces are, [size, size]."""
    ours = hull_mask(grown(points[list(OVAL)], style.grow), size, style.soft)
    return (
        ours if style.shape == 1 else ours * hull_mask(grown(goal[list(OVAL)], style.grow), size, style.soft)
    )


def _fewer_pixels(images: Bytes, share: float) -> Bytes:
    size = images.shape[1]
    side = max(32, round(share * size))
    small = [cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in images]
    return np.stack([cv2.resize(i, (size, size), interpolation=cv2.INTER_CUBIC) for i in small]).astype(
        np.uint8
    )


def _blended(faces: Faces, images: Bytes, masks: Floats, style: _Style) -> Painted:
    """The pictures, already laid over the crops where the way of blending is not a plain mask."""
    if style.blend == "poisson":
        pairs = zip(faces.images, images, masks, strict=True)
        cloned = np.stack([_poisson(under, over, mask) for under, over, mask in pairs])
        return Painted(cloned, np.asarray(masks > 0.5, np.float32))
    if style.blend == "bands":
        pairs = zip(faces.images, images, masks, strict=True)
        joined = np.stack([_by_bands(under, over, mask) for under, over, mask in pairs])
        return Painted(
            joined, np.stack([cv2.dilate(m, np.ones((9, 9))) > 0.02 for m in masks]).astype(np.float32)
        )
    return Painted(images, masks)


def _poisson(under: Bytes, over: Bytes, mask: Floats) -> Bytes:
    """Gradients of one within the mask, values of the other around it; a plain blend where there is no room."""
    size = mask.shape[0]
    inside = np.zeros((size, size), np.uint8)
    inside[3:-3, 3:-3] = 255 * (mask[3:-3, 3:-3] > 0.5)
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if len(rows) < 8 or len(columns) < 8:
        return laid(under, over, mask)
    # the middle of the mask's box stays where it is
    centre = (int(columns[0] + columns[-1] + 1) // 2, int(rows[0] + rows[-1] + 1) // 2)
    return np.asarray(cv2.seamlessClone(over, under, inside, centre, cv2.NORMAL_CLONE), np.uint8)


def _by_bands(under: Bytes, over: Bytes, mask: Floats) -> Bytes:
    """Coarse bands blended over a wide edge, fine ones over a narrow one (Burt & Adelson, 1983)."""
    a, b = under.astype(np.float32), over.astype(np.float32)
    total = np.zeros_like(a)
    for sigma in (1.0, 2.5):
        low_a, low_b = (np.asarray(cv2.GaussianBlur(i, (0, 0), sigma), np.float32) for i in (a, b))
        share = cv2.GaussianBlur(mask, (0, 0), sigma)[..., None]
        total += (1 - share) * (a - low_a) + share * (b - low_b)
        a, b = low_a, low_b
    share = cv2.GaussianBlur(mask, (0, 0), 4.0)[..., None]
    return np.clip(np.rint(total + (1 - share) * a + share * b), 0, 255).astype(np.uint8)
