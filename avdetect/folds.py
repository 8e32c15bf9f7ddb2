"""Leave-one-source-group-out: which clips a fold holds out, and the scores that its model gave them.

A source (a repository, a corpus, a generator's page) is never on both sides: what only tells sources apart shows as a
bad score here, where a split by clips would flatter it.
"""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from avdetect.errors import ConfigError
from avdetect.types import CLAIMS, Claim, Item
from avdetect.validation import Score

COLUMNS = ("file", "claim", "variant", "fake", "logit", "offset_frames", "method", "source")


def deal(items: Sequence[Item], count: int) -> list[int]:
    """The fold 0..count-1 of each item: sources whole, real and fake clips of every claim spread evenly.

    The largest source goes first, each to the fold that it leaves most even. ConfigError for fewer sources than folds.
    """
    counts: dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]] = defaultdict(
        lambda: np.zeros(2 * len(CLAIMS))
    )
    for item in items:
        for index, claim in enumerate(CLAIMS):
            known = item.label[claim]
            if known is not None:
                counts[_source(item)][2 * index + known] += 1
    for item in items:
        counts[_source(item)] += 0.0
    if len(counts) < count:
        raise ConfigError(f"training.folds = {count}, but the clips come from {len(counts)} source(s)")
    total = np.maximum(sum(counts.values()), 1)
    load = np.zeros((count, 2 * len(CLAIMS)))
    fold = {}
    for source in sorted(counts, key=lambda name: (-(counts[name] / total).sum(), name)):
        share = counts[source] / total
        growth = ((load + share) ** 2 - load**2).sum(1)
        # all empty shares weigh nothing: such a source goes where there is least of all
        fold[source] = int(np.lexsort((load.sum(1), growth))[0])
        load[fold[source]] += share
    return [fold[_source(item)] for item in items]


def _source(item: Item) -> str:
    """A clip without a stated source is its own."""
    return item.source or item.path.as_posix()


def names_of(items: Sequence[Item]) -> list[str]:
    """What each item is called in a table: its path below the folder that all share, and its own voice's if any."""
    folder = Path(os.path.commonpath([item.path.absolute().parent for item in items]))

    def name(path: Path) -> str:
        try:
            return path.absolute().relative_to(folder).as_posix()
        except ValueError:  # a voice that lies elsewhere
            return path.as_posix()

    return [
        name(item.path) + (f" + {name(item.audio_path)}" if item.audio_path is not None else "")
        for item in items
    ]


def write_scores(scores: Sequence[Score], items: Sequence[Item], path: Path) -> None:
    """A row per score; `items` are all of the run, so that names are the same in all its tables.

    The file appears when it is complete.
    """
    names = dict(zip(map(id, items), names_of(items), strict=True))
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for s in scores:
            offset = "" if s.offset_frames is None else round(s.offset_frames, 3)
            row = [names[id(s.item)], s.claim.value, s.variant, int(s.fake), round(s.logit, 4), offset]
            writer.writerow([*row, s.item.method or "", s.item.source or ""])
    partial.replace(path)


def read_scores(path: Path, items: Sequence[Item]) -> list[Score]:
    """The scores of `write_scores`, with their items. ConfigError where one is not among them."""
    known = dict(zip(names_of(items), items, strict=True))
    scores = []
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["file"] not in known:
                raise ConfigError(f"{path}: scores {row['file']}, which the manifest does not list")
            offset = float(row["offset_frames"]) if row["offset_frames"] else None
            claim, fake, logit = Claim(row["claim"]), row["fake"] == "1", float(row["logit"])
            scores.append(Score(known[row["file"]], claim, logit, fake, row["variant"], offset))
    return scores
