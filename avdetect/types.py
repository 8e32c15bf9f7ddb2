"""The data that flows through avdetect: frozen, checked where it is made, imported by everything else.

Times are seconds from the clip's start; the video grid is 25 fps, the audio grid 16 kHz mono.
Scores are higher = more fake. `None` in a label is unknown or not applicable, and is masked everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

SAMPLE_RATE = 16_000
"""Audio grid, Hz."""
FRAME_RATE = 25
"""Video grid, frames per second: every clip is brought to it."""

CROP_EVERY = 5
"""A face crop every so many frames of the 25 fps grid: five a second."""

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]


class Claim(StrEnum):
    """The three questions, each answered on its own evidence."""

    FACE_MANIPULATION = "face_manipulation"
    VOICE_CLONING = "voice_cloning"
    LIP_SYNC_MISMATCH = "lip_sync_mismatch"


CLAIMS: tuple[Claim, ...] = tuple(Claim)
"""In the order of every claim axis in the project."""


class Status(StrEnum):
    """Whether a claim could be looked at in a clip."""

    ASSESSED = "assessed"
    NOT_ASSESSABLE = "not assessable"


class Outcome(StrEnum):
    """What is said of a claim or of a clip."""

    MANIPULATED = "manipulated"
    NO_MANIPULATION_FOUND = "no manipulation found"
    INCONCLUSIVE = "inconclusive"
    NOT_ASSESSABLE = "not assessable"
    ERROR = "error"


class Split(StrEnum):
    """The part of a data set that an item belongs to."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class Segment:
    """A stretch `[start, end]` of a clip, seconds; `score` in 0..1 where a model gave one."""

    start: float
    end: float
    claim: Claim | None = None
    score: float | None = None
    track: int | None = None

    def __post_init__(self) -> None:
        _require(0 <= self.start <= self.end, f"segment [{self.start}, {self.end}] is not in order")
        _require(self.score is None or 0 <= self.score <= 1, f"segment score {self.score} is not in 0..1")

    @property
    def length(self) -> float:
        """Seconds."""
        return self.end - self.start


@dataclass(frozen=True)
class Label:
    """What is known of a clip; `None` is unknown or not applicable and is masked in losses and metrics.

    `segments` hold the manipulated stretches where the source states them (each with its claim).
    """

    face_manipulation: bool | None = None
    voice_cloning: bool | None = None
    lip_sync_mismatch: bool | None = None
    segments: tuple[Segment, ...] = ()

    def __getitem__(self, claim: Claim) -> bool | None:
        value: bool | None = getattr(self, claim.value)
        return value

    @property
    def is_fake(self) -> bool | None:
        """True if any claim holds, False if at least one is known and none holds, None if nothing is known."""
        known = [self[claim] for claim in CLAIMS if self[claim] is not None]
        return any(known) if known else None


@dataclass(frozen=True)
class Item:
    """One row of a data set or manifest: where the clip lies, and what its source says of it.

    `audio_path` is set where the voice lies in another file than the picture. `source` is whatever must not
    be on both sides of a split (a repository, a data set, a channel). `extra` keeps what else the source says.
    """

    path: Path
    label: Label
    split: Split | None = None
    method: str | None = None
    identities: tuple[str, ...] = ()
    source: str | None = None
    pair_id: str | None = None
    language: str | None = None
    audio_path: Path | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Clip:
    """One media file, opened: its sound in memory, its frames to be streamed with `media.frames`.

    `waveform` [S] is float32 mono at 16 kHz in -1..1, sample 0 at the clip's start (zeros before a late audio
    track, so that sound and picture stand at their true offset); None without a readable audio stream.
    `fps` is the stated average rate of the video, None without one. `video_start` and `audio_start` are the
    streams' own starts on the clip's clock. `audio_bit_rate` is that of the coded sound, bits per second.
    `warnings` are sentences for the user.
    """

    path: Path
    duration: float
    sha256: str
    waveform: Floats | None = None
    sample_rate: int = SAMPLE_RATE
    fps: float | None = None
    width: int | None = None
    height: int | None = None
    video_start: float = 0.0
    audio_start: float = 0.0
    container: str = ""
    video_codec: str | None = None
    audio_codec: str | None = None
    source_sample_rate: int | None = None
    source_channels: int | None = None
    audio_bit_rate: float | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(self.duration >= 0, f"duration {self.duration} is negative")
        _require(self.waveform is not None or self.fps is not None, "a clip needs sound or picture")
        if self.waveform is not None:
            _require(self.waveform.ndim == 1, f"waveform must be [S], not {self.waveform.shape}")
            _require(self.sample_rate == SAMPLE_RATE, f"waveform must be at {SAMPLE_RATE} Hz")

    @property
    def has_video(self) -> bool:
        """Whether there is a picture to look at."""
        return self.fps is not None


