"""Several systems on the same clips: their numbers side by side, and paired tests of every two.

Systems come from `evaluate --csv` or `--parquet`, or from the score file of anybody; only clips that all of them
scored are compared, and how many each one left out is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from avdetect.errors import DatasetError, InputError
from avdetect.intervals import ROUNDS, delong, paired_bootstrap
from avdetect.metrics import Scores, UndefinedMetricError
from avdetect.rows import Row, holds_rows, read_rows
from avdetect.score_columns import trial_name
from avdetect.scores import Trials, read_scores
from avdetect.summary import summary
from avdetect.types import Claim


@dataclass(frozen=True)
class Trial:
    """A clip: whether it is fake, who is in it and what made it, where that is known."""

    fake: bool
    identity: str | None = None
    method: str | None = None


@dataclass(frozen=True)
class System:
    """A system's scores by clip, higher = more fake; `trials` are all clips that its file knows of, scored or not."""

    name: str
    scores: Mapping[str, float]
    trials: Mapping[str, Trial]


def read_systems(
    files: Sequence[tuple[str, Path]], claim: Claim | None = None, trials: Trials | None = None
) -> list[System]:
    """The systems of (name, file) pairs, in that order.

    Evaluation rows carry their labels; a score file takes them from its own key column, from `trials` (a protocol),
    or else from the first file of rows. `claim` may be left out where rows are of one alone. DatasetError for files
    without labels or of several claims.
    """
    of_rows = {name: _of_rows(name, path, claim) for name, path in files if holds_rows(path)}
    if trials is None and of_rows:
        trials = _as_trials(next(iter(of_rows.values())))
    return [of_rows.get(name) or _of_scores(name, path, trials) for name, path in files]


def _of_rows(name: str, path: Path, claim: Claim | None) -> System:
    rows = read_rows(path)
    claims = sorted({row.claim for row in rows})
    if claim is None and len(claims) > 1:
        raise DatasetError(f"{path}: holds {', '.join(claims)}; say which with --claim")
    mine = [row for row in rows if claim is None or row.claim == claim.value]
    if not mine:
        raise DatasetError(f"{path}: holds no rows of {claim}; it has {', '.join(claims) or 'none'}")
    return _system_of(name, mine, path)


def _system_of(name: str, mine: Sequence[Row], path: Path) -> System:
    """The system of rows of one claim; `path` is where they stand, for errors."""
    keys = _keys(mine, path)
    return System(
        name,
        {key: row.score for key, row in zip(keys, mine, strict=True) if row.score is not None},
        {
            key: Trial(bool(row.fake), row.identity, row.method or None)
            for key, row in zip(keys, mine, strict=True)
        },
    )


def _keys(rows: Sequence[Row], path: Path) -> list[str]:
    """Each row's trial name, as score files have it; where two share one, their whole paths."""
    names = [trial_name(row.path) for row in rows]
    if max(Counter(names).values()) == 1:
        return names
    keys = [" + ".join(part for part in row.key if part) for row in rows]
    twice = next((key for key, number in Counter(keys).items() if number > 1), None)
    if twice:
        raise DatasetError(f"{path}: clip {twice} stands twice")
    return keys


def _as_trials(system: System) -> Trials:
    names = tuple(system.trials)
    known = [system.trials[name] for name in names]
    labels = np.array([trial.fake for trial in known], dtype=np.bool_)
    attacks = tuple(trial.method if trial.fake else None for trial in known)
    return Trials(names, labels, attacks, tuple(trial.identity or "" for trial in known))


def _of_scores(name: str, path: Path, trials: Trials | None) -> System:
    scored = read_scores(path, trials)
    people: Sequence[str | None] = scored.speakers or [None] * len(scored.names)
    known = {
        one: Trial(bool(fake), person or None, attack)
        for one, fake, person, attack in zip(scored.names, scored.labels, people, scored.attacks, strict=True)
    }
    missing = _missing(scored.missing, trials)
    return System(name, dict(zip(scored.names, scored.scores.tolist(), strict=True)), {**known, **missing})


def _missing(names: Sequence[str], trials: Trials | None) -> dict[str, Trial]:
    if trials is None or not names:
        return {}
    labels = dict(zip(trials.names, trials.labels.tolist(), strict=True))
    return {name: Trial(labels[name]) for name in names}


def fused(systems: Sequence[System], name: str = "late fusion") -> System:
    """Late fusion of the systems: the mean of their ranks over the clips that all of them scored.

    Ranks need no training and no common scale.
    """
    shared = _shared(systems)
    ranks = np.mean([_ranks(_values(system, shared)) for system in systems], axis=0)
    return System(name, dict(zip(shared, ranks.tolist(), strict=True)), systems[0].trials)


def _ranks(values: Scores) -> Scores:
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2
    ranks: Scores = middle[group] / values.size
    return ranks


def _shared(systems: Sequence[System]) -> list[str]:
    """Clips that all systems scored; DatasetError where there is none, or where labels differ."""
    first = systems[0]
    shared = [name for name in first.scores if all(name in other.scores for other in systems[1:])]
    if not shared:
        raise DatasetError(f"{first.name} and {systems[-1].name}: no clip was scored by all of them")
    for other in systems[1:]:
        odd = next((name for name in shared if other.trials[name].fake != first.trials[name].fake), None)
        if odd:
            raise DatasetError(
                f"{odd}: {first.name} and {other.name} label it differently; compare scores of the same claim"
            )
    return shared


