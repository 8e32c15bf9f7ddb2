"""What a model can tell from that which should not matter: the same training with the evidence itself taken out.

Faces blotted out leave the background, speech taken out leaves the pauses. A model that still tells real from fake
there has found a shortcut; how much of its usual result is more than that is what the claim is worth.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

import numpy as np

from avdetect.forgeries.geometry import OVAL, grown, hull_mask
from avdetect.prepared import PreparedClip
from avdetect.types import CLAIMS, FRAME_RATE, SAMPLE_RATE, Bytes, Claim, Floats, Window

FACE_GROWN = 1.15
"""How far the blot reaches beyond the face's outline: seams lie there."""


class Hidden(StrEnum):
    """What is taken out of every clip, in training and in validation."""

    NOTHING = "nothing"
    FACES = "faces"
    SPEECH = "speech"


EVIDENCE: dict[Hidden, tuple[Claim, ...]] = {
    Hidden.NOTHING: CLAIMS,
    Hidden.FACES: (Claim.FACE_MANIPULATION,),
    Hidden.SPEECH: (Claim.VOICE_CLONING,),
}
"""Of which claims the evidence is taken out: only of these does a score without it tell anything."""


def without(clip: PreparedClip, hidden: Hidden) -> PreparedClip:
    """The clip with that part of its evidence gone. Lip-sync is left out: nothing of it remains."""
    if hidden is Hidden.NOTHING:
        return clip
    change = _without_faces if hidden is Hidden.FACES else _without_speech
    windows = tuple(_unsynced(change(window)) for window in clip.windows)
    return replace(clip, windows=windows)


def _unsynced(window: Window) -> Window:
    return replace(window, landmarks=None, mouth_crops=None, found=None)


def _without_faces(window: Window) -> Window:
    """Every face in a crop under a flat patch of its own mean colour."""
    if window.face_crops is None or window.crop_landmarks is None:
        return window
    crops = [_blotted(*pair) for pair in zip(window.face_crops, window.crop_landmarks, strict=True)]
    return replace(window, face_crops=np.stack(crops))


def _blotted(crop: Bytes, landmarks: Floats) -> Bytes:
    mask = hull_mask(grown(landmarks[list(OVAL), :2], FACE_GROWN), crop.shape[0]) > 0.5
    out = crop.copy()
    if mask.any():
        out[mask] = crop[mask].mean(0).astype(np.uint8)
    return out


def _without_speech(window: Window) -> Window:
    """The pauses alone, as if they were the speech; no sound where there is no pause."""
    if window.waveform is None or window.speech is None:
        return window
    pauses = ~window.speech
    kept = np.repeat(pauses, SAMPLE_RATE // FRAME_RATE)
    waveform = window.waveform[: len(kept)] * kept[: len(window.waveform)]
    return replace(window, waveform=waveform.astype(np.float32), speech=pauses)
