"""Faces to tracks: one id per person and shot, cut at scene changes, and how well each face could be seen."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from avdetect.faces import (
    SAME_FACE,
    Box,
    FaceFinder,
    around,
    box_of,
    crop_face,
    head_pose,
    mouth_opening,
    overlap,
    region_of,
    sparse,
    views,
)
from avdetect.landmarkers import Region, load
from avdetect.types import FRAME_RATE, Bytes, Face, Floats, Frame, TrackSummary

cv2: Any = load("cv2")

LOOK_EVERY = 10
"""Frames between two looks of the detector while every known face is in sight."""
SEARCH_EVERY = 2
"""The same while a face is lost, or none is known."""
REACH = 4.0
"""A lost face is looked for in a square of so many times its side."""
PATIENCE = 0.5
"""Seconds that a lost face keeps its track."""
MIN_FRAMES = 5
"""A face found in fewer frames of a longer clip is taken for a texture that looked like one."""

MIN_SIZE = 40.0
"""Narrowest face that is assessed, pixels from cheek to cheek."""
MIN_BLUR = 15.0
"""Least `sharpness`. Faces of 50 real clips have 23 and more; blurred by 2 % of their width half of them have
less than 14, by 3 % nearly all."""
CONTRAST, LEAST_CONTRAST = 48.0, 6.0
"""Standard deviation of grey, of 255, that a face is brought to before its sharpness is measured, and the
least that it is taken to have: a uniform patch is not stretched into noise."""
MAX_FLAT = 0.6
"""Largest `flatness`. Faces of 250 clips, real and fake, have at most .41; one drawn in plain colours has .83."""
MAX_YAW = 50.0
"""Degrees, as the mesh measures them: it reads low near the profile, a head turned by 80 shows some 54."""
FRONTAL_SHARE = 0.25
"""Least share of a track's frames in which the face must be turned by less than that."""
MIN_SECONDS = 0.5
MIN_FOUND = 0.5
MIN_MOUTH = 0.005
"""Least `TrackSummary.mouth` of lips that are compared with speech. 193 clips of people who talk have .019 and more,
photographs and closed mouths at most .001."""
MEASURE_EVERY = 5
"""Sharpness is measured on every so many found frames."""
THUMBNAIL_SIDE = 96
MAX_THUMBNAILS = 64
"""Pictures kept of ended tracks, those of the longest: a film has thousands of shots."""


