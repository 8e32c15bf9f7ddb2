"""A mouth that stands still or repeats itself while eyes and head go on, as a picture that was dubbed cheaply has it.

The lower face of one moment, or of a short stretch to and fro, is pasted over all others of a stretch, its skull where
theirs is. Of a window the mouth's landmarks and crops are held as well as the face crops.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from avdetect.forgeries.canvas import Faces, Painted, colour_matched, painted_over
from avdetect.forgeries.desync import frozen, looped, runs
from avdetect.forgeries.family import Forged
from avdetect.forgeries.geometry import (
    AROUND_MOUTH,
    LOWER,
    SKULL,
    box_mask,
    grown,
    hull_mask,
    placed,
    similarity,
)
from avdetect.forgeries.mouth import MOUTH, mouth_of
from avdetect.types import FRAME_RATE, Bools, Bytes, Claim, Floats, Label, Segment, Window

Rng = np.random.Generator
Indices = NDArray[np.int64]
STILL = 0.6
"""How often a mouth stands still rather than repeats itself."""


def mouth_held(window: Window, rng: Rng, donor: Window | None = None, strength: float = 1.0) -> Forged:
    """The mouth held or looped in a stretch of 0.4 s or more, up to the whole window, times `strength`.

    A face whose mouth is another moment's has been redrawn: both claims are true, in the same segments. Without face
    crops the window shows no face that could be looked at, and only lip-sync is labelled.
    """
    if window.waveform is None or window.found is None or window.landmarks is None or not window.found.any():
        raise ValueError("a held mouth needs sound and a face")
    still = bool(rng.random() < STILL)
    moved = (frozen if still else looped)(window, rng, None, min(max(strength, 0.0), 1.0))
    assert moved.frames is not None
    held = np.zeros(window.steps, bool)
    for first, end in moved.spans:
        held[first:end] = True
    held &= window.found
    seen = np.flatnonzero(window.found)
    shown = seen[
        np.abs(seen[None] - moved.frames[:, None]).argmin(1)
    ]  # of a frame without the face, the nearest
    out, masks = _with_crops(window, held, shown, rng)
    out = replace(
        out,
        landmarks=_held_landmarks(window.landmarks, held, shown),
        mouth_crops=None if window.mouth_crops is None else _held_crops(window.mouth_crops, held, shown),
    )
    method = "frozen mouth" if still else "looped mouth"
    return Forged(out, _label(window, runs(held)), method, masks)


def _label(window: Window, spans: tuple[tuple[int, int], ...]) -> Label:
    claims = [Claim.LIP_SYNC_MISMATCH, *([Claim.FACE_MANIPULATION] if window.face_crops is not None else [])]
    segments = tuple(
        Segment(window.start + first / FRAME_RATE, window.start + end / FRAME_RATE, claim, track=window.track)
        for claim in claims
        for first, end in spans
    )
    true = True if spans else None
    return Label(true if window.face_crops is not None else None, None, true, segments)


def _held_landmarks(landmarks: Floats, held: Bools, shown: Indices) -> Floats:
    """Landmarks [T, 478, 3] with those of the mouth and chin as they were at the shown frames."""
    out = landmarks.copy()
    spoken = _spoken(landmarks[int(shown[0])])
    for at in np.flatnonzero(held):
        theirs, ours = landmarks[shown[at]], landmarks[at]
        matrix = similarity(theirs[list(SKULL), :2], ours[list(SKULL), :2])
        out[at, spoken, :2] = placed(theirs[spoken, :2], matrix)
        out[at, spoken, 2] = theirs[spoken, 2] * np.hypot(matrix[0, 0], matrix[1, 0])
    return out


def _spoken(points: Floats) -> Indices:
    """The landmarks that speech moves: all within the hull about the mouth, and the chin."""
    hull = cv2.convexHull(points[list(AROUND_MOUTH), :2].astype(np.float32))
    inside = [
        at
        for at, (x, y) in enumerate(points[:, :2].tolist())
        if cv2.pointPolygonTest(hull, (x, y), False) >= 0
    ]
    return np.union1d(inside, MOUTH).astype(np.int64)


def _held_crops(crops: Bytes, held: Bools, shown: Indices) -> Bytes:
    """Mouth crops [T, M, M], which are placed by eyes and nose, with the shown frames' within their own edges."""
    side = crops.shape[1]
    box = np.array([0.12, 0.12, 0.88, 0.88], np.float32) * side
    share = box_mask(box, side, 0.03 * side)
    out = crops.copy()
    mixed = crops[held] + share * (crops[shown[held]].astype(np.float32) - crops[held])
    out[held] = np.rint(mixed).astype(np.uint8)
    return out


def _with_crops(window: Window, held: Bools, shown: Indices, rng: Rng) -> tuple[Window, Floats | None]:
    """The window with the lower face of its held crops from those of the shown frames, and where it is [N, S, S]."""
    if window.face_crops is None or window.crop_frames is None:
        return window, None
    faces = Faces.of(window)
    region = LOWER if rng.random() < 0.5 else AROUND_MOUTH
    soft = float(rng.uniform(0.01, 0.03)) * faces.size
    images, masks = faces.images.copy(), np.zeros(faces.images.shape[:3], np.float32)
    for index, frame in enumerate(np.minimum(window.crop_frames, window.steps - 1)):
        if held[frame]:
            source = int(np.abs(window.crop_frames - shown[frame]).argmin())
            masks[index] = _where(faces, source, index, region, soft)
            spoken = mouth_of(faces, source, faces.landmarks[index], keep_shape=False)
            images[index] = colour_matched(spoken, faces.images[index], masks[index])
    crops, masks = painted_over(faces, Painted(images, masks))
    return replace(window, face_crops=crops), masks


def _where(faces: Faces, source: int, index: int, region: tuple[int, ...], soft: float) -> Floats:
    """[S, S] about the mouth as it was and as it is held: neither lip nor chin of the real one looks out."""
    points, theirs = faces.landmarks[index], faces.landmarks[source]
    matrix = similarity(theirs[list(SKULL)], points[list(SKULL)])
    both = np.concatenate([points[list(region)], placed(theirs[list(region)], matrix)])
    return hull_mask(grown(both, 1.05), faces.size, soft)
