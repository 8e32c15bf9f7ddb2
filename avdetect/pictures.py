"""A clip's picture: what it is, and its frames, streamed on a constant grid."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from av.buffer import Buffer
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from avdetect.container import (
    MAX_GAP_SECONDS,
    Clock,
    Damage,
    clock_zero,
    decoded,
    open_container,
    packets_of,
    pick_video,
)
from avdetect.errors import MediaError
from avdetect.types import FRAME_RATE, Bytes, Clip, Frame

MAX_SIDE = 1920
"""Larger pictures are scaled down to this long side, pixels."""
LARGEST_SIDE = 16_384
LARGEST_AREA = 2**27
"""Pictures beyond these, pixels, are refused."""
FEW_PIXELS, MANY_PIXELS = 1920 * 1088, 4096 * 2304
"""Between these, several frames are decoded at once. Below, one is soon enough for whoever looks for faces in it, and
takes a third less of the cores; above, each thread would hold some hundred MB."""


@dataclass(frozen=True)
class Picture:
    """What a clip's picture is: size as displayed, pixels; average rate; where it starts and ends."""

    codec: str
    fps: float
    width: int
    height: int
    start: float
    end: float
    packets: int


def read_picture(path: Path) -> tuple[Picture | None, list[str]]:
    """What the picture of a file is, or None without a usable one, and sentences on what could not be used.

    Reads the timestamps of all packets, decodes one frame. Raises MediaError for a picture of absurd size.
    """
    warnings: list[str] = []
    with open_container(path) as container:
        stream = pick_video(container)
        if stream is None:
            return None, warnings
        codec = stream.codec_context.name
        _refuse_absurd_size(path, stream.width, stream.height)
        span = _span(container, stream)
        streams = len(container.streams.video)
    with open_container(path) as container:
        stream = pick_video(container)
        if stream is not None:
            _use_threads(stream)
        frame = None if stream is None else next(decoded(container, stream, Damage()), None)
        if stream is None or not isinstance(frame, VideoFrame):
            what = "has no frames" if span.packets == 0 else "cannot be decoded"
            return None, [f"the picture (codec {codec}) {what}"]
        _refuse_absurd_size(path, frame.width, frame.height)
        width, height = _stored_size(frame, stream)
        turned = _orientation(frame)[0]
    if streams > 1:
        warnings.append(f"{streams} picture streams; the main one is used")
    size = (height, width) if turned else (width, height)
    return Picture(codec, span.fps, *size, span.start, span.end, span.packets), warnings


def frames(
    clip: Clip, fps: float = FRAME_RATE, *, warnings: list[str] | None = None
) -> Generator[Frame, None, None]:
    """The clip's frames on a constant grid, streamed: frame `index` stands at `index / fps` seconds.

    Each grid time gets the last frame that had begun by then, give or take half a frame, so that jitter in
    the timestamps neither doubles nor drops one; slower pictures are held, faster ones thinned. Images
    [H, W, 3] are upright RGB with square pixels, all of one size, the long side at most `MAX_SIDE`. The first
    index is above 0 where the picture starts late, and indexes are missing where frames are lost to damage,
    which is told of in `warnings` once all is read. Raises MediaError where the file has gone.
    """
    damage = Damage()
    with open_container(clip.path) as container:
        stream = pick_video(container)
        if stream is None or clip.fps is None:
            return
        zero = clock_zero(container)
        clock = Clock(zero)
        converter, shown = None, None
        for index, frame in _on_grid(_shots(container, stream, clock, damage, clip.fps), fps, clip.fps):
            converter = converter or _Converter(frame, stream)
            if shown is None or shown[0] is not frame:
                shown = frame, converter.image(frame)
            yield Frame(index, index / fps, shown[1])
    if warnings is not None:
        note = damage.sentence("picture", zero)
        warnings.extend([note] if note else [])
        if clock.jumps:
            warnings.append(f"the picture's clock jumps {clock.jumps} times; the pieces were joined")


def steady(clip: Clip, fps: float = FRAME_RATE) -> Iterator[Bytes]:
    """One image [H, W, 3] for every step of a grid of `fps` over the clip; where one is missing, the one before it."""
    shown: Bytes | None = None
    index = 0
    for frame in frames(clip, fps):
        for _ in range(index, frame.index):
            yield frame.image if shown is None else shown
        yield frame.image
        shown, index = frame.image, frame.index + 1
    for _ in range(index, round(clip.duration * fps)):
        if shown is not None:
            yield shown


@dataclass(frozen=True)
class _Span:
    fps: float
    start: float
    end: float
    packets: int


