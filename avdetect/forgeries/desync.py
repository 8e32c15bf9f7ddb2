"""Sound that doesn't belong to the mouth: moved, drifting, re-timed, another's; or a mouth that stands still or loops.

Sound is moved over the picture or exchanged; a picture is shown in another order, its frames as they were filmed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import fft as fourier
from scipy.ndimage import map_coordinates

from avdetect.forgeries.family import Forged, Forgery
from avdetect.forgeries.voicing import same_sex
from avdetect.types import FRAME_RATE, SAMPLE_RATE, Bools, Claim, Floats, Label, Segment, Window

Rng = np.random.Generator
Value = TypeVar("Value", np.float32, np.bool_)
STEP = SAMPLE_RATE // FRAME_RATE
"""Samples of sound per frame."""
UNNOTICED = 3
"""Frames by which sound may be off before a label calls it a mismatch: 120 ms, about what television allows."""

ONE_RECORDING = 40.0
"""Spreads of a correlation that its peak is high where two sounds are one recording: of a second of one in the other it
was 77 and more, of 150 pairs of different recordings at most 21."""
SPEECH_BAND = (200.0, 3500.0)
"""Hz; beyond, codecs leave the same nothing in all sounds."""


@dataclass(frozen=True)
class Moved:
    """New sound [S] and where someone speaks in it [T], or the frames [T] shown; `spans` of frames that mismatch."""

    spans: tuple[tuple[int, int], ...]
    waveform: Floats | None = None
    speech: Bools | None = None
    frames: NDArray[np.int64] | None = None


Sync = Callable[[Window, Rng, Window | None, float], Moved]
"""A way to part sound and mouth; `strength` 0..1 scales by how much, or for how long."""


def as_forgery(sync: Sync, method: str) -> Forgery:
    """The method as a member of the family."""

    def forgery(window: Window, rng: Rng, donor: Window | None = None, strength: float = 1.0) -> Forged:
        if window.waveform is None:
            raise ValueError("sound can be parted from a mouth only where there is sound")
        moved = sync(window, rng, donor, min(max(strength, 0.0), 1.0))
        segments = tuple(
            Segment(window.start + a / FRAME_RATE, window.start + b / FRAME_RATE, Claim.LIP_SYNC_MISMATCH)
            for a, b in moved.spans
        )
        label = Label(lip_sync_mismatch=True if segments else None, segments=segments)
        return Forged(_applied(window, moved), label, method, frames=moved.frames)

    return forgery


def _applied(window: Window, moved: Moved) -> Window:
    if moved.waveform is not None:
        return replace(window, waveform=moved.waveform, speech=moved.speech)
    return window if moved.frames is None else reordered(window, moved.frames)


def reordered(window: Window, frames: NDArray[np.int64]) -> Window:
    """The window with its picture showing its own frames in the order `frames` [T]; its sound stays."""

    def at(values: Any) -> Any:
        return None if values is None else values[frames]

    crops: dict[str, Any] = {}
    if window.face_crops is not None and window.crop_frames is not None and window.crop_landmarks is not None:
        shown = np.minimum(frames[np.minimum(window.crop_frames, len(frames) - 1)], window.crop_frames[-1])
        nearest = np.abs(window.crop_frames[None] - shown[:, None]).argmin(1)
        crops = {"face_crops": window.face_crops[nearest], "crop_landmarks": window.crop_landmarks[nearest]}
    return replace(
        window,
        found=at(window.found),
        landmarks=at(window.landmarks),
        mouth_crops=at(window.mouth_crops),
        **crops,
    )


def shift(window: Window, frames: int) -> Window:
    """The window with its sound late by `frames` of the 25 fps grid (early where negative)."""
    if window.waveform is None:
        raise ValueError("shifting needs sound")
    speech = None if window.speech is None else _move(window.speech, frames)
    return replace(window, waveform=_move(window.waveform, frames * STEP), speech=speech)


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


# Sound moved or exchanged, from the first to the last speech: the silence about it is the clip's own, or it would tell


def _spoken(window: Window) -> tuple[int, int]:
    """First and end frame of what is spoken; all of the window where too little is."""
    spoken = np.flatnonzero(window.speech) if window.speech is not None else np.zeros(0, int)
    if not len(spoken) or spoken[-1] + 1 - spoken[0] < 2 * (UNNOTICED + 1):
        return 0, window.steps
    return int(spoken[0]), int(spoken[-1]) + 1


def _samples(window: Window, first: int, end: int) -> slice:
    """Those of frames `first` to `end`, with what is left over of the window after its last frame."""
    return slice(first * STEP, None if end >= window.steps else end * STEP)


def shifted(window: Window, rng: Rng, donor: Window | None, strength: float) -> Moved:
    """What is spoken late or early by 0.16 to 2 s, no more than half of it.

    What runs out at one end comes in at the other.
    """
    assert window.waveform is not None
    first, end = _spoken(window)
    least, most = UNNOTICED + 1, max(UNNOTICED + 1, min(2 * FRAME_RATE, (end - first) // 2))
    size = least * (most / least) ** float(rng.uniform(0, 1))
    frames = round(strength * size) * int(rng.choice([-1, 1]))
    waveform, span = window.waveform.copy(), _samples(window, first, end)
    waveform[span] = np.roll(waveform[span], frames * STEP)
    speech = None if window.speech is None else window.speech.copy()
    if speech is not None:
        speech[first:end] = np.roll(speech[first:end], frames)
    return Moved(((first, end),) if abs(frames) > UNNOTICED else (), waveform, speech)


def same_sound(one: Floats, other: Floats) -> bool:
    """Whether two waveforms [S] hold a stretch of one recording, wherever in each it lies, however it is encoded.

    By the peak of their correlation over its spread, all frequencies of SPEECH_BAND alike (Knapp & Carter, "The
    generalized correlation method for estimation of time delay", 1976).
    """
    size = fourier.next_fast_len(len(one) + len(other))
    cross = fourier.rfft(one, size) * np.conj(fourier.rfft(other, size))
    hertz = fourier.rfftfreq(size, 1 / SAMPLE_RATE)
    inside = (hertz > SPEECH_BAND[0]) & (hertz < SPEECH_BAND[1])
    peaks = np.abs(fourier.irfft(inside * cross / (np.abs(cross) + 1e-9), size))
    return bool(peaks.max() > ONE_RECORDING * peaks.std())


def swapped_in(window: Window, rng: Rng, donor: Window | None, strength: float) -> Moved:
    """The donor's speech where someone speaks, from the start for the share `strength` of it."""
    if donor is None or donor.waveform is None:
        raise ValueError("swapped speech needs a donor with sound")
    assert window.waveform is not None
    if same_sound(window.waveform, donor.waveform):
        raise ValueError("the donor's sound is a part of the clip's own, which might fit the mouth")
    (first, end), (begin, stop) = _spoken(window), _spoken(donor)
    begin += int(rng.integers(max(1, (stop - begin) // 4)))
    return _with_sound(window, donor, first, first + round(strength * (end - first)), begin)


def swapped_same_sex(window: Window, rng: Rng, donor: Window | None, strength: float) -> Moved:
    """As `swapped_in`, from a donor of the same sex: the voice could be this face's."""
    assert window.waveform is not None
    if donor is not None and donor.waveform is not None and not same_sex(window.waveform, donor.waveform):
        raise ValueError("the donor's voice is of the other sex by its pitch, or one of the voices has none")
    return swapped_in(window, rng, donor, strength)


def drifting(window: Window, rng: Rng, donor: Window | None, strength: float) -> Moved:
    """Speech in step at its start that runs ahead or falls behind, by 0.2 to 1 s at its end."""
    first, end = _spoken(window)
    most = max(UNNOTICED + 1, min(FRAME_RATE, 0.25 * (end - first)))
    last = strength * float(rng.uniform(max(0.2 * most, UNNOTICED + 1), most)) * float(rng.choice([-1, 1]))
    return _warped(window, first, np.linspace(0, last, end - first))


def retimed(window: Window, rng: Rng, donor: Window | None, strength: float) -> Moved:
    """Words earlier or later than they were said, each by its own 0.2 to 0.5 s; start and end in step."""
    first, end = _spoken(window)
    knots = max(3, round((end - first) / FRAME_RATE / float(rng.uniform(0.6, 1.2))) + 1)
    offsets = rng.uniform(0.2, 0.5, knots) * rng.choice([-1, 1], knots) * FRAME_RATE
    gap = (end - first) / (knots - 1)
    offsets = np.clip(offsets, -0.45 * gap, 0.45 * gap) * strength  # time never runs backwards
    offsets[[0, -1]] = 0
    at = np.linspace(0, end - first - 1, knots)
    return _warped(window, first, np.interp(np.arange(end - first), at, offsets))


def dubbed(window: Window, rng: Rng, donor: Window | None, strength: float) -> Moved:
    """Other speech in a stretch of 0.5 s to half of the window: the donor's, or the clip's own from elsewhere."""
    least = min(window.steps, FRAME_RATE // 2)
    length = round(strength * int(rng.integers(least, max(least + 1, window.steps // 2 + 1))))
    first = _placed(window.speech, window.steps, length, rng)
    source = donor if donor is not None and donor.waveform is not None else window
    begin = _placed(source.speech, source.steps, length, rng)
    if source is window and abs(begin - first) <= 2 * UNNOTICED:
        begin = (first + window.steps // 2) % max(1, window.steps - length + 1)
    return _with_sound(window, source, first, first + length, begin)


def _placed(speech: Bools | None, steps: int, length: int, rng: Rng) -> int:
    """Where a stretch of `length` frames begins: anywhere, but where people speak rather than where they don't."""
    starts = np.arange(max(1, steps - length + 1))
    if speech is not None and length:
        total = np.concatenate([[0], np.cumsum(np.resize(speech, max(steps, length)))])
        spoken = total[starts + length] - total[starts]
        starts = starts[spoken >= 0.8 * spoken.max()]
    return int(starts[int(rng.integers(len(starts)))])


def _warped(window: Window, first: int, offsets: NDArray[np.float64]) -> Moved:
    """The sound of each frame from `first` on later by `offsets` [N] frames; what runs out comes in at the other end.

    A frame whose sound has come round that way mismatches too.
    """
    assert window.waveform is not None
    if not offsets.any():
        return Moved((), window.waveform, window.speech)
    count = len(offsets)
    frames = np.arange(count)
    span = _samples(window, first, first + count)
    piece = window.waveform[span]
    samples = np.arange(len(piece))
    at = (samples - np.interp(samples / STEP, frames, offsets) * STEP) % len(piece)
    waveform = window.waveform.copy()
    # a straight line between samples would dull what it moves
    waveform[span] = map_coordinates(piece, [at], order=3, mode="grid-wrap")
    source = frames - offsets
    speech = None if window.speech is None else window.speech.copy()
    if speech is not None:
        speech[first : first + count] = speech[first : first + count][np.round(source).astype(int) % count]
    off = np.zeros(window.steps, bool)
    off[first : first + count] = (np.abs(offsets) > UNNOTICED) | (source < 0) | (source > count - 1)
    return Moved(runs(off), waveform, speech)


def _with_sound(window: Window, donor: Window, first: int, end: int, begin: int) -> Moved:
    """Frames `first` to `end` with the sound of the donor from its frame `begin` on, as loud as what was there."""
    assert window.waveform is not None and donor.waveform is not None
    if end <= first:
        return Moved((), window.waveform, window.speech)
    waveform, span = window.waveform.copy(), _samples(window, first, end)
    piece = np.resize(np.roll(donor.waveform, -begin * STEP), len(waveform[span]))
    gain = float(np.std(waveform[span])) / max(float(np.std(piece)), 1e-6)
    waveform[span] = piece * np.float32(min(gain, 20.0))
    speech = None if window.speech is None else window.speech.copy()
    if speech is not None and donor.speech is not None:
        speech[first:end] = np.resize(np.roll(donor.speech, -begin), end - first)
    return Moved(((first, end),), waveform, speech)


# The picture in another order


def frozen(window: Window, rng: Rng, donor: Window | None, strength: float) -> Moved:
    """The picture stands still for a stretch of 0.4 s or more while the sound goes on."""
    first, end = _stretch(window, rng, strength)
    frames = np.arange(window.steps)
    frames[first:end] = first
    return Moved(((first, end),) if end > first else (), frames=frames)


def looped(window: Window, rng: Rng, donor: Window | None, strength: float) -> Moved:
    """A stretch of the picture shows another, short one instead, to and fro, while the sound goes on."""
    first, end = _stretch(window, rng, strength)
    frames = np.arange(window.steps)
    length = min(int(rng.integers(8, 30)), window.steps)
    begin = int(rng.integers(0, window.steps - length + 1))
    turn = max(1, 2 * (length - 1))
    at = np.arange(end - first) % turn
    frames[first:end] = (
        begin + length - 1 - np.minimum(at, turn - at)
    )  # backwards first: nowhere in step for long
    return Moved(((first, end),) if end > first else (), frames=frames)


def _stretch(window: Window, rng: Rng, strength: float) -> tuple[int, int]:
    """First and end frame of a stretch of at least 0.4 s, up to the whole window, times `strength`."""
    least = min(window.steps, 10)
    length = round(strength * int(rng.integers(least, window.steps + 1)))
    first = _placed(window.speech, window.steps, length, rng)
    return first, first + length


def runs(flags: NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
    """First and end of each stretch of True in flags [T]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return tuple((int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True))
