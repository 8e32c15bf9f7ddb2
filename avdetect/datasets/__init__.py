"""The open family of data sets: names, and where their readers stand; a reader is imported when asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from avdetect import plugins
from avdetect.errors import DatasetError
from avdetect.survey import Dataset, Survey
from avdetect.types import Item

DATASETS: Mapping[str, str] = {
    "dfd": "dfd:DFD",
    "faceforensics": "faceforensics:FACEFORENSICS",
    "asvspoof2019-la": "asvspoof2019:LA",
    "asvspoof2019-pa": "asvspoof2019:PA",
    "asvspoof2021-la": "asvspoof2021:LA",
    "asvspoof2021-df": "asvspoof2021:DF",
    "asvspoof5": "asvspoof5:ASVSPOOF5",
    "in-the-wild": "in_the_wild:IN_THE_WILD",
    "wavefake": "wavefake:WAVEFAKE",
    "fakeavceleb": "fakeavceleb:FAKEAVCELEB",
    "lav-df": "lav_df:LAV_DF",
    "av-deepfake1m": "av_deepfake1m:AV_DEEPFAKE1M",
    "dfdc": "dfdc:DFDC",
    "deepspeak": "deepspeak:DEEPSPEAK",
    "idforge": "idforge:IDFORGE",
    "polyglotfake": "polyglotfake:POLYGLOTFAKE",
    "avlips": "avlips:AVLIPS",
    "kodf": "kodf:KODF",
    "manifest": "own:MANIFEST",
}
"""Name of each data set and its `module:Dataset`."""


def load(name: str) -> Dataset:
    """The data set of that name. Raises DatasetError, with the nearest name, where there is none."""
    dataset = _own(name) if name in DATASETS else plugins.find(plugins.DATASETS, name)
    if dataset is None:
        known = [*DATASETS, *plugins.announced(plugins.DATASETS)]
        near = get_close_matches(name, known, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else f"; known are {', '.join(known)}"
        raise DatasetError(f"no data set is called '{name}'{hint}")
    if not isinstance(dataset, Dataset):
        raise DatasetError(f"'{name}' is no avdetect.survey.Dataset but a {type(dataset).__name__}")
    return dataset


def _own(name: str) -> object:
    """What a line of the table above points to."""
    module, attribute = DATASETS[name].split(":")
    found: object = getattr(import_module(f"{__name__}.{module}"), attribute)
    return found


def index(
    name: str, root: Path | str, progress: Callable[[int], None] | None = None
) -> tuple[list[Item], Survey]:
    """Items of the data set `name` below `root`, in order of their paths, and the account of what was met.

    Each item's `extra` says its `dataset`. Raises DatasetError where nothing of the set is there, or where a
    label is one that nobody knows.
    """
    dataset = load(name)
    survey = Survey(root, progress)
    items = sorted(dataset.read(survey), key=lambda item: str(item.path))
    if not items:
        said = f" ({'; '.join(survey.report())})" if survey.report() else ""
        raise DatasetError(f"{root}: nothing of {name} found, expected {dataset.layout}{said}")
    return [replace(item, extra={"dataset": name, **item.extra}) for item in items], survey