@dataclass(frozen=True)
class Frame:
    """Frame `index` of the 25 fps grid at `time` seconds: `image` [H, W, 3] RGB, upright."""

    index: int
    time: float
    image: Bytes

    def __post_init__(self) -> None:
        _require(
            self.image.ndim == 3 and self.image.shape[2] == 3,
            f"image must be [H, W, 3], not {self.image.shape}",
        )


@dataclass(frozen=True)
class Face:
    """One face in one frame: `landmarks` [478, 3] in pixels of the frame (z on the same scale)."""

    track: int
    landmarks: Floats

    def __post_init__(self) -> None:
        _require(self.landmarks.shape == (478, 3), f"landmarks must be [478, 3], not {self.landmarks.shape}")

    @property
    def box(self) -> Floats:
        """[4] left, top, right, bottom of the landmarks, pixels."""
        low, high = self.landmarks[:, :2].min(0), self.landmarks[:, :2].max(0)
        box: Floats = np.concatenate([low, high]).astype(np.float32)
        return box


@dataclass(frozen=True)
class TrackSummary:
    """One person's face through a clip: from when to when, how well it could be seen, and a thumbnail.

    `size` is the median face width in pixels, `blur` the median sharpness (variance of the Laplacian on the
    face at 128 px), `yaw` the median absolute yaw in degrees, `found` the share of its frames with a face, `mouth`
    how much the mouth opens and closes: the standard deviation of `faces.mouth_opening`, None where not measured.
    `reason` is None where the face can be assessed, else says in words why not.
    """

    id: int
    start: float
    end: float
    size: float
    blur: float
    yaw: float
    found: float
    mouth: float | None = None
    reason: str | None = None
    thumbnail: Bytes | None = None

    @property
    def assessable(self) -> bool:
        """Whether claims about this face may be made."""
        return self.reason is None


@dataclass(frozen=True)
class Window:
    """A stretch of a clip as models see it: T frames of the 25 fps grid, S samples of sound, one face or none.

    Sound: `waveform` [S] at 16 kHz, `speech` [T] where someone speaks. Face `track`: `found` [T] where it was
    found, `landmarks` [T, 478, 3] (frame pixels; last known value where not found), `mouth_crops` [T, M, M] grey
    and aligned, `face_crops` [N, 224, 224, 3] RGB with `crop_frames` [N] (index into T) and `crop_landmarks`
    [N, 478, 2] in crop pixels. What is absent is None.
    """

    start: float
    end: float
    waveform: Floats | None = None
    speech: Bools | None = None
    track: int | None = None
    found: Bools | None = None
    landmarks: Floats | None = None
    mouth_crops: Bytes | None = None
    face_crops: Bytes | None = None
    crop_frames: NDArray[np.int64] | None = None
    crop_landmarks: Floats | None = None

    def __post_init__(self) -> None:
        _require(self.end > self.start >= 0, f"window [{self.start}, {self.end}] is empty")
        steps = self.steps
        for name in ("speech", "found", "landmarks", "mouth_crops"):
            value = getattr(self, name)
            _require(value is None or len(value) == steps, f"{name} must have {steps} frames")
        crops = None if self.face_crops is None else len(self.face_crops)
        for name in ("crop_frames", "crop_landmarks"):
            value = getattr(self, name)
            _require((value is None) == (crops is None), f"{name} must come with face_crops")
            _require(value is None or len(value) == crops, f"{name} must have {crops} rows")

    @property
    def steps(self) -> int:
        """T, the number of frames of the 25 fps grid."""
        return max(1, round((self.end - self.start) * FRAME_RATE))


@dataclass(frozen=True)
class Evidence:
    """What one window says of one claim: `score` in 0..1 for `[start, end]`, about `track` or the voice."""

    claim: Claim
    start: float
    end: float
    score: float
    track: int | None = None
    source: str = ""


@dataclass(frozen=True)
class Timeline:
    """A curve over the clip: `scores` (0..1, None where nothing can be said) at `times`, seconds."""

    times: tuple[float, ...] = ()
    scores: tuple[float | None, ...] = ()

    def __post_init__(self) -> None:
        _require(len(self.times) == len(self.scores), "times and scores differ in length")


