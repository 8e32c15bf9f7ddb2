"""Labelled clips attacked one by one, an answer for each attack and budget, and tables of what fooling a model costs.

`adversarial` holds the attack itself.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from avdetect.adversarial import Victim, victim
from avdetect.detect import Detector, read_score
from avdetect.looked import Looked
from avdetect.metrics import UndefinedMetricError, eer_point
from avdetect.prepared import Cache
from avdetect.robustness import ROUNDS, as_number, as_share
from avdetect.row_file import Layout
from avdetect.rows import key_of, rows_of
from avdetect.summary import summary
from avdetect.sweep import Exam, Key, Subject, answers, subjects
from avdetect.types import Claim, Item, Outcome, Verdict, Window
from avdetect.variants import Bench

if TYPE_CHECKING:
    from avdetect.scoring import Ask, Scorer

LEVELS = (1, 2, 4)
"""Budgets of a picture: levels of 255 by which a pixel may differ."""
DECIBELS = (60, 50, 40, 30)
"""Budgets of sound: how far below the clip the change lies."""
STEPS = (1, 10)
"""Gradient steps; one step is the fast gradient sign method of Goodfellow et al., 2015."""
LONGEST = 20.0
"""Seconds from its start in which a clip is attacked, and judged: all its windows are held in memory at once."""


@dataclass(frozen=True)
class Attempt:
    """One answer after one attack; `attack` is "none", "noise" or "gradient", `budget` e.g. "2/255" or "40 dB"."""

    path: str
    audio_path: str
    made: str
    claim: str
    fake: int
    attack: str
    budget: str
    steps: int
    score: float | None
    verdict: str
    reason: str
    method: str
    identity: str

    @property
    def clip(self) -> tuple[str, str, str]:
        """What the rows of one clip share."""
        return self.path, self.audio_path, self.made

    @property
    def key(self) -> Key:
        """What the rows of one clip and claim share."""
        return *self.clip, self.claim


ATTEMPTS = Layout(Attempt, "trials of attacked clips")


@dataclass(frozen=True)
class Question:
    """What is asked of a subject: one claim, as it is and after every attack."""

    subject: Subject
    claim: Claim

    @property
    def key(self) -> Key:
        """`Attempt.key` of its rows."""
        return *key_of(self.subject.item), self.subject.made, self.claim.value


def attacked(
    ask: Ask[Exam[Question], list[Attempt]],
    items: Sequence[Item],
    claims: Sequence[Claim],
    path: Path,
    seed: int = 0,
) -> Iterator[list[Attempt]]:
    """Each item's answers as it is and after every attack; also kept in `path` (csv), and not made again.

    `ask` has `attempts` done. A claim that can't be assessed gives the one row "none" with the reason.
    """
    exams = [
        Exam(
            some[0].item,
            tuple(claims),
            seed,
            tuple(Question(one, claim) for one in some for claim in claims if one.label[claim] is not None),
        )
        for some in subjects(items, claims)
    ]
    return answers(ask, exams, path, ATTEMPTS)


def attempts(scorer: Scorer, exam: Exam[Question], cache: Cache | None = None) -> list[Attempt]:
    """All attacks on one clip. What `cache` holds of it is not decoded again. `scorer` is a Detector."""
    assert isinstance(scorer, Detector)  # gradients go through its model
    bench = Bench(scorer, exam.item, exam.claims, exam.seed, cache)
    return [
        row for one in exam.questions for row in _attempts(scorer, bench, one.subject, one.claim, exam.seed)
    ]


def _attempts(
    detector: Detector, bench: Bench, subject: Subject, claim: Claim, seed: int
) -> Iterator[Attempt]:
    told = _told(subject, claim, bench.verdict(subject))
    if told.score is None:
        yield told
        return
    looked = bench.look(subject)
    windows = _windows(looked, claim)
    aim = victim(detector, looked, windows, claim) if windows else None
    if aim is None:
        yield told
        return
    yield _answered(told, aim, aim.surface.clean, "none", "", 0)
    for budget in LEVELS if claim is Claim.FACE_MANIPULATION else DECIBELS:
        name = f"{budget}/255" if claim is Claim.FACE_MANIPULATION else f"{budget} dB"
        dice = np.random.default_rng([seed, int(looked.clip.sha256[:12], 16), zlib.crc32(name.encode())])
        noisy = aim.surface.kept(aim.surface.noise(dice, budget))
        yield _answered(told, aim, noisy, "noise", name, 0)
        for steps in STEPS:
            yield _answered(told, aim, aim.fooled(bool(told.fake), budget, steps), "gradient", name, steps)


def _windows(looked: Looked, claim: Claim) -> list[Window]:
    """The windows that the claim is read from; of sound alone one where there are several faces."""
    every = looked if claim is Claim.VOICE_CLONING else looked.usable_windows()
    windows = [window for window in every if window.start < LONGEST]
    if claim is not Claim.VOICE_CLONING:
        return [window for window in windows if window.track is not None]
    return list({window.start: window for window in reversed(windows)}.values())[::-1]


def _told(subject: Subject, claim: Claim, verdict: Verdict) -> Attempt:
    """What the detector says of the clip as it is."""
    (row,) = rows_of(replace(subject.item, label=subject.label), verdict, [claim])
    return Attempt(
        path=row.path,
        audio_path=row.audio_path,
        made=subject.made,
        claim=row.claim,
        fake=row.fake,
        attack="none",
        budget="",
        steps=0,
        score=row.score,
        verdict=row.verdict,
        reason=row.reason,
        method=subject.made or row.method,
        identity=row.identity,
    )


def _answered(told: Attempt, aim: Victim, x: torch.Tensor, attack: str, budget: str, steps: int) -> Attempt:
    score, bounds = aim.score(x), aim.thresholds
    verdict = Outcome.NOT_ASSESSABLE if score is None else read_score(score, bounds["low"], bounds["high"])
    return replace(told, attack=attack, budget=budget, steps=steps, score=score, verdict=verdict.value)


# Tables


def table(attempts: Sequence[Attempt], claim: Claim, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """A row per attack and budget of a claim, clips as they are first; plain numbers, ready for JSON.

    n_real, n_fake, auc with auc_ci; mean drift of the scores, `drift_real` and `drift_fake`, away from the untouched
    ones; by the model's own thresholds `detected` (fakes called manipulated before), `lost` (the share of those that no
    longer are), `raised` (the share of real clips, not called manipulated before, that are now), `cleared` (the share
    of fakes of which nothing is found); and, at the score where the untouched clips' two error rates are equal, the
    share of fakes that fall below it, `lost_at_eer`, and of real clips that rise above it, `raised_at_eer`.
    """
    mine = [one for one in attempts if one.claim == claim.value and one.score is not None]
    before = {one.clip: one for one in mine if one.attack == "none"}
    threshold = _eer_threshold(list(before.values()))
    rows = []
    for attack, budget, steps in dict.fromkeys((one.attack, one.budget, one.steps) for one in mine):
        here = [one for one in mine if (one.attack, one.budget, one.steps) == (attack, budget, steps)]
        scores, fake = [_score(one) for one in here], [bool(one.fake) for one in here]
        found = summary(scores, fake, clusters=[one.identity for one in here], rounds=rounds)
        row = {"attack": attack, "budget": budget, "steps": steps}
        row |= {name: found[name] for name in ("n_real", "n_fake", "auc", "auc_ci")}
        rows.append(row | _fooled([(one, before[one.clip]) for one in here], threshold))
    return rows


def _eer_threshold(untouched: Sequence[Attempt]) -> float | None:
    try:
        return eer_point([_score(one) for one in untouched], [bool(one.fake) for one in untouched])[1]
    except UndefinedMetricError:
        return None


def _fooled(pairs: Sequence[tuple[Attempt, Attempt]], threshold: float | None) -> dict[str, Any]:
    """What became of each class, of pairs (after, before)."""
    called = Outcome.MANIPULATED.value
    real, fake = ([pair for pair in pairs if bool(pair[0].fake) is kind] for kind in (False, True))
    detected = [pair for pair in fake if pair[1].verdict == called]
    quiet = [pair for pair in real if pair[1].verdict != called]
    row: dict[str, Any] = {
        "drift_real": _mean([_score(now) - _score(was) for now, was in real]),
        "drift_fake": _mean([_score(now) - _score(was) for now, was in fake]),
        "detected": len(detected),
        "lost": _mean([now.verdict != called for now, _ in detected]),
        "raised": _mean([now.verdict == called for now, _ in quiet]),
        "cleared": _mean([now.verdict == Outcome.NO_MANIPULATION_FOUND.value for now, _ in fake]),
        "lost_at_eer": None,
        "raised_at_eer": None,
    }
    if threshold is not None:
        above = [now for now, was in fake if _score(was) >= threshold]
        below = [now for now, was in real if _score(was) < threshold]
        row["lost_at_eer"] = _mean([_score(now) < threshold for now in above])
        row["raised_at_eer"] = _mean([_score(now) >= threshold for now in below])
    return row


def _score(one: Attempt) -> float:
    assert one.score is not None  # rows without a score were left out
    return one.score


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


_HEADER = (
    *("attack", "budget", "steps", "real", "fake", "AUC", "drift real", "drift fake", "lost", "raised"),
    *("cleared", "lost, EER", "raised, EER"),
)
_WIDTHS = (10, 8, 7, 6, 6, 8, 12, 12, 12, 8, 9, 11, 13)


def to_text(tables: Mapping[str, Sequence[dict[str, Any]]]) -> str:
    """Per claim a line for each attack and budget, for people."""
    lines: list[str] = []
    for claim, rows in tables.items():
        lines += ["", claim] if lines else [claim]
        lines += [_line(_HEADER), *(_line(_cells(row)) for row in rows)]
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    lost = f"{as_share(row['lost'])} of {row['detected']}" if row["detected"] else "-"
    names = ("raised", "cleared", "lost_at_eer", "raised_at_eer")
    return (
        row["attack"],
        row["budget"],
        str(row["steps"]),
        str(row["n_real"]),
        str(row["n_fake"]),
        as_number(row["auc"]),
        as_number(row["drift_real"], "+"),
        as_number(row["drift_fake"], "+"),
        lost,
        *(as_share(row[name]) for name in names),
    )


def _line(cells: Sequence[str]) -> str:
    first, *rest = zip(cells, _WIDTHS, strict=True)
    return f"{first[0]:<{first[1]}}" + "".join(f"{cell:>{width}}" for cell, width in rest)
