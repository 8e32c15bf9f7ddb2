"""Late fusion: logistic regression over the clip scores of single streams, the baseline that a joint model must beat.

A claim reads the scores that its own streams gave it, the clip's verdict those of all. Scores are brought to zero mean
and unit spread, and a score that is absent counts as the mean: absence is no evidence. Classes are weighted alike, so
that the probabilities speak of even odds, as those of `calibration` do.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avdetect.errors import DatasetError, InputError, ModelError
from avdetect.types import CLAIMS

CLIP = "clip"
"""The target beside the claims: whether anything about the clip is fake."""
TARGETS = (*(claim.value for claim in CLAIMS), CLIP)
KIND = "avdetect late fusion"

Numbers = NDArray[np.float64]
Key = tuple[str, str, str]


@dataclass(frozen=True)
class ScoreTable:
    """What S streams said of N clips: `values` [N, S], nan where a stream has nothing to say, higher = more fake.

    `streams` are named system/claim. `keys` are (file, file of the voice, what was done to it); `labels` [N, 4] in the
    order of TARGETS, 1 fake, 0 real, nan unknown.
    """

    keys: tuple[Key, ...]
    streams: tuple[str, ...]
    values: Numbers
    labels: Numbers


@dataclass(frozen=True)
class Line:
    """The regression of one target: logit = bias + sum of weights * (value - mean) / spread over its streams."""

    streams: tuple[str, ...]
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float


LateFusion = Mapping[str, Line]
"""Target -> its regression; targets whose clips are all real, all fake or of unknown label are missing."""


def read_tables(files: Mapping[str, Path]) -> ScoreTable:
    """Score files by system: csv as of `evaluate --csv` or of a run's scores.csv, a row per clip and claim.

    Columns: file or path, claim, fake, and logit, or score in 0..1; rows without a number say nothing. Clips are
    matched by their names as they stand there. DatasetError where a file isn't like that.
    """
    values: dict[Key, dict[str, float]] = {}
    labels: dict[Key, dict[str, float]] = {}
    for system, path in files.items():
        for key, claim, fake, value in _rows(path):
            labels.setdefault(key, {})[claim] = fake
            mine = values.setdefault(key, {})
            if not math.isnan(value):
                mine[f"{system}/{claim}"] = value
    keys = tuple(sorted(values))
    streams = tuple(sorted({name for row in values.values() for name in row}))
    for row in labels.values():
        row[CLIP] = max(row.values())
    return ScoreTable(
        keys,
        streams,
        np.array([[values[key].get(name, math.nan) for name in streams] for key in keys]).reshape(
            len(keys), -1
        ),
        np.array([[labels[key].get(target, math.nan) for target in TARGETS] for key in keys]).reshape(-1, 4),
    )


def _rows(path: Path) -> list[tuple[Key, str, float, float]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); check the name and the rights"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(
            f"{path}: not a csv file ({error}); give scores as `evaluate --csv` writes them"
        ) from None
    if not rows:
        raise DatasetError(f"{path}: holds no scores; give a file with a row per clip and claim")
    return [_row(path, number, row) for number, row in enumerate(rows, 2)]


def _row(path: Path, number: int, row: Mapping[str, str]) -> tuple[Key, str, float, float]:
    name, claim, fake = row.get("file") or row.get("path"), row.get("claim"), row.get("fake")
    if not name or claim not in TARGETS[:-1] or fake not in ("0", "1"):
        raise DatasetError(
            f"{path}: line {number} names no file, no claim or no 'fake' of 0 or 1; "
            "give scores as `evaluate --csv` writes them"
        )
    key = (name, row.get("audio_path") or "", row.get("variant") or "")
    return key, claim, float(fake), _value(path, number, row)


def _value(path: Path, number: int, row: Mapping[str, str]) -> float:
    """The logit of a row, nan where it says nothing."""
    column = "logit" if "logit" in row else "score"
    text = row.get(column)
    if text is None or text == "":
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if column == "score":
        if not 0 <= value <= 1:
            raise DatasetError(
                f"{path}: line {number}: score {text!r} is not in 0..1; name the column 'logit'"
            )
        inner = min(max(value, 1e-6), 1 - 1e-6)
        return math.log(inner) - math.log1p(-inner)
    if not math.isfinite(value):
        raise DatasetError(f"{path}: line {number}: logit {text!r} is not a number; take the row out")
    return value


def fit(table: ScoreTable) -> dict[str, Line]:
    """A regression per target that has real and fake clips with a score. DatasetError where none has."""
    lines = {}
    for index, target in enumerate(TARGETS):
        columns = [i for i, name in enumerate(table.streams) if target in (CLIP, name.rsplit("/", 1)[1])]
        values, truth = table.values[:, columns], table.labels[:, index]
        rows = ~np.isnan(truth) & ~np.isnan(values).all(1)
        heard = [i for i in range(len(columns)) if not np.isnan(values[rows, i]).all()]
        if len(set(truth[rows])) == 2:
            names = tuple(table.streams[columns[i]] for i in heard)
            lines[target] = _line(names, values[rows][:, heard], truth[rows] == 1)
    if not lines:
        raise DatasetError("no claim has both real and fake clips with scores; give the scores of more clips")
    return lines


def _line(streams: tuple[str, ...], values: Numbers, fake: NDArray[np.bool_]) -> Line:
    from sklearn.linear_model import LogisticRegression

    middle, spread = np.nanmean(values, 0), np.maximum(np.nanstd(values, 0), 1e-6)
    z = np.nan_to_num((values - middle) / spread)
    found = LogisticRegression(class_weight="balanced").fit(z, fake)
    return Line(
        streams,
        tuple(middle.tolist()),
        tuple(spread.tolist()),
        tuple(found.coef_[0].tolist()),
        float(found.intercept_[0]),
    )


def predict(fusion: LateFusion, table: ScoreTable) -> Numbers:
    """Probabilities [N, 4] in the order of TARGETS; nan where none of a target's streams has a score."""
    out = np.full((len(table.keys), len(TARGETS)), np.nan)
    where = {name: i for i, name in enumerate(table.streams)}
    for target, line in fusion.items():
        values = np.full((len(table.keys), len(line.streams)), np.nan)
        for i, name in enumerate(line.streams):
            if name in where:
                values[:, i] = table.values[:, where[name]]
        z = np.nan_to_num((values - line.mean) / line.spread)
        logit = np.clip(z @ np.array(line.weights) + line.bias, -30, 30)
        there = ~np.isnan(values).all(1)
        out[there, TARGETS.index(target)] = 1 / (1 + np.exp(-logit[there]))
    return out


def write(fusion: LateFusion, path: Path) -> None:
    """The regressions as JSON."""
    content = {"kind": KIND, "version": 1, "targets": {name: asdict(line) for name, line in fusion.items()}}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Line]:
    """What `write` wrote; ModelError where the file isn't that."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        if content["kind"] != KIND:
            raise ValueError(f"kind is {content['kind']!r}")
        return {target: _checked(target, line) for target, line in content["targets"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:100]
        raise ModelError(f"{path}: no late fusion ({reason}); fit it again") from None


def _checked(target: str, line: Mapping[str, Any]) -> Line:
    streams = tuple(map(str, line["streams"]))
    mean, spread, weights = (_numbers(line[name], len(streams)) for name in ("mean", "spread", "weights"))
    (bias,) = _numbers([line["bias"]], 1)
    if target not in TARGETS or min(spread, default=0) <= 0:
        raise ValueError(f"'{target}' cannot be used")
    return Line(streams, mean, spread, weights, bias)


def _numbers(values: Sequence[Any], count: int) -> tuple[float, ...]:
    numbers = tuple(map(float, values))
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{count} finite numbers are needed")
    return numbers
