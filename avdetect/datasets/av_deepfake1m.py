"""AV-Deepfake1M and AV-Deepfake1M++ (Cai et al., 2023, 2025): a million clips with words replaced.

Labels lie in `<split>_metadata.json` (a list), or in a json beside each clip or below `<split>_metadata/`.
What was modified is `modify_type`, an enum here: a published loader tests "both-modified" for "both_modified"
and takes those clips for real. Some releases list `visual_fake_segments` for clips whose picture was not
touched, and the same for sound: `modify_type` decides which count. A clip without metadata is labelled by its
official file name; the test part, named otherwise and without metadata, is not labelled.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from avdetect.datasets.fakeavceleb import identity
from avdetect.datasets.lav_df import segments
from avdetect.errors import DatasetError
from avdetect.survey import Dataset, Survey, clips
from avdetect.tables import field, one_of, read_json
from avdetect.types import Claim, Item, Label, Segment, Split


class ModifyType(StrEnum):
    """Which streams of a clip were modified."""

    REAL = "real"
    VISUAL = "visual_modified"
    AUDIO = "audio_modified"
    BOTH = "both_modified"


_TYPES = {kind.value: kind for kind in ModifyType}
_VISUAL = (ModifyType.VISUAL, ModifyType.BOTH)
_AUDIO = (ModifyType.AUDIO, ModifyType.BOTH)
FILE_NAMES = {
    "real.mp4": ModifyType.REAL,
    "fake_video_real_audio.mp4": ModifyType.VISUAL,
    "real_video_fake_audio.mp4": ModifyType.AUDIO,
    "fake_video_fake_audio.mp4": ModifyType.BOTH,
}
"""The release's own file names, and what they say."""

_PLACE = re.compile(r"(?:.*/)?(?P<person>id\d{5})/(?P<video>[^/]+)/(?P<clip>[^/]+)/[^/]+")


def _read(survey: Survey) -> Iterator[Item]:
    rows = _metadata(survey)
    for path in clips(survey.files):
        split = _split(path)
        if split is None:
            survey.remark("clips in no folder called train, val or test, left out", path)
            continue
        stem = _key(path)
        where, row = rows.pop(stem, ("", None))
        yield _item(survey, path, split, where, row)
    for where, row in rows.values():
        kind = one_of(_TYPES, field(row, "modify_type", str, where), "modify_type", where)
        survey.expect(f"{field(row, 'split', str, where)} {kind}", 1)


def _key(path: str) -> str:
    """What a clip and its metadata have in common: split, folders, name, without `_metadata` and ending."""
    parts = path.rsplit(".", 1)[0].split("/")
    parts = [part.removesuffix("_metadata") for part in parts]
    start = next((at for at, part in enumerate(parts) if part in tuple(Split)), 0)
    return "/".join(parts[start:])


def _split(path: str) -> Split | None:
    return next((Split(part) for part in path.split("/") if part in tuple(Split)), None)


def _metadata(survey: Survey) -> dict[str, tuple[str, dict[str, Any]]]:
    """Each clip's row and where it stands, by `_key`."""
    rows: dict[str, tuple[str, dict[str, Any]]] = {}
    whole = [
        survey.named[f"{split}_metadata.json"] for split in Split if f"{split}_metadata.json" in survey.named
    ]
    for table in whole:
        split = table.rsplit("/", 1)[-1].removesuffix("_metadata.json")
        listed = read_json(survey.path(table))
        if not isinstance(listed, list):
            raise DatasetError(f"{survey.path(table)}: not a list of clips")
        for number, row in enumerate(listed, start=1):
            where = f"{survey.path(table)}, clip {number}"
            file = field(row, "file", str, where)
            rows[_key(f"{split}/{file.removeprefix(split + '/')}")] = (where, row)
    if not whole:
        for path in survey.files:
            if path.endswith(".json") and _PLACE.fullmatch(path) is not None:
                row = read_json(survey.path(path))
                rows[_key(path)] = (str(survey.path(path)), row)
    if not rows:
        survey.remark(
            "no metadata: clips are labelled by their file names, without segments",
            "<split>_metadata.json",
        )
    return rows


def _item(survey: Survey, path: str, split: Split, where: str, row: dict[str, Any] | None) -> Item:
    named = FILE_NAMES.get(path.rsplit("/", 1)[-1])
    kind, label, extra = named, Label(), {}
    if row is not None:
        kind = one_of(_TYPES, field(row, "modify_type", str, where), "modify_type", where)
        survey.expect(f"{split} {kind}", 1)
        if named is not None and named is not kind:
            raise DatasetError(
                f"{where}: modify_type is '{kind}', yet the clip is called {path.rsplit('/', 1)[-1]}"
            )
        extra = {"audio_model": str(row.get("audio_model") or "")}
    if kind is not None:
        label = _label(survey, path, kind, where, row or {})
        extra["modify_type"] = kind.value
    survey.see(f"{split} {kind or 'unlabelled'}")
    place = _PLACE.fullmatch(path)
    return Item(
        path=survey.path(path),
        label=label,
        split=split,
        method=None if kind in (None, ModifyType.REAL) else f"{kind} {extra.get('audio_model', '')}".strip(),
        identities=(identity(place["person"]),) if place else (),
        source=place["video"] if place else None,
        pair_id=f"avd1m-{place['person']}/{place['video']}/{place['clip']}" if place else None,
        extra={name: value for name, value in extra.items() if value},
    )


def _label(survey: Survey, path: str, kind: ModifyType, where: str, row: dict[str, Any]) -> Label:
    known: list[Segment] = []
    for claim, column, kinds in (
        (Claim.FACE_MANIPULATION, "visual_fake_segments", _VISUAL),
        (Claim.VOICE_CLONING, "audio_fake_segments", _AUDIO),
    ):
        if kind in kinds:
            known += segments(row.get(column, row.get("fake_segments", [])), [claim], where)
        elif row.get(column):
            survey.remark(f"{column} of clips whose modify_type denies them, not used", path)
    return Label(
        face_manipulation=kind in _VISUAL,
        voice_cloning=kind in _AUDIO,
        lip_sync_mismatch=False if kind is ModifyType.REAL else None,
        segments=tuple(known),
    )


AV_DEEPFAKE1M = Dataset(
    title="AV-Deepfake1M and AV-Deepfake1M++",
    labels="face and voice, with segments; lip-sync of the real clips",
    size="1,146,760 clips (++: about 2 million), 2,068 people; official split, the test labels are withheld",
    licence="AV-Deepfake1M terms (CC BY-NC 4.0, research only); VoxCeleb2 footage",
    access="sign the agreement at github.com/ControlNet/AV-Deepfake1M",
    citation="Cai et al., AV-Deepfake1M: A Large-Scale LLM-Driven Audio-Visual Deepfake Dataset, ACM MM 2024",
    layout="{train,val,test}/<id>/<video>/<clip>/*.mp4 and {train,val}_metadata.json",
    read=_read,
)
