"""Score files of any system: read against a protocol, and written in ASVspoof's own formats.

ASVspoof files say higher = bona fide. Here, and nowhere else, they are turned: what the readers give and the
writer takes is higher = more fake, True = fake.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from avdetect.errors import DatasetError, InputError
from avdetect.metrics import Labels, Scores, UndefinedMetricError, checked, eer
from avdetect.score_columns import (
    KEYS,
    Roles,
    Table,
    as_number,
    find_roles,
    numbers,
    read_lines,
    read_table,
    trial_name,
)
from avdetect.spoof_metrics import AsvRates, asv_rates

UNSURE = 0.05
"""EER closer to 0.5 than this says nothing of the sign."""


class Higher(StrEnum):
    """What a higher score in a file means; AUTO finds out from the labels."""

    AUTO = "auto"
    BONA_FIDE = "bonafide"
    FAKE = "fake"


class Export(StrEnum):
    """Official layouts of a countermeasure's score file."""

    ASVSPOOF2019 = "asvspoof2019"
    ASVSPOOF2021 = "asvspoof2021"
    ASVSPOOF5 = "asvspoof5"


@dataclass(frozen=True)
class Layout:
    """Columns (from 0) of a countermeasure protocol; `subset` is the one of progress, eval and hidden."""

    width: int
    attack: int
    key: int
    speaker: int = 0
    name: int = 1
    subset: int | None = None


PROTOCOLS: dict[str, Layout] = {
    "asvspoof2019-la": Layout(width=5, attack=3, key=4),
    "asvspoof2019-pa": Layout(width=5, attack=3, key=4),
    "asvspoof2021-la": Layout(width=8, attack=4, key=5, subset=7),
    "asvspoof2021-df": Layout(width=13, attack=4, key=5, subset=7),
    "asvspoof5": Layout(width=10, attack=7, key=8),
}


@dataclass(frozen=True)
class Trials:
    """A protocol: names, labels (True = fake), attack of each fake (else None), speakers if told; all [N]."""

    names: tuple[str, ...]
    labels: Labels
    attacks: tuple[str | None, ...]
    speakers: tuple[str, ...] | None


@dataclass(frozen=True)
class Scored:
    """Trials that have a score, in the protocol's order, with `scores` [N] turned so that higher = more fake.

    `higher` is what the file itself means by it, `sign` tells in words how that is known. `missing` are
    trials of the protocol without a score, `unknown` the number of rows that are not in the protocol.
    `speakers` is None without a protocol.
    """

    names: tuple[str, ...]
    scores: Scores
    labels: Labels
    attacks: tuple[str | None, ...]
    speakers: tuple[str, ...] | None
    higher: Higher
    sign: str
    missing: tuple[str, ...] = ()
    unknown: int = 0


@dataclass(frozen=True)
class AsvScores:
    """Speaker-verification scores, higher = same speaker; `attacks` [S] holds the CM_KEY of each spoof."""

    target: Scores
    nontarget: Scores
    spoof: Scores
    attacks: tuple[str, ...]

    def rates(self, attack: str | None = None) -> AsvRates:
        """Error rates against all spoofs, or against one attack's."""
        chosen = np.array([attack in (None, name) for name in self.attacks], dtype=np.bool_)
        return asv_rates(self.target, self.nontarget, self.spoof[chosen])


