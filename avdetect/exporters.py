"""Scores as the official files of challenges and benchmarks.

Predictions come from evaluation rows, from the verdicts of `--json` (test sets whose labels are withheld have no rows),
or from a plain score file. Formats: FORMATS.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avdetect.errors import DatasetError, InputError
from avdetect.rows import holds_rows, proposals, read_rows
from avdetect.score_columns import find_roles, numbers, read_table, trial_name
from avdetect.scores import Export, write_scores, write_text
from avdetect.types import Claim

UNKNOWN = 0.5
"""What is handed in for a clip without a score, where every clip must have one: no evidence either way."""
FAKED = (Claim.FACE_MANIPULATION, Claim.VOICE_CLONING)
"""What "fake" means in the audio-visual sets; the higher of both scores counts."""
LAV_DF_FPS, LAV_DF_ROWS = 25, 100
"""LAV-DF's own code takes frames of 25 fps, and fails on clips with fewer proposals than AR@100 looks at."""
BENCHMARK_IMAGES, BENCHMARK_PRISTINE = 1000, 500
"""Of the FaceForensics Benchmark; how many are pristine is what its published accuracies imply."""


@dataclass(frozen=True)
class Prediction:
    """What was said of one clip: `score` (higher = more fake) or None, and (score, start, end) in seconds."""

    path: str
    score: float | None
    proposals: tuple[tuple[float, float, float], ...] = ()
    fake: bool | None = None
    method: str | None = None


@dataclass(frozen=True)
class Settings:
    """`root`: names are paths below it; `threshold` for hard decisions."""

    root: Path | None = None
    threshold: float = 0.5


def read_predictions(path: Path, claims: Sequence[Claim] = FAKED) -> list[Prediction]:
    """One prediction per clip, the highest score of `claims`; DatasetError for a file that is none of the three."""
    if holds_rows(path):
        return _joined(
            (row.path, row.score, row.proposals, bool(row.fake), row.method or None)
            for row in read_rows(path)
            if row.claim in claims
        )
    try:
        with path.open(encoding="utf-8") as file:
            first = file.read(1)
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{path}: cannot be read as text ({error}); give rows, verdicts or scores"
        ) from None
    return _of_verdicts(path, claims) if first == "{" else _of_scores(path)


def _joined(parts: Iterable[tuple[str, float | None, Any, bool | None, str | None]]) -> list[Prediction]:
    """Rows of several claims as one prediction per clip."""
    found: dict[str, Prediction] = {}
    for path, score, stretches, fake, method in parts:
        old = found.get(path, Prediction(path, None))
        known = [one for one in (old.score, score) if one is not None]
        ranked = sorted({*old.proposals, *stretches}, key=lambda one: (-one[0], one[1], one[2]))
        truth = old.fake if fake is None else bool(old.fake) or fake
        found[path] = Prediction(path, max(known, default=None), tuple(ranked), truth, old.method or method)
    return list(found.values())


def _of_verdicts(path: Path, claims: Sequence[Claim]) -> list[Prediction]:
    parts: list[tuple[str, float | None, Any, bool | None, str | None]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            verdict = json.loads(line)
            parts.append((verdict["path"], None, (), None, None))
            for claim in claims:
                answer = verdict["claims"].get(claim.value)
                if answer is not None:
                    curve = answer["timeline"]
                    spans = proposals(curve["times"], curve["scores"])
                    parts.append((verdict["path"], answer["score"], spans, None, None))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DatasetError(
                f"{path}: line {number} is no verdict of `avdetect --json` ({error!r})"
            ) from None
    return _joined(parts)


def _of_scores(path: Path) -> list[Prediction]:
    table = read_table(path)
    roles = find_roles(table, frozenset())
    values = numbers(table, roles.score)
    return [Prediction(name, score) for name, score in zip(table.columns[roles.name], values, strict=True)]


# Formats: each writes a file and gives warnings


ROOT = "give --root, the folder that names begin at"


def _named(
    predictions: Sequence[Prediction], name: Callable[[str], str], remedy: str = ROOT
) -> dict[str, Prediction]:
    """Predictions by the name that the format wants; DatasetError where two have one."""
    found = {name(one.path): one for one in predictions}
    if len(found) < len(predictions):
        names = Counter(name(one.path) for one in predictions)
        twice = next(one for one, number in names.items() if number > 1)
        raise DatasetError(f"{twice}: is the name of two clips; {remedy}")
    return found


def _below(settings: Settings, parts: int) -> Callable[[str], str]:
    """The clip's path below --root, or else its last `parts` parts."""

    def name(path: str) -> str:
        if settings.root is None:
            return "/".join(Path(path).parts[-parts:])
        try:
            return Path(path).absolute().relative_to(settings.root.absolute()).as_posix()
        except ValueError:
            raise DatasetError(f"{path}: does not lie below --root {settings.root}") from None

    return name


def _unscored(predictions: Iterable[Prediction], instead: str) -> list[str]:
    count = sum(one.score is None for one in predictions)
    return [f"{count} clips have no score and are {instead}"] if count else []


def asvspoof(layout: Export) -> Callable[[Sequence[Prediction], Path, Settings], list[str]]:
    """Score files of ASVspoof, higher = bona fide; trials without a score are left out, and told."""

    def write(predictions: Sequence[Prediction], out: Path, settings: Settings) -> list[str]:
        named = _named(predictions, trial_name, "ASVspoof knows trials by their file names alone")
        known = {name: one for name, one in named.items() if one.score is not None}
        labels = [one.fake for one in known.values()]
        if layout is Export.ASVSPOOF2019 and any(fake is None for fake in labels):
            raise DatasetError("the 2019 layout states each trial's key: give rows of an evaluation")
        attacks = [one.method if one.fake else None for one in known.values()]
        try:
            write_scores(
                out, layout, list(known), [one.score or 0.0 for one in known.values()],
                [bool(fake) for fake in labels], attacks,
            )  # fmt: skip
        except ValueError as error:
            raise DatasetError(f"{out}: {error}") from None
        return _unscored(predictions, "left out; the official scripts want every trial")

    return write


def faceforensics(predictions: Sequence[Prediction], out: Path, settings: Settings) -> list[str]:
    """The FaceForensics Benchmark's json in a zip: a hard label for each of 0000.png to 0999.png."""
    found = _named(predictions, lambda path: Path(path).stem + ".png")
    strange = next((name for name in found if not re.fullmatch(r"0\d{3}\.png", name)), None)
    if strange:
        raise DatasetError(f"{strange}: is no image of the benchmark (0000.png to 0999.png)")
    # Without evidence an image is not called fake: that is what the benchmark's larger half is.
    labels = {
        name: "fake" if (one.score if one.score is not None else 0.0) >= settings.threshold else "real"
        for name, one in sorted(found.items())
    }
    try:
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            # a fixed date: the same labels give the same bytes
            archive.writestr(zipfile.ZipInfo("submission.json"), json.dumps(labels, indent=0) + "\n")
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror})") from None
    warnings = _unscored(predictions, "handed in as real")
    if len(labels) != BENCHMARK_IMAGES:
        warnings.append(f"{len(labels)} images; the benchmark has {BENCHMARK_IMAGES} and wants them all")
    return warnings + _pristine(list(labels.values()))