def _span(container: InputContainer, stream: VideoStream) -> _Span:
    """From when to when the stream's packets last, and their average rate."""
    clock, stated = Clock(clock_zero(container)), float(stream.average_rate or 0)
    step = 1 / stated if stated > 0 else 1 / FRAME_RATE
    start, last, end, count, expected = math.inf, 0.0, 0.0, 0, 0.0
    for packet in packets_of(container, stream, Damage()):
        if packet.size == 0:
            continue
        time = clock.seconds(packet, expected)
        length = float((packet.duration or 0) * packet.time_base)
        length = length if 0 < length <= MAX_GAP_SECONDS else step
        start, last, end = min(start, time), max(last, time), max(end, time + length)
        count, expected = count + 1, time + length
    if count == 0:
        return _Span(stated or FRAME_RATE, 0.0, 0.0, 0)
    measured = (count - 1) / (last - start) if last > start else stated
    # Fields stored apart count twice, so a stated rate is only set aside where it is far off.
    fps = stated if stated > 0 and 0.45 < stated / max(measured, 1e-6) < 2.2 else measured
    return _Span(fps or FRAME_RATE, max(0.0, start), end, count)


@dataclass(frozen=True)
class _Shot:
    """A whole frame, when it begins and ends, and whether frames before it were lost to damage."""

    time: float
    end: float
    frame: VideoFrame
    after_loss: bool


def _shots(
    container: InputContainer, stream: VideoStream, clock: Clock, damage: Damage, fps: float
) -> Iterator[_Shot]:
    expected, lost = 0.0, 0
    for frame in decoded(container, stream, damage):
        assert isinstance(frame, VideoFrame)
        time = clock.seconds(frame, expected)
        length = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
        expected = time + (length if 0 < length <= MAX_GAP_SECONDS else 1 / fps)
        yield _Shot(time, expected, frame, damage.packets > lost)
        lost = damage.packets


def _on_grid(shots: Iterable[_Shot], fps: float, source_fps: float) -> Iterator[tuple[int, VideoFrame]]:
    """Grid indexes with the frame to show at each."""
    early = 0.5 / max(fps, source_fps)  # a frame may begin this much after its grid time
    index, last = 0, None
    for shot in shots:
        if last is not None:
            # A held frame would be a frozen face where frames were lost; so nothing is shown there.
            until = min(shot.time, last.end) if shot.after_loss else shot.time
            while index / fps + early < until - 1e-9:
                yield index, last.frame
                index += 1
        if last is None or shot.after_loss:
            index = max(index, math.ceil((shot.time - early) * fps - 1e-6))
        last = shot
    while last is not None and index / fps + early < last.end - 1e-9:
        yield index, last.frame
        index += 1


def _use_threads(stream: VideoStream) -> None:
    pixels = stream.width * stream.height
    stream.thread_type = "AUTO" if FEW_PIXELS < pixels <= MANY_PIXELS else "SLICE"


def _refuse_absurd_size(path: Path, width: int, height: int) -> None:
    if max(width, height) > LARGEST_SIDE or width * height > LARGEST_AREA:
        raise MediaError(path, f"its picture of {width}x{height} pixels is too large", "scale it down first")


def _stored_size(frame: VideoFrame, stream: VideoStream) -> tuple[int, int]:
    """Width and height, pixels, before it is turned upright, with square pixels."""
    aspect = float(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1)
    return round(frame.width * (aspect if 0.25 <= aspect <= 4 else 1.0)), frame.height


def _orientation(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """How to turn a stored frame upright, by its display matrix: transpose it, flip its rows, its columns."""
    side_data: Mapping[str, object] = frame.side_data
    matrix = side_data.get("DISPLAYMATRIX")
    if not isinstance(matrix, Buffer):
        return False, False, False
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(a) >= abs(b):
        return False, d < 0, a < 0
    return True, b < 0, c < 0


class _Converter:
    """Makes upright RGB images of frames, all of the first one's size and orientation."""

    def __init__(self, first: VideoFrame, stream: VideoStream) -> None:
        width, height = _stored_size(first, stream)
        scale = min(1.0, MAX_SIDE / max(width, height))
        self.size = max(1, round(width * scale)), max(1, round(height * scale))
        # Asked once: a look at its side data ties a frame into a cycle that only garbage collection frees.
        self.orientation = _orientation(first)
        self.reformatter = VideoReformatter()

    def image(self, frame: VideoFrame) -> Bytes:
        """The frame as an image [H, W, 3]."""
        transpose, flip_rows, flip_columns = self.orientation
        image = self.reformatter.reformat(frame, *self.size, format="rgb24", threads=1).to_ndarray()
        image = image.swapaxes(0, 1) if transpose else image
        image = image[::-1] if flip_rows else image
        image = image[:, ::-1] if flip_columns else image
        return np.ascontiguousarray(image, np.uint8)
