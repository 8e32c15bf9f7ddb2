"""Labelled clips as they are and degraded, each judged by the whole detector: a row per clip, variant and claim.

Sound is degraded after decoding (a codec writes a file and reads it back), so that faces need to be looked for once;
a picture is degraded into a file that goes through everything that a clip goes through. Real and fake clips get the
same, drawn from a seed and the clip's content alone.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avdetect.degradations import DEGRADATIONS, Kind, Variant, setting_of
from avdetect.degradations.family import CLAIMS_OF, Recipe, Rng
from avdetect.errors import MediaError
from avdetect.looked import Looked
from avdetect.prepared import Cache
from avdetect.row_file import Layout
from avdetect.rows import key_of, rows_of
from avdetect.scoring import guarded
from avdetect.speech import speech_segments
from avdetect.sweep import MOVED_SECONDS, Exam, Key, Subject, answers, subjects
from avdetect.types import CLAIMS, SAMPLE_RATE, Claim, Floats, Item, Outcome, Verdict
from avdetect.windows import prepare

if TYPE_CHECKING:
    from avdetect.scoring import Ask, Scorer

UNTOUCHED = Variant("untouched", "untouched", "", CLAIMS)
"""The clip as it is."""


@dataclass(frozen=True)
class Trial:
    """One answer: `score` in 0..1, or None with the reason. `made` says how the fake was made here ("": it was not)."""

    path: str
    audio_path: str
    made: str
    variant: str
    claim: str
    fake: int
    score: float | None
    verdict: str
    reason: str
    method: str
    identity: str

    @property
    def key(self) -> Key:
        """What no two rows share."""
        return *self.clip, self.variant, self.claim

    @property
    def clip(self) -> tuple[str, str, str]:
        """What the rows of one clip share."""
        return self.path, self.audio_path, self.made


TRIALS = Layout(Trial, "trials of degraded clips")


@dataclass(frozen=True)
class Question:
    """What is asked of a subject: one claim in one variant."""

    subject: Subject
    variant: Variant
    claim: Claim

    @property
    def key(self) -> Key:
        """`Trial.key` of its row."""
        return *key_of(self.subject.item), self.subject.made, self.variant.name, self.claim.value


def judged(
    ask: Ask[Exam[Question], list[Trial]],
    items: Sequence[Item],
    claims: Sequence[Claim],
    variants: Sequence[Variant],
    path: Path,
    seed: int = 0,
) -> Iterator[list[Trial]]:
    """All rows of each item in turn, untouched and in every variant that touches `claims`; also kept in `path` (csv).

    `ask` has `trials` done. Rows that stand there already are not made again. What cannot be read, or not be degraded,
    gives rows with the verdict "error" and the reason.
    """
    exams = [
        Exam(some[0].item, tuple(claims), seed, tuple(_questions(some, claims, variants)))
        for some in subjects(items, claims)
    ]
    return answers(ask, exams, path, TRIALS)


def _questions(
    some: Sequence[Subject], claims: Sequence[Claim], variants: Sequence[Variant]
) -> Iterator[Question]:
    for variant in [UNTOUCHED, *variants]:
        for subject in some:
            for claim in claims:
                if claim in variant.claims and subject.label[claim] is not None:
                    yield Question(subject, variant, claim)


def trials(scorer: Scorer, exam: Exam[Question], cache: Cache | None = None) -> list[Trial]:
    """The rows that answer the questions about one clip, in their order.

    Media made on the way lie in a temporary folder. What `cache` holds of the clip as it is is not decoded again.
    """
    bench = Bench(scorer, exam.item, exam.claims, exam.seed, cache)
    rows: list[Trial] = []
    for (subject, variant), some in groupby(exam.questions, lambda one: (one.subject, one.variant)):
        rows += bench.trials(subject, variant, [one.claim for one in some])
    return rows


class Bench:
    """One item, opened at the first need, and its latest variant with it."""

    def __init__(
        self, scorer: Scorer, item: Item, claims: Sequence[Claim], seed: int, cache: Cache | None = None
    ) -> None:
        self.scorer, self.item, self.seed, self._cache = scorer, item, seed, cache
        self._seen = any(
            item.label[claim] is not None for claim in CLAIMS_OF[Kind.PICTURE] if claim in claims
        )
        self._untouched: Looked | MediaError | None = None
        self._latest: tuple[str, Looked] | None = None

    def trials(self, subject: Subject, variant: Variant, claims: Sequence[Claim]) -> list[Trial]:
        """The rows of one subject in one variant."""
        return _trials(subject, variant, self.verdict(subject, variant), claims)

    def verdict(self, subject: Subject, variant: Variant = UNTOUCHED) -> Verdict:
        """What the scorer says of one subject in one variant; an error where that fails."""
        model = self.scorer.model_info
        try:
            return guarded(
                self.item.path,
                model,
                lambda: self.scorer.detect(self.item.path, prepared=self.look(subject, variant)),
            )
        except MediaError as error:
            return Verdict(self.item.path, Outcome.ERROR, model, error=str(error))

    def look(self, subject: Subject, variant: Variant = UNTOUCHED) -> Looked:
        """The clip in a variant, with all that is seen and heard of it then. MediaError where that fails."""
        looked = self._in(variant)
        return _with_sound(looked, _late(_sound_of(looked))) if subject.made else looked

    def _in(self, variant: Variant) -> Looked:
        if self._latest is None or self._latest[0] != variant.name:
            self._latest = variant.name, self._degraded(variant)
        return self._latest[1]

    def _degraded(self, variant: Variant) -> Looked:
        untouched = self._as_it_is()
        if variant == UNTOUCHED:
            return untouched
        degradation, setting = DEGRADATIONS[variant.degradation], setting_of(variant)
        rng = self._dice(variant, untouched.clip.sha256)
        try:
            if degradation.kind is Kind.PICTURE:
                return self._repainted(untouched, degradation.build()(setting), rng)
            if untouched.clip.waveform is None:
                return untouched
            sound = degradation.build()(untouched.clip.waveform, setting, rng)
            return _with_sound(untouched if degradation.keeps_time else _unseen(untouched), sound)
        except MediaError as error:  # it names a file that has gone
            problem = f"cannot be degraded by {variant.name} ({error.problem})"
            raise MediaError(self.item.path, problem, "leave that variant out") from error

    def _as_it_is(self) -> Looked:
        """The clip as it is; looked at once, and what went wrong is told again each time."""
        if self._untouched is None:
            try:
                self._untouched = self._open()
            except MediaError as error:
                self._untouched = error
        if isinstance(self._untouched, MediaError):
            raise self._untouched
        return self._untouched

    def _open(self) -> Looked:
        if (kept := self._kept()) is not None:
            return kept if self._seen or kept.clip.waveform is None else _unseen(kept)
        prepared = prepare(self.item.path, self.scorer.settings, audio_path=self.item.audio_path)
        if not self._seen and prepared.clip.waveform is not None:  # nothing will be asked of its picture
            prepared.clip = replace(prepared.clip, fps=None, width=None, height=None)
        return Looked.at(prepared)

    def _kept(self) -> Looked | None:
        """The clip from the cache, where it is there."""
        try:
            return self._cache.find(self.item, self.scorer.settings) if self._cache is not None else None
        except OSError:
            return None  # the clip itself cannot be read: opening it says so in words

    def _dice(self, variant: Variant, content: str) -> Rng:
        return np.random.default_rng([self.seed, int(content[:12], 16), zlib.crc32(variant.name.encode())])

    def _repainted(self, untouched: Looked, recipe: Recipe, rng: Rng) -> Looked:
        """The clip with its picture through `recipe`, looked at anew, beside its own sound."""
        from avdetect.degradations.picture import rendered

        if not untouched.clip.has_video:
            return untouched
        with tempfile.TemporaryDirectory(prefix="avdetect-") as folder:
            path = rendered(untouched.clip, recipe, Path(folder), rng)
            looked = Looked.at(prepare(path, self.scorer.settings))
        sound, speech = untouched.clip.waveform, untouched.speech
        if recipe.sound is not None and sound is not None:
            sound = recipe.sound(sound, rng)
            speech = speech_segments(sound)
        clip = replace(looked.clip, path=self.item.path, waveform=sound, duration=untouched.clip.duration)
        return replace(looked, clip=clip, speech=speech, warnings=untouched.warnings)


def _sound_of(looked: Looked) -> Floats:
    if looked.clip.waveform is None:
        raise MediaError(looked.clip.path, "holds no sound to move", "leave it out")
    return looked.clip.waveform


def _late(waveform: Floats) -> Floats:
    """Sound moved back; what runs out at the end comes in at the start, for silence there would tell the class."""
    return np.roll(waveform, round(MOVED_SECONDS * SAMPLE_RATE))


def _unseen(looked: Looked) -> Looked:
    """The clip's sound alone."""
    clip = replace(looked.clip, fps=None, width=None, height=None)
    return replace(looked, clip=clip, tracks=[], seen={})


def _with_sound(looked: Looked, waveform: Floats) -> Looked:
    """The clip with another sound; one without a picture is as long as that sound."""
    clip = looked.clip
    duration = clip.duration if clip.has_video else waveform.size / SAMPLE_RATE
    return replace(
        looked, clip=replace(clip, waveform=waveform, duration=duration), speech=speech_segments(waveform)
    )


def _trials(subject: Subject, variant: Variant, verdict: Verdict, claims: Sequence[Claim]) -> list[Trial]:
    item = replace(subject.item, label=subject.label)
    return [
        Trial(
            path=row.path,
            audio_path=row.audio_path,
            made=subject.made,
            variant=variant.name,
            claim=row.claim,
            fake=row.fake,
            score=row.score,
            verdict=row.verdict,
            reason=row.reason,
            method=subject.made or row.method,
            identity=row.identity,
        )
        for row in rows_of(item, verdict, claims)
    ]