def _pristine(labels: Sequence[str]) -> list[str]:
    """The usual failure: pristine images called fake."""
    fakes = labels.count("fake")
    expected = len(labels) * (1 - BENCHMARK_PRISTINE / BENCHMARK_IMAGES)
    if fakes <= 1.1 * expected:
        return []
    most = 1 - (fakes - expected) / (len(labels) - expected)
    return [
        f"{fakes} of {len(labels)} images are called fake, though about half are pristine: the accuracy on Pristine "
        f"can be at most {most:.1%}. That is where most entries of the board fail; raise --threshold"
    ]


def deepfake1m_detection(predictions: Sequence[Prediction], out: Path, settings: Settings) -> list[str]:
    """AV-Deepfake1M's detection task: `file;score` lines."""
    found = _named(predictions, _below(settings, 1))
    scores = {name: UNKNOWN if one.score is None else one.score for name, one in found.items()}
    write_text(out, "".join(f"{name};{score:.6f}\n" for name, score in scores.items()))
    return _unscored(predictions, f"handed in as {UNKNOWN}")


def deepfake1m_segments(predictions: Sequence[Prediction], out: Path, settings: Settings) -> list[str]:
    """AV-Deepfake1M's localisation task: file -> [[score, start_s, end_s], ...], best first."""
    found = _named(predictions, _below(settings, 1))
    return _write_segments(found, out, {name: list(map(list, one.proposals)) for name, one in found.items()})


def lav_df(predictions: Sequence[Prediction], out: Path, settings: Settings) -> list[str]:
    """What LAV-DF's evaluation reads: file -> [[score, first, last], ...] in frames at 25 fps, 100 or more each."""
    found = _named(predictions, _below(settings, 2))
    rows = {
        name: [[score, start * LAV_DF_FPS, end * LAV_DF_FPS] for score, start, end in one.proposals]
        for name, one in found.items()
    }
    filled = {name: known + [[0.0, 0.0, 0.0]] * (LAV_DF_ROWS - len(known)) for name, known in rows.items()}
    return _write_segments(found, out, filled)


def _write_segments(found: dict[str, Prediction], out: Path, rows: dict[str, list[list[float]]]) -> list[str]:
    write_text(out, json.dumps(rows) + "\n")
    without = sum(not one.proposals for one in found.values())
    return [f"{without} of {len(found)} clips have no proposals"] if without else []


Exporter = Callable[[Sequence[Prediction], Path, Settings], list[str]]
FORMATS: dict[str, Exporter] = {
    "asvspoof2019": asvspoof(Export.ASVSPOOF2019),
    "asvspoof2021": asvspoof(Export.ASVSPOOF2021),
    "asvspoof5": asvspoof(Export.ASVSPOOF5),
    "faceforensics": faceforensics,
    "av-deepfake1m": deepfake1m_detection,
    "av-deepfake1m-segments": deepfake1m_segments,
    "lav-df": lav_df,
}
"""Official formats and their writers."""
CLAIMS_OF: dict[str, tuple[Claim, ...]] = {
    **{name: (Claim.VOICE_CLONING,) for name in FORMATS if name.startswith("asvspoof")},
    "faceforensics": (Claim.FACE_MANIPULATION,),
}
"""The claims that a format is about, where not FAKED."""
