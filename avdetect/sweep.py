"""Many questions about each of many clips, asked once: what is answered is kept in a file that grows clip by clip.

Degraded clips (`variants`) and attacked ones (`attempts`) go through here. Where no clip is known to have lips and
speech that mismatch, those that are in sync are asked about a second time with their sound moved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from avdetect.row_file import Layout, RowFile
from avdetect.types import Claim, Item, Label

if TYPE_CHECKING:
    from avdetect.scoring import Ask

MOVED_SECONDS = 0.4
"""By how much sound is late where a mismatch is made."""
MOVED = f"sound {MOVED_SECONDS} s late"

Key = tuple[str, ...]


@dataclass(frozen=True)
class Subject:
    """An item as it is, or with its sound moved (`made` says so); and what is known of it then."""

    item: Item
    label: Label
    made: str = ""


class Question(Protocol):
    """What is asked about a clip; `key` is that of the rows that answer it."""

    @property
    def key(self) -> Key:
        """What no two questions of a sweep share."""
        ...


class Answered(Protocol):
    """A row of a sweep's file."""

    @property
    def key(self) -> Key:
        """The question's."""
        ...


Q = TypeVar("Q", bound=Question)
A = TypeVar("A", bound=Answered)


@dataclass(frozen=True)
class Exam(Generic[Q]):
    """One item and the questions about it, of a sweep about `claims`; `seed` is of all that is random in it."""

    item: Item
    claims: tuple[Claim, ...]
    seed: int
    questions: tuple[Q, ...]


def subjects(items: Sequence[Item], claims: Sequence[Claim]) -> list[list[Subject]]:
    """Of each item the subjects that it gives: itself and, where no mismatch is known, with its sound moved."""
    sync = Claim.LIP_SYNC_MISMATCH
    moved = sync in claims and not any(item.label[sync] for item in items)
    found = []
    for item in items:
        one = [Subject(item, item.label)]
        if moved and item.label[sync] is False:
            one.append(Subject(item, Label(lip_sync_mismatch=True), MOVED))
        found.append(one)
    return found


def answers(
    ask: Ask[Exam[Q], list[A]], exams: Sequence[Exam[Q]], path: Path, layout: Layout[A]
) -> Iterator[list[A]]:
    """All rows of each exam in turn, in its questions' order; those that stand in `path` (csv) are not made again.

    What is new is added there exam by exam, in the exams' order. DatasetError where something else stands there.
    """
    with RowFile(path, layout) as file:
        known: dict[Key, list[A]] = {}
        for row in file.rows:
            known.setdefault(row.key, []).append(row)
        open_ones = [
            replace(exam, questions=tuple(one for one in exam.questions if one.key not in known))
            for exam in exams
        ]
        with closing(ask(exam for exam in open_ones if exam.questions)) as found:
            for exam, left in zip(exams, open_ones, strict=True):
                if left.questions:
                    fresh = next(found)
                    file.write(fresh)
                    for row in fresh:
                        known.setdefault(row.key, []).append(row)
                yield [row for question in exam.questions for row in known[question.key]]