class SceneCuts:
    """Tells the first frame of each new shot, from thumbnails of neighbouring frames."""

    JUMP = 12.0
    """Mean change of a thumbnail, of 255, that a cut has at least (shots stay below 8) ..."""
    RATIO = 4.0
    """... and how many times the usual change of the shot it is: a moving camera is no cut."""

    def __init__(self) -> None:
        self._last: Floats | None = None
        self._usual = 2.0

    def update(self, image: Bytes) -> bool:
        """Whether a shot begins with `image` [H, W, 3]; the first image begins none."""
        step = max(1, min(image.shape[:2]) // 96)
        small = cv2.resize(sparse(image, step), (32, 24), interpolation=cv2.INTER_AREA)
        now: Floats = cv2.GaussianBlur(small, (3, 3), 0).astype(np.float32)
        now -= now.mean((0, 1))  # a flash or a fade changes the light, not the picture
        change = 0.0 if self._last is None else float(np.abs(now - self._last).mean())
        self._last = now
        cut = change > self.JUMP and change > self.RATIO * self._usual
        self._usual = 2.0 if cut else max(0.9 * self._usual + 0.1 * change, 1.0)
        return cut


def shots(frames: Generator[Frame, None, None]) -> Generator[tuple[Frame, bool], None, None]:
    """Each of the frames of a clip, and whether a shot begins with it."""
    cuts = SceneCuts()
    with closing(frames):
        for frame in frames:
            yield frame, cuts.update(frame.image)


@dataclass
class Samples:
    """Evenly spread values of a stream of any length: at most `room`, every `step`-th one."""

    room: int = 256
    step: int = 1
    seen: int = 0
    values: list[float] = field(default_factory=list)

    def add(self, value: float) -> None:
        """Take in the next value."""
        if self.seen % self.step == 0:
            self.values.append(value)
        self.seen += 1
        if len(self.values) >= self.room:
            self.values, self.step = self.values[::2], self.step * 2

    def quantile(self, share: float) -> float:
        """The value below which `share` of the stream lies; 0 for an empty one."""
        return float(np.quantile(self.values, share)) if self.values else 0.0


def grey_face(image: Bytes, landmarks: Floats) -> Bytes:
    """The face alone, [128, 128] and grey, on which it is measured how well it can be seen."""
    crop, _ = crop_face(image, landmarks, size=128, margin=1.0)
    grey: Bytes = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    return grey


def sharpness(grey: Bytes) -> float:
    """Variance of the Laplacian of a `grey_face` at one contrast: a dark face is not a blurred one."""
    face = grey.astype(np.float32)
    stretch = CONTRAST / max(float(face.std()), LEAST_CONTRAST)
    return float(cv2.Laplacian(face, cv2.CV_32F).var()) * stretch**2


def flatness(grey: Bytes) -> float:
    """Share of a `grey_face`, 0..1, that has exactly the grey of its neighbours below and to the right.

    Skin before a camera has grain and shading; a cartoon is filled with plain colours.
    """
    inner = grey[:-1, :-1]
    return float(((inner == grey[1:, :-1]) & (inner == grey[:-1, 1:])).mean())


@dataclass
class _Track:
    """A face being followed: where it was last, and running measures of how well it could be seen."""

    id: int
    start: float
    landmarks: Floats
    box: Floats
    last: float
    frames: int = 0
    found: int = 0
    lost: int = 0
    sizes: Samples = field(default_factory=Samples)
    blurs: Samples = field(default_factory=Samples)
    flats: Samples = field(default_factory=Samples)
    yaws: Samples = field(default_factory=Samples)
    mouths: Samples = field(default_factory=Samples)
    best: float = -1.0
    thumbnail: Bytes | None = None

    @property
    def width(self) -> float:
        """From cheek to cheek where it was last, pixels."""
        return float(self.box[2] - self.box[0])

    def see(self, frame: Frame, landmarks: Floats, box: Floats) -> Face:
        """Take in where the face is in `frame`, and the box around its landmarks."""
        self.landmarks, self.box, self.last = landmarks, box, frame.time
        self.frames += 1 + self.lost
        self.lost = 0
        yaw = abs(head_pose(landmarks)[0])
        self.sizes.add(self.width)
        self.yaws.add(yaw)
        self.mouths.add(mouth_opening(landmarks))
        if self.found % MEASURE_EVERY == 0:
            grey = grey_face(frame.image, landmarks)
            blur = sharpness(grey)
            self.blurs.add(blur)
            self.flats.add(flatness(grey))
            self._picture(frame.image, landmarks, self.width * min(blur, 100.0) * max(0.0, 1 - yaw / 90))
        self.found += 1
        return Face(self.id, landmarks)

    def _picture(self, image: Bytes, landmarks: Floats, worth: float) -> None:
        if worth > 1.2 * self.best:
            self.best = worth
            self.thumbnail = crop_face(image, landmarks, size=THUMBNAIL_SIDE)[0]

    def summary(self) -> TrackSummary:
        """What there is to say of the track, with the reason where no claim can be made."""
        end = self.last + 1 / FRAME_RATE
        summary = TrackSummary(
            id=self.id,
            start=self.start,
            end=end,
            size=self.sizes.quantile(0.5),
            blur=self.blurs.quantile(0.5),
            yaw=self.yaws.quantile(0.5),
            found=self.found / self.frames,
            mouth=float(np.std(self.mouths.values)),
            thumbnail=self.thumbnail,
        )
        frontal, flat = self.yaws.quantile(FRONTAL_SHARE), self.flats.quantile(0.5)
        return replace(summary, reason=_reason(summary, self.found, frontal, flat))


def _reason(track: TrackSummary, frames: int, frontal_yaw: float, flat: float) -> str | None:
    """Why a track cannot be assessed, in words with values; None where it can."""
    seconds = track.end - track.start
    if frames == 1:
        return "face is seen in 1 frame only"
    if seconds < MIN_SECONDS - 0.5 / FRAME_RATE:
        return f"face is seen for {seconds:.2f} s only; at least {MIN_SECONDS:g} s are needed"
    if track.size < MIN_SIZE:
        return f"face is {track.size:.0f} px wide; at least {MIN_SIZE:.0f} px are needed"
    if track.found < MIN_FOUND:
        return f"face is found in {track.found:.0%} of its frames; at least {MIN_FOUND:.0%} are needed"
    if frontal_yaw > MAX_YAW:
        limit = f"turned by {track.yaw:.0f} degrees; at most {MAX_YAW:.0f} can be assessed"
        return f"face is in profile nearly all the time ({limit})"
    if track.blur < MIN_BLUR:
        return f"face is too blurred (sharpness {track.blur:.0f}; at least {MIN_BLUR:.0f} is needed)"
    if flat > MAX_FLAT:
        return f"face is drawn, or has no texture (plain over {flat:.0%} of it; at most {MAX_FLAT:.0%} can be assessed)"
    return None


def is_still(track: TrackSummary) -> bool:
    """Whether the mouth hardly moves: of a photograph, or of somebody who listens."""
    return track.mouth is not None and track.mouth < MIN_MOUTH


def _near(a: Floats, b: Floats, reach: float) -> bool:
    """Whether two boxes [4] may hold one face: centres at most `reach` widths apart, of like size."""
    (left, top, right, bottom), (left_b, top_b, right_b, bottom_b) = a.tolist(), b.tolist()
    width, width_b = max(right - left, bottom - top), max(right_b - left_b, bottom_b - top_b)
    apart = math.hypot(left + right - left_b - right_b, top + bottom - top_b - bottom_b) / 2
    return apart < reach * max(width, width_b) and 0.6 < width / max(width_b, 1e-6) < 1.7


def _covers(boxes: Iterable[Floats], box: Floats) -> bool:
    """Whether one of the boxes holds the same face."""
    return any(overlap(box, other) >= SAME_FACE for other in boxes)


class FaceTracker:
    """Follows every face of a clip through frames given one by one, in memory that does not grow with it.

    Between looks of the detector the mesh of the last frame says where the next one is. `warnings` are
    sentences for the user.
    """

    def __init__(self, finder: FaceFinder) -> None:
        self.warnings: tuple[str, ...] = ()
        self._finder = finder
        self._live: list[_Track] = []
        self._ended: list[tuple[int, TrackSummary]] = []
        self._ids = 0
        self._frames = 0
        self._since_look = 0
        self._turn = 0

    def update(self, frame: Frame, cut: bool) -> list[Face]:
        """The faces in the next frame of the clip, at most the finder's `max_faces`; `cut`: a shot begins with it.

        A track that turns out to be too short to be a face has its id in no summary of `finish`.
        """
        if cut:
            self._end(self._live)
        faces = self._follow(frame)
        self._since_look += 1
        first = cut or self._frames == 0
        wait = LOOK_EVERY if faces and len(faces) == len(self._live) else SEARCH_EVERY
        if first or self._since_look >= wait:
            faces += self._search(frame, None if first else self._parts(frame.image))
            self._since_look = 0
        if over := [track for track in self._live if frame.time - track.last > PATIENCE]:
            self._end(over)
        self._frames += 1
        live = {track.id for track in self._live}
        return [face for face in faces if face.track in live]

    def _follow(self, frame: Frame) -> list[Face]:
        """Where the known faces went."""
        faces: list[Face] = []
        taken: list[Floats] = []
        for track in self._live:
            mesh = None if track.lost else self._finder.follow(frame.image, track.landmarks)
            box = None if mesh is None else box_of(mesh)
            if mesh is None or box is None or _covers(taken, box) or not _near(box, track.box, reach=0.5):
                track.lost += 1
            else:
                faces.append(track.see(frame, mesh, box))
                taken.append(box)
        return faces

    def _parts(self, image: Bytes) -> list[Box]:
        """What the detector looks at: the whole and one of its parts by turns, and where faces got lost."""
        height, width = image.shape[:2]
        whole, wide, *tiles = views(width, height)
        rest = tiles if self._live else [wide, *tiles]
        self._turn += 1
        now = rest[self._turn // 2 % len(rest)] if rest and self._turn % 2 else whole
        lost = [
            around(region_of(track.landmarks), REACH, width, height) for track in self._live if track.lost
        ]
        return [now, *lost]

    def _search(self, frame: Frame, parts: Sequence[Box] | None) -> list[Face]:
        """Faces that are not followed at present: lost ones found again, and new ones."""
        seen = [track.box for track in self._live if not track.lost]
        found = self._finder.detect(frame.image, parts)
        regions = [region for region in found if not _covers(seen, region.box)]
        room = self._make_room(regions)
        faces: list[Face] = []
        for mesh in self._finder.find(frame.image, regions[:room]):
            box = box_of(mesh)
            if not _covers(seen, box):
                faces.append(self._track_of(mesh, box, frame).see(frame, mesh, box))
        return faces

    def _make_room(self, regions: Sequence[Region]) -> int:
        """How many of the new regions, largest first, are to be meshed; much smaller known faces give way."""
        seen = sorted((track for track in self._live if not track.lost), key=lambda track: -track.width)
        room = max(self._finder.max_faces - len(seen), 0)
        if len(regions) > room:
            limit = self._finder.max_faces
            self._warn(f"more than {limit} faces are seen at once: only the {limit} largest are looked at")
        while room < len(regions) and seen and seen[-1].width < 0.7 * regions[room].size:
            self._end([seen.pop()])
            room += 1
        return room

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings += (sentence,)

    def _track_of(self, mesh: Floats, box: Floats, frame: Frame) -> _Track:
        """The lost track that `mesh` continues, or a new one."""
        lost = [track for track in self._live if track.lost and _near(box, track.box, reach=1.0)]
        if lost:
            return max(lost, key=lambda track: overlap(box, track.box))
        track = _Track(id=self._ids, start=frame.time, landmarks=mesh, box=box, last=frame.time)
        self._ids += 1
        self._live.append(track)
        return track

    def _end(self, over: Sequence[_Track]) -> None:
        """Close the tracks that are over; what is left of each is its summary."""
        self._ended += [(track.found, track.summary()) for track in over]
        self._live = [track for track in self._live if all(track is not other for other in over)]
        if self._frames >= MIN_FRAMES:
            self._ended = [(found, summary) for found, summary in self._ended if found >= MIN_FRAMES]
        pictured = [index for index, (_, summary) in enumerate(self._ended) if summary.thumbnail is not None]
        for index in sorted(pictured, key=lambda index: -self._ended[index][0])[MAX_THUMBNAILS:]:
            found, summary = self._ended[index]
            self._ended[index] = (found, replace(summary, thumbnail=None))

    def finish(self) -> list[TrackSummary]:
        """The tracks of the clip in order of their ids; call once, after the last frame."""
        self._end(self._live)
        return sorted((summary for _, summary in self._ended), key=lambda summary: summary.id)
