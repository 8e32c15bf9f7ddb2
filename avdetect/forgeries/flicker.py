"""A face that does not hold still: colour, sharpness and place of the drawn face change from frame to frame."""

from __future__ import annotations

import cv2
import numpy as np

from avdetect.forgeries.canvas import Faces, Painted
from avdetect.forgeries.geometry import CONTROL, OVAL, frame_points, grown, hull_mask, warp
from avdetect.types import Floats

Rng = np.random.Generator


def _wander(rng: Rng, steps: int, shape: tuple[int, ...], rate: float, seconds: float) -> Floats:
    """Noise [steps, ...] of unit spread that forgets itself after about `seconds`."""
    keep = float(np.exp(-1 / max(rate * seconds, 1e-3)))
    out = np.empty((steps, *shape), np.float32)
    value = rng.standard_normal(shape)
    for step in range(steps):
        out[step] = value
        value = keep * value + np.sqrt(1 - keep**2) * rng.standard_normal(shape)
    return out


def flickering(faces: Faces, rng: Rng, donor: Faces | None = None) -> Painted:
    """Each picture's face a little lighter, tinted, duller or bent in its own way, within a soft hull."""
    size, steps = faces.size, len(faces)
    seconds = float(rng.choice([0.02, 0.1, 0.3]))
    light = _wander(rng, steps, (1,), faces.rate, seconds) * float(rng.choice([0.0, rng.uniform(2, 9)]))
    tint = _wander(rng, steps, (3,), faces.rate, seconds) * float(rng.uniform(0.5, 3.5))
    dull = np.abs(_wander(rng, steps, (), faces.rate, seconds)) * float(
        rng.choice([0.0, rng.uniform(0.5, 1.4)])
    )
    knots = np.array([*OVAL[::6], *CONTROL[36::9]])
    bend = _wander(rng, steps, (len(knots), 2), faces.rate, seconds) * float(rng.uniform(0.002, 0.012)) * size
    wide, soft = float(rng.uniform(0.85, 1.05)), float(rng.uniform(0.01, 0.06)) * size
    edge = frame_points(size)
    images, masks = np.empty_like(faces.images), np.empty(faces.images.shape[:3], np.float32)
    for index, (image, points) in enumerate(zip(faces.images, faces.landmarks, strict=True)):
        start, end = points[knots], points[knots] + bend[index]
        picture = warp(image, np.concatenate([start, edge]), np.concatenate([end, edge]).astype(np.float32))
        if dull[index] > 0.3:
            picture = cv2.GaussianBlur(picture, (0, 0), float(dull[index]))
        images[index] = np.clip(np.rint(picture + (light[index] + tint[index])), 0, 255)
        masks[index] = hull_mask(grown(points[list(OVAL)], wide), size, soft)
    return Painted(images, masks)