def _values(system: System, names: Sequence[str]) -> Scores:
    return np.array([system.scores[name] for name in names], dtype=np.float64)


def compare(systems: Sequence[System], *, rounds: int = ROUNDS, seed: int = 0) -> dict[str, Any]:
    """Numbers of each system on the shared clips, chance beside them, and tests of every two; ready for JSON.

    AUCs are tested after DeLong (which takes clips as independent) and, like EERs, by a paired bootstrap that draws
    whole people where they are known; `p_holm` allows for the number of pairs (Holm 1979).
    InputError for fewer than two systems or two of one name.
    """
    names = [system.name for system in systems]
    if len(systems) < 2 or len(set(names)) < len(names):
        raise InputError("compare takes two systems or more, each with a name of its own (NAME=FILE)")
    shared = _shared(systems)
    trials = [systems[0].trials[name] for name in shared]
    truth = np.array([trial.fake for trial in trials], dtype=np.bool_)
    people = [trial.identity or name for name, trial in zip(shared, trials, strict=True)]
    every = set().union(*(system.trials for system in systems))
    table = [_system(system, shared, truth, people, len(every), rounds, seed) for system in systems]
    table.append({"name": "chance", "scored": len(every), "coverage": 1.0, "auc": 0.5, "eer": 0.5})
    pairs = [_pair(a, b, shared, truth, people, rounds, seed) for a, b in combinations(systems, 2)]
    for metric in ("auc", "eer"):
        _holm([pair[metric] for pair in pairs])
    return {
        "clips": len(shared),
        "n_real": int((~truth).sum()),
        "n_fake": int(truth.sum()),
        "identities": len(set(people)),
        "systems": table,
        "pairs": pairs,
    }


def beside(
    own: tuple[str, Path],
    rows: Sequence[Row],
    files: Sequence[tuple[str, Path]],
    claim: Claim,
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> dict[str, Any] | None:
    """`compare` of the rows of one claim, the system `own`, with others (name, file) and all fused; None for no others.

    Files of rows that hold none of the claim are left out. Raises as `compare` and `read_systems` do.
    """
    mine = _system_of(own[0], [row for row in rows if row.claim == claim.value], own[1])
    systems = [mine]
    for name, path in files:
        if not holds_rows(path):
            systems.append(_of_scores(name, path, _as_trials(mine)))
        elif there := [row for row in read_rows(path) if row.claim == claim.value]:
            systems.append(_system_of(name, there, path))
    if len(systems) == 1:
        return None
    return compare([*systems, fused(systems)], rounds=max(rounds, 1), seed=seed)


def _system(
    system: System,
    shared: Sequence[str],
    truth: np.ndarray[Any, np.dtype[np.bool_]],
    people: Sequence[str],
    every: int,
    rounds: int,
    seed: int,
) -> dict[str, Any]:
    row = summary(_values(system, shared), truth, clusters=people, rounds=rounds, seed=seed)
    names = (
        "auc",
        "auc_ci",
        "eer",
        "eer_ci",
        "ap",
        "ap_ci",
        "tpr_at_fpr",
        "tpr_at_fpr_ci",
        "min_dcf",
        "min_dcf_ci",
    )
    return {
        "name": system.name,
        "scored": len(system.scores),
        "coverage": len(system.scores) / every,
        **{name: row[name] for name in names},
    }


def _pair(
    a: System,
    b: System,
    shared: Sequence[str],
    truth: np.ndarray[Any, np.dtype[np.bool_]],
    people: Sequence[str],
    rounds: int,
    seed: int,
) -> dict[str, Any]:
    first, second = _values(a, shared), _values(b, shared)
    found: dict[str, Any] = {"a": a.name, "b": b.name}
    for metric in ("auc", "eer"):
        try:
            test = paired_bootstrap(first, second, truth, people, of=metric, rounds=max(rounds, 1), seed=seed)
            found[metric] = {"difference": test.difference, "ci": list(test.interval), "p": test.p}
        except UndefinedMetricError:
            found[metric] = {"difference": None, "ci": None, "p": None}
    try:
        independent = delong(first, second, truth)
        found["auc"] |= {"delong_p": independent.p, "delong_ci": list(independent.interval)}
    except UndefinedMetricError:
        found["auc"] |= {"delong_p": None, "delong_ci": None}
    return found


def _holm(tests: Sequence[dict[str, Any]]) -> None:
    """Adds `p_holm` to each test."""
    known = sorted((test for test in tests if test["p"] is not None), key=lambda test: test["p"])
    least = 0.0
    for place, test in enumerate(known):
        least = max(least, min(1.0, test["p"] * (len(known) - place)))
        test["p_holm"] = least
    for test in tests:
        test.setdefault("p_holm", None)


def named(texts: Sequence[str]) -> list[tuple[str, Path]]:
    """(name, file) of each NAME=FILE, or FILE, whose name is then that of the file."""
    pairs = []
    for text in texts:
        name, parted, rest = text.partition("=")
        pairs.append(
            (name, Path(rest)) if parted and rest and "/" not in name else (Path(text).stem, Path(text))
        )
    return pairs
