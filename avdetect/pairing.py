"""A joint set out of two: faces of one manifest (DFD has no sound) with voices of another (ASVspoof has no picture).

Four files, a real and a fake face, a bona fide and a spoofed voice, make the four cells of a `Quad`. So the cells are
balanced, and each face is heard with both kinds of voice and each voice seen with both kinds of face equally often:
neither half says anything of the other's label. Nobody is in two splits; sexes match where both are known. There is
no random state: clips are dealt in the order of the SHA-256 of the seed and their file's name.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from avdetect.errors import DatasetError
from avdetect.types import Claim, Item, Label, Split

SEX_COLUMNS = ("sex", "gender")
"""Where a manifest says a person's sex, among the columns that are kept as `Item.extra`."""
SEXES: Mapping[str, str | None] = {
    **dict.fromkeys(("f", "female", "woman", "women"), "female"),
    **dict.fromkeys(("m", "male", "man", "men"), "male"),
    **dict.fromkeys(("", "-", "unknown"), None),
}
"""The words for it in manifests."""
CELLS = (
    "real face, bona fide voice",
    "real face, spoofed voice",
    "fake face, bona fide voice",
    "fake face, spoofed voice",
)
"""In the order of a quad's pairs."""

_KINDS = ("real faces", "fake faces", "bona fide voices", "spoofed voices")


@dataclass(frozen=True)
class Quad:
    """Four clips of one split that give one pair for each of `CELLS`; `number` is its place within the split."""

    split: Split
    number: int
    real: Item
    fake: Item
    bonafide: Item
    spoofed: Item

    @property
    def name(self) -> str:
        """Unique within a joint set."""
        return f"{self.split}-{self.number:06}"

    def pairs(self, lip_sync_negative: bool = False) -> tuple[Item, ...]:
        """The four pairs, in the order of `CELLS`: path the face's clip, audio_path the voice's.

        Lip-sync is not labelled, as the voice is another person's, unless that is asked for as a mismatch.
        """
        lip_sync = True if lip_sync_negative else None
        return tuple(
            _joined(face, voice, self, lip_sync)
            for face in (self.real, self.fake)
            for voice in (self.bonafide, self.spoofed)
        )

    def clips(self) -> tuple[Item, ...]:
        """The four clips as their manifests have them."""
        return self.real, self.fake, self.bonafide, self.spoofed


@dataclass(frozen=True)
class Pairing:
    """The quads of a joint set, and why what was left out (reason -> clips)."""

    quads: tuple[Quad, ...]
    seed: int
    left_out: Mapping[str, int]

    def unpaired(self) -> list[Item]:
        """Every chosen clip once, by itself: a face teaches its own claim alone, and so does a voice."""
        halves: dict[tuple[str, Path], Item] = {}
        for quad in self.quads:
            for face in (quad.real, quad.fake):
                own = Label(face_manipulation=face.label.face_manipulation, segments=face.label.segments)
                halves.setdefault(("face", face.path), replace(face, label=own))
            for voice in (quad.bonafide, quad.spoofed):
                own, path = Label(voice_cloning=voice.label.voice_cloning), sound_of(voice)
                halves.setdefault(("voice", path), replace(voice, path=path, audio_path=None, label=own))
        return list(halves.values())

    def report(self) -> dict[str, Any]:
        """Counts for each split and cell, of files used and of sexes matched, and what was left out, for json."""
        splits = [split for split in Split if any(quad.split is split for quad in self.quads)]
        used: dict[str, dict[str, int]] = {}
        for split in splits:
            rows = zip(*(quad.clips() for quad in self.quads if quad.split is split), strict=True)
            used[split] = {
                kind: len({sound_of(clip) if "voice" in kind else clip.path for clip in clips})
                for kind, clips in zip(_KINDS, rows, strict=True)
            }
        matches = Counter(item.extra["sex_match"] for quad in self.quads for item in quad.pairs())
        size = Counter(quad.split for quad in self.quads)
        return {
            "seed": self.seed,
            "pairs": len(self.quads) * len(CELLS),
            "cells": {split.value: dict.fromkeys(CELLS, size[split]) for split in splits},
            "files": used,
            "pairs_by_sex": {"matched": matches["matched"], "unknown": matches["unknown"]},
            "left_out": dict(self.left_out),
        }


def pair(
    faces: Iterable[Item], voices: Iterable[Item], seed: int = 0, per_cell: int | None = None
) -> Pairing:
    """The joint set of two manifests' items; `per_cell` is the number of pairs in each cell and split.

    Without it there are as many as the split has faces of the class that has more of them; clips of the other
    classes are dealt again only after all that fit have been. The result depends on neither the items' order nor
    the folders they lie in, as long as no two clips have one name. Raises DatasetError where no split has all four.
    """
    left: Counter[str] = Counter()
    seen, heard = list(faces), list(voices)
    torn = _torn([*seen, *heard])
    usable = {
        Claim.FACE_MANIPULATION: _usable(seen, Claim.FACE_MANIPULATION, "faces", torn, left),
        Claim.VOICE_CLONING: _usable(heard, Claim.VOICE_CLONING, "voices", torn, left),
    }
    quads: list[Quad] = []
    for split in Split:
        pools = [
            [item for item in items if item.split is split and item.label[claim] is fake]
            for claim, items in usable.items()
            for fake in (False, True)
        ]
        quads += _deal(split, pools, seed, per_cell, left)
    if not quads:
        raise DatasetError(
            "no split has real and fake faces, bona fide and spoofed voices: " + _reasons(left)
        )
    return Pairing(tuple(quads), seed, dict(sorted(left.items())))


