"""Small media made on the fly, written with PyAV alone: what the tests read is not made by what they test."""

from __future__ import annotations

import random
import shutil
import subprocess
import wave
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

INDEX_BITS = 10
CLOCK = 90_000
"""Ticks per second of frame times that are given one by one."""
AUDIO_CODECS = {
    ".wav": "pcm_s16le",
    ".flac": "flac",
    ".mp3": "libmp3lame",
    ".ogg": "libopus",
    ".opus": "libopus",
}
AUDIO_CODECS |= {".webm": "libopus", ".avi": "libmp3lame", ".mpg": "mp2", ".ts": "aac"}
VIDEO_CODECS = {".webm": "libvpx", ".avi": "mpeg4", ".mpg": "mpeg2video"}


def picture(index: int, size: tuple[int, int] = (160, 120)) -> NDArray[np.uint8]:
    """A grey RGB image [H, W, 3] whose upper half tells `index`, with a red patch at bottom left."""
    width, height = size
    image = np.full((height, width, 3), 96, np.uint8)
    edges = np.linspace(0, width, INDEX_BITS + 1).astype(int)
    for bit in range(INDEX_BITS):
        image[: height // 2, edges[bit] : edges[bit + 1]] = 235 if index >> bit & 1 else 20
    image[height * 3 // 4 :, : width // 4] = (220, 20, 20)
    return image


def read_index(image: NDArray[np.uint8]) -> int:
    """The index that `picture` put into an upright image [H, W, 3]."""
    height, width = image.shape[:2]
    edges = np.linspace(0, width, INDEX_BITS + 1).astype(int)
    row = image[: height // 2].mean((0, 2))
    return sum(1 << bit for bit in range(INDEX_BITS) if row[edges[bit] : edges[bit + 1]].mean() > 128)


def tone(
    seconds: float, rate: int = 16_000, hz: float = 440.0, level: float = 0.3, channels: int = 1
) -> NDArray[np.float32]:
    """A sine [C, S]."""
    wave_ = level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)
    return np.tile(wave_.astype(np.float32), (channels, 1))


def noise(seconds: float, rate: int = 16_000, level: float = 0.1, seed: int = 0) -> NDArray[np.float32]:
    """White noise [1, S]."""
    samples = np.random.default_rng(seed).normal(0, level, (1, round(seconds * rate)))
    return samples.astype(np.float32)


def beep(seconds: float, at: float, rate: int = 16_000, length: float = 0.1) -> NDArray[np.float32]:
    """Silence [1, S] with a 1 kHz beep that begins at `at` seconds."""
    samples = np.zeros((1, round(seconds * rate)), np.float32)
    sound = tone(length, rate, 1000.0, 0.8)
    first = round(at * rate)
    samples[:, first : first + sound.shape[1]] = sound[:, : samples.shape[1] - first]
    return samples


def onset(waveform: NDArray[np.float32], rate: int = 16_000) -> float:
    """Seconds until the waveform [S] first rises above half of its peak."""
    return float(np.argmax(np.abs(waveform) > np.abs(waveform).max() / 2)) / rate


def make_video(
    path: Path,
    seconds: float = 2.0,
    fps: float = 25.0,
    size: tuple[int, int] = (160, 120),
    codec: str | None = None,
    *,
    pix_fmt: str = "yuv420p",
    times: Sequence[float] | None = None,
    images: Iterable[NDArray[np.uint8]] | None = None,
    rotation: int = 0,
    audio: NDArray[np.float32] | None = None,
    audio_rate: int = 16_000,
    audio_codec: str | None = None,
    audio_offset: float = 0.0,
    video_offset: float = 0.0,
    options: dict[str, str] | None = None,
) -> Path:
    """Write a clip whose frames are `picture(0)`, `picture(1)`, … (or `images`) and return its path.

    `times` gives each frame's own time (variable frame rate). `audio` [C, S] begins `audio_offset` seconds,
    the picture `video_offset` seconds, after the container's zero. `rotation`: of the display, degrees.
    """
    steps = times if times is not None else [n / fps for n in range(max(1, round(seconds * fps)))]
    base = Fraction(1, CLOCK) if times is not None else 1 / Fraction(fps).limit_denominator(1001)
    frames = images if images is not None else (picture(n, size) for n in range(len(steps)))
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec or VIDEO_CODECS.get(path.suffix, "libx264"), rate=Fraction(1 / base))
        assert isinstance(video, av.VideoStream)
        if times is not None:
            video.codec_context.framerate = Fraction(fps).limit_denominator(1001)
        video.width, video.height, video.pix_fmt = *size, pix_fmt
        video.codec_context.time_base = base
        video.options = dict(options or ({"preset": "ultrafast"} if video.codec.name == "libx264" else {}))
        if rotation:
            video.set_display_rotation(rotation)
        sound = None
        if audio is not None:
            sound = _audio_stream(out, path, audio.shape[0], audio_rate, audio_codec)
        for time, image in zip(steps, frames, strict=False):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = round(time / base) + round(video_offset / base), base
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if audio is not None and sound is not None:
            _encode_audio(out, sound, audio, audio_rate, audio_offset)
    return path


def make_audio(
    path: Path,
    samples: NDArray[np.float32],
    rate: int = 16_000,
    codec: str | None = None,
    offset: float = 0.0,
) -> Path:
    """Write sound [C, S] alone; the codec follows the suffix unless named."""
    with av.open(str(path), "w") as out:
        stream = _audio_stream(out, path, samples.shape[0], rate, codec)
        _encode_audio(out, stream, samples, rate, offset)
    return path


def _layout(channels: int) -> str:
    return {1: "mono", 2: "stereo", 4: "quad", 6: "5.1", 8: "7.1"}[channels]


def _audio_stream(
    out: av.container.OutputContainer, path: Path, channels: int, rate: int, codec: str | None
) -> av.AudioStream:
    name = codec or AUDIO_CODECS.get(path.suffix, "aac")
    stream = out.add_stream(name, rate=rate, layout=_layout(channels))
    assert isinstance(stream, av.AudioStream)
    return stream


def _encode_audio(
    out: av.container.OutputContainer,
    stream: av.AudioStream,
    samples: NDArray[np.float32],
    rate: int,
    offset: float,
) -> None:
    step = rate // 10
    for first in range(0, samples.shape[1], step):
        part = np.ascontiguousarray(samples[:, first : first + step].T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(part, format="flt", layout=_layout(samples.shape[0]))
        frame.sample_rate, frame.pts, frame.time_base = rate, first + round(offset * rate), Fraction(1, rate)
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def truncate(source: Path, target: Path, keep: float) -> Path:
    """A copy that ends after the share `keep` of the bytes."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * keep)])
    return target


def corrupt(source: Path, target: Path, start: float, stop: float, share: float = 0.02) -> Path:
    """A copy in which `share` of the bytes between the shares `start` and `stop` of the file are garbage."""
    data = bytearray(source.read_bytes())
    dice = random.Random(0)
    for _ in range(int(len(data) * (stop - start) * share)):
        data[dice.randrange(int(len(data) * start), int(len(data) * stop))] = dice.randrange(256)
    target.write_bytes(bytes(data))
    return target


def spoken(
    folder: Path, text: str = "The quick brown fox jumps over the lazy dog and runs away.", voice: str = "en"
) -> NDArray[np.float32]:
    """Synthetic speech [S] at 16 kHz from espeak-ng; skips the test where that is not installed."""
    program = shutil.which("espeak-ng")
    if program is None:
        pytest.skip("espeak-ng is not installed (apt-get install espeak-ng)")
    path = folder / "spoken.wav"
    subprocess.run([program, "-v", voice, "-w", str(path), text], check=True, capture_output=True)
    with wave.open(str(path)) as file:
        rate, raw = file.getframerate(), file.readframes(file.getnframes())
    samples = np.frombuffer(raw, "<i2").astype(np.float32) / 32768
    at = (
        np.arange(int(len(samples) * 16_000 / rate)) * rate / 16_000
    )  # linear is good enough for a synthetic voice
    return np.interp(at, np.arange(len(samples)), samples).astype(np.float32)
