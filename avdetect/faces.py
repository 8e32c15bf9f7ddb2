"""Frames to faces: detection, dense landmarks, head pose, and crops of face and mouth.

Landmarks are mediapipe's 478 points (468 of the mesh, 10 of the irises). Coordinates are pixels of the given
image and continuous: pixel i covers [i, i + 1]. "Right" and "left" of a face are the person's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from avdetect.landmarkers import Models, Region, TaskModels, WheelModels, load
from avdetect.types import Bytes, Floats

cv2: Any = load("cv2")

MAX_FACES = 8
"""Faces that are looked at in one frame: the largest."""
TILE_SIDE, TILE_SHARE, TILE_OVERLAP = 512, 0.6, 0.2
"""Parts of a frame that get a look of their own: at least 512 px, where a 40 px face is still 15 px for the
detector, and at least this share of the frame's shorter side, so that a huge frame has no more parts than a
large one. Measured on faces pasted into 720p: at 192 px the detector finds few below 12 px and nearly all
from 15 px."""
WIDE = 0.25
"""A face that fills the frame is found better with this much border around it."""
CLOSE = 3.0
"""Side of a close look, in faces."""
SAME_FACE = 0.5
"""Two boxes are one face where they share this much of the smaller."""
EYE_CORNERS = ((33, 133), (263, 362))
"""Outer and inner corner of the right and of the left eye; the right eye is on the image's left."""
FINE = 64
"""Steps up to which OpenCV's nearest pixel is exactly that of a slice (to 92)."""
Box = tuple[int, int, int, int]


def box_of(landmarks: Floats) -> Floats:
    """[4] left, top, right, bottom of landmarks [478, 2 or 3]."""
    x, y = landmarks[:, 0], landmarks[:, 1]
    return np.array([x.min(), y.min(), x.max(), y.max()], landmarks.dtype)


def overlap(a: Floats, b: Floats) -> float:
    """Shared area of two boxes [4] as a share of the smaller one, 0..1."""
    (left, top, right, bottom), (left_b, top_b, right_b, bottom_b) = a.tolist(), b.tolist()
    width, height = min(right, right_b) - max(left, left_b), min(bottom, bottom_b) - max(top, top_b)
    smaller = min((right - left) * (bottom - top), (right_b - left_b) * (bottom_b - top_b))
    return max(width, 0.0) * max(height, 0.0) / smaller if smaller > 0 else 0.0


def region_of(landmarks: Floats, margin: float = 1.0) -> Region:
    """The square, upright to the eyes, of `margin` times the longer side of landmarks [478, 2 or 3]."""
    x, y = landmarks[:, 0].astype(np.float64), landmarks[:, 1].astype(np.float64)
    (right_x, left_x), (right_y, left_y) = (
        [(axis[outer] + axis[inner]) / 2 for outer, inner in EYE_CORNERS] for axis in (x, y)
    )
    angle = math.atan2(left_y - right_y, left_x - right_x)
    c, s = math.cos(angle), math.sin(angle)
    across, down = c * x + s * y, c * y - s * x
    left, right, top, bottom = (float(edge) for edge in (across.min(), across.max(), down.min(), down.max()))
    middle, centre = (left + right) / 2, (top + bottom) / 2
    side = max(right - left, bottom - top, 1.0)
    return Region(c * middle - s * centre, s * middle + c * centre, side * margin, angle)