def sound_of(voice: Item) -> Path:
    """The file that a voice lies in."""
    return voice.audio_path or voice.path


def sex_of(item: Item) -> str | None:
    """The sex stated, "female" or "male", None for unknown. Raises DatasetError for a word that nobody knows."""
    for column in SEX_COLUMNS:
        word = item.extra.get(column, "").strip().lower()
        if word not in SEXES:
            known = ", ".join(filter(None, SEXES))
            raise DatasetError(f"{item.path}: {column} is '{word}', must be one of {known} or empty")
        if SEXES[word]:
            return SEXES[word]
    return None


def _torn(items: Sequence[Item]) -> set[str]:
    """People in more than one split."""
    splits: dict[str, set[Split]] = defaultdict(set)
    for item in items:
        for person in item.identities:
            if item.split is not None:
                splits[person].add(item.split)
    return {person for person, where in splits.items() if len(where) > 1}


def _usable(items: Sequence[Item], claim: Claim, kind: str, torn: set[str], left: Counter[str]) -> list[Item]:
    reasons: dict[str, Callable[[Item], bool]] = {
        f"{kind} without a label": lambda item: item.label[claim] is None,
        f"{kind} in no split": lambda item: item.split is None,
        f"{kind} whose people are in two splits": lambda item: not torn.isdisjoint(item.identities),
        f"{kind} whose people are not named": lambda item: not item.identities,
    }
    if claim is Claim.VOICE_CLONING:  # their times would not hold once the voice is trimmed
        reasons[f"{kind} made in part only"] = lambda item: bool(item.label.segments)
    kept = []
    for item in items:
        reason = next((text for text, holds in reasons.items() if holds(item)), None)
        if reason is None:
            kept.append(item)
        else:
            left[reason] += 1
    return kept


def _deal(
    split: Split, pools: Sequence[list[Item]], seed: int, per_cell: int | None, left: Counter[str]
) -> list[Quad]:
    """The quads of one split, from its real and fake faces, bona fide and spoofed voices."""
    present = [{sex_of(item) for item in pool} for pool in pools]
    fitting = {
        None,
        *(sex for sex in ("female", "male") if all(sex in one or None in one for one in present)),
    }
    decks = [_Deck([item for item in pool if sex_of(item) in fitting], seed) for pool in pools]
    for kind, pool, deck in zip(_KINDS, pools, decks, strict=True):
        if lost := len(pool) - deck.size:
            left[f"{kind} in {split} without a counterpart of their sex"] += lost
    size = max(decks[0].size, decks[1].size) if all(deck.size for deck in decks) else 0
    order = sorted(
        range(4), key=lambda at: -decks[at].size if at < 2 else 0
    )  # the larger class of faces leads
    quads = []
    for number in range(size if per_cell is None or not size else per_cell):
        sex: str | None = None
        dealt: dict[int, Item] = {}
        for at in order:
            dealt[at] = decks[at].deal(sex)
            sex = sex or sex_of(dealt[at])
        quads.append(Quad(split, number, *(dealt[at] for at in range(4))))
    for kind, deck in zip(_KINDS, decks, strict=True):
        if unused := deck.size - deck.dealt:
            left[f"{kind} in {split} not needed"] += unused
    return quads


class _Deck:
    """Clips of one class; none is dealt again before all that fit have been dealt as often."""

    def __init__(self, items: Iterable[Item], seed: int) -> None:
        ranked = sorted(items, key=lambda item: _rank(item, seed))
        self.heaps: dict[str | None, list[tuple[int, int, Item]]] = defaultdict(list)
        for rank, item in enumerate(ranked):
            self.heaps[sex_of(item)].append((0, rank, item))
        self.size, self.dealt = len(ranked), 0

    def deal(self, sex: str | None) -> Item:
        """The next clip that may go with `sex`; one of unknown sex may go with any."""
        heaps = [heap for key, heap in self.heaps.items() if sex is None or key in (sex, None)]
        heap = min(heaps, key=lambda one: one[0][:2])
        times, rank, item = heap[0]
        heapq.heapreplace(heap, (times + 1, rank, item))
        self.dealt += times == 0
        return item


def _rank(item: Item, seed: int) -> tuple[str, str, str]:
    name = sound_of(item).name
    return sha256(f"avdetect/pair/{seed}/{name}".encode()).hexdigest(), name, str(item.path)


def _joined(face: Item, voice: Item, quad: Quad, lip_sync: bool | None) -> Item:
    sexes = {sex_of(face), sex_of(voice)}
    kept = {
        f"{half}_{name}": value
        for half, item in (("face", face), ("voice", voice))
        for name, value in (*item.extra.items(), ("method", item.method), ("source", item.source))
        if value
    }
    return Item(
        path=face.path,
        label=Label(
            face_manipulation=face.label.face_manipulation,
            voice_cloning=voice.label.voice_cloning,
            lip_sync_mismatch=lip_sync,
            segments=face.label.segments,
        ),
        split=quad.split,
        method=" + ".join(filter(None, (face.method, voice.method))) or None,
        identities=tuple(dict.fromkeys((*face.identities, *voice.identities))),
        source=face.source,
        pair_id=face.pair_id,
        language=voice.language,
        audio_path=sound_of(voice),
        extra={
            **kept,
            "quad": quad.name,
            "face_file": face.path.name,
            "voice_file": sound_of(voice).name,
            "sex_match": "unknown" if None in sexes else "matched",
        },
    )


def _reasons(left: Mapping[str, int]) -> str:
    return (
        "; ".join(f"{number:,} {reason}" for reason, number in sorted(left.items()))
        or "the manifests are empty"
    )
