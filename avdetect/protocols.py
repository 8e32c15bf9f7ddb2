"""Splits as files: who belongs to train, val and test, made by rules that anyone can run again to the same
bytes.

A `Protocol` puts people (identities as manifests call them) on one side each. An item belongs to a side only
if everybody in it does: a face swap between two sides is left out of all of them, since the source's face
would leak from one into the other. There is no random state: people are put in the order of the SHA-256 of a
stated text.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from avdetect.datasets import asvspoof2019, dfd, faceforensics, fakeavceleb
from avdetect.errors import DatasetError
from avdetect.survey import Survey
from avdetect.tables import lines, read_json
from avdetect.types import Item, Split

DFD_SPLITS = {"dfd-20-4-4": (20, 4, 4), "dfd-20-8": (20, 0, 8)}
"""Actors in train, val and test."""
FAKEAVCELEB_SPLIT = (350, 50, 100)
"""People in train, val and test."""

_PEOPLE_IN_FAKEAVCELEB = 500


@dataclass(frozen=True)
class Protocol:
    """Who is on which side of data set `dataset`, by which `rule`; `counts` are for the reader's information.

    `pairs` are the official id pairs of FaceForensics++. Raises ValueError where somebody is on two sides.
    """

    name: str
    dataset: str
    rule: str
    members: Mapping[Split, tuple[str, ...]]
    counts: Mapping[str, Any] = field(default_factory=dict)
    pairs: Mapping[Split, tuple[tuple[str, str], ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that nobody stands on two sides."""
        people = Counter(person for side in self.members.values() for person in side)
        twice = [person for person, number in people.items() if number > 1]
        if twice:
            raise ValueError(f"{twice[0]} stands in two places of protocol {self.name}")

    def apply(self, items: Iterable[Item]) -> list[Item]:
        """The items with this protocol's split: the side of everybody in them, None where they differ."""
        side_of = {person: side for side, people in self.members.items() for person in people}
        applied = []
        for item in items:
            sides = {side_of.get(person) for person in item.identities} or {None}
            applied.append(replace(item, split=sides.pop() if len(sides) == 1 else None))
        return applied

    def to_bytes(self) -> bytes:
        """The protocol as a json file: the same protocol gives the same bytes."""
        content: dict[str, Any] = {"name": self.name, "dataset": self.dataset, "rule": self.rule}
        content |= {"counts": self.counts, **{side.value: people for side, people in self.members.items()}}
        if self.pairs:
            content["pairs"] = self.pairs
        return (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode()


def read_protocol(path: Path | str) -> Protocol:
    """A protocol file. Raises DatasetError where it is not one."""
    content = read_json(Path(path))
    try:
        return Protocol(
            name=content["name"],
            dataset=content["dataset"],
            rule=content["rule"],
            members={split: tuple(content[split]) for split in Split if split in content},
            counts=content.get("counts", {}),
            pairs={
                Split(split): tuple((first, second) for first, second in pairs)
                for split, pairs in content.get("pairs", {}).items()
            },
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path}: not a protocol ({error!r})") from error


def ranked(people: Iterable[str], purpose: str) -> list[str]:
    """People in the order of the SHA-256 (hex) of `avdetect/<purpose>/<person>`."""
    return sorted(people, key=lambda person: sha256(f"avdetect/{purpose}/{person}".encode()).hexdigest())


def dfd_protocol(name: str) -> Protocol:
    """An actor-disjoint split of DeepFakeDetection, `DFD_SPLITS`, disjoint in target and source actor.

    Both put the same 20 actors into train. `counts` are what remains if every pair of actors had as many
    fakes.
    """
    sizes = DFD_SPLITS[name]
    members = _cut([dfd.identity(actor) for actor in ranked(dfd.ACTORS, "dfd")], sizes)
    pairs = len(dfd.ACTORS) * (len(dfd.ACTORS) - 1)
    counts = {
        split.value: {
            "actors": len(side),
            "real, about": round(dfd.REALS * len(side) / len(dfd.ACTORS)),
            "fake, about": round(dfd.FAKES * len(side) * (len(side) - 1) / pairs),
        }
        for split, side in members.items()
    }
    rule = (
        "actors 01 to 28 in the order of the SHA-256 (hex) of avdetect/dfd/<actor>; the first 20 are train, "
        "the next val (if any), the last test; a fake belongs to a side only if its target and its source do"
    )
    return Protocol(name, "dfd", rule, members, counts)


def faceforensics_protocol(survey: Survey) -> Protocol:
    """The official split of FaceForensics++, from its lists `train.json`, `val.json` and `test.json`."""
    pairs = {}
    for split in Split:
        path = _official(survey, f"{split}.json")
        pairs[split] = tuple(faceforensics.read_pairs(read_json(path), str(path)))
    members = {
        split: tuple(sorted(faceforensics.identity(video) for pair in side for video in pair))
        for split, side in pairs.items()
    }
    counts = {
        split.value: {"pairs": len(pairs[split]), "videos": len(side)} for split, side in members.items()
    }
    rule = (
        "as published with FaceForensics++ (Rössler et al., 2019): a pair [a, b] gives the reals a and b and "
        "the fakes a_b and b_a of each method"
    )
    return Protocol("faceforensics", "faceforensics", rule, members, counts, pairs)


def asvspoof2019_protocol(survey: Survey) -> Protocol:
    """ASVspoof 2019 LA's own split as its speakers, from the cm protocols, with the trials of each attack."""
    members: dict[Split, tuple[str, ...]] = {}
    counts: dict[str, dict[str, int]] = {}
    for part in asvspoof2019.LA_PARTS:
        trials = list(asvspoof2019.read_cm_protocol(_official(survey, part.protocol)))
        members[part.split] = tuple(sorted({trial.speaker for trial in trials}))
        attacks = Counter(trial.attack or "bona fide" for trial in trials)
        counts[part.split.value] = {"trials": len(trials), **dict(sorted(attacks.items()))}
    rule = (
        "as published with ASVspoof 2019 LA: the speakers of its cm protocols train, dev (val), eval (test)"
    )
    return Protocol("asvspoof2019-la", "asvspoof2019-la", rule, members, counts)


def fakeavceleb_protocol(survey: Survey) -> Protocol:
    """An identity-disjoint split of FakeAVCeleb: everybody whose face or voice went into a clip.

    The 500 people are read from the names of its clips, in any csv file below the survey's root.
    """
    found: set[str] = set()
    for path in survey.files:
        if path.endswith(".csv"):
            listed = [line for line in lines(survey.path(path)) if "RealVideo" in line or "FakeVideo" in line]
            found |= {person for line in listed for person in re.findall(r"(?<![A-Za-z0-9])id\d{5}", line)}
    if len(found) != _PEOPLE_IN_FAKEAVCELEB:
        raise DatasetError(
            f"{survey.root}: its csv files name {len(found)} people, FakeAVCeleb has {_PEOPLE_IN_FAKEAVCELEB}"
        )
    people = [fakeavceleb.identity(person) for person in ranked(found, "fakeavceleb")]
    members = _cut(people, FAKEAVCELEB_SPLIT)
    counts = {split.value: {"people": len(side)} for split, side in members.items()}
    rule = (
        "the 500 VoxCeleb2 ids in the order of the SHA-256 (hex) of avdetect/fakeavceleb/<id>; the first 350 "
        "are train, the next 50 val, the last 100 test; a clip belongs to a side only if everybody in it does"
    )
    return Protocol("fakeavceleb-350-50-100", "fakeavceleb", rule, members, counts)


def write_protocols(folder: Path, official: Path | None = None) -> list[Path]:
    """Write every protocol into `folder`; without `official`, only those that need no file of a data set.

    `official` is a folder with the published lists of FaceForensics++, ASVspoof 2019 and FakeAVCeleb in it.
    """
    protocols = [dfd_protocol(name) for name in DFD_SPLITS]
    if official is not None:
        survey = Survey(official)
        protocols += [
            make(survey) for make in (faceforensics_protocol, asvspoof2019_protocol, fakeavceleb_protocol)
        ]
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for protocol in protocols:
        paths.append(folder / f"{protocol.name}.json")
        paths[-1].write_bytes(protocol.to_bytes())
    return paths


def _cut(people: list[str], sizes: tuple[int, ...]) -> dict[Split, tuple[str, ...]]:
    """The first for train, the next for val, the rest for test; a side of nobody is left out."""
    sides, start = {}, 0
    for split, size in zip(Split, sizes, strict=True):
        if size:
            sides[split] = tuple(sorted(people[start : start + size]))
        start += size
    return sides


def _official(survey: Survey, name: str) -> Path:
    path = survey.named.get(name)
    if path is None:
        raise DatasetError(f"{survey.root}: the official list {name} is not there")
    return survey.path(path)
