"""A media file's container: opening it safely, choosing its streams, decoding them past damage.

What `media`, `sound` and `pictures` share. Raw errors of FFmpeg end here and become MediaError.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import av
import av.error
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from avdetect.errors import MediaError

if TYPE_CHECKING:  # subscriptable in PyAV's stubs only
    AnyPacket: TypeAlias = Packet[VideoStream] | Packet[AudioStream]
    Timed: TypeAlias = VideoFrame | AudioFrame | AnyPacket

MAX_GAP_SECONDS = 600.0
"""A longer jump ahead in a stream's timestamps is taken for a broken clock, not for a pause."""
MAX_STEP_BACK_SECONDS = 1.0
"""A longer jump back is taken for the next piece of a spliced recording."""
LEAST_BYTES_PER_SECOND = 100
"""A file with fewer bytes for each second that it states is not believed."""
MAX_READ_FAILURES = 64
"""Failed reads of the container in a row after which the rest of the file is given up."""

# Formats that name other files or addresses: a clip must not make avdetect read or fetch anything but itself.
_REFERRING_FORMATS = {
    "concat",
    "dash",
    "hls",
    "image2",
    "image2pipe",
    "imf",
    "rtp",
    "rtsp",
    "sap",
    "sdp",
    "tty",
}
_REFERRING_FORMATS |= {"lavfi", "v4l2", "video4linux2", "x11grab", "alsa", "fbdev", "kmsgrab"}
_NO_PICTURE = Disposition.attached_pic | Disposition.timed_thumbnails


def check_file(path: Path) -> None:
    """Raise MediaError unless `path` is a readable regular file with something in it."""
    try:
        if not path.exists():
            raise MediaError(path, "no such file", "check the path")
        if path.is_dir():
            raise MediaError(path, "is a directory, not a clip", "name the files in it")
        if not path.is_file():
            raise MediaError(path, "is not a regular file", "save the clip to disk first")
        if path.stat().st_size == 0:
            raise MediaError(path, "the file is empty", "copy or download it again")
    except OSError as error:
        raise MediaError(path, f"cannot be looked up ({error.strerror})", "check the path") from error
    if not os.access(path, os.R_OK):
        raise MediaError(path, "may not be read", "check its permissions")


@functools.cache
def _allowed_formats() -> str:
    return ",".join(sorted(av.formats_available - _REFERRING_FORMATS))


