"""A mouth that was drawn anew, as lip-sync tools do it: the lower face at the generator's few pixels, pasted back.

After Wav2Lip (Prajwal et al., 2020: the face's box at 96 x 96 px, pasted as a rectangle) and its successors, which
have more pixels and softer masks. What is pasted comes from the same moment, from another one or from someone else.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from avdetect.forgeries.canvas import Faces, Painted, colour_matched, laid, most_alike
from avdetect.forgeries.generator import Trace, drawn, rendered
from avdetect.forgeries.geometry import (
    AROUND_MOUTH,
    CHEEKS,
    INNER_LIPS,
    LOWER,
    NOSE,
    OUTER_LIPS,
    OVAL,
    SKULL,
    box_mask,
    box_of,
    frame_points,
    grown,
    hull_mask,
    moved,
    placed,
    similarity,
    softened,
    warp,
)
from avdetect.types import Bytes, Floats

Rng = np.random.Generator
SPOKEN = (*OUTER_LIPS[::2], *INNER_LIPS[::2], *LOWER, *NOSE, *CHEEKS)
"""What a mouth is warped by."""
MOUTH = (*OUTER_LIPS, *INNER_LIPS, 18, 199, 152, 148, 377, 176, 400)
"""What speech moves: lips and chin."""


@dataclass(frozen=True)
class _Style:
    """One tool: where it draws, with how many pixels, how sharply it is pasted, and in whose shape.

    `jitter`: of a box from frame to frame, pixels. `keep_shape`: the mouth stays as open as it was.
    """

    region: str
    side: int
    dull: float
    soft: float
    keep_shape: bool
    jitter: float
    colour: Floats
    traces: list[Trace]

    @classmethod
    def drawn(cls, rng: Rng, size: int) -> _Style:
        region = str(rng.choice(["box", "lower box", "lower", "mouth"], p=[0.35, 0.2, 0.25, 0.2]))
        sharp_edge = region.endswith("box") and rng.random() < 0.6
        return cls(
            region=region,
            side=int(rng.choice([96, 128, 192, 256], p=[0.5, 0.2, 0.15, 0.15])),
            dull=float(rng.uniform(0.2, 1.3)),
            soft=0.0 if sharp_edge else float(rng.uniform(0.008, 0.05)) * size,
            keep_shape=bool(rng.random() < 0.5),
            jitter=float(rng.choice([0.0, 0.0, 0.004, 0.008])) * size,
            colour=rng.normal(0, 3.0, 3).astype(np.float32),
            traces=drawn(rng, size, 2) if rng.random() < 0.35 else [],
        )

    def mask(self, points: Floats, size: int, rng: Rng) -> Floats:
        """Where the tool draws [size, size]."""
        if self.region in ("lower", "mouth"):
            hull = points[list(LOWER if self.region == "lower" else AROUND_MOUTH)]
            return softened(hull_mask(grown(hull, 1.05), size), self.soft)
        box = box_of(points[list(OVAL)])
        if self.region == "lower box":
            box[1] = points[4, 1]  # from the tip of the nose
        return box_mask(box + rng.normal(0, self.jitter, 4).astype(np.float32), size, self.soft)


def mouth_redrawn(faces: Faces, rng: Rng, donor: Faces | None = None) -> Painted:
    """Lower faces drawn anew; with the mouth of `donor` now and then, where there is one."""
    style = _Style.drawn(rng, faces.size)
    origin = str(rng.choice(["same", "other", "donor"], p=[0.2, 0.55, 0.25]))
    borrowed = donor if origin == "donor" else None
    shift = 0 if origin == "same" else int(rng.integers(1, max(2, len(faces))))
    others = most_alike(faces, borrowed)[0] if borrowed else (np.arange(len(faces)) + shift) % len(faces)
    images, masks = np.empty_like(faces.images), np.empty(faces.images.shape[:3], np.float32)
    for index in range(len(faces)):
        images[index] = faces.images[index]
        masks[index] = style.mask(faces.landmarks[index], faces.size, rng)
        if borrowed or shift:
            spoken = mouth_of(
                borrowed or faces, int(others[index]), faces.landmarks[index], keep_shape=style.keep_shape
            )
            where = _speaking(faces.landmarks[index], faces.size, borrowed is None)
            over = colour_matched(spoken, faces.images[index], where)
            images[index] = laid(faces.images[index], over, where)
        images[index] = _at_few_pixels(images[index], faces.landmarks[index], style)
    if style.traces:
        images = rendered(images, style.traces)
    return Painted(images, masks)


def mouth_of(source: Faces, other: int, points: Floats, *, keep_shape: bool) -> Bytes:
    """Picture `other` of the source with its skull where the landmarks `points` [478, 2] have it.

    Its mouth is in its own shape; with `keep_shape` in that of `points`.
    """
    matrix = similarity(source.landmarks[other][list(SKULL)], points[list(SKULL)])
    over, theirs = moved(source.images[other], matrix), placed(source.landmarks[other], matrix)
    goal = points.copy()
    if not keep_shape:
        goal[list(MOUTH)] = theirs[list(MOUTH)]
    edge, inside = frame_points(over.shape[0]), list(SPOKEN)
    return np.asarray(
        warp(over, np.concatenate([theirs[inside], edge]), np.concatenate([goal[inside], edge])), np.uint8
    )


def _speaking(points: Floats, size: int, own: bool) -> Floats:
    """Where the other moment's picture goes [size, size]: the lower face, of someone else only the mouth."""
    hull = points[list(LOWER if own else AROUND_MOUTH)]
    return hull_mask(hull, size, 0.02 * size)


def _at_few_pixels(image: Bytes, points: Floats, style: _Style) -> Bytes:
    """The picture as it comes back when its face is `style.side` pixels high, a little dull and off in colour."""
    size = image.shape[0]
    height = max(float(np.ptp(points[list(OVAL), 1])), 8.0)
    side = max(16, round(size * min(1.0, style.side / height)))
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), style.dull)
    back = cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR).astype(np.float32) + style.colour
    return np.clip(np.rint(back), 0, 255).astype(np.uint8)
