"""Training examples made from prepared clips: real windows, real fakes, and forgeries of the real ones, on the fly.

An example is one window of a few seconds with labels, drawn by an index alone (`numpy` generator seeded with seed and
index), so that a run that was killed and resumed sees exactly what it would have seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from avdetect.augment import AUDIO, codec, degrade_audio
from avdetect.augment_faces import degrade_faces
from avdetect.batch import collate, label_row
from avdetect.errors import ConfigError
from avdetect.forgeries import FORGERIES, Kind, draw, forge
from avdetect.forgeries.canvas import best_donor
from avdetect.forgeries.desync import swapped
from avdetect.forgeries.resynthesis import RESYNTHESES, resynthesise
from avdetect.fusion_settings import STEP_RATE
from avdetect.joint import degraded_whole, forged_together, whole_piece
from avdetect.pieces import cut, cut_apart, degraded, paced, picture_only, sound_only, start
from avdetect.prepared import PreparedClip
from avdetect.types import FRAME_RATE, Claim, Item, Label, Window

Rng = np.random.Generator

DONORS = 4
"""Faces of which the one that looks the same way is taken for a swap or a driven expression."""


@dataclass(frozen=True)
class Recording:
    """One prepared window and the item that it comes from."""

    item: Item
    window: Window


@dataclass(frozen=True)
class Example:
    """A window as the model will see it, its labels, and by how many frames its sound is late (None: unknown)."""

    window: Window
    label: Label
    lag: int | None = None


@dataclass(frozen=True)
class MixSettings:
    """How many examples of each kind stand in a batch, and how often forgeries take a real one's place.

    `voice`, `face`, `sync`: examples per batch that teach one claim; `whole`: of clips with picture and sound together
    (see `joint`). `forged_voices`, `forged_faces`: share of fakes made from real ones, by any forgery of that kind.
    `negatives`: share of sync examples whose sound was moved far or swapped. `same_source`: share of the other pairs
    that come from one source. `degrade`: strength of the augmentation that both classes get. `codecs`: chance, at full
    strength, that a voice goes through a lossy codec; without many of them what is left of an MP3 or of a video's AAC
    sounds real, because it stands on the real side.
    `kinds`: the forgeries to draw from, by name, equally often (none: all, by their weights).
    `crops`: face crops of an example. `shortest`, `longest`: seconds of one.
    """

    voice: int = 24
    face: int = 12
    sync: int = 32
    whole: int = 0
    forged_voices: float = 0.4
    forged_faces: float = 0.4
    negatives: float = 0.5
    same_source: float = 0.7
    degrade: float = 1.0
    codecs: float = AUDIO[codec]
    kinds: tuple[str, ...] = ()
    crops: int = 6
    shortest: float = 1.5
    longest: float = 4.0

    @property
    def batch(self) -> int:
        """Examples per batch."""
        return self.voice + self.face + self.sync + self.whole


def by_source(recordings: Sequence[Recording]) -> np.ndarray[Any, Any]:
    """Chances [R] that give each source the square root of its share, so that a large one does not rule."""
    counts = Counter(r.item.source for r in recordings)
    weights = np.array([counts[r.item.source] ** -0.5 for r in recordings])
    return np.asarray(weights / weights.sum())


@dataclass(frozen=True)
class Pool:
    """Recordings to draw from, by source."""

    recordings: list[Recording]
    chances: np.ndarray[Any, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "chances", by_source(self.recordings) if self.recordings else np.zeros(0))

    def draw(self, rng: Rng) -> Recording:
        """One recording."""
        return self.recordings[int(rng.choice(len(self.recordings), p=self.chances))]

    def __bool__(self) -> bool:
        return bool(self.recordings)


@dataclass(frozen=True)
class Pairs:
    """Real and fake recordings of one claim, and both pools of each group that has both.

    `sources`: recordings of one source; `twins`: of one pair_id, which say the same sentence or show the same scene.
    """

    real: Pool
    fake: Pool
    sources: list[tuple[Pool, Pool]]
    twins: list[tuple[Pool, Pool]]

    @classmethod
    def of(cls, real: Sequence[Recording], fake: Sequence[Recording]) -> Pairs:
        """Sorts recordings by source and by pair."""
        sources = _shared(real, fake, lambda recording: recording.item.source)
        twins = _shared(real, fake, lambda recording: recording.item.pair_id)
        return cls(Pool(list(real)), Pool(list(fake)), sources, twins)


def _shared(
    real: Sequence[Recording], fake: Sequence[Recording], key: Callable[[Recording], str | None]
) -> list[tuple[Pool, Pool]]:
    """The real and the fake recordings of each key that both have."""
    pools: dict[str, tuple[list[Recording], list[Recording]]] = {}
    for side, recordings in enumerate((real, fake)):
        for recording in recordings:
            name = key(recording)
            if name:
                pools.setdefault(name, ([], []))[side].append(recording)
    return [(Pool(reals), Pool(fakes)) for _, (reals, fakes) in sorted(pools.items()) if reals and fakes]


def recordings_of(clips: Sequence[PreparedClip]) -> list[Recording]:
    """All prepared windows; where there are several faces, of the one that is longest in view, and of sound alone."""
    kept = []
    for clip in clips:
        faces = Counter(w.track for w in clip.windows if w.track is not None).most_common(1)
        wanted = {None, *(track for track, _ in faces)}
        kept += [Recording(clip.item, w) for w in clip.windows if w.track in wanted]
    return kept


def _has_speech(window: Window, least: float = 0.8) -> bool:
    return (
        window.waveform is not None
        and window.speech is not None
        and window.speech.sum() >= least * FRAME_RATE
    )


def _has_mouth(window: Window) -> bool:
    return window.found is not None and bool(window.found.mean() > 0.6)


def _is_whole(window: Window) -> bool:
    return window.face_crops is not None and _has_speech(window) and _has_mouth(window)


def _known(label: Label) -> bool | None:
    """Whether any claim is known to hold; None where nothing is known."""
    known = [label[claim] for claim in Claim if label[claim] is not None]
    return any(known) if known else None


class ExampleSet(Dataset[Example]):
    """`steps` batches of examples, batch after batch in the order of `MixSettings`."""

    def __init__(self, recordings: Sequence[Recording], mix: MixSettings, steps: int, seed: int) -> None:
        self.mix, self.steps, self.seed = mix, steps, seed

        def pool(claim: Claim, value: bool) -> list[Recording]:
            return [r for r in recordings if r.item.label[claim] is value]

        def pairs(claim: Claim, fits: Callable[[Window], bool]) -> Pairs:
            real, fake = ([r for r in pool(claim, v) if fits(r.window)] for v in (False, True))
            return Pairs.of(real, fake)

        self.voices = pairs(Claim.VOICE_CLONING, _has_speech)
        self.faces = pairs(Claim.FACE_MANIPULATION, lambda window: window.face_crops is not None)
        in_sync = pool(Claim.LIP_SYNC_MISMATCH, False)
        self.talkers = Pool([r for r in in_sync if _has_speech(r.window) and _has_mouth(r.window)])
        both = [r for r in recordings if _is_whole(r.window)]
        self.together = [Pool([r for r in both if _known(r.item.label) is fake]) for fake in (False, True)]
        self._check()
        self.kinds = [
            *[self._voice] * mix.voice,
            *[self._face] * mix.face,
            *[self._sync] * mix.sync,
            *[self._whole] * mix.whole,
        ]

    def _check(self) -> None:
        """ConfigError where a kind of example is asked for that no clip can give."""
        if not self.mix.batch:
            raise ConfigError("mix.voice, mix.face, mix.sync and mix.whole are all 0: a batch would be empty")
        for name in self.mix.kinds:
            if name not in FORGERIES:
                raise ConfigError(
                    f"mix.kinds: no forgery is called '{name}'; there are {', '.join(FORGERIES)}"
                )
            if FORGERIES[name].kind is Kind.VOICE and name not in RESYNTHESES:
                raise ConfigError(
                    f"mix.kinds: '{name}' forges a part of a recording, or another text; training forges whole voices: "
                    f"{', '.join(RESYNTHESES)}"
                )
        pools = {
            "voice": self.voices.real,
            "face": self.faces.real,
            "sync": self.talkers,
            "whole": self.together[False],
        }
        for name, pool in pools.items():
            if getattr(self.mix, name) and not pool:
                raise ConfigError(f"no real training clip is fit for '{name}' examples; set mix.{name}=0")

    def __len__(self) -> int:
        return self.steps * self.mix.batch

    def __getitem__(self, index: int) -> Example:
        rng, pair = (
            np.random.default_rng([self.seed, index, 0]),
            np.random.default_rng([self.seed, index // 2, 1]),
        )
        return self.kinds[index % self.mix.batch](rng, pair, bool(index % 2), self._seconds(index))

    def _seconds(self, index: int) -> float:
        """How long the voices of this batch are: alike, since a shorter one costs what the longest does.

        In whole steps of the fusion: what a voice gives then doesn't hang on how far it is padded.
        """
        rng = np.random.default_rng([self.seed, index // self.mix.batch, 2])
        return max(1, round(rng.uniform(self.mix.shortest, self.mix.longest) * STEP_RATE)) / STEP_RATE

    def _pair(
        self, pools: Pairs, rng: Rng, forging: float, same_source: float, fake: bool
    ) -> tuple[Recording, bool]:
        """A recording, and whether it is to be forged.

        Indices 2k (real) and 2k + 1 (fake) belong together: a real clip and a forgery of it, a real and a fake clip
        of the same source (half of them, where there are any, of the same sentence or scene), or, where the draw says
        so, any two. What only tells sources apart stands on both sides.
        """
        kind = rng.random()
        if kind < forging or not pools.fake:
            return pools.real.draw(rng), fake
        if kind < forging + (1 - forging) * same_source and pools.sources:
            groups = pools.twins if pools.twins and rng.random() < 0.5 else pools.sources
            real, made = groups[int(rng.integers(len(groups)))]
            return (made if fake else real).draw(rng), False
        return (pools.fake if fake else pools.real).draw(rng), False

    def _voice(self, rng: Rng, pair: Rng, fake: bool, seconds: float) -> Example:
        recording, forge = self._pair(self.voices, pair, self.mix.forged_voices, self.mix.same_source, fake)
        window = self._piece(sound_only(recording.window), pair, seconds)
        assert window.waveform is not None
        waveform = window.waveform - window.waveform.mean()
        if forge:
            named = [name for name in self.mix.kinds if name in RESYNTHESES]
            waveform, _ = resynthesise(waveform, rng, str(rng.choice(named)) if named else None)
        waveform = degrade_audio(waveform, pair, self.mix.degrade, self.mix.codecs)
        return Example(replace(window, waveform=waveform), Label(voice_cloning=fake))

    def _face(self, rng: Rng, pair: Rng, fake: bool, _seconds: float) -> Example:
        recording, forge = self._pair(self.faces, pair, self.mix.forged_faces, self.mix.same_source, fake)
        window = picture_only(recording.window, pair, self.mix.crops)
        if forge:
            window = self._forged_face(window, rng)
        assert window.face_crops is not None
        crops = degrade_faces(window.face_crops, pair, self.mix.degrade)
        return Example(replace(window, face_crops=crops), Label(face_manipulation=fake))

    def _forged_face(self, window: Window, rng: Rng) -> Window:
        """The window through a face forgery of a random kind and strength; donors are other real clips' faces."""
        others = [self.faces.real.draw(rng).window for _ in range(DONORS)]
        donor = best_donor(window, [picture_only(other, rng, self.mix.crops) for other in others])
        named = [name for name in self.mix.kinds if FORGERIES[name].kind is Kind.FACE]
        name = str(rng.choice(named)) if named else draw(Kind.FACE, rng, donor=donor is not None)
        return forge(name, window, rng, donor, float(rng.uniform(0.4, 1.0))).window

    def _sync(self, rng: Rng, _pair: Rng, _fake: bool, _seconds: float) -> Example:
        recording = self.talkers.draw(rng)
        window = paced(recording.window, float(rng.uniform(0.85, 1.18)))
        length = int(rng.uniform(2.0, max(2.1, 1.6 * self.mix.longest)) * FRAME_RATE)
        negative = rng.random() < self.mix.negatives
        if negative and rng.random() < 0.5:
            piece = cut(window, start(window, length, rng), length)
            other = self._other(recording, rng)
            changed, label = swapped(piece, cut(other, start(other, length, rng), length))
            return Example(degraded(changed, rng, self.mix.degrade), label)
        far = int(rng.integers(4, 21)) * int(rng.choice([-1, 1]))
        lag = far if negative else int(rng.choice([0, 0, 0, -1, 1]))
        piece = cut_apart(window, start(window, length, rng), length, lag)
        label = Label(lip_sync_mismatch=negative)
        return Example(degraded(piece, rng, self.mix.degrade), label, lag)

    def _whole(self, rng: Rng, pair: Rng, fake: bool, _seconds: float) -> Example:
        """A real clip, and beside it the same one forged or another that is a fake, as `forged_faces` says."""
        real, made = self.together
        forge = not made or pair.random() < self.mix.forged_faces
        recording = (real if forge or not fake else made).draw(pair)
        window = whole_piece(recording.window, pair, self.mix.shortest, self.mix.longest)
        label = replace(recording.item.label, segments=())
        if fake and forge:
            donor = whole_piece(real.draw(rng).window, rng, self.mix.longest, self.mix.longest)
            window, label = forged_together(window, label, donor, rng)
        return Example(degraded_whole(window, pair, self.mix.degrade), label)

    def _other(self, recording: Recording, rng: Rng) -> Window:
        """Another clip's window; one of the same clip only where there is no other to be found."""
        for _ in range(10):
            other = self.talkers.draw(rng)
            if other.item.path != recording.item.path:
                break
        return other.window

    def _piece(self, window: Window, rng: Rng, seconds: float) -> Window:
        """So many seconds of a window, with speech in them where that is to be found."""
        length = round(seconds * FRAME_RATE)
        for _ in range(5):
            piece = cut(window, start(window, length, rng), length)
            if _has_speech(piece, 0.5):
                break
        return piece


def collate_examples(examples: Sequence[Example], *, mouth_crops: bool = False) -> dict[str, torch.Tensor]:
    """A batch for FusionModel (see `collate`), with `labels` and `true_lag`."""
    batch = collate([example.window for example in examples], mouth_crops=mouth_crops)
    batch["labels"] = torch.tensor([label_row(example.label) for example in examples])
    lags = [float("nan") if example.lag is None else float(example.lag) for example in examples]
    batch["true_lag"] = torch.tensor(lags)
    return batch
