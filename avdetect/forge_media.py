"""One clip and a forgery of it: looked at, forged as one long window, and written with the face pasted back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from avdetect.faces import place, region_of, warp
from avdetect.forgeries import FORGERIES, Act, Forged, Kind, compose
from avdetect.forgeries.splicing import joined
from avdetect.media import frames
from avdetect.types import FRAME_RATE, SAMPLE_RATE, Bytes, Claim, Clip, Floats, Label, Window
from avdetect.windows import WindowSettings, prepare

Rng = np.random.Generator
STEP = SAMPLE_RATE // FRAME_RATE
MARGIN = 1.3
"""Side of a face crop, in faces, as `faces.crop_face` has it."""
CROP_SIDES = (64, 384)
"""Pixels of a crop that is forged: as many as the face has in the frame, within these."""
LEAST_WIDTH = 48
"""Pixels of a face that is worth forging."""
LEAST_FOUND = 10
"""Frames in which a face must be found."""
LEAST_SPEECH = 10
"""Frames in which somebody must speak."""


@dataclass(frozen=True)
class Footage:
    """A clip and the `window` of its first seconds, with the face that is longest in view, if any."""

    clip: Clip
    window: Window

    @property
    def has_face(self) -> bool:
        """Whether there is a face to forge."""
        return self.window.found is not None and int(self.window.found.sum()) >= LEAST_FOUND

    @property
    def has_voice(self) -> bool:
        """Whether there is a voice to forge."""
        return self.window.speech is not None and int(self.window.speech.sum()) >= LEAST_SPEECH

    def lacks(self, name: str) -> str | None:
        """Why the forgery `name` cannot be made of it; None where it can."""
        kind = FORGERIES[name].kind
        if kind is Kind.FACE and not self.has_face:
            return "no face to forge is seen"
        if kind is Kind.VOICE and not self.has_voice:
            return "nobody is heard to speak"
        if kind is Kind.SYNC and not (self.has_face and self.has_voice):
            return "no face that speaks is seen and heard"
        return None

    @property
    def label(self) -> Label:
        """Of real footage: False for what it shows."""
        both = self.has_face and self.has_voice
        return Label(
            False if self.has_face else None, False if self.has_voice else None, False if both else None
        )


def look(path: Path, longest: float, audio_path: Path | None = None) -> Footage:
    """The first `longest` seconds of a clip as one window. MediaError where it cannot be read."""
    prepared = prepare(path, WindowSettings(longest, longest, spare=0.0), audio_path=audio_path)
    windows = list(takewhile(lambda window: window.start == 0, prepared))  # a long clip is read no further
    seen = [window for window in windows if _width(window) >= LEAST_WIDTH]
    if seen:
        return Footage(prepared.clip, max(seen, key=_seconds_found))
    if windows:
        window = windows[0]
        return Footage(prepared.clip, Window(window.start, window.end, window.waveform, window.speech))
    seconds = max(1, round(min(prepared.clip.duration, longest) * FRAME_RATE)) / FRAME_RATE
    return Footage(prepared.clip, Window(0.0, seconds))


def _seconds_found(window: Window) -> float:
    return 0.0 if window.found is None else float(window.found.sum()) / FRAME_RATE


def _width(window: Window) -> float:
    """Median width of the window's face, pixels; 0 without one."""
    if window.landmarks is None or window.found is None or not window.found.any():
        return 0.0
    return float(np.median(np.ptp(window.landmarks[window.found][:, :, 0], axis=1)))


@dataclass(frozen=True)
class Faked:
    """A forged clip, before it is written: its sound, its label, and how its picture differs from the source's.

    `frames` [T] are the source's frames that are shown (None: its own). `pasted` are crops to lay over what is shown:
    index -> (picture [S, S, 3], mask [S, S] in 0..1, similarity [2, 3] from the shown frame to the crop).
    """

    waveform: Floats | None
    label: Label
    method: str
    frames: NDArray[np.int64] | None
    pasted: dict[int, tuple[Bytes, Floats, NDArray[np.float64]]]


