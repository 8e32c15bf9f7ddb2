"""What a degradation is: something that happens to real and fake recordings alike, in severities from mild to harsh."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from avdetect.types import FRAME_RATE, Bytes, Claim, Floats

Rng = np.random.Generator

Sound = Callable[[Floats, Any, Rng], Floats]
"""`(waveform [S], setting, rng) -> waveform [S']`, float32 at 16 kHz. The same seed gives the same sound."""


class Kind(StrEnum):
    """What is changed."""

    SOUND = "sound"
    PICTURE = "picture"


CLAIMS_OF = {
    Kind.SOUND: (Claim.VOICE_CLONING, Claim.LIP_SYNC_MISMATCH),
    Kind.PICTURE: (Claim.FACE_MANIPULATION, Claim.LIP_SYNC_MISMATCH),
}
"""The claims whose evidence a kind touches."""


class Made(StrEnum):
    """Where it is applied: through a real encoder, to a file and back; or on decoded samples or pixels."""

    ENCODER = "encoder"
    SAMPLES = "samples"


@dataclass(frozen=True)
class Coding:
    """Sound in a file: suffix, encoder, the sample rate that it is given and its bits per second."""

    suffix: str
    encoder: str
    rate: int
    bit_rate: int


AAC = Coding(".m4a", "aac", 16_000, 64_000)
"""The sound of most uploads."""


@dataclass(frozen=True)
class Encoding:
    """One pass through H.264: quality `crf`, frames per second, and the most pixels that the shorter side keeps."""

    crf: int
    fps: float = FRAME_RATE
    side: int | None = None


ALMOST_LOSSLESS = Encoding(12)
"""How pictures that were changed are kept until they are looked at; "crf-12" shows what that alone does."""


@dataclass(frozen=True)
class Recipe:
    """What is done to a picture: `change` each frame [H, W, 3], then encode in `passes`, one after the other.

    `sound` is what happens to the sound beside it: None leaves it untouched.
    """

    change: Callable[[Bytes, Rng], Bytes] | None = None
    passes: tuple[Encoding, ...] = (ALMOST_LOSSLESS,)
    sound: Callable[[Floats, Rng], Floats] | None = None


Picture = Callable[[Any], Recipe]
"""`setting -> Recipe`."""


@dataclass(frozen=True)
class Degradation:
    """A line of the table: `severities` are label -> setting, mildest first; `title` says in which unit.

    `keeps_time` is False where sound and picture would no longer stand side by side: lip-sync is left out then.
    """

    kind: Kind
    made: Made
    title: str
    severities: Mapping[str, Any]
    build: Callable[[], Any]
    keeps_time: bool = True

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The claims that can be asked of a clip after it."""
        claims = CLAIMS_OF[self.kind]
        return claims if self.keeps_time else tuple(c for c in claims if c is not Claim.LIP_SYNC_MISMATCH)


@dataclass(frozen=True)
class Variant:
    """One severity of one degradation, called `name`, e.g. "mp3-32"."""

    name: str
    degradation: str
    severity: str
    claims: tuple[Claim, ...]
