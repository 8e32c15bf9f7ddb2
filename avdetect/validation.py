"""A model's scores on held-out prepared clips: each claim on the clips that are labelled for it.

Lip-sync needs no fakes: every clip that is known to be in sync is scored as it is, with its sound moved, and with
another clip's sound.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from avdetect.batch import collate
from avdetect.forgeries.desync import shift, swapped
from avdetect.network import FusionNetwork
from avdetect.pooling import ClipEvidence
from avdetect.prepared import PreparedClip
from avdetect.speech import MIN_SPEECH_SECONDS
from avdetect.types import FRAME_RATE, Claim, Floats, Item, Window

SHIFTS = (-1.0, -0.4, -0.2, 0.2, 0.4, 1.0)
"""Seconds by which sound is moved to make sync negatives."""
MOVED = "shift {:+.1f} s"
"""The variant of a clip whose sound was moved."""


def moved_by(variant: str) -> float | None:
    """Seconds by which a variant's sound is late; None where there is no such number."""
    known = {MOVED.format(seconds): seconds for seconds in SHIFTS}
    return known.get(variant) if variant else 0.0


@dataclass(frozen=True)
class Score:
    """A clip's logit on a claim: `fake` is what is known of it, `variant` what was done to it ("" nothing)."""

    item: Item
    claim: Claim
    logit: float
    fake: bool
    variant: str = ""
    offset_frames: float | None = None


def score_windows(
    model: FusionNetwork, windows: Sequence[Window], claims: Iterable[Claim]
) -> dict[Claim, tuple[float, float | None]]:
    """Logit and sound offset of one clip's windows, for those of `claims` that can be assessed."""
    evidence = ClipEvidence()
    with torch.inference_mode():
        for first in range(0, len(windows), 8):
            some = list(windows[first : first + 8])
            evidence.add(some, model(**collate(some, mouth_crops=model.sees_mouth_crops)))
    usable = {w.track for w in windows if w.track is not None}
    duration = max(w.end for w in windows)
    found = {}
    for claim in claims:
        pooled = evidence.pool(model, claim, duration, usable)
        if pooled is not None:
            found[claim] = (pooled.logit, pooled.offset_frames)
    return found


def validate(model: FusionNetwork, clips: Sequence[PreparedClip]) -> list[Score]:
    """Scores of all claims on all clips that are labelled for them and can be assessed."""
    model.eval()
    scores = []
    for clip in clips:
        known = [c for c in (Claim.FACE_MANIPULATION, Claim.VOICE_CLONING) if clip.item.label[c] is not None]
        if not _speaks(clip.windows):
            known = [claim for claim in known if claim is not Claim.VOICE_CLONING]
        if not clip.windows or not known:
            continue
        for claim, (logit, _) in score_windows(
            model, [_needed(w, model, known) for w in clip.windows], known
        ).items():
            scores.append(Score(clip.item, claim, logit, bool(clip.item.label[claim])))
    return scores + list(validate_sync(model, clips))


def _speaks(windows: Sequence[Window]) -> bool:
    """Whether the voice can be assessed: there is as much speech as detection asks for.

    Windows of several faces hold the same sound.
    """
    heard = {
        w.start: w.steps if w.speech is None else int(w.speech.sum())
        for w in windows
        if w.waveform is not None
    }
    return sum(heard.values()) >= MIN_SPEECH_SECONDS * FRAME_RATE


def validate_sync(model: FusionNetwork, clips: Sequence[PreparedClip]) -> Iterator[Score]:
    """Sync scores of clips known to be in sync, true and made wrong."""
    claim = Claim.LIP_SYNC_MISMATCH
    talkers = [
        c
        for c in clips
        if c.item.label[claim] is False
        and any(w.track is not None and w.waveform is not None for w in c.windows)
    ]
    for number, clip in enumerate(talkers):
        windows = [
            _needed(w, model, [claim]) for w in clip.windows if w.track is not None and w.waveform is not None
        ]
        other = next(
            (
                t
                for t in talkers[number + 1 :] + talkers[:number]
                if t.item.identities != clip.item.identities
            ),
            None,
        )
        variants = {"": windows}
        for seconds in SHIFTS:
            variants[MOVED.format(seconds)] = [shift(w, round(seconds * 25)) for w in windows]
        if other is not None:
            sound = next(w for w in other.windows if w.waveform is not None)
            variants["other voice"] = [swapped(w, sound)[0] for w in windows]
        for name, changed in variants.items():
            if not changed:
                continue
            for logit, offset in score_windows(model, changed, [claim]).values():
                yield Score(clip.item, claim, logit, bool(name), name, offset)


def _needed(window: Window, model: FusionNetwork, claims: Sequence[Claim]) -> Window:
    """Only what the claims read, to spend no time on the rest."""
    inputs = model.inputs_of(claims)
    has = {"audio": window.waveform is not None, "face": window.face_crops is not None}
    if not any(has.get(name, window.landmarks is not None) for name in inputs):
        return window
    if "face" not in inputs:
        window = replace(window, face_crops=None, crop_frames=None, crop_landmarks=None)
    if "audio" not in inputs:
        window = replace(window, waveform=None, speech=None)
    seen = inputs & {"mouth", "mouth_crops"}
    return window if seen else replace(window, landmarks=None, found=None, mouth_crops=None)


def arrays(
    scores: Sequence[Score], claim: Claim
) -> tuple[Floats, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """Logits [N] and labels [N] (True = fake) of one claim."""
    mine = [s for s in scores if s.claim is claim]
    return np.array([s.logit for s in mine], np.float32), np.array([s.fake for s in mine], bool)