def warp(image: Bytes, matrix: NDArray[np.float64], side: int) -> Bytes:
    """Crop [side, side, ...] of `image` by a similarity [2, 3].

    Averages where it shrinks, and repeats the image's border beyond it.
    """
    # In plain numbers: arrays of two cost more than the picture does.
    height, width = image.shape[:2]
    (a, b, x), (c, d, y) = matrix.tolist()
    (back_a, back_b, back_x), (back_c, back_d, back_y) = cv2.invertAffineTransform(matrix).tolist()
    shrink = max(1, int(math.hypot(back_a, back_c) + 0.25))
    left, right = _span(back_a * side, back_b * side, back_x, width, shrink)
    top, bottom = _span(back_c * side, back_d * side, back_y, height, shrink)
    part = image[top:bottom, left:right]
    if shrink > 1:
        size = max((right - left) // shrink, 1), max((bottom - top) // shrink, 1)
        part = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    wide, high = (right - left) / part.shape[1], (bottom - top) / part.shape[0]
    a, b, x = a * wide, b * high, a * left + b * top + x
    c, d, y = c * wide, d * high, c * left + d * top + y
    # cv2 puts pixel i's centre at i
    placed = np.array([[a, b, x + (a + b) / 2 - 0.5], [c, d, y + (c + d) / 2 - 0.5]])
    crop: Bytes = cv2.warpAffine(
        part, placed, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return crop


def _span(one: float, other: float, start: float, end: int, by: int) -> tuple[int, int]:
    """From where to where, along a side of an image that ends at `end`, a parallelogram and a border around it reach.

    Its edges go so far along this side. `by` divides what is given, where it is as long: to average whole pixels takes
    a tenth of the time. What is too much goes from the end that is not the image's border.
    """
    low = min(max(math.floor(start + min(one, 0.0) + min(other, 0.0)) - 2 * by, 0), end - 1)
    high = max(min(math.ceil(start + max(one, 0.0) + max(other, 0.0)) + 2 * by, end), low + 1)
    spare = (high - low) % by if high - low >= by else 0
    return (low + spare, high) if high == end else (low, high - spare)


def sparse(image: Bytes, step: int) -> Bytes:
    """Every `step`-th pixel of every `step`-th row of [H, W, 3]: a slice, but copied in an eighth of the time."""
    rows, columns = (side // step * step for side in image.shape[:2])
    if not rows or not columns or step > FINE:  # OpenCV rounds places in large steps
        return np.ascontiguousarray(image[::step, ::step])
    size = columns // step, rows // step
    inner = cv2.resize(image[:rows, :columns], size, interpolation=cv2.INTER_NEAREST)
    beside, below = (
        image[:rows:step, columns::step],
        image[rows::step, ::step],
    )  # of the last step that is not whole
    return np.vstack([np.hstack([inner, beside]), below])


def place(landmarks: Floats, matrix: NDArray[np.float64]) -> Floats:
    """Landmarks [N, 2 or 3] brought through a similarity [2, 3]: [N, 2]."""
    placed: Floats = (landmarks[:, :2] @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    return placed


def crop_face(image: Bytes, landmarks: Floats, size: int = 224, margin: float = 1.3) -> tuple[Bytes, Floats]:
    """Square RGB crop [size, size, 3], upright to the eyes, and the landmarks [478, 2] in its pixels.

    Its side is `margin` times the longer side of the landmarks: forehead, chin and some background are in it.
    """
    matrix = region_of(landmarks, margin).matrix(size)
    return warp(image, matrix, size), place(landmarks, matrix)


RIGID = {
    33: (-0.72, -0.02), 133: (-0.28, 0.02), 362: (0.28, 0.02), 263: (0.72, -0.02),
    168: (0.0, -0.06), 6: (0.0, 0.08), 2: (0.0, 0.85), 98: (-0.29, 0.815), 327: (0.29, 0.815),
}  # fmt: skip
"""Points that move with the skull and not with the lips (eye corners, nose bridge, base and wings), in a
frontal face: the eyes' centres are 1 apart, the origin lies between them. Medians over 112 faces that look at
the camera."""
MOUTH, MOUTH_SPAN = (0.0, 1.27), 1.4
"""In the same units: the middle of a closed mouth, and the side of a crop that holds an open one."""


def crop_mouth(image: Bytes, landmarks: Floats, size: int = 64) -> Bytes:
    """Grey crop [size, size] of the mouth, placed by eyes and nose alone: lips and jaw move inside it."""
    template, points = np.array(list(RIGID.values())), landmarks[list(RIGID), :2].astype(np.float64)
    middle, centre = template.mean(0), points.mean(0)
    ours, theirs = (template - middle) @ (1, 1j), (points - centre) @ (1, 1j)
    turn = (
        np.vdot(ours, theirs) / np.vdot(ours, ours).real
    )  # scale and rotation of the least-squares similarity
    x, y = centre
    mouth = turn * complex(*(MOUTH - middle)) + complex(x, y)
    region = Region(mouth.real, mouth.imag, max(abs(turn) * MOUTH_SPAN, 1.0), float(np.angle(turn)))
    crop: Bytes = cv2.cvtColor(warp(image, region.matrix(size), size), cv2.COLOR_RGB2GRAY)
    return crop


def mouth_opening(landmarks: Floats) -> float:
    """Between the lips of landmarks [478, 2 or 3], as a share of the distance of the eyes' outer corners."""
    upper_lip, lower_lip, right_eye, left_eye = landmarks[[13, 14, 33, 263], :2].tolist()
    return math.dist(upper_lip, lower_lip) / max(math.dist(right_eye, left_eye), 1e-6)


def head_pose(landmarks: Floats) -> tuple[float, float, float]:
    """Yaw, pitch and roll of landmarks [478, 3], degrees.

    Positive where the head is turned to the image's right, looks down, is tilted clockwise.
    """
    ear, other_ear, chin, forehead = landmarks[[454, 234, 152, 10]].tolist()
    across, down = (
        [q - p for p, q in zip(*ends, strict=True)] for ends in ((other_ear, ear), (forehead, chin))
    )
    length = max(math.hypot(*across), 1e-6)
    across = [x / length for x in across]
    along = sum(p * q for p, q in zip(across, down, strict=True))
    down = [p - along * q for p, q in zip(down, across, strict=True)]
    yaw = math.atan2(across[2], math.hypot(across[0], across[1]))
    pitch = math.atan2(down[2], math.hypot(down[0], down[1]))
    return math.degrees(yaw), math.degrees(pitch), math.degrees(math.atan2(across[1], across[0]))


def _starts(length: int, side: int) -> list[int]:
    """Where tiles of `side` begin along `length`: evenly spread, overlapping by TILE_OVERLAP or more."""
    count = max(1, math.ceil((length - TILE_OVERLAP * side) / ((1 - TILE_OVERLAP) * side)))
    return [round(start) for start in np.linspace(0, max(0, length - side), count)]


def views(width: int, height: int) -> list[Box]:
    """Parts [left, top, right, bottom] of a frame that together show faces of every size.

    The whole; the whole with border around it (so it reaches outside the frame); in large frames overlapping
    tiles.
    """
    whole = (0, 0, width, height)
    border_x, border_y = round(width * WIDE), round(height * WIDE)
    wide = (-border_x, -border_y, width + border_x, height + border_y)
    side = max(TILE_SIDE, round(TILE_SHARE * min(width, height)))
    tiles = [
        (x, y, min(x + side, width), min(y + side, height))
        for y in _starts(height, side)
        for x in _starts(width, side)
    ]
    return [whole, wide, *(tiles if len(tiles) > 1 else [])]


def around(region: Region, factor: float, width: int, height: int) -> Box:
    """The part of a frame where a face at `region` should be: `factor` times its side, inside the frame."""
    left, top, right, bottom = region.grown(factor).box.round().astype(int).tolist()
    left, top = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
    return left, top, max(min(right, width), left + 1), max(min(bottom, height), top + 1)


def _look(image: Bytes, view: Box, side: int) -> tuple[Bytes, float]:
    """The part of image, its longer side brought down to `side`, and the scale that did it."""
    height, width = image.shape[:2]
    left, top, right, bottom = view
    part = image[max(top, 0) : bottom, max(left, 0) : right]
    scale = min(1.0, side / max(right - left, bottom - top))
    coarse = max(
        1, int(0.5 / scale)
    )  # averaging every pixel of a large frame would cost more than the detector
    if coarse > 1:
        first_row, first_column = (min(coarse // 2, side - 1) for side in part.shape[:2])
        part = sparse(part[first_row:, first_column:], coarse)
    rows, columns = (
        max(1, round(n * scale))
        for n in (min(bottom, height) - max(top, 0), min(right, width) - max(left, 0))
    )
    small = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA)
    pads = (round(max(-top, 0) * scale), round(max(bottom - height, 0) * scale))
    sides = (round(max(-left, 0) * scale), round(max(right - width, 0) * scale))
    return cv2.copyMakeBorder(small, *pads, *sides, cv2.BORDER_REPLICATE), scale


def _distinct(regions: Iterable[Region]) -> list[Region]:
    """Regions, largest first, without those that another one covers."""
    kept: list[Region] = []
    for region in sorted(regions, key=lambda region: -region.size):
        if all(overlap(region.box, other.box) < SAME_FACE for other in kept):
            kept.append(region)
    return kept


class FaceFinder:
    """Finds faces and places landmarks on them, one image at a time; holds no memory between calls.

    `task`: a mediapipe face_landmarker.task bundle to use instead of the models inside mediapipe's wheel
    (ModelError where it is none). `max_faces`: how many faces of an image are meshed, the largest. A context
    manager; not for two threads at once. MissingDependencyError where mediapipe or a system library that it
    needs is missing.
    """

    def __init__(self, task: Path | None = None, max_faces: int = MAX_FACES) -> None:
        self.max_faces = max_faces
        self._models: Models = WheelModels() if task is None else TaskModels(task, max_faces)

    def detect(self, image: Bytes, parts: Sequence[Box] | None = None) -> list[Region]:
        """Where faces are in `image` [H, W, 3] RGB, largest first.

        `parts` are looked at one by one; without them all `views`, the bordered one only where no other shows
        a face.
        """
        height, width = image.shape[:2]
        if parts is not None:
            return _distinct(region for part in parts for region in self._detect(image, part))
        whole, wide, *tiles = views(width, height)
        return self.detect(image, [whole, *tiles]) or self.detect(image, [wide])

    def _detect(self, image: Bytes, part: Box) -> list[Region]:
        view, scale = _look(image, part, self._models.view_side)
        return [
            replace(
                region, x=part[0] + region.x / scale, y=part[1] + region.y / scale, size=region.size / scale
            )
            for region in self._models.detect(view)
        ]

    def landmarks(self, image: Bytes, region: Region) -> Floats | None:
        """Landmarks [478, 3] in image pixels of the face that `region` just holds, None without one."""
        side = self._models.crop_side
        square = region.grown(self._models.crop_margin)
        matrix = square.matrix(side)
        points = self._models.mesh(warp(image, matrix, side))
        if points is None:
            return None
        flat = place(points * side, cv2.invertAffineTransform(matrix))
        return np.column_stack([flat, points[:, 2] * square.size]).astype(np.float32)

    def follow(self, image: Bytes, landmarks: Floats) -> Floats | None:
        """Landmarks [478, 3] of the face that was at `landmarks` one frame ago, None where it is gone."""
        return self.landmarks(image, region_of(landmarks))

    def find(self, image: Bytes, regions: Sequence[Region] | None = None) -> list[Floats]:
        """Landmarks [478, 3] in pixels of the faces in `image` [H, W, 3] RGB: the `max_faces` largest.

        `regions` say where to look, instead of `detect`.
        """
        meshes: list[Floats] = []
        for region in (self.detect(image) if regions is None else regions)[: self.max_faces]:
            mesh = self._mesh(image, region)
            if mesh is not None and all(overlap(box_of(mesh), box_of(other)) < SAME_FACE for other in meshes):
                meshes.append(mesh)
        return meshes

    def _mesh(self, image: Bytes, region: Region) -> Floats | None:
        """The mesh in a detector's square, placed twice: that is rough. Where too rough, a closer look."""
        rough = self.landmarks(image, region)
        if rough is None:
            near = around(region, CLOSE, image.shape[1], image.shape[0])
            closer = [
                seen for seen in self.detect(image, [near]) if overlap(seen.box, region.box) >= SAME_FACE
            ]
            rough = self.landmarks(image, closer[0]) if closer else None
        return None if rough is None else self.follow(image, rough)

    def close(self) -> None:
        """Free the models."""
        self._models.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
