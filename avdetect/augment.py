"""What happens to real and fake recordings alike on their way to us: bands, noise, rooms, codecs, levels, edges.

Every change here is applied to both classes with the same chances, so that none of it can tell them apart.
`(waveform [S], rng) -> waveform [S]`, float32 at 16 kHz.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import av
import numpy as np
from scipy import fft

from avdetect.types import SAMPLE_RATE, Floats

Rng = np.random.Generator

CODECS: dict[str, tuple[str, str, int, tuple[int, ...]]] = {
    "mp3": ("mp3", "libmp3lame", 16_000, (16_000, 24_000, 32_000, 48_000, 64_000, 96_000, 128_000)),
    "aac": ("adts", "aac", 16_000, (24_000, 32_000, 48_000, 64_000, 96_000)),
    "opus": ("ogg", "libopus", 16_000, (12_000, 16_000, 24_000, 32_000, 64_000)),
    "a-law": ("wav", "pcm_alaw", 8_000, (64_000,)),
}
"""Name -> container, encoder, sample rate, bit rates."""


def encode(waveform: Floats, codec: str, bit_rate: int) -> bytes:
    """The waveform as a file of `codec` (a key of CODECS) in memory."""
    container, encoder, rate, _ = CODECS[codec]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(encoder, rate=rate)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        stream.bit_rate = bit_rate
        resampler = av.AudioResampler(stream.format, "mono", rate, frame_size=stream.frame_size or 1024)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(waveform[None]), "flt", "mono")
        frame.sample_rate = SAMPLE_RATE
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def decode(data: bytes) -> Floats:
    """A file in memory as 16 kHz mono."""
    with av.open(io.BytesIO(data), "r") as container:
        resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE)
        pieces = [
            piece.to_ndarray()[0]
            for frame in container.decode(audio=0)
            for piece in resampler.resample(frame)
        ]
        pieces += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    return np.concatenate(pieces).astype(np.float32)


def transcode(waveform: Floats, codec: str, bit_rate: int) -> Floats:
    """There and back through a codec; the encoder's delay is taken out by correlation, the length kept."""
    out = decode(encode(waveform, codec, bit_rate))
    lag = _delay(waveform, out)
    return _fit(out[lag:], len(waveform))


def _delay(reference: Floats, delayed: Floats, most: int = 3200) -> int:
    span = min(len(reference), 2 * SAMPLE_RATE)
    size = 1 << (2 * span + most).bit_length()
    a, b = fft.rfft(reference[:span], size), fft.rfft(delayed[: span + most], size)
    return int(np.argmax(fft.irfft(b * np.conj(a), size)[:most]))


def _fit(waveform: Floats, length: int) -> Floats:
    return np.pad(waveform[:length], (0, max(0, length - len(waveform)))).astype(np.float32)


def codec(waveform: Floats, rng: Rng) -> Floats:
    """A random lossy codec at a random bit rate."""
    name = str(rng.choice(list(CODECS), p=[0.35, 0.3, 0.25, 0.1]))
    return transcode(waveform, name, int(rng.choice(CODECS[name][3])))


def band_limit(waveform: Floats, rng: Rng) -> Floats:
    """Low-pass at 3.4 to 8 kHz with a random slope, and a high-pass below 250 Hz."""
    spectrum = fft.rfft(waveform)
    hertz = np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE)
    top, slope = rng.uniform(3400, 8000), rng.uniform(50, 600)
    bottom = rng.uniform(20, 250)
    gain = (
        1 / (1 + np.exp(np.clip((hertz - top) / slope, -30, 30))) / (1 + (bottom / np.maximum(hertz, 1)) ** 4)
    )
    return fft.irfft(spectrum * gain, len(waveform)).astype(np.float32)


def equalise(waveform: Floats, rng: Rng) -> Floats:
    """A smooth random colouring of up to 12 dB, as microphones and rooms have it."""
    spectrum = fft.rfft(waveform)
    knots = rng.normal(0, 4, 7)
    curve = np.interp(np.linspace(0, 1, len(spectrum)), np.linspace(0, 1, 7), np.clip(knots, -12, 12))
    return fft.irfft(spectrum * 10 ** (curve / 20), len(waveform)).astype(np.float32)


def noise(waveform: Floats, rng: Rng) -> Floats:
    """Coloured noise, 12 to 45 dB below the speech."""
    spectrum = fft.rfft(rng.standard_normal(len(waveform), dtype=np.float32))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** rng.uniform(0, 1)
    hiss = fft.irfft(spectrum, len(waveform))
    level = np.std(waveform) / (np.std(hiss) + 1e-9) * 10 ** (-rng.uniform(12, 45) / 20)
    return (waveform + level * hiss).astype(np.float32)


def room(waveform: Floats, rng: Rng) -> Floats:
    """A short synthetic room: exponentially decaying noise, 0.1 to 0.6 s, mixed under the direct sound."""
    length = int(rng.uniform(0.1, 0.6) * SAMPLE_RATE)
    tail = rng.normal(0, 1, length) * np.exp(-6.9 * np.arange(length) / length)
    tail *= rng.uniform(0.1, 0.6) / (np.linalg.norm(tail) + 1e-9)
    size = fft.next_fast_len(len(waveform) + length, real=True)
    wet = fft.irfft(fft.rfft(waveform, size) * fft.rfft(tail.astype(np.float32), size), size)[: len(waveform)]
    return (waveform + wet).astype(np.float32)


def quantise(waveform: Floats, rng: Rng) -> Floats:
    """Down to 8 to 14 bits of full scale."""
    steps = 2.0 ** int(rng.integers(7, 14))
    peak = float(np.abs(waveform).max()) + 1e-9
    return (np.round(waveform / peak * steps) / steps * peak).astype(np.float32)


AUDIO: dict[Callable[[Floats, Rng], Floats], float] = {
    equalise: 0.4,
    room: 0.15,
    noise: 0.35,
    band_limit: 0.4,
    quantise: 0.1,
    codec: 0.15,
}
"""Change -> chance, in the order in which a recording would meet them."""


def degrade_audio(waveform: Floats, rng: Rng, strength: float = 1.0, codecs: float = AUDIO[codec]) -> Floats:
    """A random chain of the changes above; `strength` scales their chances, `codecs` is that of a lossy codec."""
    for change, chance in {**AUDIO, codec: codecs}.items():
        if rng.random() < chance * strength:
            waveform = change(waveform, rng)
    return waveform
