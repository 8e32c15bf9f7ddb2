"""`prepare`: the only way from a file to a model, for detection, training and evaluation alike.

A clip is read once, frame by frame; overlapping windows leave as soon as they are complete, so that an hour of video
needs no more memory than a minute. `overlap_add` and `segments_of` lead back from window scores to the clip's time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avdetect.ahead import Ahead
from avdetect.errors import MediaError
from avdetect.faces import FaceFinder, crop_face, crop_mouth
from avdetect.media import frames, open_clip
from avdetect.speech import SpeechReport, speech_mask, speech_segments
from avdetect.tracks import FaceTracker, shots
from avdetect.types import (
    CROP_EVERY,
    FRAME_RATE,
    SAMPLE_RATE,
    Bytes,
    Claim,
    Clip,
    Face,
    Floats,
    Frame,
    Segment,
    TrackSummary,
    Window,
)

DECODED_AHEAD = 4
"""Frames that are decoded while faces are looked for in an earlier one."""
MIN_FOUND = 0.4
"""A track takes part in a window in which its face was found in at least this share of frames."""


@dataclass(frozen=True)
class WindowSettings:
    """Seconds of a window and between the starts of two; how many faces are followed at once.

    `mouths`: whether windows have mouth crops, which few models look at. `spare`: by what share of its length the last
    window may be longer, where little is left over; one more would see almost the same again.
    """

    length: float = 4.0
    hop: float = 2.0
    max_faces: int = 8
    mouths: bool = True
    spare: float = 0.2

    def spans(self, duration: float) -> list[tuple[int, int]]:
        """First frame and length, in frames, of each window of a clip of `duration` seconds; the last ends with it."""
        total = max(1, round(duration * FRAME_RATE))
        length, hop = round(self.length * FRAME_RATE), round(self.hop * FRAME_RATE)
        *starts, last = range(0, max(1, total - length + 1), hop)
        left = total - last - length
        if left <= self.spare * length:
            return [*((start, length) for start in starts), (last, total - last)]
        return [*((start, length) for start in [*starts, last]), (total - length, length)]


@dataclass
class _Seen:
    """One face in one frame, reduced to what windows need."""

    landmarks: Floats
    mouth: NDArray[np.uint8] | None
    crop: tuple[NDArray[np.uint8], Floats] | None


@dataclass
class Prepared:
    """Windows of one clip, to be walked through once; what is known at the end stands beside them.

    `tracks` and `warnings` are complete, and `seconds` (stage -> seconds spent or waited) final, once the windows are
    through. Where speech is still being looked for, `listening` is set, and `speech` once the first window is out.
    `noticed` is told of each face crop, with its track and frame, as soon as it is seen.
    """

    clip: Clip
    speech: SpeechReport | None
    settings: WindowSettings
    finder: FaceFinder | None
    tracks: list[TrackSummary] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: {"decode": 0.0, "faces": 0.0})
    listening: Future[SpeechReport] | None = None
    noticed: Callable[[int, int, Bytes], None] | None = None

    def __iter__(self) -> Iterator[Window]:
        spans = self.spans()
        seen: dict[int, dict[int, _Seen]] = {}
        for index in self._look(seen):
            self._notice(index - 1, seen)
            while spans and index >= sum(spans[0]):
                yield from self._windows(*spans.pop(0), seen)
                _forget(seen, spans[0][0] if spans else index)
        for first, length in spans:
            yield from self._windows(first, length, seen)
            _forget(seen, first + 1)

    def spans(self) -> list[tuple[int, int]]:
        """First frame and length, in frames, of each window in turn."""
        return self.settings.spans(self.clip.duration)

    def sound(self, first: int, length: int) -> Window:
        """The window of `length` frames from frame `first`, with what can be heard in it; not yet where speech is."""
        window = Window(first / FRAME_RATE, (first + length) / FRAME_RATE)
        if self.clip.waveform is None:
            return window
        return replace(window, waveform=_cut(self.clip.waveform, first, length))

    def _look(self, seen: dict[int, dict[int, _Seen]]) -> Iterator[int]:
        """Reads frames, follows faces, notes what is seen; gives the number of frames done."""
        if not self.clip.has_video:
            return
        finder = self.finder or FaceFinder(max_faces=self.settings.max_faces)
        try:
            yield from self._follow(FaceTracker(finder), seen)
        finally:
            if finder is not self.finder:
                finder.close()  # its models are not freed otherwise

    def _follow(self, tracker: FaceTracker, seen: dict[int, dict[int, _Seen]]) -> Iterator[int]:
        decoded = shots(frames(self.clip, warnings=self.warnings))
        with closing(Ahead(decoded, DECODED_AHEAD)) as source:
            clock = time.perf_counter()
            for frame, cut in source:
                clock = self._spend("decode", clock)
                for face in tracker.update(frame, cut):
                    seen.setdefault(face.track, {})[frame.index] = _reduce(frame, face, self.settings.mouths)
                clock = self._spend("faces", clock)
                yield frame.index + 1
                clock = time.perf_counter()
        self.tracks = tracker.finish()
        self.warnings.extend(tracker.warnings)

    def _notice(self, frame: int, seen: dict[int, dict[int, _Seen]]) -> None:
        if self.noticed is None:
            return
        for track, frames_seen in seen.items():
            if frame in frames_seen and (crop := frames_seen[frame].crop) is not None:
                self.noticed(track, frame, crop[0])

    def _spend(self, stage: str, since: float) -> float:
        now = time.perf_counter()
        self.seconds[stage] += now - since
        return now

    def _listen(self) -> None:
        """Waits for the speech."""
        if self.listening is not None:
            self.speech, self.listening = self.listening.result(), None

    def _windows(self, first: int, length: int, seen: dict[int, dict[int, _Seen]]) -> Iterator[Window]:
        """One window per face that is there for long enough; without one, a window of sound alone."""
        sound = self.sound(first, length)
        if sound.waveform is not None:
            self._listen()
            segments = self.speech.segments if self.speech else ()
            sound = replace(sound, speech=speech_mask(segments, sound.start, length))
        faces = 0
        for track, frames_seen in sorted(seen.items()):
            here = {i - first: frames_seen[i] for i in range(first, first + length) if i in frames_seen}
            if len(here) >= max(1, MIN_FOUND * length):
                faces += 1
                yield _with_face(sound, track, here, length)
        if not faces and sound.waveform is not None:
            yield sound


def _reduce(frame: Frame, face: Face, mouths: bool) -> _Seen:
    crop = crop_face(frame.image, face.landmarks) if frame.index % CROP_EVERY == 0 else None
    return _Seen(face.landmarks, crop_mouth(frame.image, face.landmarks) if mouths else None, crop)


def _forget(seen: dict[int, dict[int, _Seen]], before: int) -> None:
    for track in list(seen):
        for index in [i for i in seen[track] if i < before]:
            del seen[track][index]
        if not seen[track]:
            del seen[track]


def _cut(waveform: Floats, first: int, length: int) -> Floats:
    """The samples of `length` video frames from frame `first`, with zeros beyond the end."""
    step = SAMPLE_RATE // FRAME_RATE
    piece = waveform[first * step : (first + length) * step]
    return np.pad(piece, (0, length * step - len(piece)))


def _with_face(sound: Window, track: int, here: dict[int, _Seen], length: int) -> Window:
    found = np.zeros(length, bool)
    found[list(here)] = True
    last = here[min(here)]
    held = []
    for index in range(length):
        last = here.get(index, last)
        held.append(last)
    window = replace(sound, track=track, found=found, landmarks=np.stack([one.landmarks for one in held]))
    mouths = [one.mouth for one in held if one.mouth is not None]
    if len(mouths) == length:
        window = replace(window, mouth_crops=np.stack(mouths))
    crops = [(index, one.crop) for index, one in here.items() if one.crop is not None]
    if not crops:
        return window
    return replace(
        window,
        face_crops=np.stack([crop[0] for _, crop in crops]),
        crop_frames=np.array([index for index, _ in crops], np.int64),
        crop_landmarks=np.stack([crop[1] for _, crop in crops]),
    )


def prepare(
    path: Path | str,
    settings: WindowSettings | None = None,
    finder: FaceFinder | None = None,
    *,
    audio_path: Path | str | None = None,
    background: Executor | None = None,
) -> Prepared:
    """The windows of a media file. MediaError where it cannot be read at all.

    `finder` may be shared between clips, so that its models are loaded once. With `audio_path` the sound is that
    of the other file, from its start, as long as the picture lasts. With `background` speech is looked for there,
    while the picture is being read.
    """
    began = time.perf_counter()
    clip = open_clip(Path(path))
    if audio_path is not None:
        clip = _with_sound(clip, open_clip(audio_path))
    prepared = Prepared(clip, None, settings or WindowSettings(), finder, warnings=list(clip.warnings))
    if clip.waveform is not None and background is not None:
        prepared.listening = background.submit(speech_segments, clip.waveform)
    elif clip.waveform is not None:
        prepared.speech = speech_segments(clip.waveform)
    prepared.seconds["decode"] += time.perf_counter() - began
    return prepared


def _with_sound(clip: Clip, sound: Clip) -> Clip:
    """The clip with the other's sound in place of its own."""
    if sound.waveform is None:
        raise MediaError(sound.path, "holds no sound", "name a file with the voice")
    duration = clip.duration if clip.has_video else sound.duration
    return replace(
        clip,
        duration=duration,
        waveform=sound.waveform[: round(duration * SAMPLE_RATE)],
        audio_start=sound.audio_start,
        audio_codec=sound.audio_codec,
        source_sample_rate=sound.source_sample_rate,
        source_channels=sound.source_channels,
        audio_bit_rate=sound.audio_bit_rate,
        warnings=(*clip.warnings, *sound.warnings),
    )


