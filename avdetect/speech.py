"""Where someone speaks, by silero-vad, and in words why a clip's voice cannot be assessed."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from avdetect.types import FRAME_RATE, SAMPLE_RATE, Bools, Floats, Segment

if TYPE_CHECKING:
    import torch

MIN_SPEECH_SECONDS = 1.0
"""Less speech than this says too little about a voice."""
SILENCE_DBFS = -80.0
"""Sound whose loudest stretch stays below this is digital silence."""
QUIET_DBFS = -70.0
"""Speech cannot be told from noise where the loudest stretch stays below this."""
TARGET_DBFS = -20.0
"""Level of the loud stretches that speech is looked for at."""
SPEECH_PROBABILITY = 0.5
"""silero-vad's own default."""
_CHUNK = 512  # what silero-vad takes at once at 16 kHz, samples
_BLOCK = _CHUNK * 512  # held at a time, so that an hour needs no more memory than a minute
_LEVEL_SAMPLES = SAMPLE_RATE // 10


@dataclass(frozen=True)
class SpeechReport:
    """The stretches of speech, their sum in seconds, and in words why it cannot be assessed, if it cannot."""

    segments: tuple[Segment, ...]
    speech_seconds: float
    reason: str | None = None


def speech_segments(waveform: Floats) -> SpeechReport:
    """Where someone speaks in `waveform` [S], 16 kHz mono (silero-vad 6).

    Level and offset do not matter: speech is looked for at a common loudness, without DC. Samples that are no
    number count as 0. The reason tells digital silence, too quiet, no speech and too little speech apart.
    """
    if waveform.ndim != 1:
        raise ValueError(f"a waveform is [S], not {waveform.shape}")
    offset, level = _offset_and_level(waveform)
    if level < SILENCE_DBFS:
        return SpeechReport((), 0.0, "the sound is digital silence")
    if level < QUIET_DBFS:
        return SpeechReport((), 0.0, f"the sound is too quiet ({level:.0f} dBFS at its loudest)")
    gain = 10 ** ((TARGET_DBFS - level) / 20)
    segments = _segments(_probabilities(waveform, offset, gain), waveform.size)
    seconds = sum(segment.length for segment in segments)
    return SpeechReport(segments, seconds, _reason(seconds, waveform.size / SAMPLE_RATE))


def speech_mask(segments: Iterable[Segment], start: float, steps: int, rate: float = FRAME_RATE) -> Bools:
    """Which of `steps` grid steps from `start` seconds on, `rate` a second, have speech in their middle."""
    mask = np.zeros(steps, np.bool_)
    middles = start + (np.arange(steps) + 0.5) / rate
    for segment in segments:
        mask |= (middles >= segment.start) & (middles < segment.end)
    return mask


def _reason(seconds: float, total: float) -> str | None:
    need = f"at least {MIN_SPEECH_SECONDS:.1f} s is needed"
    if total < MIN_SPEECH_SECONDS:
        return f"only {_tenths(total)} s of sound; {need}"
    if seconds == 0:
        return "no speech is heard, only music, noise or other sounds"
    if seconds < MIN_SPEECH_SECONDS:
        return f"only {_tenths(seconds)} s of speech; {need}"
    return None


def _tenths(seconds: float) -> str:
    """Rounded down, so that what falls short of a bound never reads like it; tiny values keep two places."""
    return f"{math.floor(seconds * 10) / 10:.1f}" if seconds >= 0.1 else f"{seconds:.2f}"


def _blocks(waveform: Floats) -> Iterator[Floats]:
    """The waveform piece by piece, without what is no number."""
    for first in range(0, waveform.size, _BLOCK):
        block = waveform[first : first + _BLOCK]
        yield block if np.isfinite(block).all() else np.nan_to_num(block, posinf=0.0, neginf=0.0)


def _offset_and_level(waveform: Floats) -> tuple[float, float]:
    """The mean, and the level without it that the clip reaches for 0.3 s in all, no mere click, dBFS."""
    offset = sum(float(block.sum(dtype=np.float64)) for block in _blocks(waveform)) / max(1, waveform.size)
    powers: list[float] = [] if waveform.size else [0.0]
    for block in _blocks(waveform):
        square = np.square(block - np.float32(offset))
        edges = np.arange(0, square.size, _LEVEL_SAMPLES)
        powers.extend((np.add.reduceat(square, edges) / np.diff(edges, append=square.size)).tolist())
    loudest = sorted(powers, reverse=True)[: min(3, len(powers) // 2 + 1)]
    return offset, 10 * math.log10(loudest[-1] + 1e-12)


@functools.cache
def _model() -> Any:
    """silero-vad's network, from its wheel."""
    import silero_vad

    return silero_vad.load_silero_vad()


@contextmanager
def _one_thread() -> Iterator[None]:
    """For a network so small that two threads wait for each other many times longer than they work."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _probabilities(waveform: Floats, offset: float, gain: float) -> list[float]:
    """The probability of speech in each 32 ms of the waveform."""
    import torch

    found: list[float] = []
    # To optimise so small a network takes as long as to hear ten seconds by it, and makes it no faster.
    with _one_thread(), torch.jit.optimized_execution(False), torch.inference_mode():  # type: ignore[attr-defined]
        model = _model()  # its first import sets one thread for good, were it not put back
        model.reset_states()
        for block in _blocks(waveform):
            even = np.zeros(-(-block.size // _CHUNK) * _CHUNK, np.float32)
            even[: block.size] = np.clip((block - np.float32(offset)) * np.float32(gain), -1.0, 1.0)
            chunks: torch.Tensor = torch.from_numpy(even).view(-1, _CHUNK)
            found.extend(float(model(chunk, SAMPLE_RATE)) for chunk in chunks)
    return found


def _segments(probabilities: list[float], samples: int) -> tuple[Segment, ...]:
    """Stretches of speech from silero-vad's probabilities, by its own hysteresis."""
    from silero_vad.utils_vad import get_speech_timestamps_from_probs

    spans = get_speech_timestamps_from_probs(
        probabilities, sampling_rate=SAMPLE_RATE, threshold=SPEECH_PROBABILITY, audio_length_samples=samples
    )
    return tuple(Segment(span["start"] / SAMPLE_RATE, span["end"] / SAMPLE_RATE) for span in spans)
