"""What a forgery is: a window, the dice, perhaps a donor in; a window, its label and what was touched out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum

import numpy as np
from numpy.typing import NDArray

from avdetect.types import Claim, Floats, Label, Segment, Window

Rng = np.random.Generator


class Kind(StrEnum):
    """What is forged."""

    FACE = "face"
    VOICE = "voice"
    SYNC = "sync"


CLAIM_OF = {
    Kind.FACE: Claim.FACE_MANIPULATION,
    Kind.VOICE: Claim.VOICE_CLONING,
    Kind.SYNC: Claim.LIP_SYNC_MISMATCH,
}
"""The claim that a forgery makes true."""


WEIGHTS: dict[Kind, dict[str, float]] = {
    Kind.FACE: {
        "self_blended": 1.5,
        "mouth": 1.5,
        "face_swap": 1.0,
        "reenactment": 1.5,
        "generator": 1.0,
        "decoder": 0.0,  # the model that ships was trained without it
        "flicker": 0.4,
    },
    Kind.VOICE: {
        "griffin_lim": 0.8,
        "mel_inversion": 0.8,
        "source_filter": 0.6,
        "upsampling_traces": 0.7,
        "neural_vocoder": 1.2,
        "fourier_vocoder": 3.2,
        "acoustic_model": 1.2,
        "codec_model": 0.8,
        "diffusion_vocoder": 1.0,
        "linear_prediction": 0.5,
        "world_like": 0.7,
        "neural_codec": 0.8,
        "voice_conversion": 0.8,
        "partial_resynthesis": 0.5,
        "word_edit": 0.5,
        "text_to_speech": 0.0,  # needs an engine, which not every machine has
    },
    Kind.SYNC: {
        "shift": 1.0,
        "swap": 0.6,
        "swap_same_sex": 0.4,
        "swap_same_person": 0.2,
        "drift": 0.5,
        "retimed": 0.5,
        "dubbed": 0.5,
        "frozen": 0.3,
        "looped": 0.5,
        "frozen_mouth": 0.6,
    },
}
"""How often a forgery is drawn beside the others of its kind; 0: only where it is named."""


class Donor(StrEnum):
    """Whether a forgery takes something from another clip."""

    NONE = "none"
    OPTIONAL = "optional"
    NEEDED = "needed"


class Whose(StrEnum):
    """From which clip a forgery takes, where there are many to choose from."""

    ANYONE = "another clip"
    OTHER = "another person's clip"
    SAME_SEX = "a clip of another person of the same sex, by their pitch,"
    SAME_PERSON = "a clip in which the same person says something else"


class Act(IntEnum):
    """What a forgery does. Several of one window are done in this order: none moves what an earlier one has made."""

    MOVE_SOUND = 0
    REORDER_PICTURE = 1
    REPLACE_SOUND = 2
    SPEAK = 3
    PAINT = 4


@dataclass(frozen=True)
class Forged:
    """A forged window; `label` says what and, in `segments` (seconds of the clip), where.

    `method` is what was done, in words. `masks` [N, S, S] in 0..1 are where the N face crops were touched, None where
    none was. `frames` [T] are the window's own frames that its picture now shows, None where all are where they were.
    """

    window: Window
    label: Label
    method: str
    masks: Floats | None = None
    frames: NDArray[np.int64] | None = None


Forgery = Callable[[Window, Rng, Window | None, float], Forged]
"""`(window, rng, donor, strength) -> Forged`. The same seed gives the same forgery. ValueError where the window lacks
what is forged (a face, a voice), or where a donor is needed and lacks it.

`strength` 0..1: of a face the share of the forged picture in what is shown; of a voice that of the forged spectrum, or
of the words replaced; of lip-sync the size of the displacement. 0 leaves everything as it was.
"""


@dataclass(frozen=True)
class Member:
    """A line of the table: what it forges, how to get it, what it does, and whether and from whom it takes."""

    kind: Kind
    build: Callable[[], Forgery]
    act: Act
    donor: Donor = Donor.NONE
    whose: Whose = Whose.OTHER


# Several forgeries of one window


def chained(one: Forged, other: Forged) -> Forged:
    """What `other` is of the first source, when it was made of `one`'s window.

    A claim is true that either makes true; segments are united, methods joined, masks are the greater of both, and the
    orders of the picture follow one upon the other. `other` must not reorder a picture that `one` has painted.
    """
    masks = one.masks if other.masks is None else other.masks
    if one.masks is not None and other.masks is not None:
        masks = np.maximum(one.masks, other.masks)
    frames = one.frames if other.frames is None else other.frames
    if one.frames is not None and other.frames is not None:
        frames = one.frames[other.frames]
    face, voice, lip_sync = (one.label[claim] or other.label[claim] for claim in CLAIM_OF.values())
    label = Label(face, voice, lip_sync, united((*one.label.segments, *other.label.segments)))
    return Forged(other.window, label, f"{one.method} + {other.method}", masks, frames)


def united(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """Segments of which none touches another of its claim and track, by claim and then by time."""
    out: list[Segment] = []
    for segment in sorted(segments, key=lambda one: (str(one.claim), one.track or 0, one.start)):
        last = out[-1] if out else None
        if last and (last.claim, last.track) == (segment.claim, segment.track) and segment.start <= last.end:
            out[-1] = replace(last, end=max(last.end, segment.end))
        else:
            out.append(segment)
    return tuple(out)