@dataclass(frozen=True)
class ClaimResult:
    """The answer to one question: a calibrated probability `score` in 0..1, or the `reason` there is none.

    `low` and `high` are the thresholds that `verdict` was read with: at or above `high` manipulated, below
    `low` no manipulation found, between them inconclusive. `offset_ms` (lip-sync only) is how far the sound lags
    behind the picture: positive, the sound is late. `sync_confidence` (lip-sync only) is how far the similarity of lips
    and speech in step stands above that of the same clip's own sound moved far away, in standard deviations of these.
    """

    claim: Claim
    status: Status
    verdict: Outcome
    score: float | None = None
    reason: str | None = None
    segments: tuple[Segment, ...] = ()
    timeline: Timeline = Timeline()
    track: int | None = None
    offset_ms: float | None = None
    sync_confidence: float | None = None
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        assessed = self.status is Status.ASSESSED
        _require(
            assessed == (self.score is not None), f"{self.claim}: a score goes with an assessed claim only"
        )
        _require(assessed or self.reason is not None, f"{self.claim}: not assessable without a reason")
        _require(
            self.score is None or 0 <= self.score <= 1, f"{self.claim}: score {self.score} is not in 0..1"
        )
        expected = Outcome.NOT_ASSESSABLE
        _require(
            (self.verdict is expected) != assessed,
            f"{self.claim}: verdict {self.verdict} with status {self.status}",
        )


@dataclass(frozen=True)
class Timing:
    """Seconds spent on one clip, by stage; `realtime_factor` is total over duration (below 1: faster)."""

    decode_s: float = 0.0
    faces_s: float = 0.0
    model_s: float = 0.0
    total_s: float = 0.0
    realtime_factor: float | None = None


@dataclass(frozen=True)
class ModelInfo:
    """Which model spoke."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Verdict:
    """Everything said of one clip. `error` is set, and `claims` is empty, where it could not be read at all.

    `waveform_peaks` [P] are sound levels in 0..1, evenly spaced over the clip, for drawing.
    """

    path: Path
    outcome: Outcome
    model: ModelInfo
    sha256: str | None = None
    duration: float | None = None
    score: float | None = None
    error: str | None = None
    claims: Mapping[Claim, ClaimResult] = field(default_factory=dict)
    tracks: tuple[TrackSummary, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    warnings: tuple[str, ...] = ()
    timing: Timing = Timing()
    media: Mapping[str, Any] = field(default_factory=dict)
    waveform_peaks: tuple[float, ...] = ()
    thumbnails: Mapping[int, tuple[tuple[float, Bytes], ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        failed = self.outcome is Outcome.ERROR
        _require(failed == (self.error is not None), "an error verdict, and only that, has an error text")
        _require(failed or set(self.claims) == set(CLAIMS), "a verdict answers all three claims")
        _require(self.score is None or 0 <= self.score <= 1, f"score {self.score} is not in 0..1")


@dataclass(frozen=True)
class EncoderOutput:
    """What every encoder gives: `features` [B, T, D], `lengths` [B] in steps, `frame_rate` in steps per second.

    Steps at or beyond a row's length are zero.
    """

    features: torch.Tensor
    lengths: torch.Tensor
    frame_rate: float

    def __post_init__(self) -> None:
        _require(self.features.ndim == 3, f"features must be [B, T, D], not {tuple(self.features.shape)}")
        _require(len(self.lengths) == len(self.features), "lengths and features differ in batch size")


class Encoder(Protocol):
    """An audio or visual encoder: one stream of a batch in, `EncoderOutput` out.

    `modality` says which input it takes (see `fusion.Modality`); `dim` is D. A row's result must not depend on its
    padding or on the other rows.
    """

    modality: str
    dim: int

    def __call__(self, inputs: torch.Tensor, lengths: torch.Tensor) -> EncoderOutput:
        """Features of `inputs`; `lengths` [B] in the inputs' own steps."""
        ...


@runtime_checkable
class EncoderByCrop(Encoder, Protocol):
    """An encoder of faces that sees each crop by itself: its step i is `see` of crop i * `every` of a window."""

    every: int

    def see(self, crops: torch.Tensor) -> torch.Tensor:
        """Face crops [M, 3, H, W] in 0..1 -> [M, dim]; a crop's result must not depend on the others."""
        ...
