"""Sound that doesn't belong to the mouth: the same sound moved in time, or another clip's."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from avdetect.types import FRAME_RATE, SAMPLE_RATE, Floats, Label, Window

Rng = np.random.Generator
Value = TypeVar("Value", np.float32, np.bool_)


def shifted(window: Window, rng: Rng, least: float = 0.16, most: float = 1.0) -> tuple[Window, Label]:
    """The sound late or early by `least` to `most` seconds, with silence where it ran out; needs `waveform`."""
    frames = int(rng.integers(round(least * FRAME_RATE), round(most * FRAME_RATE) + 1)) * int(
        rng.choice([-1, 1])
    )
    return shift(window, frames), Label(lip_sync_mismatch=abs(frames) >= 4 or None)


def shift(window: Window, frames: int) -> Window:
    """The window with its sound late by `frames` of the 25 fps grid (early where negative)."""
    if window.waveform is None:
        raise ValueError("shifting needs sound")
    samples = frames * SAMPLE_RATE // FRAME_RATE
    speech = None if window.speech is None else _move(window.speech, frames)
    return replace(window, waveform=_move(window.waveform, samples), speech=speech)


def _move(values: NDArray[Value], by: int) -> NDArray[Value]:
    out = np.zeros_like(values)
    kept = max(0, len(values) - abs(by))  # none where the window is shorter than the move
    if by >= 0:
        out[len(values) - kept :] = values[:kept]
    else:
        out[:kept] = values[len(values) - kept :]
    return out


def swapped(window: Window, other: Window) -> tuple[Window, Label]:
    """The window with the sound of another; where that is shorter, it starts over."""
    if window.waveform is None or other.waveform is None or other.speech is None:
        raise ValueError("swapping needs sound in both clips")
    waveform: Floats = np.resize(other.waveform, len(window.waveform))
    return replace(window, waveform=waveform, speech=np.resize(other.speech, window.steps)), Label(
        lip_sync_mismatch=True
    )