def fake(
    footage: Footage,
    names: Sequence[str],
    rng: Rng,
    donor: Window | None,
    strength: float,
    stretch: float | None,
) -> Faked:
    """The footage through forgeries, over its whole length or a stretch of so many seconds drawn at random.

    ValueError where they clash, where one lacks something, or where nothing came of them.
    """
    window = footage.window
    first, end = _stretch(window, rng, stretch)
    piece = _cut(window, first, end)
    matrices: dict[int, NDArray[np.float64]] = {}
    if any(FORGERIES[name].act is Act.PAINT for name in names):
        piece, matrices = _with_every_crop(footage.clip, piece, first)
    forged = compose(names, piece, rng, donor, strength)
    order = np.arange(window.steps)
    if forged.frames is not None:
        order[first:end] = first + forged.frames
    pasted = _pasted(forged, matrices, order) if matrices else {}
    if not forged.label.is_fake or (matrices and not pasted):
        raise ValueError("too little came of it; more --strength or a longer clip would help")
    waveform = window.waveform
    if waveform is not None and forged.window.waveform is not piece.waveform:
        assert forged.window.waveform is not None
        waveform = joined(waveform, forged.window.waveform, first * STEP)  # faded in and out within the piece
    label = _where_pasted(forged.label, sorted(pasted)) if matrices else forged.label
    return Faked(waveform, label, forged.method, None if forged.frames is None else order, pasted)


def _stretch(window: Window, rng: Rng, seconds: float | None) -> tuple[int, int]:
    """First and end frame; drawn among stretches with a face or speech in at least half of them where there are any."""
    length = window.steps if seconds is None else min(window.steps, max(1, round(seconds * FRAME_RATE)))
    alive = window.found if window.found is not None else window.speech
    starts = np.arange(window.steps - length + 1)
    if alive is not None:
        total = np.concatenate([[0], np.cumsum(alive)])
        full = starts[total[starts + length] - total[starts] >= length / 2]
        starts = full if len(full) else starts
    first = int(starts[int(rng.integers(len(starts)))])
    return first, first + length


def _cut(window: Window, first: int, end: int) -> Window:
    def rows(values: Any) -> Any:
        return None if values is None else values[first:end]

    sound = None if window.waveform is None else window.waveform[first * STEP : end * STEP]
    return replace(
        window,
        start=window.start + first / FRAME_RATE,
        end=window.start + end / FRAME_RATE,
        waveform=sound,
        speech=rows(window.speech),
        found=rows(window.found),
        landmarks=rows(window.landmarks),
        mouth_crops=rows(window.mouth_crops),
        face_crops=None,
        crop_frames=None,
        crop_landmarks=None,
    )


def _with_every_crop(clip: Clip, piece: Window, first: int) -> tuple[Window, dict[int, NDArray[np.float64]]]:
    """The piece with a crop of every frame in which its face was found, and how each was cut out of its frame."""
    assert piece.found is not None and piece.landmarks is not None
    sizes = [region_of(points, MARGIN).size for points in piece.landmarks[piece.found]]
    side = int(np.clip(np.median(sizes) if sizes else 0, *CROP_SIDES)) // 2 * 2
    crops, points, where, matrices = [], [], [], {}
    for frame in frames(clip):
        index = frame.index - first
        if index >= piece.steps:
            break
        if index >= 0 and piece.found[index]:
            matrix = region_of(piece.landmarks[index], MARGIN).matrix(side)
            crops.append(warp(frame.image, matrix, side))
            points.append(place(piece.landmarks[index], matrix))
            where.append(index)
            matrices[frame.index] = matrix
    if not crops:
        raise ValueError("no face is seen in the stretch")
    crop_frames = np.array(where, np.int64)
    return (
        replace(piece, face_crops=np.stack(crops), crop_frames=crop_frames, crop_landmarks=np.stack(points)),
        matrices,
    )


