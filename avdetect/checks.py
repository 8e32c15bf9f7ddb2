"""What can be wrong with a manifest before anything is learned from it: files, duplicates, leaks, class
balance.

An error makes results wrong (a file that is not there, one clip on two sides of a split); a warning is
something to know and to report (the same speaker on two sides, a source that holds one class only).
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import file_digest
from pathlib import Path

from avdetect.types import CLAIMS, Claim, Item, Split


class Severity(StrEnum):
    """Whether a finding makes results wrong, or is to be known."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Finding:
    """One kind of thing that was found: how often, and the first examples."""

    severity: Severity
    text: str
    number: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        """One line."""
        more = f" and {self.number - len(self.examples):,} more" if self.number > len(self.examples) else ""
        return f"{self.severity}: {self.text}: {self.number:,} ({', '.join(self.examples)}{more})"


@dataclass(frozen=True)
class Balance:
    """How many items of a split (None: in no split) are real, fake and unknown for a claim."""

    claim: Claim
    split: Split | None
    real: int
    fake: int
    unknown: int


@dataclass(frozen=True)
class SourceBalance:
    """How many sources hold real items only, fake ones only, or both, for a claim."""

    claim: Claim
    real_only: int
    fake_only: int
    both: int


def check_items(items: Sequence[Item], progress: Callable[[int], None] | None = None) -> list[Finding]:
    """Everything below, errors first; `progress` is called with the number of files hashed."""
    found = [*missing_files(items), *duplicates(items, progress), *overlaps(items), *one_sided(items)]
    return sorted(found, key=lambda finding: finding.severity)


def missing_files(items: Sequence[Item]) -> list[Finding]:
    """Files that are not there or empty, and files that stand in two rows."""
    absent, empty = [], []
    for path in _paths(items):
        size = _size(path)
        if size is None:
            absent.append(str(path))
        elif size == 0:
            empty.append(str(path))
    rows = Counter(str(item.path) for item in items)
    twice = [path for path, number in rows.items() if number > 1]
    return [
        *finding(Severity.ERROR, "files that are not there", absent),
        *finding(Severity.ERROR, "empty files", empty),
        *finding(Severity.ERROR, "files in more than one row", twice),
    ]


def duplicates(items: Sequence[Item], progress: Callable[[int], None] | None = None) -> list[Finding]:
    """Different files with the same bytes. Only files that share their size are read."""
    by_size: dict[int, dict[Path, Item]] = defaultdict(dict)
    for item in items:
        size = _size(item.path)
        if size:
            by_size[size].setdefault(item.path, item)
    by_content: dict[str, list[Item]] = defaultdict(list)
    alike = [item for same in by_size.values() if len(same) > 1 for item in same.values()]
    for number, item in enumerate(alike, start=1):
        with item.path.open("rb") as file:
            by_content[file_digest(file, "sha256").hexdigest()].append(item)
        if progress is not None:
            progress(number)
    across, contradicting, within = [], [], []
    for same in (same for same in by_content.values() if len(same) > 1):
        names = " = ".join(str(item.path) for item in same[:3])
        if len({item.split for item in same if item.split is not None}) > 1:
            across.append(names)
        if any(len({item.label[claim] for item in same} - {None}) > 1 for claim in CLAIMS):
            contradicting.append(names)
        within.append(names)
    return [
        *finding(Severity.ERROR, "one content in two splits", across),
        *finding(Severity.ERROR, "one content with contradicting labels", contradicting),
        *finding(Severity.WARNING, "one content under several names", within),
    ]


def overlaps(items: Sequence[Item]) -> list[Finding]:
    """People, sources and pairs that stand in two splits; a pair there, one scene twice, is an error."""
    return [
        *_overlap(Severity.ERROR, "pairs in two splits", ((item, [item.pair_id]) for item in items)),
        *_overlap(Severity.WARNING, "identities in two splits", ((item, item.identities) for item in items)),
        *_overlap(Severity.WARNING, "sources in two splits", ((item, [item.source]) for item in items)),
    ]


def one_sided(items: Sequence[Item]) -> list[Finding]:
    """Claims that a split labels with one class only, so that it can teach or measure nothing of them."""
    found = [
        f"{row.claim} in {row.split or 'no split'} ({row.real} real, {row.fake} fake)"
        for row in balance(items)
        if (row.real == 0) != (row.fake == 0)
    ]
    return finding(Severity.WARNING, "claims with one class only", found)


def balance(items: Iterable[Item]) -> list[Balance]:
    """Real, fake and unknown items for each claim and split that occurs."""
    counts = Counter((claim, item.split, item.label[claim]) for item in items for claim in CLAIMS)
    splits = [split for split in (*Split, None) if any(key[1] == split for key in counts)]
    return [
        Balance(claim, split, *(counts[claim, split, value] for value in (False, True, None)))
        for claim in CLAIMS
        for split in splits
    ]


def source_balance(items: Iterable[Item]) -> list[SourceBalance]:
    """For each claim, how many sources could give the class away by themselves."""
    classes: dict[tuple[Claim, str], set[bool]] = defaultdict(set)
    for item in items:
        for claim in CLAIMS:
            value = item.label[claim]
            if item.source is not None and value is not None:
                classes[claim, item.source].add(value)
    kinds = Counter((claim, frozenset(values)) for (claim, _), values in classes.items())
    return [
        SourceBalance(claim, *(kinds[claim, frozenset(both)] for both in ({False}, {True}, {False, True})))
        for claim in CLAIMS
    ]


def _overlap(
    severity: Severity, text: str, values: Iterable[tuple[Item, Iterable[Hashable | None]]]
) -> list[Finding]:
    splits: dict[Hashable, set[Split]] = defaultdict(set)
    for item, names in values:
        for name in names:
            if name is not None and item.split is not None:
                splits[name].add(item.split)
    return finding(severity, text, [str(name) for name, where in splits.items() if len(where) > 1])


def finding(severity: Severity, text: str, found: Sequence[str]) -> list[Finding]:
    """What was found, with the first examples; nothing where there is none."""
    return [Finding(severity, text, len(found), tuple(found[:3]))] if found else []


def _paths(items: Iterable[Item]) -> Iterable[Path]:
    for item in items:
        yield item.path
        if item.audio_path is not None:
            yield item.audio_path


def _size(path: Path) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None
