"""Windows -> tensors: the one collation, for detection, training and evaluation alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avdetect.types import CLAIMS, CROP_EVERY, FRAME_RATE, SAMPLE_RATE, Bytes, Floats, Label, Window

OUTER_LIPS = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 146, 91, 181, 84, 17, 314, 405, 321, 375)
INNER_LIPS = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 95, 88, 178, 87, 14, 317, 402, 318, 324)
CHIN = (152, 148, 377, 175, 199, 200)
LIPS = (*OUTER_LIPS, *INNER_LIPS, *CHIN)
"""MediaPipe face mesh indices that move with speech: 40 lip points and 6 of the chin."""


def _mirror() -> list[int]:
    """Index of the point that stands on the other side of the face, for the points used here; itself elsewhere."""
    other = list(range(478))
    runs = [LIPS[:11], LIPS[11:20], LIPS[20:31], LIPS[31:40], (148, 377), (33, 263), (133, 362)]
    for run in runs:
        for left, right in zip(run, reversed(run), strict=True):
            other[left] = right
    return other


MIRROR = tuple(_mirror())


def mirrored(landmarks: Floats) -> Floats:
    """Landmarks [T, 478, 3] of the same face in a mirror, for the points that `mouth_motion` reads."""
    out = landmarks[:, list(MIRROR)].copy()
    out[..., 0] = -out[..., 0]
    return out


def _head_frame(landmarks: Floats) -> tuple[Floats, Floats, Floats]:
    """Axes [T, 3, 3], origin [T, 3] and scale [T] of the head, from points that speech does not move."""
    across = landmarks[:, [263, 362]].mean(1) - landmarks[:, [33, 133]].mean(1)
    origin = landmarks[:, [33, 133, 263, 362, 168, 6]].mean(1)
    down = landmarks[:, [168, 6, 197]].mean(1) - landmarks[:, [10, 151, 9]].mean(1)
    scale = np.linalg.norm(across, axis=1) + 1e-6
    x = across / scale[:, None]
    y = down - (down * x).sum(1, keepdims=True) * x
    y = y / (np.linalg.norm(y, axis=1, keepdims=True) + 1e-6)
    return np.stack([x, y, np.cross(x, y)], 1), origin, scale


def mouth_motion(landmarks: Floats) -> Floats:
    """Lip and chin points [T, 92] in the head's own frame, in units of the eye distance: [T, 478, 3] pixels in.

    Turning, nodding, walking and zooming leave it unchanged; opening, rounding and jaw movement do not.
    """
    axes, origin, scale = _head_frame(landmarks)
    points = landmarks[:, list(LIPS)] - origin[:, None]
    local = np.einsum("tij,tpj->tpi", axes, points) / scale[:, None, None]
    return local[..., :2].reshape(len(local), -1).astype(np.float32)  # depth is mostly the tracker's noise


def _pad(arrays: Sequence[NDArray[Any] | None], dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
    """Rows of unequal length [L_i, ...] -> ([B, L, ...], lengths [B]); None where no row has anything."""
    present = [a for a in arrays if a is not None and len(a)]
    if not present:
        return None
    longest = max(len(a) for a in present)
    out = torch.zeros(len(arrays), longest, *present[0].shape[1:], dtype=dtype)
    lengths = torch.zeros(len(arrays), dtype=torch.long)
    for row, array in enumerate(arrays):
        if array is not None and len(array):
            out[row, : len(array)] = torch.from_numpy(np.ascontiguousarray(array))
            lengths[row] = len(array)
    return out, lengths


def label_row(label: Label) -> list[float]:
    """[C] in the order of CLAIMS: 1, 0 or nan."""
    values = (label[claim] for claim in CLAIMS)
    return [float("nan") if value is None else float(value) for value in values]


def crops_in_time(window: Window) -> NDArray[np.intp]:
    """[K] which of the window's face crops stands at each of its fusion steps: the last one until then, or the first.

    Empty where it has none.
    """
    if window.crop_frames is None:
        return np.zeros(0, np.intp)
    steps = np.arange(-(-window.steps // CROP_EVERY))
    latest = np.searchsorted(window.crop_frames // CROP_EVERY, steps, side="right") - 1
    return np.maximum(latest, 0)


def _in_time(window: Window) -> Bytes | None:
    """Face crops [K, C, C, 3], one per fusion step of the window."""
    return None if window.face_crops is None else window.face_crops[crops_in_time(window)]


def collate(windows: Sequence[Window], *, mouth_crops: bool = False) -> dict[str, Tensor]:
    """Inputs of FusionModel for B windows: only the modalities that at least one of them has.

    `mouth_crops`: whether the model reads pictures of the mouth (`FusionNetwork.sees_mouth_crops`); few do.
    """
    batch: dict[str, Tensor] = {}
    sound = _pad([w.waveform for w in windows], torch.float32)
    if sound is not None:
        step = SAMPLE_RATE // FRAME_RATE
        short = -sound[0].shape[1] % step
        batch["waveform"] = torch.nn.functional.pad(sound[0], (0, short))
        batch["waveform_lengths"] = sound[1]
        speech = _pad([w.speech for w in windows], torch.bool)
        if speech is not None:
            batch["speech"] = speech[0]
    mouth = _pad([None if w.landmarks is None else mouth_motion(w.landmarks) for w in windows], torch.float32)
    if mouth is not None:
        batch["mouth"], batch["mouth_lengths"] = mouth
        found = _pad([w.found for w in windows], torch.bool)
        assert found is not None
        batch["found"] = found[0]
    pictures = _pad([w.mouth_crops for w in windows], torch.uint8) if mouth_crops else None
    if pictures is not None:
        batch["mouth_crops"], batch["mouth_crop_lengths"] = pictures
    faces = _pad([_in_time(w) for w in windows], torch.uint8)
    if faces is not None:
        batch["faces"] = faces[0].permute(0, 1, 4, 2, 3)
        batch["face_lengths"] = faces[1]
    return batch
