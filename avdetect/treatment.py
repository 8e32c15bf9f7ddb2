"""One treatment for every clip of a joint set, so that neither its corpus nor its class can be told from outside.

Sound: one band, one level, the same silence before and after, one codec and bit rate, as long as the picture.
Picture: the 25 fps grid, one codec and quality.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from avdetect.errors import MediaError
from avdetect.folders import claim
from avdetect.media import open_clip
from avdetect.pictures import steady
from avdetect.types import FRAME_RATE, SAMPLE_RATE, Clip, Floats, Item
from avdetect.writing import write_clip

RECORD = "treatment.json"
"""Stands in a folder of treated clips and says how they were made."""

_FRAME = SAMPLE_RATE // 50  # 20 ms
_FADE = SAMPLE_RATE // 200  # 5 ms
_QUIET = 10 ** (-40 / 10)  # power relative to the loudest 20 ms
_INAUDIBLE = 1e-9  # power, -90 dB below full scale


@dataclass(frozen=True)
class Treatment:
    """Hz of the band, dB below full scale (RMS over the clip), seconds of silence before, after and between
    repetitions of the voice, bits per second of the sound (AAC), quality of the picture (H.264).
    """

    low: float = 80.0
    high: float = 7000.0
    level: float = -26.0
    lead: float = 0.2
    tail: float = 0.2
    gap: float = 0.2
    bit_rate: int = 64_000
    crf: int = 18


def treat(waveform: Floats, seconds: float, treatment: Treatment) -> Floats:
    """Speech [S] at 16 kHz, `seconds` long: band-limited, trimmed, repeated or cut, levelled.

    Sound begins `lead` after the start and ends `tail` before the end. Raises ValueError where the waveform is
    silent, or where there is no room for it.
    """
    lead, tail = round(treatment.lead * SAMPLE_RATE), round(treatment.tail * SAMPLE_RATE)
    room = round(seconds * SAMPLE_RATE) - lead - tail
    if room < SAMPLE_RATE // 2:
        raise ValueError(f"{seconds:.1f} s are too short to hold a voice")
    voice = _audible(_audible(_band(waveform, treatment.low, treatment.high))[:room])
    body = _filled(voice, room, round(treatment.gap * SAMPLE_RATE))
    whole = np.pad(body, (lead, tail))
    gain = 10 ** (treatment.level / 20) / np.sqrt(np.mean(np.square(whole, dtype=np.float64)))
    return np.clip(whole * np.float32(gain), -1.0, 1.0).astype(np.float32)


def _band(waveform: Floats, low: float, high: float) -> Floats:
    """A band-pass whose slopes are a fifth of an octave or so wide, without delay."""
    hertz = np.fft.rfftfreq(waveform.size, 1 / SAMPLE_RATE)
    slope = np.clip((hertz / low - 0.8) / 0.4, 0, 1) * np.clip((high - hertz) / (0.05 * high) + 0.5, 0, 1)
    return np.fft.irfft(np.fft.rfft(waveform) * slope, waveform.size).astype(np.float32)


def _audible(waveform: Floats) -> Floats:
    """From the first to the last 20 ms that are not quiet."""
    whole = waveform[: waveform.size // _FRAME * _FRAME]
    power = np.square(whole.reshape(-1, _FRAME), dtype=np.float64).mean(1)
    if not power.size or power.max() < _INAUDIBLE:
        raise ValueError("it holds nothing but silence")
    loud = np.flatnonzero(power > power.max() * _QUIET)
    return whole[loud[0] * _FRAME : (loud[-1] + 1) * _FRAME]


def _filled(voice: Floats, room: int, gap: int) -> Floats:
    """The voice again and again, [room]; whatever does not fit is cut from the last one's beginning."""
    pieces, left = [_faded(voice)], room - voice.size
    while left > 0:
        pause = gap if left > 2 * gap else 0
        last = voice[-(left - pause) :]
        pieces += [np.zeros(pause, np.float32), _faded(last)]
        left -= pause + last.size
    return np.concatenate(pieces)


def _faded(piece: Floats) -> Floats:
    fade = min(_FADE, piece.size // 2)
    ramp = np.ones(piece.size, np.float32)
    ramp[:fade] = np.arange(1, fade + 1, dtype=np.float32) / (fade + 1)
    ramp[piece.size - fade :] = ramp[:fade][::-1]
    return piece * ramp


def render(
    rows: Sequence[Sequence[Item]], folder: Path, treatment: Treatment, workers: int = 1
) -> Iterator[list[Item] | str]:
    """Write each pair's treated clip below `folder`; gives each row's new items in order, or why there are none.

    A row is made whole or left out, so that its cells stay balanced. Clips that are there already are not made
    again: their names hold the content of both halves and the treatment.
    """
    claim(folder, RECORD, {"made by": "avdetect data pair", **asdict(treatment)}, "clips")
    make = functools.partial(_row, folder=folder, treatment=treatment)
    if workers <= 1:
        yield from map(make, rows)
        return
    # started afresh: a process that has already run threads (video decoding does) must not be forked
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(make, rows)


def _row(row: Sequence[Item], folder: Path, treatment: Treatment) -> list[Item] | str:
    try:
        return [_clip(item, folder, treatment) for item in row]
    except MediaError as error:
        return str(error)


def _clip(item: Item, folder: Path, treatment: Treatment) -> Item:
    if item.audio_path is None:
        raise ValueError(f"{item.path}: a pair needs an audio_path")
    key = f"{_digest(item.path)} {_digest(item.audio_path)} {json.dumps(asdict(treatment))}"
    name = hashlib.sha256(key.encode()).hexdigest()[:24]
    target = folder / str(item.split) / f"{name}.mp4"
    if not target.exists():
        face, voice = open_clip(item.path), open_clip(item.audio_path)
        target.parent.mkdir(exist_ok=True)
        write_clip(
            target,
            steady(face),
            _sound(face, voice, treatment),
            crf=treatment.crf,
            audio_bit_rate=treatment.bit_rate,
        )
    return replace(item, path=target, audio_path=None)


def _sound(face: Clip, voice: Clip, treatment: Treatment) -> Floats:
    if not face.has_video:
        raise MediaError(face.path, "holds no picture", "leave it out of the faces")
    if voice.waveform is None:
        raise MediaError(voice.path, "holds no sound", "leave it out of the voices")
    try:
        return treat(voice.waveform, round(face.duration * FRAME_RATE) / FRAME_RATE, treatment)
    except ValueError as error:
        raise MediaError(voice.path, f"cannot go with {face.path.name} ({error})") from error


@functools.lru_cache(maxsize=64)
def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MediaError(path, f"cannot be read ({error.strerror or error})") from error
