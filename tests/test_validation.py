"""Which clips a run scores: those whose users get an answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_fusion import STREAMS, make_model

from avdetect.prepared import PreparedClip
from avdetect.types import Claim, Item, Label, Window
from avdetect.validation import validate

FRAMES = 75


def clip(spoken: int, tracks: int = 1, *, told: bool = True) -> PreparedClip:
    """Three seconds of sound, with speech in the first `spoken` frames, beside so many faces."""
    speech = (np.arange(FRAMES) < spoken) if told else None
    sound = np.random.default_rng(0).normal(0, 0.1, FRAMES * 640).astype(np.float32)
    windows = tuple(Window(0.0, 3.0, waveform=sound, speech=speech) for _ in range(tracks))
    return PreparedClip(Item(Path("a.wav"), Label(voice_cloning=True)), windows)


@pytest.mark.parametrize(
    ("one", "scored"),
    [
        (clip(25), True),
        (clip(24), False),
        (clip(24, tracks=2), False),
        (clip(0, told=False), True),
    ],
    ids=["a second of speech", "less", "less, heard beside two faces", "sound that nobody looked into"],
)
def test_a_voice_is_scored_where_detection_would_assess_it(one: PreparedClip, scored: bool) -> None:
    model = make_model({"voice": STREAMS["voice"]}, claims={"voice_cloning": ["voice"]})
    assert [s.claim for s in validate(model, [one])] == [Claim.VOICE_CLONING] * scored
