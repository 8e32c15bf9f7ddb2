"""Training examples that are seen and heard at once: clips with a face and its voice, as they are or forged.

Examples of one claim carry that claim's evidence alone. These carry all of it, so that a fusion across streams learns
what picture and sound say of each other; what is not known of a clip stays unlabelled.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from avdetect.augment_faces import degrade_faces
from avdetect.forgeries import CLAIM_OF, FORGERIES, Kind, compose, draw
from avdetect.pieces import cut, degraded, start
from avdetect.types import CROP_EVERY, FRAME_RATE, Label, Window

Rng = np.random.Generator

TRIES = 6
"""Draws of forgeries until one can be done."""


def whole_piece(window: Window, rng: Rng, shortest: float, longest: float) -> Window:
    """Some seconds of a window, from its beginning in time: mouth, sound, and the face crops that fall into them."""
    length = int(rng.uniform(shortest, longest) * FRAME_RATE)
    first = start(window, length, rng) // CROP_EVERY * CROP_EVERY
    piece = cut(window, first, length)
    assert window.face_crops is not None and window.crop_frames is not None
    assert window.crop_landmarks is not None
    inside = (window.crop_frames >= first) & (window.crop_frames < first + length)
    if not inside.any():  # a face lost from sight: its last crop stands for it
        inside[np.abs(window.crop_frames - first).argmin()] = True
    return replace(
        piece,
        start=0.0,
        end=piece.end - piece.start,
        face_crops=window.face_crops[inside],
        crop_frames=np.clip(window.crop_frames[inside] - first, 0, piece.steps - 1),
        crop_landmarks=window.crop_landmarks[inside],
    )


def forged_together(window: Window, label: Label, donor: Window, rng: Rng) -> tuple[Window, Label]:
    """The window through forgeries of one or more of the claims that `label` calls real, and what is true then.

    It comes back as it was where nothing is known to be real, or nothing that was drawn can be done to it.
    """
    kinds = [kind for kind, claim in CLAIM_OF.items() if label[claim] is False]
    for _ in range(TRIES if kinds else 0):
        chosen = [kind for kind in kinds if rng.random() < 0.4] or [kinds[int(rng.integers(len(kinds)))]]
        names = [draw(kind, rng, donor=True) for kind in chosen]
        try:
            forged = compose(names, window, rng, donor, float(rng.uniform(0.5, 1.0)))
        except ValueError:  # a donor of the other sex, too little speech to replace a word of, and the like
            continue
        face, voice, lip_sync = (forged.label[claim] or label[claim] for claim in CLAIM_OF.values())
        if lip_sync is False and any(FORGERIES[name].kind is not Kind.VOICE for name in names):
            lip_sync = (
                None  # a mouth redrawn, or moved by too little to be seen: nobody knows whether it still fits
            )
        return forged.window, Label(face, voice, lip_sync)
    return window, label


def degraded_whole(window: Window, rng: Rng, strength: float) -> Window:
    """Sound, landmarks and face crops through the chains that examples of single claims get."""
    window = degraded(window, rng, strength)
    assert window.face_crops is not None
    return replace(window, face_crops=degrade_faces(window.face_crops, rng, strength))
