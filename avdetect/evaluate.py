"""How well a model does on labelled clips: every clip through the whole detector, a row per clip and claim.

A clip that cannot be scored is counted, never dropped: coverage stands beside every number. Rows are written as they
come, so that an evaluation that was cut off goes on where it stopped, to the same bytes. Scores are calibrated
probabilities at even odds, so their log-odds are the log-likelihood ratios that Cllr and the actual DCF are defined on.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Any

from avdetect.errors import ConfigError, DatasetError
from avdetect.evaluate_time import offsets, steps, stretches
from avdetect.intervals import ROUNDS
from avdetect.prepared import Cache
from avdetect.rows import Journal, Row, key_of
from avdetect.scores import AsvScores
from avdetect.scoring import Scorer, alone, answer, walk
from avdetect.spoof_report import attack_tdcfs, check_attacks, tdcf_intervals, tdcfs
from avdetect.summary import brief, summary
from avdetect.types import CLAIMS, Claim, Item, Outcome

FIXED = 0.5
"""The threshold that accuracies are given at, fixed before any clip was seen."""


class Slice(StrEnum):
    """Which fakes are set against the real clips."""

    AUDIO_ONLY = "audio-only"
    VIDEO_ONLY = "video-only"
    BOTH = "both"
    ALL = "all"

    def holds(self, item: Item) -> bool:
        """Real clips belong to every slice; a fake one by what is fake about it."""
        face, voice = bool(item.label.face_manipulation), bool(item.label.voice_cloning)
        wanted = {self.AUDIO_ONLY: (False, True), self.VIDEO_ONLY: (True, False), self.BOTH: (True, True)}
        return not item.label.is_fake or self is Slice.ALL or (face, voice) == wanted[self]


def sliced(items: Iterable[Item], piece: str) -> list[Item]:
    """Real clips, and the fakes of a `Slice` or of the method of that name; ConfigError where no fake has it."""
    items = list(items)
    if piece in tuple(Slice):
        return [item for item in items if Slice(piece).holds(item)]
    methods = Counter(item.method or "" for item in items if item.label.is_fake and item.method)
    if piece not in methods:
        near = get_close_matches(piece, [*Slice, *methods], n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"the commonest is '{_commonest(methods)}'"
        raise ConfigError(f"--slice {piece}: is no slice, and no fake was made by it; {hint}")
    return [item for item in items if not item.label.is_fake or item.method == piece]


def _commonest(methods: Counter[str]) -> str:
    return methods.most_common(1)[0][0] if methods else "none"


def evaluate(
    scorer: Scorer,
    items: Sequence[Item],
    claims: Sequence[Claim],
    csv_path: Path | None = None,
    cache: Cache | None = None,
) -> Iterator[list[Row]]:
    """Rows item by item, also appended to `csv_path`. Clips that `cache` holds are not decoded again.

    Items whose claims all stand there already are read, not scored again; claims that were not asked for
    before are added. All rows of one file must come from one model.
    """
    journal = Journal(csv_path, scorer.model_info) if csv_path is not None else None
    for scored in walk(alone(scorer, cache, answer), items, claims, journal):
        yield scored.rows


def distinct(items: Iterable[Item]) -> tuple[list[Item], int]:
    """The items without those whose files stand there already, and how many those were."""
    every = list(items)
    kept: dict[tuple[str, str], Item] = {}
    for item in every:
        kept.setdefault(key_of(item), item)
    return list(kept.values()), len(every) - len(kept)


# Tables


def tables(
    rows: Sequence[Row],
    claims: Sequence[Claim] = CLAIMS,
    asv: AsvScores | None = None,
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Claim -> summary row with intervals by identity, per method, per set, per face, by time, and coverage.

    `asv` are the organisers' ASV scores of the set, for both t-DCFs of voice cloning. DatasetError where they are of
    other attacks than the rows.
    """
    out: dict[str, dict[str, Any]] = {}
    for claim in claims:
        mine = [row for row in rows if row.claim == claim.value]
        if not mine:
            continue
        table = _table(mine, rounds, seed)
        names = sorted({row.dataset for row in mine})
        if len(names) > 1:
            parts = {name: [row for row in mine if row.dataset == name] for name in names}
            table["datasets"] = {
                name: _table(part, rounds, seed) | _faces(part, rounds, seed) for name, part in parts.items()
            }
        table |= _faces(mine, rounds, seed)
        if any(row.truth for row in mine):
            table["localisation"] = stretches(mine)
        if by_step := steps(mine, rounds, seed):
            table["steps"] = by_step
        if late := offsets(mine, rounds, seed):
            table["offsets"] = late
        if asv is not None and claim is Claim.VOICE_CLONING:
            _add_tdcfs(table, mine, asv, rounds, seed)
        out[claim.value] = table
    return out


