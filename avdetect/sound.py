"""A clip's sound as one waveform: 16 kHz mono, on the clip's own clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.audio.frame import AudioFrame, format_dtypes
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from numpy.typing import NDArray

from avdetect.container import (
    Clock,
    Damage,
    audio_choices,
    clock_zero,
    decoded,
    open_container,
    stated_seconds,
)
from avdetect.errors import MediaError
from avdetect.types import SAMPLE_RATE, Floats

MAX_HOURS = 6.0
"""Longer sound is refused: the waveform, 230 MB an hour, is held in memory."""
SOURCE_RATES = range(1_000, 1_000_001)
"""Sample rates that are taken for real, Hz."""
MAX_DRIFT_SECONDS = 0.04
"""Sound is moved to where its timestamps say once it stands this far (one video frame) from there."""
MAX_PADDING_SECONDS = 0.1
"""What a codec's last packet may hold beyond the stated end."""
MANY_PLANES = 8
"""From this many channels on, planar sound is packed before it is read."""
CANCELLED_POWER = 0.01
"""Channels whose mean keeps less than this share of their power cancel each other out (reversed polarity)."""


@dataclass(frozen=True)
class Sound:
    """Decoded sound: `waveform` [S], 16 kHz, from the clip's zero; where it starts there; and what it was.

    `rate` in Hz, `bit_rate` in bits per second of the coded sound, all channels together.
    """

    waveform: Floats
    start: float
    codec: str
    rate: int
    channels: int
    bit_rate: float
    warnings: tuple[str, ...] = ()


def read_sound(path: Path) -> tuple[Sound | None, list[str]]:
    """The sound of the first stream that can be decoded, or None, and sentences on what could not be.

    Channels are averaged, or, where they cancel each other out, the loudest one is used. Resampling, with its
    filter, is swresample's. Gaps in the timestamps are silence. Raises MediaError beyond `MAX_HOURS`.
    """
    with open_container(path) as container:
        streams = [(stream.index, stream.codec_context.name) for stream in audio_choices(container)]
    warnings = [f"{len(streams)} sound streams; the default one is used"] if len(streams) > 1 else []
    for index, codec in streams:
        reader = _Reader(path, index)
        sound = reader.read()
        if sound is not None:
            return sound, warnings
        warnings.append(f"sound stream {index} ({codec}) cannot be decoded")
    return None, warnings


class _Reader:
    """Decodes one stream of sound; where its channels cancel each other out, one channel of it."""

    def __init__(self, path: Path, index: int) -> None:
        self.path = path
        self.index = index
        self.rate = 0
        self.mixed_power = 0.0
        self.channel_powers = np.zeros(0)
        self.packer: tuple[tuple[str, str, int], AudioResampler] | None = None

    def read(self) -> Sound | None:
        """The stream's sound; None where nothing of it can be decoded."""
        sound = self._decode(None)
        powers = self.channel_powers
        if sound is None or self.mixed_power >= CANCELLED_POWER * powers.mean():
            return sound
        loudest = int(powers.argmax())
        note = f"the {powers.size} channels cancel each other out; only channel {loudest + 1} is used"
        again = self._decode(loudest)
        return again and replace(again, warnings=(*again.warnings, note))

    def _decode(self, channel: int | None) -> Sound | None:
        damage = Damage()
        with open_container(self.path) as container:
            stream = container.streams[self.index]
            assert isinstance(stream, AudioStream)
            zero = clock_zero(container)
            clock, track = Clock(zero), _Track(self.path, stated_seconds(container))
            for first, samples in self._pieces(container, stream, clock, damage, channel):
                track.write(first, samples)
            codec, channels = stream.codec_context.name, max(1, self.channel_powers.size)
            stated_end = _stated_end(stream, zero)
        if track.start is None:
            return None
        notes = [damage.sentence("sound", zero)]
        if clock.jumps:
            notes.append(f"the sound's clock jumps {clock.jumps} times; the pieces were joined")
        warnings = tuple(note for note in notes if note)
        waveform = track.finish(stated_end)
        seconds = max(waveform.size / SAMPLE_RATE - track.start, 1 / SAMPLE_RATE)
        return Sound(waveform, track.start, codec, self.rate, channels, 8 * damage.read / seconds, warnings)

    def _pieces(
        self,
        container: InputContainer,
        stream: AudioStream,
        clock: Clock,
        damage: Damage,
        channel: int | None,
    ) -> Iterator[tuple[int, Floats]]:
        """Resampled samples with their place on the 16 kHz grid; a new resampler wherever the clock moves."""
        resampler, expected, place = None, 0.0, 0
        for frame in decoded(container, stream, damage):
            assert isinstance(frame, AudioFrame)
            if not _usable(frame):
                continue
            time = clock.seconds(frame, expected)
            if (
                resampler is None
                or frame.sample_rate != self.rate
                or abs(time - expected) > MAX_DRIFT_SECONDS
            ):
                yield from _flush(resampler, place)
                resampler = AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE)
                self.rate, place, expected = frame.sample_rate, round(time * SAMPLE_RATE), time
            for samples in _resampled(resampler, self._mono(frame, channel)):
                yield place, samples
                place += samples.size
            expected += frame.samples / frame.sample_rate
        yield from _flush(resampler, place)

    def _mono(self, frame: AudioFrame, channel: int | None) -> AudioFrame:
        """The frame's channels averaged (or the one channel), as float."""
        samples = _channels(self._readable(frame))
        mono = samples.mean(0) if channel is None else samples[min(channel, len(samples) - 1)]
        self._weigh(samples, mono)
        mixed = AudioFrame.from_ndarray(np.ascontiguousarray(mono[None], np.float32), "fltp", "mono")
        mixed.sample_rate = frame.sample_rate
        mixed.time_base = Fraction(1, frame.sample_rate)
        return mixed

    def _readable(self, frame: AudioFrame) -> AudioFrame:
        """The frame, in one plane where it has too many for PyAV (18.1 reads past them and crashes)."""
        if not frame.format.is_planar or frame.layout.nb_channels < MANY_PLANES:
            return frame
        key = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self.packer is None or self.packer[0] != key:
            resampler = AudioResampler(format="flt", layout=frame.layout, rate=frame.sample_rate)
            self.packer = key, resampler
        return self.packer[1].resample(frame)[0]

    def _weigh(self, samples: Floats, mono: Floats) -> None:
        if self.channel_powers.size != len(samples):
            self.channel_powers, self.mixed_power = np.zeros(len(samples)), 0.0
        self.channel_powers += np.square(samples, dtype=np.float64).sum(1)
        self.mixed_power += float(np.square(mono, dtype=np.float64).sum())


