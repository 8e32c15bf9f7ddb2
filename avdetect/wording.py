"""What is said to people, in words: claims, outcomes, moments and offsets, for text and HTML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from avdetect.types import CLAIMS, Claim, ClaimResult, Outcome, Segment, Verdict

TITLES = {
    Claim.FACE_MANIPULATION: "Face manipulation",
    Claim.VOICE_CLONING: "Voice cloning",
    Claim.LIP_SYNC_MISMATCH: "Lip-sync mismatch",
}
QUESTIONS = {
    Claim.FACE_MANIPULATION: "Was a visible face swapped, reenacted or generated?",
    Claim.VOICE_CLONING: "Was the voice synthesised, converted or re-vocoded?",
    Claim.LIP_SYNC_MISMATCH: "Do this mouth and this voice belong together in time?",
}
FINDINGS = {
    Outcome.MANIPULATED: "The model sees clear signs of it.",
    Outcome.NO_MANIPULATION_FOUND: "The model sees no sign of it. That is not proof that there is none.",
    Outcome.INCONCLUSIVE: "The model sees some signs, too few to decide either way.",
    Outcome.NOT_ASSESSABLE: "This could not be looked at in this clip.",
}

# Terminal controls, line separators, marks that reorder text on screen, and bytes that were no UTF-8.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]"
)
_SURROGATES = re.compile("[\ud800-\udfff]")


def encodable(text: str) -> str:
    """`text` with what UTF-8 cannot hold (bytes of a file name that were no UTF-8) shown as U+FFFD."""
    return _SURROGATES.sub("\ufffd", text)


def printable(text: str) -> str:
    """`text` on one line, without anything that steers a terminal or reorders what is read."""
    return _UNPRINTABLE.sub("\ufffd", encodable(text))


def clock(seconds: float) -> str:
    """Seconds as mm:ss, from an hour on as h:mm:ss, rounded down as players do."""
    whole = max(0, int(seconds + 1e-6))
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes:02d}:{whole % 60:02d}"


def instant(seconds: float) -> str:
    """Seconds as mm:ss.t, with tenths, for a single picture."""
    tenths = int(seconds * 10 + 1e-6)
    return f"{clock(tenths / 10)}.{tenths % 10}"


def stretch(start: float, end: float) -> str:
    """A stretch as mm:ss-mm:ss (with an en dash), or one mm:ss where both ends lie in the same second."""
    first, last = clock(start), clock(end)
    return first if first == last else f"{first}\u2013{last}"


def worst(segments: Iterable[Segment], limit: int) -> list[Segment]:
    """The `limit` highest-scoring segments, worst first; unscored ones come last, in time order."""
    return sorted(segments, key=lambda s: (-1.0 if s.score is None else -s.score, s.start))[:limit]


def score_text(score: float, low: float | None = None, high: float | None = None) -> str:
    """`score` with two to four decimals: as many as it takes to stay on its side of both thresholds."""
    limits = [limit for limit in (low, high) if limit is not None]
    for digits in (2, 3):
        if all((round(score, digits) >= round(limit, digits)) == (score >= limit) for limit in limits):
            return f"{score:.{digits}f}"
    return f"{score:.4f}"


def limit_text(limit: float) -> str:
    """A threshold with two to four decimals, never cut short of what it is."""
    text = f"{limit:.4f}".rstrip("0")
    return text.ljust(text.index(".") + 3, "0")


def offset_text(offset_ms: float) -> str:
    """A lip-sync offset in milliseconds, in words; positive is late sound."""
    rounded = round(abs(offset_ms))
    if rounded == 0:
        return "sound and picture are in step"
    return f"sound {'lags behind' if offset_ms > 0 else 'runs ahead of'} the picture by {rounded} ms"


def listing(names: Sequence[str], last: str = "and") -> str:
    """Names as a person would list them: "a", "a and b", "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"


def claims_with(verdict: Verdict, outcome: Outcome) -> list[str]:
    """Titles, in lower case, of the claims whose verdict is `outcome`."""
    results = (verdict.claims.get(claim) for claim in CLAIMS)
    return [TITLES[result.claim].lower() for result in results if result and result.verdict is outcome]


def summary(verdict: Verdict) -> str:
    """One to three sentences on what was found, what stays open and what could not be looked at."""
    if verdict.error is not None:
        return "This clip could not be read, so nothing is said about it."
    found = claims_with(verdict, Outcome.MANIPULATED)
    absent = claims_with(verdict, Outcome.NO_MANIPULATION_FOUND)
    unsure = claims_with(verdict, Outcome.INCONCLUSIVE)
    unseen = claims_with(verdict, Outcome.NOT_ASSESSABLE)
    sentences = []
    if found:
        sentences.append(f"Signs of {listing(found)}.")
    elif absent:
        sentences.append(f"No sign of {listing(absent, 'or')}, which is not proof that the clip is genuine.")
    if unsure:
        sentences.append(
            f"{listing(unsure).capitalize()} {'is' if len(unsure) == 1 else 'are'} inconclusive."
        )
    if unseen:
        sentences.append(f"{listing(unseen).capitalize()} could not be assessed.")
    return " ".join(sentences)


def moments(result: ClaimResult, limit: int = 3) -> str:
    """The worst moments of a claim as mm:ss-mm:ss, worst first, with the face where a segment names one."""
    shown = worst(result.segments, limit)
    names = [stretch(s.start, s.end) + (f" (face {s.track})" if s.track is not None else "") for s in shown]
    rest = len(result.segments) - len(shown)
    return ", ".join(names) + (f" and {rest} more" if rest else "")
