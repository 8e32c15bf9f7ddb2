"""DeepSpeak v1 and v2 (Barrington et al., 2024): people at their webcams, and fakes of them by current
engines.

Real `<identity>-<recording>.mp4`. A v1 fake is `<engine>--<source>-<target>--<source recording>-<target
recording>--<n>.mp4`; a v2 fake is `<engine>-<source recording>-<target recording>-<voice>.mp4`, and its
people stand in `annotations-fake.csv`. `annotations-split-def.csv` gives each person's split. The voice is
labelled where the name says that a cloning service made it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from avdetect.manifest import SPLITS
from avdetect.survey import Dataset, Survey, clips
from avdetect.tables import csv_rows, one_of
from avdetect.types import Item, Label, Split

ENGINES = {
    "facefusion": "face swap",
    "facefusion_gan": "face swap",
    "facefusion_live": "face swap",
    "retalking": "lip-sync",
    "wav2lip": "lip-sync",
    "diff2lip": "lip-sync",
    "latentsync": "lip-sync",
    "hellomeme": "talking face",
    "liveportrait": "talking face",
    "memo": "talking face",
}
_CLONED = frozenset({"playht", "elevenlabs"})
_REAL = re.compile(r"(?P<target>\d+)-(?P<recording>\d+)")
_V1 = re.compile(
    r"(?P<engine>[^-]+)--(?P<source>\d+)-(?P<target>\d+)--(?P<source_recording>\d+)-(?P<recording>\d+)--.+"
)
_V2 = re.compile(r"(?P<engine>[^-]+)-(?P<source_recording>\d+)-(?P<recording>\d+)(?:-(?P<voice>.+))?")


def _read(survey: Survey) -> Iterator[Item]:
    splits, people = _splits(survey), _people(survey)
    for path in clips(survey.files):
        stem = path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        match = _REAL.fullmatch(stem) or _V1.fullmatch(stem) or _V2.fullmatch(stem)
        if match is None:
            survey.remark("names that are not those of DeepSpeak, left out", path)
            continue
        yield _item(survey, path, {**match.groupdict(), **people.get(stem, {})}, splits)


def _item(survey: Survey, path: str, parts: dict[str, str], splits: dict[str, Split]) -> Item:
    engine, target = parts.get("engine"), parts.get("target")
    fake = engine is not None
    if engine is not None:
        one_of(ENGINES, engine, "engine", str(survey.path(path)))
        if target is None:
            survey.remark("fakes that annotations-fake.csv does not name, their people unknown", path)
    survey.see(engine or "real")
    shown = [person for person in dict.fromkeys((target, parts.get("source"))) if person]
    sides = {splits.get(person) for person in shown}
    voice = parts.get("voice") or ""
    extra = {"engine_kind": ENGINES.get(engine or "", ""), "voice": voice}
    return Item(
        path=survey.path(path),
        label=Label(True, voice in _CLONED or None) if fake else Label(False, False, False),
        split=sides.pop() if len(sides) == 1 else None,
        method=engine,
        identities=tuple(f"deepspeak-{person}" for person in shown),
        pair_id=f"deepspeak-{target}-{parts['recording']}" if target else None,
        language="en",
        extra={name: value for name, value in extra.items() if value},
    )


def _splits(survey: Survey) -> dict[str, Split]:
    table = survey.named.get("annotations-split-def.csv")
    if table is None:
        survey.remark("split list not found, clips are in no split", "annotations-split-def.csv")
        return {}
    rows = csv_rows(survey.path(table), ("identity", "split"))
    return {row["identity"]: one_of(SPLITS, row["split"].lower(), "split", where) for where, row in rows}


def _people(survey: Survey) -> dict[str, dict[str, str]]:
    """Target and source of each v2 fake, by the stem of its file name; empty without annotations."""
    table = survey.named.get("annotations-fake.csv")
    if table is None:
        return {}
    rows = csv_rows(survey.path(table), ("video-file", "identity-source", "identity-target"))
    return {
        row["video-file"].removesuffix(".mp4"): {
            "source": row["identity-source"],
            "target": row["identity-target"],
        }
        for _, row in rows
    }


DEEPSPEAK = Dataset(
    title="DeepSpeak v1.1 and v2",
    labels="face; voice where it came from a cloning service; lip-sync of the real clips",
    size="v1.1: 6,667 real, 6,796 fake; v2: 9,376 real, 7,209 fake",
    licence="DeepSpeak licence (free to qualifying academic institutions)",
    access="accept the conditions at huggingface.co/datasets/faridlab/deepspeak_v1_1 and deepspeak_v2",
    citation="Barrington, Bohacek and Farid, The DeepSpeak Dataset, arXiv:2408.05366",
    layout="<identity>-<recording>.mp4, <engine>--….mp4 or <engine>-….mp4 anywhere, and the "
    "annotations-*.csv files",
    read=_read,
)
