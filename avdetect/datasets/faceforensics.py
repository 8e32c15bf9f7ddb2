"""FaceForensics++ (Rössler et al., 2019): 1,000 videos and five manipulations of each. No sound.

The official split is three lists of id pairs: ["071", "054"] gives the reals 071 and 054 and the fakes
071_054 and 054_071. The lists are read where they lie below the root (`train.json`, `val.json`, `test.json`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from avdetect.datasets.dfd import COMPRESSIONS
from avdetect.errors import DatasetError
from avdetect.survey import Dataset, Survey, clips
from avdetect.tables import read_json
from avdetect.types import Item, Label, Split

METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter")
PER_METHOD = 1000
"""Videos in each method's folder, and reals."""

_PATH = re.compile(
    r"(?:^|.*/)(?:original_sequences/youtube|manipulated_sequences/(?P<method>[^/]+))/(?P<level>[^/]+)/videos/"
    r"(?P<name>[^/]+)"
)
_NAME = re.compile(r"(?P<target>\d{3})(?:_(?P<source>\d{3}))?\.mp4")
_OTHERS = ("DeepFakeDetection",)  # the reader `dfd` has those


def identity(video: str) -> str:
    """How the person of a YouTube video (000 to 999) is called in manifests and protocols."""
    return f"ffpp-{video}"


def read_pairs(pairs: object, where: str) -> list[tuple[str, str]]:
    """The id pairs of one official list. Raises DatasetError where it is not such a list."""
    if not isinstance(pairs, list):
        raise DatasetError(f"{where}: not a list of id pairs")
    for number, pair in enumerate(pairs, start=1):
        if not (
            isinstance(pair, list) and len(pair) == 2 and all(re.fullmatch(r"\d{3}", str(i)) for i in pair)
        ):
            raise DatasetError(f"{where}, pair {number}: {pair!r} is not two ids of three digits")
    return [(str(first), str(second)) for first, second in pairs]


def _splits(survey: Survey) -> dict[str, Split]:
    """Split of each video id, from the official lists below the root; empty without them."""
    found: dict[str, Split] = {}
    for split in Split:
        path = survey.named.get(f"{split}.json")
        if path is not None:
            pairs = read_pairs(read_json(survey.path(path)), str(survey.path(path)))
            found |= {video: split for pair in pairs for video in pair}
    return found


def _read(survey: Survey) -> Iterator[Item]:
    splits = _splits(survey)
    seen = set()
    for path in clips(survey.files):
        place = _PATH.fullmatch(path)
        if place is None or place["level"] == "masks" or place["method"] in _OTHERS:
            continue
        name = _NAME.fullmatch(place["name"])
        level, method = COMPRESSIONS.get(place["level"]), place["method"]
        if method is not None and method not in METHODS:
            survey.remark("manipulations that are not FaceForensics++'s, left out", path)
        elif level is None or name is None or (method is None) != (name["source"] is None):
            survey.remark("names that are not those of FaceForensics++, left out", path)
        else:
            group = f"{level} {method or 'real'}"
            seen.add(group)
            survey.see(group)
            yield _item(survey, path, method, level, [id for id in name.groups() if id], splits)
    for group in sorted(seen) or [f"c23 {method}" for method in ("real", *METHODS)]:
        survey.expect(group, PER_METHOD)
    if not splits:
        survey.remark(
            "official split lists not found, clips are in no split", "train.json, val.json, test.json"
        )


def _item(
    survey: Survey, path: str, method: str | None, level: str, videos: list[str], splits: dict[str, Split]
) -> Item:
    sides = {splits.get(video) for video in videos}
    return Item(
        path=survey.path(path),
        label=Label(face_manipulation=method is not None),
        split=sides.pop() if len(sides) == 1 else None,
        method=method,
        identities=tuple(identity(video) for video in videos),
        pair_id=f"ffpp-{videos[0]}",
        extra={"compression": level},
    )


FACEFORENSICS = Dataset(
    title="FaceForensics++",
    labels="face (no sound)",
    size="1,000 real videos, 1,000 by each of 5 methods, in 3 compressions",
    licence="FaceForensics++ terms of use (research only, no redistribution)",
    access="form at github.com/ondyari/FaceForensics, then its download script",
    citation="Rössler et al., FaceForensics++: Learning to Detect Manipulated Facial Images, ICCV 2019",
    layout="original_sequences/youtube/<c>/videos/NNN.mp4 and "
    "manipulated_sequences/<method>/<c>/videos/NNN_NNN.mp4",
    read=_read,
)