def _table(rows: Sequence[Row], rounds: int, seed: int) -> dict[str, Any]:
    scored = [row for row in rows if row.score is not None]
    table = summary(
        [row.score for row in scored if row.score is not None],
        [bool(row.fake) for row in scored],
        groups=[row.method or None for row in scored],
        clusters=[row.identity for row in scored],
        threshold=FIXED,
        probabilities=True,
        rounds=rounds,
        seed=seed,
    )
    table["trials"], table["scored"] = len(rows), len(scored)
    table["coverage"] = len(scored) / len(rows)
    table["coverage_real"], table["coverage_fake"] = (
        _share([row.score is not None for row in rows if bool(row.fake) is fake]) for fake in (False, True)
    )
    for name, fake in (("false_alarms", False), ("found", True)):
        said = [row.verdict == Outcome.MANIPULATED for row in scored if bool(row.fake) is fake]
        table[name] = _share(said) or 0.0
    table["inconclusive"] = _share([row.verdict == Outcome.INCONCLUSIVE for row in scored])
    table["unscored"] = dict(Counter(reason_of(row) for row in rows if row.score is None).most_common())
    total = Counter(row.method for row in rows if row.fake)
    for method, group in table["groups"].items():
        group["coverage"] = group["n_fake"] / total[method]
    return table


def reason_of(row: Row) -> str:
    """Why a clip has no score, without its own name and numbers, so that like reasons count together."""
    said = re.sub(r" \([^)]*\)", "", row.reason.removeprefix(row.path))
    return said.lstrip(": ").split("; ")[0] or row.verdict


def _share(said: Sequence[bool]) -> float | None:
    return sum(said) / len(said) if said else None


def _faces(rows: Sequence[Row], rounds: int, seed: int) -> dict[str, Any]:
    """`faces`: every face a trial; nothing where no clip has one.

    Of a fake clip that shows several nobody states which one is fake: they are left out.
    """
    if not any(row.faces for row in rows):
        return {}
    usable = [row for row in rows if not row.fake or len(row.faces) == 1]
    trials = [(score, row) for row in usable for _, score in row.faces]
    table = brief(
        [score for score, _ in trials],
        [bool(row.fake) for _, row in trials],
        [row.identity for _, row in trials],
        rounds,
        seed,
    )
    clips = len({row.key for _, row in trials})
    left_out = sum(len(row.faces) for row in rows) - len(trials)
    return {"faces": {"clips": clips, "left_out": left_out, "coverage": clips / len(rows), **table}}


def _add_tdcfs(table: dict[str, Any], rows: Sequence[Row], asv: AsvScores, rounds: int, seed: int) -> None:
    scored = [row for row in rows if row.score is not None]
    attacks = [row.method if row.fake else None for row in scored]
    if len({row.dataset for row in rows}) > 1:
        raise DatasetError("--asv-scores go with one set; evaluate it by itself")
    check_attacks(attacks, asv)
    values = [row.score for row in scored if row.score is not None]
    truth = [bool(row.fake) for row in scored]
    people, rates = [row.identity for row in scored], asv.rates()
    table |= tdcfs(values, truth, rates) | tdcf_intervals(values, truth, rates, people, rounds, seed)
    for name, group in table["groups"].items():
        group |= attack_tdcfs(values, truth, attacks, asv, name)


def fingerprint(rows: Iterable[Row]) -> str:
    """SHA-256 (hex) of what was evaluated: each clip's content (or name, where it could not be read) and labels."""
    lines = sorted(
        f"{row.sha256 or row.name} {row.claim} {row.fake} {row.method} {row.identity}\n" for row in rows
    )
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def worst(rows: Sequence[Row], claim: Claim, count: int) -> list[Row]:
    """The real clips that look most fake and the fakes that look least so: at most `count` of each, worst first."""
    mine = [row for row in rows if row.claim == claim.value and row.score is not None]
    fakes = sorted((row for row in mine if row.fake), key=lambda row: (row.score or 0.0, row.path))
    reals = sorted((row for row in mine if not row.fake), key=lambda row: (-(row.score or 0.0), row.path))
    return [*reals[:count], *fakes[:count]]
