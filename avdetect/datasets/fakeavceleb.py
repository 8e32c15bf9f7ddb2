"""FakeAVCeleb v1.2 (Khalid et al., 2021): VoxCeleb2 interviews, with the face, the voice or both made
anew.

The category folder labels face and voice. Synchrony is stated for no fake: faces swapped onto the speaker
keep his mouth's timing, cloned speech was laid over the picture, wav2lip fitted the mouth to it; so it is
known for category A alone. `meta_data.csv` adds the method and the people. Its header names nine columns over
rows of ten: the file name and its folder are told apart by what they hold, whatever their columns are called.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from avdetect.errors import DatasetError
from avdetect.survey import Dataset, Survey, clips
from avdetect.tables import csv_cells, one_of
from avdetect.types import Item, Label


class Category(StrEnum):
    """The four folders: letter, what is made and how many clips there are, in `CATEGORIES`."""

    A = "RealVideo-RealAudio"
    B = "RealVideo-FakeAudio"
    C = "FakeVideo-RealAudio"
    D = "FakeVideo-FakeAudio"


LABELS = {
    Category.A: Label(face_manipulation=False, voice_cloning=False, lip_sync_mismatch=False),
    Category.B: Label(face_manipulation=False, voice_cloning=True),
    Category.C: Label(face_manipulation=True, voice_cloning=False),
    Category.D: Label(face_manipulation=True, voice_cloning=True),
}
SIZES = {Category.A: 500, Category.B: 500, Category.C: 9_709, Category.D: 10_835}
METHODS = {
    name: name
    for name in ("real", "rtvc", "faceswap", "fsgan", "wav2lip", "faceswap-wav2lip", "fsgan-wav2lip")
}

_TYPES = {category.value: category for category in Category}
_LETTERS = {category.name: category for category in Category}
_PERSON = re.compile(r"(?<![A-Za-z0-9])id\d{5}(?![A-Za-z0-9])")
_PATH = re.compile(
    rf"(?:^|.*/)(?P<category>{'|'.join(_TYPES)})/(?P<race>[^/]+)/(?P<gender>[^/]+)/(?P<owner>id\d{{5}})/(?P<name>[^/]+)"
)


@dataclass(frozen=True)
class _Row:
    """What `meta_data.csv` says of a clip."""

    method: str
    people: tuple[str, ...]


def identity(person: str) -> str:
    """How a VoxCeleb2 speaker (idNNNNN) is called in manifests: the same in every set made from VoxCeleb2."""
    return f"voxceleb2-{person}"


def _read(survey: Survey) -> Iterator[Item]:
    for category, number in SIZES.items():
        survey.expect(category, number)
    rows = _metadata(survey)
    for path in clips(survey.files):
        place = _PATH.fullmatch(path)
        if place is None:
            survey.remark("clips outside <category>/<race>/<gender>/<id>/, left out", path)
            continue
        category = Category(place["category"])
        survey.see(category)
        row = rows.get((category, place["owner"], place["name"]))
        if rows and row is None:
            survey.remark("clips that meta_data.csv does not name", path)
        yield _item(survey, path, category, place, row)


def _item(survey: Survey, path: str, category: Category, place: re.Match[str], row: _Row | None) -> Item:
    owner, name = place["owner"], place["name"]
    people = dict.fromkeys([owner, *_PERSON.findall(name), *(row.people if row else ())])
    method = None if row is None or row.method == "real" else row.method
    return Item(
        path=survey.path(path),
        label=LABELS[category],
        method=method,
        identities=tuple(identity(person) for person in people),
        pair_id=f"fakeavceleb-{owner}-{name.split('.')[0].split('_')[0]}",
        extra={"category": category.name, "race": place["race"], "gender": place["gender"]},
    )


def _metadata(survey: Survey) -> dict[tuple[Category, str, str], _Row]:
    """Rows by category, owner and file name; empty without a metadata file."""
    table = survey.named.get("meta_data.csv")
    if table is None:
        survey.remark("meta_data.csv not found, methods are unknown", "meta_data.csv")
        return {}
    cells = csv_cells(survey.path(table))
    where, header = next(cells, (str(survey.path(table)), []))
    for column in ("source", "method", "category", "type"):
        if column not in header:
            raise DatasetError(f"{where}: no column '{column}'; its header is {', '.join(header)}")
    rows = {}
    for where, row in cells:
        name = next((cell.rsplit("/", 1)[-1] for cell in row if cell.lower().endswith(".mp4")), None)
        if name is None or len(row) < len(header) - 1:
            raise DatasetError(f"{where}: names no .mp4 file")
        named = dict(zip(header, row, strict=False))
        category = one_of(_TYPES, named["type"], "type", where)
        if one_of(_LETTERS, named["category"], "category", where) is not category:
            raise DatasetError(f"{where}: category {named['category']} is not {category}")
        method = one_of(METHODS, named["method"], "method", where)
        people = tuple(person for cell in row[:3] for person in _PERSON.findall(cell))
        rows[category, named["source"], name] = _Row(method, people)
    return rows


FAKEAVCELEB = Dataset(
    title="FakeAVCeleb v1.2",
    labels="face and voice; lip-sync of the real clips",
    size="500 real, 500 voice-only, 9,709 face-only and 10,835 face-and-voice fakes",
    licence="FakeAVCeleb terms (research only); VoxCeleb2 footage",
    access="form at github.com/DASH-Lab/FakeAVCeleb",
    citation="Khalid et al., FakeAVCeleb: A Novel Audio-Video Multimodal Deepfake Dataset, NeurIPS 2021",
    layout="{RealVideo,FakeVideo}-{RealAudio,FakeAudio}/<race>/<gender>/<id>/*.mp4 and meta_data.csv",
    read=_read,
)
