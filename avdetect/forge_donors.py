"""From whose clip a forgery may take, and which of the inputs fits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from avdetect.errors import MediaError
from avdetect.forge_media import Footage, look
from avdetect.forgeries import FORGERIES, Donor, Kind, Member, Whose
from avdetect.forgeries.canvas import best_donor
from avdetect.forgeries.desync import same_sound
from avdetect.forgeries.voicing import same_sex
from avdetect.types import Item, Window

CANDIDATES = 3
"""Faces of which the one that looks the same way is taken."""


def find_donor(
    source: Item,
    footage: Footage,
    names: Sequence[str],
    sources: Sequence[Item],
    rng: np.random.Generator,
    longest: float,
) -> Window | None:
    """The window of another clip that all of the forgeries `names` may take from, or else those that must.

    For a face it is the one of a few that looks the same way. None where no clip is fit, or none is wanted.
    """
    takers = [FORGERIES[name] for name in names if FORGERIES[name].donor is not Donor.NONE]
    needing = [member for member in takers if member.donor is Donor.NEEDED]
    for members in (takers, needing):
        found = _fitting(source, footage, members, sources, rng, longest) if members else []
        if found:
            return (best_donor(footage.window, found) if _face(members) else None) or found[0]
    return None


def may_give(item: Item, source: Item, whose: Whose) -> bool:
    """Whether a forgery of `source` may take from an item: of the right person, never the same sentence or scene."""
    if item.path == source.path or (item.pair_id is not None and item.pair_id == source.pair_id):
        return False
    same_person = bool(set(item.identities) & set(source.identities))
    return whose is Whose.ANYONE or same_person == (whose is Whose.SAME_PERSON)


def wanting(name: str) -> str:
    """Why the forgery `name` could not be made where no donor was found."""
    whose = FORGERIES[name].whose
    remedy = "; the column 'identity' of a manifest says who speaks" if whose is Whose.SAME_PERSON else ""
    return f"'{name}' takes from {whose}, and none of the inputs is fit for it{remedy}"


@lru_cache(maxsize=8)
def look_at(path: Path, longest: float, audio_path: Path | None) -> Footage:
    """`forge_media.look`, of the last few clips without looking again."""
    return look(path, longest, audio_path)


def _face(members: Sequence[Member]) -> bool:
    return any(member.kind is Kind.FACE for member in members)


def _fitting(
    source: Item,
    footage: Footage,
    members: Sequence[Member],
    sources: Sequence[Item],
    rng: np.random.Generator,
    longest: float,
) -> list[Window]:
    """Of a dozen clips that may give, drawn at random, the first that fits; of those with a face the first few."""
    others = [item for item in sources if all(may_give(item, source, member.whose) for member in members)]
    wanted = CANDIDATES if _face(members) else 1
    found: list[Window] = []
    for at in rng.permutation(len(others))[: 4 * CANDIDATES]:
        try:
            other = look_at(others[at].path, longest, others[at].audio_path)
        except MediaError:
            continue  # it is told of when its own turn comes
        if all(_fits(member, other, footage) for member in members):
            found.append(other.window)
        if len(found) == wanted:
            break
    return found


def _fits(member: Member, other: Footage, footage: Footage) -> bool:
    if member.kind is Kind.FACE:
        return other.has_face and other.window.face_crops is not None
    if not other.has_voice or other.window.waveform is None:
        return False
    ours, theirs = footage.window.waveform, other.window.waveform
    if ours is None or (member.kind is Kind.SYNC and same_sound(ours, theirs)):
        return False
    return member.whose is not Whose.SAME_SEX or same_sex(ours, theirs)
