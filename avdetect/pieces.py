"""Pieces of prepared windows, as training draws them: cut in time, apart in time, faster or slower, degraded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from avdetect.augment import degrade_audio
from avdetect.batch import mirrored
from avdetect.types import CROP_EVERY, FRAME_RATE, SAMPLE_RATE, Window

Rng = np.random.Generator


def sound_only(window: Window) -> Window:
    """The window without picture."""
    return Window(window.start, window.end, window.waveform, window.speech)


def picture_only(window: Window, rng: Rng, crops: int) -> Window:
    """The window without sound, and with `crops` neighbouring face crops."""
    assert (
        window.face_crops is not None and window.crop_frames is not None and window.crop_landmarks is not None
    )
    first = int(rng.integers(0, max(1, len(window.face_crops) - crops + 1)))
    some = slice(first, first + crops)
    pictures = window.face_crops[some]
    return Window(
        0.0,
        len(pictures) * CROP_EVERY / FRAME_RATE,
        track=window.track,
        face_crops=pictures,
        crop_frames=np.arange(len(pictures)) * CROP_EVERY,
        crop_landmarks=window.crop_landmarks[some],
    )


def start(window: Window, length: int, rng: Rng) -> int:
    """The first of `length` frames, drawn so that they fit, or 0."""
    return int(rng.integers(0, max(1, window.steps - length + 1)))


def cut(window: Window, first: int, length: int) -> Window:
    """`length` frames from frame `first`; shorter where the window ends."""
    return cut_apart(window, first, length, 0)


def cut_apart(window: Window, first: int, length: int, lag: int) -> Window:
    """As `_cut`, with the sound taken `lag` frames earlier, so that it is late by `lag`; zeros where there is none."""
    length = min(length, window.steps - first)
    step = SAMPLE_RATE // FRAME_RATE
    frames = slice(first, first + length)
    return replace(
        window,
        end=window.start + length / FRAME_RATE,
        waveform=_slice(window.waveform, (first - lag) * step, length * step),
        speech=_slice(window.speech, first - lag, length),
        found=None if window.found is None else window.found[frames],
        landmarks=None if window.landmarks is None else window.landmarks[frames],
        mouth_crops=None if window.mouth_crops is None else window.mouth_crops[frames],
    )


def paced(window: Window, factor: float) -> Window:
    """Mouth and sound played `factor` times as fast, together: other speakers' pace and pitch; no face crops."""
    assert window.waveform is not None and window.landmarks is not None
    assert window.speech is not None and window.found is not None
    steps = int(window.steps / factor)
    times = np.arange(steps) * factor
    low = np.minimum(times.astype(int), window.steps - 1)
    high, share = np.minimum(low + 1, window.steps - 1), (times - low).astype(np.float32)[:, None, None]
    samples = np.arange(steps * SAMPLE_RATE // FRAME_RATE) * factor
    waveform = np.interp(samples, np.arange(len(window.waveform)), window.waveform).astype(np.float32)
    landmarks = window.landmarks[low] * (1 - share) + window.landmarks[high] * share
    nearest = np.where(share[:, 0, 0] < 0.5, low, high)
    return Window(
        window.start,
        window.start + steps / FRAME_RATE,
        waveform,
        window.speech[low],
        window.track,
        window.found[low],
        landmarks,
        None if window.mouth_crops is None else window.mouth_crops[nearest],
    )


def _slice(values: np.ndarray[Any, Any] | None, first: int, length: int) -> Any:
    if values is None:
        return None
    out = np.zeros(length, values.dtype)
    begin, end = max(0, first), min(len(values), first + length)
    if end > begin:
        out[begin - first : end - first] = values[begin:end]
    return out


def degraded(window: Window, rng: Rng, strength: float) -> Window:
    """Sound through the usual chain; landmarks with the jitter of another camera, mirrored half of the time."""
    assert window.waveform is not None and window.landmarks is not None
    landmarks = window.landmarks.copy()
    if rng.random() < 0.5:
        landmarks = mirrored(landmarks)
    scale = float(np.ptp(landmarks[:, :, 0], axis=1).mean())
    jitter = np.float32(0.004 * scale * strength * rng.random())
    landmarks += jitter * rng.standard_normal(landmarks.shape, dtype=np.float32)
    return replace(window, waveform=degrade_audio(window.waveform, rng, 0.5 * strength), landmarks=landmarks)