def overlap_add(
    pieces: Sequence[tuple[float, Floats, NDArray[np.bool_]]], duration: float, rate: float
) -> tuple[Floats, NDArray[np.bool_]]:
    """Window curves back on the clip's axis: [(start, values [K], valid [K])] -> (values [N], valid [N]).

    Values of overlapping windows are averaged with weights that fall towards a window's edges, where it knows least.
    """
    steps = max(1, int(np.ceil(duration * rate - 1e-6)))
    total, weight = np.zeros(steps, np.float64), np.zeros(steps, np.float64)
    for start, values, valid in pieces:
        first = round(start * rate)
        count = min(len(values), steps - first)
        if count <= 0:
            continue
        taper = np.minimum(np.arange(1, len(values) + 1), np.arange(len(values), 0, -1))[:count]
        share = taper * valid[:count]
        total[first : first + count] += share * np.where(valid[:count], values[:count], 0)
        weight[first : first + count] += share
    return (total / np.maximum(weight, 1e-9)).astype(np.float32), weight > 0


def segments_of(
    scores: Floats,
    valid: NDArray[np.bool_],
    rate: float,
    threshold: float,
    claim: Claim,
    *,
    track: int | None = None,
    shortest: float = 0.6,
    gap: float = 0.6,
) -> tuple[Segment, ...]:
    """Stretches of at least `shortest` seconds at or above `threshold`; holes of up to `gap` seconds are bridged."""
    above = valid & (scores >= threshold)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], above, [False]]).astype(np.int8)))
    runs = [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    joined: list[tuple[int, int]] = []
    for begin, end in runs:
        if joined and begin - joined[-1][1] <= gap * rate:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((begin, end))
    return tuple(
        Segment(a / rate, b / rate, claim, float(scores[a:b][valid[a:b]].mean()), track)
        for a, b in joined
        if b - a >= shortest * rate
    )
