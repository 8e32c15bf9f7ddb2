"""Voice forgeries over windows: whole or in part, with the stretches that are no longer the speaker's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from avdetect.forgeries.family import Forged, Forgery
from avdetect.forgeries.resynthesis import resynthesise
from avdetect.forgeries.spectra import towards
from avdetect.types import SAMPLE_RATE, Claim, Floats, Label, Segment, Window

Rng = np.random.Generator


@dataclass(frozen=True)
class Spoken:
    """A waveform [S] and the stretches of samples [first, end) that were made; `reworded`: they say something else."""

    waveform: Floats
    spans: tuple[tuple[int, int], ...]
    reworded: bool = False


Voice = Callable[[Floats, Rng, Floats | None, float], Spoken]
"""A voice method: waveform [S], the dice, a donor's waveform [D] where there is one, strength 0..1."""


def resynthesis(name: str) -> Voice:
    """The whole waveform through a method of `RESYNTHESES`."""

    def voice(waveform: Floats, rng: Rng, donor: Floats | None, strength: float) -> Spoken:
        made, _ = resynthesise(waveform, rng, name, donor)
        return Spoken(towards(waveform, made, strength), ((0, len(waveform)),))

    return voice


def as_forgery(voice: Voice, method: str) -> Forgery:
    """The method as a member of the family: over the sound of a window."""

    def forgery(window: Window, rng: Rng, donor: Window | None = None, strength: float = 1.0) -> Forged:
        if window.waveform is None:
            raise ValueError("a forged voice needs sound")
        spoken = voice(window.waveform, rng, None if donor is None else donor.waveform, strength)
        out = replace(window, waveform=spoken.waveform)
        return Forged(out, _label(window, spoken), method)

    return forgery


def _label(window: Window, spoken: Spoken) -> Label:
    """The made stretches, which the mouth does not say where they were reworded and a face is seen."""
    mismatch = spoken.reworded and window.found is not None and bool(window.found.any())
    claims = [Claim.VOICE_CLONING, *([Claim.LIP_SYNC_MISMATCH] if mismatch else [])]
    segments = tuple(
        Segment(window.start + first / SAMPLE_RATE, window.start + end / SAMPLE_RATE, claim)
        for first, end in spoken.spans
        for claim in claims
    )
    return Label(voice_cloning=True, lip_sync_mismatch=True if mismatch else None, segments=segments)
