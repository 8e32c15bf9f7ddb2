"""Anybody's own clips: a csv or parquet manifest, or a folder that holds one called `manifest`."""

from __future__ import annotations

from collections.abc import Iterator

from avdetect.manifest import read_manifest
from avdetect.survey import Dataset, Survey
from avdetect.types import Item

_NAMES = ("manifest.csv", "manifest.parquet")


def _read(survey: Survey) -> Iterator[Item]:
    root = survey.root
    path = root if root.is_file() else next((root / name for name in _NAMES if (root / name).is_file()), None)
    if path is None:
        return
    for item in read_manifest(path):
        group = str(item.split or "no split")
        survey.expect(group, 1)
        if item.path.is_file():
            survey.see(group)
            yield item
        else:
            survey.remark("files that are not there, left out", str(item.path))


MANIFEST = Dataset(
    title="Your own clips",
    labels="whatever its columns say",
    size="any",
    licence="yours",
    access="write a csv or parquet file with the columns of data/manifest.md",
    citation="none",
    layout="a .csv or .parquet manifest, or a folder with manifest.csv or manifest.parquet",
    read=_read,
)
