"""Crops of one face in time, and the steps that every face forgery shares: blending, colour matching, labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from avdetect.forgeries.family import Forged, Forgery
from avdetect.forgeries.geometry import INNER_LIPS, SKULL
from avdetect.types import CROP_EVERY, FRAME_RATE, Bytes, Claim, Floats, Label, Segment, Window

Rng = np.random.Generator


@dataclass(frozen=True)
class Faces:
    """`images` [N, S, S, 3] RGB of one face in time order, `landmarks` [N, 478, 2] in their pixels, `rate` a second."""

    images: Bytes
    landmarks: Floats
    rate: float = FRAME_RATE / CROP_EVERY

    @classmethod
    def of(cls, window: Window) -> Faces:
        """The face crops of a window; ValueError without any."""
        if window.face_crops is None or window.crop_landmarks is None or not len(window.face_crops):
            raise ValueError("a forged face needs face crops")
        frames = np.diff(window.crop_frames) if window.crop_frames is not None else np.zeros(0)
        every = float(np.median(frames)) if len(frames) else CROP_EVERY
        landmarks = window.crop_landmarks[..., :2].astype(np.float32)
        return cls(window.face_crops, landmarks, FRAME_RATE / max(every, 1.0))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> int:
        """S, pixels."""
        return int(self.images.shape[1])


@dataclass(frozen=True)
class Painted:
    """What a face method gives: pictures [N, S, S, 3] to lay over the crops, and masks [N, S, S] in 0..1 where."""

    images: Bytes
    masks: Floats


Method = Callable[[Faces, Rng, Faces | None], Painted]
"""A face method: faces, the dice, and the faces of another person or clip where there are any."""


def laid(under: Bytes, over: Bytes, mask: Floats) -> Bytes:
    """Picture [S, S, 3] with another laid over it by a mask [S, S]; exactly `under` where the mask is 0."""
    return np.asarray(cv2.blendLinear(under, over, 1 - mask, mask), np.uint8)


def colour_matched(image: Bytes, like: Bytes, mask: Floats, share: float = 1.0) -> Bytes:
    """The image with mean and spread of the other's colours within the mask, in L*a*b* (Reinhard et al. 2001)."""
    inside = np.asarray(mask > 0.5, np.uint8)
    if cv2.countNonZero(inside) < 16:
        return image
    ours, theirs = (cv2.cvtColor(i, cv2.COLOR_RGB2LAB) for i in (image, like))
    (mean, spread), (goal, width) = (cv2.meanStdDev(i, mask=inside) for i in (ours, theirs))
    gain = np.clip(width / np.maximum(spread, 1.0), 0.1, 2.0)  # a grey clip takes the colour out
    levels = np.arange(256)
    table = levels + share * ((levels - mean) * gain + goal - levels)
    matched = cv2.LUT(ours, np.clip(np.rint(table), 0, 255).astype(np.uint8).T[None])
    return np.asarray(cv2.cvtColor(matched, cv2.COLOR_LAB2RGB), np.uint8)


def shapes(faces: Faces) -> Floats:
    """Pose and expression [N, 2K]: the skull's points and some of the lips, without place and size."""
    points = faces.landmarks[:, [*SKULL, *INNER_LIPS[::5]]]
    points = points - points.mean(1, keepdims=True)
    points = points / (np.linalg.norm(points, axis=(1, 2), keepdims=True) + 1e-6)
    return np.asarray(points.reshape(len(points), -1), np.float32)


def most_alike(faces: Faces, donor: Faces) -> tuple[list[int], float]:
    """For each crop the donor's crop of the nearest pose and expression, and how far apart they are on average."""
    apart = ((shapes(faces)[:, None] - shapes(donor)[None]) ** 2).sum(-1)
    return [int(index) for index in apart.argmin(1)], float(np.sqrt(apart.min(1)).mean())


def best_donor(window: Window, donors: Sequence[Window]) -> Window | None:
    """Of several windows the one whose face looks the same way; None where none has a face. Takes microseconds."""
    faces = Faces.of(window)
    fits = [
        (most_alike(faces, Faces.of(donor))[1], index)
        for index, donor in enumerate(donors)
        if donor.face_crops is not None and len(donor.face_crops)
    ]
    return donors[min(fits)[1]] if fits else None


def as_forgery(method: Method, name: str) -> Forgery:
    """The method as a member of the family: over the crops of a window."""

    def forgery(window: Window, rng: Rng, donor: Window | None = None, strength: float = 1.0) -> Forged:
        faces = Faces.of(window)
        others = None if donor is None or donor.face_crops is None else _at_size(Faces.of(donor), faces.size)
        crops, masks = painted_over(faces, method(faces, rng, others), strength)
        segment = Segment(window.start, window.end, Claim.FACE_MANIPULATION, track=window.track)
        label = Label(face_manipulation=True, segments=(segment,))
        return Forged(replace(window, face_crops=crops), label, name, masks)

    return forgery


def painted_over(faces: Faces, painted: Painted, strength: float = 1.0) -> tuple[Bytes, Floats]:
    """Crops [N, S, S, 3] with what was painted on them, and where [N, S, S] and how much (0..1)."""
    masks = np.asarray(np.float32(min(max(strength, 0.0), 1.0)) * painted.masks, np.float32)
    crops = [laid(*three) for three in zip(faces.images, painted.images, masks, strict=True)]
    return np.stack(crops), masks


def _at_size(faces: Faces, size: int) -> Faces:
    """The faces in crops of `size` pixels."""
    if faces.size == size:
        return faces
    how = cv2.INTER_AREA if size < faces.size else cv2.INTER_LINEAR
    images = np.stack([cv2.resize(image, (size, size), interpolation=how) for image in faces.images])
    return Faces(images.astype(np.uint8), faces.landmarks * np.float32(size / faces.size), faces.rate)
