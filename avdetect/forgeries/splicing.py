"""Real sentences with made words in them: a stretch spoken anew, or other words set in its place.

As PartialSpoof (Zhang et al., 2023) and LAV-DF (Cai et al., 2022) have them: a few tenths of a second in a real
recording, joined where the voice is quiet.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

from avdetect.forgeries.resynthesis import resynthesise
from avdetect.forgeries.voices import Spoken
from avdetect.types import SAMPLE_RATE, Floats

Rng = np.random.Generator
SHORTEST, LONGEST = 0.15, 1.2
"""Seconds of a replaced stretch."""

_STEP = SAMPLE_RATE // 100
_FADE = SAMPLE_RATE // 200


def quiet_places(waveform: Floats) -> list[int]:
    """Samples where the voice is quieter than around them, as between words and syllables; the ends among them."""
    steps = len(waveform) // _STEP
    power = np.square(waveform[: steps * _STEP].reshape(-1, _STEP), dtype=np.float64).mean(1)
    level = gaussian_filter1d(np.log(power + 1e-8), 2.0)
    dips = np.flatnonzero((level[1:-1] <= level[:-2]) & (level[1:-1] < level[2:])) + 1
    return [0, *(int(dip) * _STEP + _STEP // 2 for dip in dips), len(waveform)]


def stretches(waveform: Floats, rng: Rng, most: int = 3) -> list[tuple[int, int]]:
    """One to `most` stretches [first, end) that begin and end in quiet places and hold sound, in order, apart."""
    places = quiet_places(waveform)
    longest = min(LONGEST * SAMPLE_RATE, 0.45 * len(waveform))
    fitting = [
        (first, end)
        for at, first in enumerate(places)
        for end in places[at + 1 :]
        if SHORTEST * SAMPLE_RATE <= end - first <= longest
    ]
    level = np.std(waveform)
    fitting = [one for one in fitting if np.std(waveform[slice(*one)]) > 0.4 * level] or fitting
    chosen: list[tuple[int, int]] = []
    for _ in range(int(rng.integers(1, most + 1))):
        apart = [(a, b) for a, b in fitting if all(b + _STEP <= c or a >= d + _STEP for c, d in chosen)]
        if apart:
            chosen.append(apart[int(rng.integers(len(apart)))])
    if not chosen:  # shorter than any word: all of it
        chosen = [(0, len(waveform))]
    return sorted(chosen)


def joined(waveform: Floats, piece: Floats, first: int) -> Floats:
    """The waveform with `piece` from sample `first` on, faded in and out within the piece's own span."""
    fade = min(_FADE, len(piece) // 2)
    ramp = np.ones(len(piece), np.float32)
    ramp[:fade] = np.arange(1, fade + 1, dtype=np.float32) / (fade + 1)
    ramp[len(piece) - fade :] = ramp[:fade][::-1]
    out = waveform.copy()
    span = slice(first, first + len(piece))
    out[span] += ramp * (piece - out[span])
    return out


def partly_resynthesised(waveform: Floats, rng: Rng, donor: Floats | None, strength: float) -> Spoken:
    """Some words of a sentence from a vocoder, at their own time; `strength` is the share of them."""
    spans = _share(stretches(waveform, rng), strength)
    made, _ = resynthesise(waveform, rng, donor=donor)
    out = waveform
    for first, end in spans:
        out = joined(out, made[first:end], first)
    return Spoken(out, tuple(spans))


def word_edited(waveform: Floats, rng: Rng, donor: Floats | None, strength: float) -> Spoken:
    """Other words, spoken anew, in the place of some: the clip's own or the donor's; `strength`: their share."""
    spans = _share(stretches(waveform, rng), strength)
    source = donor if donor is not None and rng.random() < 0.5 else waveform
    made, _ = resynthesise(source, rng, donor=waveform if source is donor else None)
    out = waveform
    for first, end in spans:
        out = joined(out, _other_words(made, waveform, first, end, rng, own=source is waveform), first)
    return Spoken(out, tuple(spans), reworded=True)


def _share(spans: list[tuple[int, int]], strength: float) -> list[tuple[int, int]]:
    return spans[: int(np.ceil(strength * len(spans)))]


def _other_words(made: Floats, waveform: Floats, first: int, end: int, rng: Rng, *, own: bool) -> Floats:
    """As long a piece of `made` from a quiet place, at the level of what it replaces; `own` words from elsewhere."""
    length = end - first
    starts = [place for place in quiet_places(made) if place + length <= len(made)] or [0]
    if own:
        far = [start for start in starts if abs(start - first) >= min(length, 0.1 * SAMPLE_RATE)]
        starts = far or [max(starts, key=lambda start: abs(start - first))]
    piece = np.resize(made[int(rng.choice(starts)) :], length)
    gain = np.std(waveform[first:end]) / (np.std(piece) + 1e-6)
    return np.asarray(piece * np.float32(min(gain, 20.0)), np.float32)
