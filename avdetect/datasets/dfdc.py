"""DFDC (Dolhansky et al., 2020): paid actors, eight face-swap methods, some voices swapped as well.

Each folder has its own `metadata.json`: {"x.mp4": {"label": "FAKE" or "REAL", "split", "original"}}; the
public test set writes {"is_fake": 0 or 1}. A label is for the clip: which stream was changed is not told, so
the voice is unknown, in the real clips too, and FAKE is taken for the face alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from avdetect.errors import DatasetError
from avdetect.manifest import SPLITS
from avdetect.survey import Dataset, Survey
from avdetect.tables import one_of, read_json
from avdetect.types import Item, Label

_LABELS = {"REAL": False, "FAKE": True, "0": False, "1": True}
_TABLES = frozenset({"metadata.json", "testing_metadata.json"})


def _read(survey: Survey) -> Iterator[Item]:
    tables = [path for path in survey.files if path.rsplit("/", 1)[-1] in _TABLES]
    if not tables:
        survey.remark("no metadata.json, nothing can be labelled", str(survey.root))
    present = frozenset(survey.files)
    for table in tables:
        rows = read_json(survey.path(table))
        if not isinstance(rows, dict):
            raise DatasetError(f"{survey.path(table)}: not a mapping from clips to labels")
        for file, row in rows.items():
            fake = _fake(row, f"{survey.path(table)}, {file}")
            group = "FAKE" if fake else "REAL"
            survey.expect(group, 1)
            path = survey.folder(table) + file
            if path in present:
                survey.see(group)
                yield _item(survey, path, file, fake, row, f"{survey.path(table)}, {file}")


def _fake(row: Any, where: str) -> bool:
    if not isinstance(row, dict) or not row.keys() & {"label", "is_fake"}:
        raise DatasetError(f"{where}: neither 'label' nor 'is_fake' is given")
    return one_of(_LABELS, str(row.get("label", row.get("is_fake"))), "label", where)


def _item(survey: Survey, path: str, file: str, fake: bool, row: dict[str, Any], where: str) -> Item:
    split = row.get("split")
    return Item(
        path=survey.path(path),
        label=Label(face_manipulation=fake),
        split=one_of(SPLITS, str(split), "split", where) if split else None,
        method="DFDC (unstated)" if fake else None,
        pair_id=f"dfdc-{row.get('original') or file}",
    )


DFDC = Dataset(
    title="Deepfake Detection Challenge",
    labels="face (clips with only the voice swapped are not told apart)",
    size="119,154 training clips (50 parts, 472 GB), 4,000 validation, 5,000 public test",
    licence="DFDC terms of use (research)",
    access="account at ai.meta.com/datasets/dfdc",
    citation="Dolhansky et al., The DeepFake Detection Challenge (DFDC) Dataset, arXiv:2006.07397",
    layout="dfdc_train_part_N/metadata.json beside its *.mp4",
    read=_read,
)