def _usable(frame: AudioFrame) -> bool:
    return frame.samples > 0 and frame.format.name in format_dtypes and frame.sample_rate in SOURCE_RATES


def _channels(frame: AudioFrame) -> Floats:
    """A frame's samples [C, S] in -1..1, whatever their format; what is no number is silence."""
    raw: NDArray[np.generic] = frame.to_ndarray()
    count = max(1, frame.layout.nb_channels)
    planes = raw if frame.format.is_planar else raw.reshape(-1, count).T
    if planes.dtype.kind == "f":
        samples = planes.astype(np.float32)
        return samples if np.isfinite(samples).all() else np.nan_to_num(samples, posinf=0.0, neginf=0.0)
    scale = np.float32(2 ** (8 * planes.dtype.itemsize - 1))
    middle = np.float32(scale if planes.dtype.kind == "u" else 0)
    return (planes.astype(np.float32) - middle) / scale


def _resampled(resampler: AudioResampler, frame: AudioFrame | None) -> Iterator[Floats]:
    for part in filter(None, resampler.resample(frame)):  # a pass-through answers the flush with None
        yield part.to_ndarray()[0].astype(np.float32, copy=False)


def _flush(resampler: AudioResampler | None, place: int) -> Iterator[tuple[int, Floats]]:
    if resampler is None:
        return
    for samples in _resampled(resampler, None):
        yield place, samples
        place += samples.size


def _stated_end(stream: AudioStream, zero: float) -> float:
    """Where the stream is stated to end on the clip's clock, seconds; 0 where that is not stated."""
    if stream.duration is None or stream.time_base is None:
        return 0.0
    return float(((stream.start_time or 0) + stream.duration) * stream.time_base) - zero


class _Track:
    """A waveform that grows in place; samples are written where they belong, never over earlier ones."""

    def __init__(self, path: Path, stated_seconds: float) -> None:
        self.path = path
        self.start: float | None = None
        self._refuse_beyond_limit(round(stated_seconds * SAMPLE_RATE))
        self._samples = np.zeros(round(min(stated_seconds, 3600.0) * SAMPLE_RATE) + SAMPLE_RATE, np.float32)
        self._end = 0

    def write(self, first: int, samples: Floats) -> None:
        """Put `samples` at index `first`; what would fall before zero or onto earlier sound is dropped."""
        skip = max(0, self._end - first)
        if skip >= samples.size:
            return
        first, samples = first + skip, samples[skip:]
        end = first + samples.size
        self._refuse_beyond_limit(end)
        if end > self._samples.size:
            self._samples.resize(max(end, self._samples.size * 5 // 4), refcheck=False)
        self._samples[first:end] = samples
        self._end = end
        if self.start is None:
            self.start = first / SAMPLE_RATE

    def finish(self, stated_end: float) -> Floats:
        """The waveform [S], cut to what was written, less the padding of the last packet."""
        padding = self._end - round(stated_end * SAMPLE_RATE)
        if 0 < padding < MAX_PADDING_SECONDS * SAMPLE_RATE:
            self._end -= padding
        self._samples.resize(self._end, refcheck=False)
        return np.clip(self._samples, -1.0, 1.0, out=self._samples)

    def _refuse_beyond_limit(self, samples: int) -> None:
        if samples > MAX_HOURS * 3600 * SAMPLE_RATE:
            hours = samples / SAMPLE_RATE / 3600
            raise MediaError(
                self.path, f"lasts {hours:.1f} hours, more than {MAX_HOURS:.0f}", "cut it into shorter clips"
            )