def open_container(path: Path) -> InputContainer:
    """The opened container of a local media file; only that file is ever read.

    Raises MediaError for what is missing, empty, not media or has lost its index.
    """
    check_file(path)
    options = {"format_whitelist": _allowed_formats(), "protocol_whitelist": "file"}
    try:
        return av.open(str(path.absolute()), options=options, metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise _not_media(path) from error


def _not_media(path: Path) -> MediaError:
    with path.open("rb") as file:
        head = file.read(4096)
    if head[4:8] in {b"ftyp", b"moov", b"mdat", b"wide", b"free"}:
        return MediaError(
            path, "its index (moov) is missing or damaged", "the file is cut short: copy it again"
        )
    if head.startswith((b"#EXTM3U", b"ffconcat", b"<?xml", b"v=0")):
        return MediaError(path, "is a list of media, not a clip", "give the clips that it names")
    if b"\0" not in head and head.decode("utf-8", "replace").count("\ufffd") <= 1:
        return MediaError(path, "is text, not a video or sound file", "check that it is the file you meant")
    return MediaError(
        path, "is not a video or sound file that FFmpeg can read", "convert it, e.g. to mp4 or wav"
    )


def pick_video(container: InputContainer) -> VideoStream | None:
    """The stream that a player would show, never a cover picture; None without one."""
    usable = [s for s in container.streams.video if not s.disposition & _NO_PICTURE and _has_decoder(s)]
    best = container.streams.best("video")
    chosen = [s for s in usable if best is not None and s.index == best.index]
    return next(iter(chosen or sorted(usable, key=lambda s: -(s.width * s.height))), None)


def audio_choices(container: InputContainer) -> list[AudioStream]:
    """The audio streams that have a decoder, the one that a player would choose first."""
    best = container.streams.best("audio")
    first = -1 if best is None else best.index
    return sorted(filter(_has_decoder, container.streams.audio), key=lambda s: (s.index != first, s.index))


def _has_decoder(stream: VideoStream | AudioStream) -> bool:
    return getattr(stream, "codec_context", None) is not None


def is_encrypted(container: InputContainer) -> bool:
    """Whether any stream is encrypted (MPEG common encryption, Matroska); reads on in it."""
    if any("enc_key_id" in stream.metadata for stream in container.streams):
        return True
    try:
        return any(packet.has_sidedata("encryption_info") for packet in islice(container.demux(), 50))
    except av.error.FFmpegError:
        return False


def stated_seconds(container: InputContainer) -> float:
    """The duration that the container states, seconds; 0 where it states none, or one too long to be true."""
    seconds = max(0, container.duration or 0) / av.time_base
    return seconds if seconds * LEAST_BYTES_PER_SECOND <= container.size else 0.0


def start_of(stream: VideoStream | AudioStream | None) -> float | None:
    """A stream's start on the file's own clock, seconds (0 where none is stated); None without a stream."""
    if stream is None:
        return None
    return float((stream.start_time or 0) * (stream.time_base or Fraction(0)))


def clock_zero(container: InputContainer) -> float:
    """The clip's zero on the file's own clock, seconds: where the first of its chosen streams starts."""
    choices = audio_choices(container)
    starts = [start_of(pick_video(container)), start_of(choices[0] if choices else None)]
    return min((start for start in starts if start is not None), default=0.0)


@dataclass
class Clock:
    """Turns a stream's timestamps into seconds from the clip's start closing jumps that no gap explains."""

    zero: float
    shift: float = 0.0
    jumps: int = 0

    def seconds(self, part: Timed, expected: float) -> float:
        """When a frame or packet begins; without a timestamp `expected`, where the one before it ended."""
        stamp = part.pts if part.pts is not None else part.dts
        if stamp is None or part.time_base is None:
            return expected
        time = float(stamp * part.time_base) - self.zero + self.shift
        if -MAX_STEP_BACK_SECONDS <= time - expected <= MAX_GAP_SECONDS:
            return time
        self.shift += expected - time
        self.jumps += 1
        return expected


@dataclass
class Damage:
    """What went wrong while one stream was decoded, and how many bytes of it were read."""

    packets: int = 0
    first: float | None = None
    read: int = 0

    def note(self, packet: AnyPacket) -> None:
        """Count a packet that could not be decoded."""
        self.packets += 1
        stamp = packet.pts if packet.pts is not None else packet.dts
        if self.first is None and stamp is not None and packet.time_base is not None:
            self.first = float(stamp * packet.time_base)

    def sentence(self, what: str, zero: float) -> str | None:
        """A warning for the user, e.g. about the "picture"; None where nothing was damaged."""
        if not self.packets:
            return None
        place = "" if self.first is None else f", the first at {max(0.0, self.first - zero):.1f} s"
        return f"the {what} is damaged: {self.packets} packets could not be decoded and were left out{place}"


def packets_of(
    container: InputContainer, stream: VideoStream | AudioStream, damage: Damage
) -> Iterator[AnyPacket]:
    """The stream's packets and at last the empty one that flushes its decoder; failed reads are counted."""
    failures = 0
    while failures < MAX_READ_FAILURES:
        try:
            for packet in container.demux(stream):
                failures = 0
                damage.read += packet.size
                yield cast("AnyPacket", packet)
            return
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            failures += 1
            damage.packets += failures == 1  # a run of failed reads is one damaged place


def decoded(
    container: InputContainer, stream: VideoStream | AudioStream, damage: Damage
) -> Iterator[VideoFrame | AudioFrame]:
    """The stream's whole frames in order; packets that cannot be decoded, and marred frames, are left out."""
    for packet in packets_of(container, stream, damage):
        if packet.is_corrupt and packet.stream.type == "video":  # half a packet of sound is still sound
            damage.note(packet)
            continue
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            damage.note(packet)
            continue
        for frame in frames:
            if frame.is_corrupt:
                damage.note(packet)
            else:
                yield frame