def _pasted(
    forged: Forged, matrices: dict[int, NDArray[np.float64]], order: NDArray[np.int64]
) -> dict[int, tuple[Bytes, Floats, NDArray[np.float64]]]:
    """What is laid over each frame of the piece, where the frame that is shown there has a face."""
    assert forged.window.face_crops is not None and forged.masks is not None
    rows = zip(matrices, forged.window.face_crops, forged.masks, strict=True)
    return {
        index: (crop, mask, matrices[int(order[index])])
        for index, crop, mask in rows
        if mask.any() and int(order[index]) in matrices
    }


def _where_pasted(label: Label, indices: list[int]) -> Label:
    """The label with its face segments parted where frames were left alone."""
    painted = [one for one in label.segments if one.claim is Claim.FACE_MANIPULATION]
    others = [one for one in label.segments if one.claim is not Claim.FACE_MANIPULATION]
    breaks = [at for at in range(1, len(indices)) if indices[at] != indices[at - 1] + 1]
    runs = zip([0, *breaks], [*breaks, len(indices)], strict=True)
    parted = [
        replace(painted[0], start=indices[a] / FRAME_RATE, end=(indices[b - 1] + 1) / FRAME_RATE)
        for a, b in runs
    ]
    return replace(label, segments=(*parted, *others))


def images(footage: Footage, faked: Faked | None = None) -> Iterator[Bytes]:
    """A picture [H, W, 3] per frame of the 25 fps grid: the clip's own, held where one is missing, or the forged."""
    steps = footage.window.steps
    order = faked.frames if faked is not None else None
    kept = {} if order is None else _kept(footage.clip, {int(at) for i, at in enumerate(order) if at != i})
    index, shown = 0, None
    for frame in frames(footage.clip):
        shown = frame.image if shown is None else shown
        while index < min(frame.index, steps):
            yield _picture(index, shown, faked, kept)
            index += 1
        shown = frame.image
        if index >= steps:
            return
    while shown is not None and index < steps:
        yield _picture(index, shown, faked, kept)
        index += 1


def _kept(clip: Clip, wanted: set[int]) -> dict[int, Bytes]:
    """The pictures of some frames; of one that is missing, the one before it."""
    kept: dict[int, Bytes] = {}
    shown: Bytes | None = None
    index = 0
    for frame in frames(clip):
        shown = frame.image if shown is None else shown
        kept |= {at: shown for at in range(index, frame.index) if at in wanted}
        shown, index = frame.image, frame.index
        if index > max(wanted, default=0):
            return kept
    return kept | {at: shown for at in wanted if at >= index and shown is not None}


def _picture(index: int, shown: Bytes, faked: Faked | None, kept: dict[int, Bytes]) -> Bytes:
    if faked is None:
        return shown
    if faked.frames is not None and faked.frames[index] != index:
        shown = kept[int(faked.frames[index])]
    return paste(shown, *faked.pasted[index]) if index in faked.pasted else shown


def paste(frame: Bytes, crop: Bytes, mask: Floats, matrix: NDArray[np.float64]) -> Bytes:
    """The frame [H, W, 3] with a crop [S, S, 3] laid back where the similarity `matrix` cut it out.

    The crop is blended already, so it is laid back wherever its mask [S, S] is above 0; all else stays as it was.
    """
    height, width = frame.shape[:2]
    back = cv2.invertAffineTransform(matrix)
    # cv2 puts pixel i's centre at i, the matrix at i + 0.5
    placed = np.column_stack([back[:, :2], back[:, :2] @ (0.5, 0.5) + back[:, 2] - 0.5])
    size = (width, height)
    over = cv2.warpAffine(crop, placed, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    share = cv2.warpAffine(np.asarray(mask > 0, np.float32) * _border(len(mask)), placed, size)
    return np.asarray(cv2.blendLinear(frame, over, 1 - share, share), np.uint8)


def _border(side: int) -> Floats:
    """[side, side] 1 inside, 0 at the edge: no square is to be seen where all of a crop was made."""
    ramp = np.clip(np.minimum(np.arange(side), np.arange(side)[::-1]) / (0.05 * side), 0, 1)
    return np.minimum.outer(ramp, ramp).astype(np.float32)