def read_trials(path: Path, protocol: str, subset: str = "eval") -> Trials:
    """A protocol file of `PROTOCOLS`; of ASVspoof 2021 only the rows of `subset`, as published EERs count.

    InputError for an unknown `protocol`; DatasetError, with the line, for a file of another shape, a key
    other than bonafide or spoof and a trial that stands twice.
    """
    layout = PROTOCOLS.get(protocol)
    if layout is None:
        raise InputError(f"protocol {protocol!r} is unknown; use one of {', '.join(PROTOCOLS)}")
    rows: dict[str, list[str]] = {}
    for number, row in read_lines(path):
        if len(row) != layout.width:
            raise DatasetError(
                f"{path}: line {number} has {len(row)} columns; a {protocol} protocol has {layout.width}"
            )
        if row[layout.key] not in ("bonafide", "spoof"):
            raise DatasetError(
                f"{path}: line {number}: key {row[layout.key]!r} is neither bonafide nor spoof"
            )
        if layout.subset is not None and row[layout.subset] != subset:
            continue
        name = trial_name(row[layout.name])
        if name in rows:
            raise DatasetError(f"{path}: line {number}: trial {name} stands in the protocol twice")
        rows[name] = row
    if not rows:
        raise DatasetError(f"{path}: no trial of subset {subset!r}; check --subset")
    labels = np.array([row[layout.key] == "spoof" for row in rows.values()], dtype=np.bool_)
    attacks = tuple(
        row[layout.attack] if fake else None for row, fake in zip(rows.values(), labels, strict=True)
    )
    return Trials(tuple(rows), labels, attacks, tuple(row[layout.speaker] for row in rows.values()))


def read_asv_scores(path: Path) -> AsvScores:
    """The organisers' ASV scores of ASVspoof 2019: CM_KEY ASV_KEY SCORE; a spoof's CM_KEY is its attack."""
    kinds: dict[str, list[float]] = {"target": [], "nontarget": [], "spoof": []}
    attacks: list[str] = []
    for number, row in read_lines(path):
        value = as_number(row[-1]) if len(row) == 3 else None
        if value is None or not np.isfinite(value) or row[1] not in kinds:
            raise DatasetError(
                f"{path}: line {number} is not CM_KEY ASV_KEY SCORE (target, nontarget or spoof)"
            )
        kinds[row[1]].append(value)
        if row[1] == "spoof":
            attacks.append(row[0])
    empty = [kind for kind, values in kinds.items() if not values]
    if empty:
        raise DatasetError(f"{path}: no {empty[0]} trials; ASV scores hold target, nontarget and spoof")
    target, nontarget, spoof = (np.array(kinds[kind]) for kind in ("target", "nontarget", "spoof"))
    return AsvScores(target, nontarget, spoof, tuple(attacks))


def read_scores(
    path: Path, trials: Trials | None = None, higher: Higher = Higher.AUTO, score_column: int | None = None
) -> Scored:
    """Any system's score file, columns recognised (`score_columns`), joined to the protocol by trial name.

    Without `trials` the file must have a key column of its own. With AUTO the sign is taken from the labels
    (the way round with the lower EER) and told in `sign`; near chance it cannot be told and ASVspoof's is
    assumed. DatasetError for a trial that stands twice, a score that is no number, keys that contradict the
    protocol, or no trial in common.
    """
    names = frozenset(trials.names) if trials else frozenset()
    table = read_table(path, names)
    roles = find_roles(table, names, score_column)
    rows = _row_by_name(table, roles)
    raw = np.array(numbers(table, roles.score))
    if trials is None:
        trials = _own_trials(table, roles)
    chosen = [index for index, name in enumerate(trials.names) if name in rows]
    speakers = trials.speakers
    order = [rows[trials.names[index]] for index in chosen]
    labels = trials.labels[chosen]
    _check_keys(table, roles, order, labels)
    scores, told, sign = _turned(raw[order], labels, higher)
    return Scored(
        names=tuple(trials.names[index] for index in chosen),
        scores=scores,
        labels=labels,
        attacks=tuple(trials.attacks[index] for index in chosen),
        speakers=tuple(speakers[index] for index in chosen) if speakers else None,
        higher=told,
        sign=sign,
        missing=tuple(name for name in trials.names if name not in rows),
        unknown=len(rows) - len(chosen),
    )


def _row_by_name(table: Table, roles: Roles) -> dict[str, int]:
    rows: dict[str, int] = {}
    for index, cell in enumerate(table.columns[roles.name]):
        name = trial_name(cell)
        if name in rows:
            first, second = table.lines[rows[name]], table.lines[index]
            raise DatasetError(f"{table.path}: trial {name} stands twice, in lines {first} and {second}")
        rows[name] = index
    return rows


