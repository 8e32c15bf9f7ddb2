"""Writing clips: frames and a waveform to a video or sound file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from avdetect.errors import MediaError
from avdetect.types import FRAME_RATE, SAMPLE_RATE, Bytes, Floats

AUDIO_CODECS = {
    ".wav": "pcm_s16le",
    ".flac": "flac",
    ".mp3": "libmp3lame",
    ".ogg": "libopus",
    ".opus": "libopus",
    ".webm": "libopus",
    ".avi": "libmp3lame",
}
"""Codec of the sound by suffix; AAC for every other."""
VIDEO_CODECS = {".webm": "libvpx-vp9"}
"""Codec of the picture by suffix; H.264 for every other."""


def write_clip(
    path: Path | str,
    images: Iterable[Bytes] | None = None,
    waveform: Floats | None = None,
    *,
    fps: float = FRAME_RATE,
    sample_rate: int = SAMPLE_RATE,
    crf: int = 18,
    video_codec: str | None = None,
    audio_codec: str | None = None,
    audio_bit_rate: int | None = None,
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write images [H, W, 3] (RGB, streamed, all of one size) and sound [S] (mono, -1..1); returns the path.

    Both start at zero. The suffix decides the format, and the codecs where they are not named: H.264 (`crf` 0
    best … 51; odd sides gain a row or column) and AAC, or the sound formats wav, flac, mp3, ogg and opus.
    `metadata` are the container's tags (title, comment). The file appears only once it is whole. Raises MediaError
    where it exists (unless `overwrite`) or cannot be written, ValueError without anything to write.
    """
    path = Path(path)
    if images is None and waveform is None:
        raise ValueError("a clip needs images or a waveform")
    if path.exists() and not overwrite:
        raise MediaError(path, "exists already", "choose another name or allow overwriting")
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        with av.open(str(partial), "w") as out:
            out.metadata.update(metadata or {})
            sound = None
            if waveform is not None:
                codec = audio_codec or AUDIO_CODECS.get(path.suffix.lower(), "aac")
                sound = _Sound(out, codec, waveform, sample_rate, audio_bit_rate)
            if images is not None:
                codec = video_codec or VIDEO_CODECS.get(path.suffix.lower(), "libx264")
                _write_images(out, codec, images, fps, crf, sound)
            if sound is not None:
                sound.write_until(None)
        os.replace(partial, path)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(path, f"cannot be written ({reason})", "check folder, suffix and codec") from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def _write_images(
    out: OutputContainer, codec: str, images: Iterable[Bytes], fps: float, crf: int, sound: _Sound | None
) -> None:
    rate = Fraction(fps).limit_denominator(1001)
    stream: VideoStream | None = None
    for index, image in enumerate(images):
        even = np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), mode="edge")
        if stream is None:
            stream = _video_stream(out, codec, rate, even, crf)
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        frame.pts, frame.time_base = index, 1 / rate
        out.mux(stream.encode(frame))
        if sound is not None:
            sound.write_until((index + 1) / rate)
    if stream is None:
        raise ValueError("no images to write")
    out.mux(stream.encode(None))


def _video_stream(out: OutputContainer, codec: str, rate: Fraction, image: Bytes, crf: int) -> VideoStream:
    stream = out.add_stream(codec, rate=rate, options={"crf": str(crf)})
    if not isinstance(stream, VideoStream):
        raise ValueError(f"{codec} is not a picture codec")
    stream.height, stream.width = image.shape[:2]
    stream.pix_fmt = "yuv420p"
    return stream


class _Sound:
    """Encodes a waveform piece by piece, so that it lies beside the picture in the file."""

    def __init__(
        self, out: OutputContainer, codec: str, waveform: Floats, rate: int, bit_rate: int | None
    ) -> None:
        if waveform.ndim != 1:
            raise ValueError(f"a waveform is [S], not {waveform.shape}")
        # Opus knows five rates only; 48 kHz is the one that players expect.
        stream = out.add_stream(codec, rate=48_000 if codec == "libopus" else rate, layout="mono")
        if not isinstance(stream, AudioStream):
            raise ValueError(f"{codec} is not a sound codec")
        if bit_rate is not None:
            stream.bit_rate = bit_rate
        self.out, self.stream, self.waveform, self.rate = out, stream, waveform, rate
        self.written = 0

    def write_until(self, seconds: Fraction | None) -> None:
        """Encode what sounds before `seconds`; None: all the rest, and finish."""
        end = self.waveform.size if seconds is None else int(seconds * self.rate)
        while self.written < min(end, self.waveform.size):
            part = self.waveform[self.written : min(end, self.written + self.rate)]
            frame = AudioFrame.from_ndarray(np.ascontiguousarray(part[None], np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = self.rate, self.written, Fraction(1, self.rate)
            self.out.mux(self.stream.encode(frame))
            self.written += part.size
        if seconds is None:
            self.out.mux(self.stream.encode(None))
