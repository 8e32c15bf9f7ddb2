"""What is evaluated: manifests, and public sets by the names of their protocols, in any number and order.

`asvspoof2019-la ROOT` is that set as `data index` reads it, with its official split; `dfd` and `fakeavceleb` have none
and are split by people as in `data/protocols`. `-raw`, `-c23` and `-c40` after `dfd`, `dfd-20-8` and `faceforensics`
take that compression alone. Of a named set the test clips count, or else val (test labels may be withheld), or else
all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from avdetect.datasets import DATASETS, index
from avdetect.errors import ConfigError, DatasetError
from avdetect.manifest import read_manifest
from avdetect.protocols import Protocol, dfd_protocol, fakeavceleb_protocol
from avdetect.survey import Survey
from avdetect.types import Item, Split

DIVIDED: dict[str, Callable[[Survey], Protocol]] = {
    "dfd": lambda survey: dfd_protocol("dfd-20-4-4"),
    "dfd-20-8": lambda survey: dfd_protocol("dfd-20-8"),
    "fakeavceleb": fakeavceleb_protocol,
}
"""Sets without an official split, and who divides them."""
_COMPRESSED = re.compile(r"(?P<name>dfd|dfd-20-8|faceforensics)-(?P<level>raw|c23|c40)")
_SUFFIXES = (".csv", ".parquet")


@dataclass(frozen=True)
class Target:
    """A manifest (`root` its file, `name` empty), or a named set in a folder, of one `compression` where given."""

    root: Path
    name: str = ""
    compression: str = ""

    def __str__(self) -> str:
        """As on the command line."""
        if not self.name:
            return str(self.root)
        return f"{self.name}{f'-{self.compression}' if self.compression else ''} {self.root}"


def names() -> list[str]:
    """The named sets."""
    return sorted({*DATASETS, *DIVIDED} - {"manifest"})


def read_targets(words: Sequence[str]) -> list[Target]:
    """The targets that the command line names; ConfigError for a name without a folder or one that nobody knows."""
    targets, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        if word.lower().endswith(_SUFFIXES):
            targets.append(Target(Path(word)))
            continue
        fitting = _COMPRESSED.fullmatch(word)
        name, level = (fitting["name"], fitting["level"]) if fitting else (word, "")
        if name not in names():
            near = get_close_matches(word, names(), n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"names are {', '.join(names())}"
            raise ConfigError(f"'{word}' is neither a manifest (.csv, .parquet) nor a named set; {hint}")
        if not rest:
            raise ConfigError(f"{word}: give the folder that the set lies in, as in `evaluate {word} ROOT`")
        targets.append(Target(Path(rest.pop(0)), name, level))
    return targets


def read_items(target: Target, split: str | None = None) -> list[Item]:
    """The target's items of `split` ("all": every one; None: see above), each with its set in `extra["dataset"]`.

    DatasetError where nothing is there.
    """
    if not target.name:
        items = read_manifest(target.root)
        called = target.root.stem if target.root.stem != "manifest" else target.root.absolute().parent.name
        items = [replace(item, extra={"dataset": called, **item.extra}) for item in items]
    else:
        items = _named(target)
    if split == "all" or (split is None and not target.name):
        return items
    wanted = _official(items) if split is None else Split(split)
    return [item for item in items if wanted is None or item.split is wanted]


def _official(items: Sequence[Item]) -> Split | None:
    there = {item.split for item in items}
    return next((split for split in (Split.TEST, Split.VAL) if split in there), None)


def _named(target: Target) -> list[Item]:
    divide = DIVIDED.get(target.name)
    items, survey = index(target.name.removesuffix("-20-8"), target.root)
    if divide is not None:
        items = divide(survey).apply(items)
    if target.compression:
        items = [item for item in items if item.extra.get("compression") == target.compression]
        if not items:
            raise DatasetError(f"{target.root}: holds no {target.compression} clips of {target.name}")
    return [replace(item, extra={**item.extra, "dataset": _called(target.name, item)}) for item in items]


def _called(name: str, item: Item) -> str:
    """A set's name in tables: each compression is a set of its own."""
    level = item.extra.get("compression")
    return f"{name} {level}" if level else name