def _own_trials(table: Table, roles: Roles) -> Trials:
    """The trials that a score file with its own key column describes."""
    if roles.key is None:
        raise DatasetError(
            f"{table.path}: no column of bonafide and spoof; give the protocol with --cm-protocol"
        )
    names = tuple(trial_name(cell) for cell in table.columns[roles.name])
    labels = np.array([KEYS[cell.lower()] for cell in table.columns[roles.key]], dtype=np.bool_)
    systems = table.columns[roles.attack] if roles.attack is not None else ("spoof",) * len(names)
    attacks = tuple(system if fake else None for system, fake in zip(systems, labels, strict=True))
    return Trials(names, labels, attacks, None)


def _check_keys(table: Table, roles: Roles, order: Sequence[int], labels: Labels) -> None:
    """The file's own key column, where it has one, must say what the protocol says."""
    if roles.key is None:
        return
    keys = table.columns[roles.key]
    for row, fake in zip(order, labels, strict=True):
        if KEYS[keys[row].lower()] != fake:
            raise DatasetError(
                f"{table.path}: line {table.lines[row]} says {keys[row]}, the protocol "
                f"{'spoof' if fake else 'bonafide'}; is it the protocol of these scores?"
            )


def _turned(raw: Scores, labels: Labels, higher: Higher) -> tuple[Scores, Higher, str]:
    """Scores with higher = more fake, what was higher in the file, and how that is known."""
    if higher is not Higher.AUTO:
        return (raw if higher is Higher.FAKE else -raw), higher, "given"
    try:
        as_fake, as_real = eer(raw, labels), eer(-raw, labels)
    except UndefinedMetricError:
        return -raw, Higher.BONA_FIDE, "assumed as in ASVspoof: trials of one class only"
    if abs(as_fake - as_real) / 2 < UNSURE:
        return (
            -raw,
            Higher.BONA_FIDE,
            "assumed as in ASVspoof: scores near chance do not tell; give it with --higher",
        )
    if as_fake < as_real:
        return raw, Higher.FAKE, f"detected: EER {as_fake:.4f} this way round, {as_real:.4f} the other"
    return -raw, Higher.BONA_FIDE, f"detected: EER {as_real:.4f} this way round, {as_fake:.4f} the other"


def write_scores(
    path: Path,
    layout: Export,
    names: Sequence[str],
    scores: ArrayLike,
    labels: ArrayLike | None = None,
    attacks: Sequence[str | None] | None = None,
) -> None:
    """Scores [N] (higher = more fake) as an official file, turned to higher = bona fide.

    2019: `FILE SYSTEM KEY SCORE` (needs `labels` and `attacks`); 2021: `FILE SCORE`; 5: a header and
    `filename<TAB>cm-score`. ValueError for unequal lengths, a score that is not finite, a name with a space
    in it or one that stands twice.
    """
    values, _ = checked(scores, np.zeros(len(names), dtype=np.bool_), both_classes=False)
    spaced = next((name for name in names if len(name.split()) != 1), None)
    if spaced is not None or len(set(names)) != len(names):
        raise ValueError(
            f"trial names must be single words, each once; {spaced!r}" if spaced else "a trial stands twice"
        )
    official = [repr(float(value)) for value in 0.0 - values]
    if layout is Export.ASVSPOOF2019:
        if labels is None or attacks is None:
            raise ValueError("the 2019 layout needs labels and attacks beside the scores")
        _, truth = checked(values, labels, both_classes=False)
        keys = [
            f"{attack or '-'} {'spoof' if fake else 'bonafide'}"
            for attack, fake in zip(attacks, truth, strict=True)
        ]
        lines = [f"{name} {key} {score}" for name, key, score in zip(names, keys, official, strict=True)]
    elif layout is Export.ASVSPOOF2021:
        lines = [f"{name} {score}" for name, score in zip(names, official, strict=True)]
    else:
        lines = [
            "filename\tcm-score",
            *(f"{name}\t{score}" for name, score in zip(names, official, strict=True)),
        ]
    write_text(path, "\n".join(lines) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file; InputError where that cannot be done."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); check folder and rights") from error
