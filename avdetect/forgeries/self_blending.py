"""A face blended into itself: the seam, colour and sharpness mismatch that swaps and lip-sync tools leave, and no more.

After Shiohara & Yamasaki, "Detecting deepfakes with self-blended images" (2022): two versions of one crop, one of them
changed in colour, sharpness and place, blended along a deformed landmark hull. Here over the crops of a window, with
one draw per window and a little jitter per crop, over the whole face, its lower half, mouth or eyes.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from avdetect.augment_faces import blur, colour, jpeg, sharpen, shrink
from avdetect.forgeries.canvas import Faces, Painted, painted_over
from avdetect.forgeries.geometry import AROUND_MOUTH, LOWER
from avdetect.types import Bytes, Floats, Label, Window

Rng = np.random.Generator

INNER_FACE = (
    *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),
    *(454, 361, 435, 364, 394, 152, 169, 135, 215, 132, 234),
)
REGIONS: dict[str, tuple[int, ...]] = {
    "face": (),
    "lower": LOWER,
    "mouth": AROUND_MOUTH,
    "inner": INNER_FACE,
}
"""Landmarks whose hull is blended; an empty tuple means all of them."""


def _mask(landmarks: Floats, size: int, bend: NDArray[np.float32], soft: float, grow: float) -> Floats:
    """[H, W] in 0..1: the hull, grown or shrunk, bent by a smooth field, with a soft edge."""
    centre = landmarks.mean(0)
    points = (landmarks - centre) * grow + centre
    hull = cv2.convexHull(np.round(points).astype(np.int32))
    mask = np.zeros((size, size), np.float32)
    cv2.fillConvexPoly(mask, hull, (1.0,))
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1).astype(np.float32) + bend
    bent = cv2.remap(mask, grid[..., 0], grid[..., 1], cv2.INTER_LINEAR)
    return np.asarray(cv2.GaussianBlur(bent, (0, 0), soft), np.float32)


def _bend(size: int, rng: Rng, strength: float) -> NDArray[np.float32]:
    coarse = rng.normal(0, strength, (5, 5, 2)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)


def _moved(crop: Bytes, rng: Rng, place: NDArray[np.float64], flicker: float) -> Bytes:
    size = crop.shape[0]
    matrix = place.copy()
    matrix[:, 2] += rng.normal(0, flicker * size, 2)
    moved = cv2.warpAffine(crop, matrix, (size, size), borderMode=cv2.BORDER_REFLECT)
    return np.asarray(moved, np.uint8)


def _changed(crops: Bytes, rng: Rng) -> Bytes:
    """The other version: another colour, sharpness or compression."""
    changed = crops
    for change, chance in ((colour, 0.7), (shrink, 0.4), (blur, 0.25), (sharpen, 0.25), (jpeg, 0.2)):
        if rng.random() < chance:
            changed = change(changed, rng)
    return changed


def blended(faces: Faces, rng: Rng, donor: Faces | None = None) -> Painted:
    """The crops blended into themselves."""
    crops, landmarks, size = faces.images, faces.landmarks, faces.size
    inner, outer = (crops, _changed(crops, rng)) if rng.random() < 0.4 else (_changed(crops, rng), crops)
    region = str(rng.choice(list(REGIONS), p=[0.45, 0.2, 0.2, 0.15]))
    points = landmarks[:, REGIONS[region]] if REGIONS[region] else landmarks
    turn, size_change = float(rng.normal(0, 1.5)), float(rng.uniform(0.96, 1.04))
    place = np.asarray(cv2.getRotationMatrix2D((size / 2, size / 2), turn, size_change), np.float64)
    place[:, 2] += rng.normal(0, 0.012 * size, 2)
    bend, soft = _bend(size, rng, 0.03 * size), float(rng.uniform(1.0, 0.06 * size))
    grow, flicker = float(rng.uniform(0.85, 1.12)), float(rng.choice([0.0, 0.0, 0.004, 0.01]))
    share = float(rng.choice([0.4, 0.6, 0.8, 1.0, 1.0, 1.0]))
    images, masks = np.empty_like(crops), np.empty(crops.shape[:3], np.float32)
    for index in range(len(crops)):
        mask = share * _mask(points[index], size, bend, soft, grow)
        moved = _moved(inner[index], rng, place, flicker)
        mixed = outer[index] * (1 - mask[..., None]) + moved * mask[..., None]
        images[index] = np.clip(np.rint(mixed), 0, 255)  # cutting off would darken every blended pixel
        masks[index] = mask > 0
    if outer is not crops:
        masks[:] = 1.0
    return Painted(images, masks)


def self_blended(window: Window, rng: Rng) -> tuple[Window, Label]:
    """The window with its face crops blended into themselves; needs `face_crops`."""
    faces = Faces.of(window)
    crops, _ = painted_over(faces, blended(faces, rng))
    return replace(window, face_crops=crops), Label(face_manipulation=True)
