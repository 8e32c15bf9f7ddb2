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

from avdetect.augment import degrade_audio
from avdetect.augment_faces import degrade_faces
from avdetect.batch import collate, label_row, mirrored, shrunk
from avdetect.errors import ConfigError
from avdetect.forgeries.desync import swapped
from avdetect.forgeries.resynthesis import resynthesise
from avdetect.forgeries.self_blending import self_blended
from avdetect.prepared import PreparedClip
from avdetect.types import CROP_EVERY, FRAME_RATE, SAMPLE_RATE, Claim, Item, Label, Window

Rng = np.random.Generator


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

    `voice`, `face`, `sync`: examples per batch that teach one claim. `resynthesis`: share of fake voices made from
    real ones. `self_blending`: share of fake faces made from real ones. `negatives`: share of sync examples whose
    sound was moved far or swapped. `same_source`: share of the other pairs that come from one source. `degrade`:
    strength of the augmentation that both classes get. `crops`: face crops of an example. `shortest`, `longest`:
    seconds of one.
    """

    voice: int = 24
    face: int = 12
    sync: int = 32
    resynthesis: float = 0.4
    self_blending: float = 0.6
    negatives: float = 0.5
    same_source: float = 0.7
    degrade: float = 1.0
    crops: int = 6
    shortest: float = 1.5
    longest: float = 4.0

    @property
    def batch(self) -> int:
        """Examples per batch."""
        return self.voice + self.face + self.sync


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
    """Real and fake recordings of one claim; `shared` holds both pools of each source that has both."""

    real: Pool
    fake: Pool
    shared: list[tuple[Pool, Pool]]

    @classmethod
    def of(cls, real: Sequence[Recording], fake: Sequence[Recording]) -> Pairs:
        """Sorts recordings by source."""
        both = sorted({r.item.source or "" for r in real} & {f.item.source or "" for f in fake})
        shared = [
            (
                Pool([r for r in real if r.item.source == name]),
                Pool([f for f in fake if f.item.source == name]),
            )
            for name in both
        ]
        return cls(Pool(list(real)), Pool(list(fake)), shared)


def recordings_of(clips: Sequence[PreparedClip]) -> list[Recording]:
    """All prepared windows, of the face that is longest in view where there are several."""
    kept = []
    for clip in clips:
        longest = Counter(w.track for w in clip.windows).most_common(1)
        kept += [Recording(clip.item, w) for w in clip.windows if w.track == longest[0][0]]
    return kept


def _has_speech(window: Window, least: float = 0.8) -> bool:
    return (
        window.waveform is not None
        and window.speech is not None
        and window.speech.sum() >= least * FRAME_RATE
    )


def _has_mouth(window: Window) -> bool:
    return window.found is not None and bool(window.found.mean() > 0.6)


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
        self._check()
        self.kinds = [self._voice] * mix.voice + [self._face] * mix.face + [self._sync] * mix.sync

    def _check(self) -> None:
        """ConfigError where a kind of example is asked for that no clip can give."""
        if not self.mix.batch:
            raise ConfigError("mix.voice, mix.face and mix.sync are all 0: a batch would be empty")
        pools = {"voice": self.voices.real, "face": self.faces.real, "sync": self.talkers}
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
        return self.kinds[index % self.mix.batch](rng, pair, bool(index % 2))

    def _pair(self, pools: Pairs, rng: Rng, forging: float, fake: bool) -> tuple[Recording, bool]:
        """A recording, and whether it is to be forged.

        Indices 2k (real) and 2k + 1 (fake) belong together: a real clip and a forgery of it, a real and a fake clip
        of the same source, or, where the draw says so, any two. What only tells sources apart stands on both sides.
        """
        kind = rng.random()
        if kind < forging or not pools.fake:
            return pools.real.draw(rng), fake
        if kind < forging + (1 - forging) * self.mix.same_source and pools.shared:
            real, made = pools.shared[int(rng.integers(len(pools.shared)))]
            return (made if fake else real).draw(rng), False
        return (pools.fake if fake else pools.real).draw(rng), False

    def _voice(self, rng: Rng, pair: Rng, fake: bool) -> Example:
        recording, forge = self._pair(self.voices, pair, self.mix.resynthesis, fake)
        window = self._piece(_sound_only(recording.window), pair, speech=True)
        assert window.waveform is not None
        waveform = window.waveform - window.waveform.mean()
        if forge:
            waveform, _ = resynthesise(waveform, rng)
        waveform = degrade_audio(waveform, pair, self.mix.degrade)
        return Example(replace(window, waveform=waveform), Label(voice_cloning=fake))

    def _face(self, rng: Rng, pair: Rng, fake: bool) -> Example:
        recording, forge = self._pair(self.faces, pair, self.mix.self_blending, fake)
        window = _picture_only(recording.window, pair, self.mix.crops)
        if forge:
            window, _ = self_blended(window, rng)
        assert window.face_crops is not None
        crops = degrade_faces(window.face_crops, pair, self.mix.degrade)
        return Example(replace(window, face_crops=crops), Label(face_manipulation=fake))

    def _sync(self, rng: Rng, _pair: Rng, _fake: bool) -> Example:
        recording = self.talkers.draw(rng)
        window = _paced(recording.window, float(rng.uniform(0.85, 1.18)))
        length = int(rng.uniform(2.0, max(2.1, 1.6 * self.mix.longest)) * FRAME_RATE)
        negative = rng.random() < self.mix.negatives
        if negative and rng.random() < 0.5:
            piece = _cut(window, _start(window, length, rng), length)
            other = self._other(recording, rng)
            changed, label = swapped(piece, _cut(other, _start(other, length, rng), length))
            return Example(_degraded(changed, rng, self.mix.degrade), label)
        far = int(rng.integers(4, 21)) * int(rng.choice([-1, 1]))
        lag = far if negative else int(rng.choice([0, 0, 0, -1, 1]))
        piece = _cut_apart(window, _start(window, length, rng), length, lag)
        label = Label(lip_sync_mismatch=negative)
        return Example(_degraded(piece, rng, self.mix.degrade), label, lag)

    def _other(self, recording: Recording, rng: Rng) -> Window:
        """Another clip's window; one of the same clip only where there is no other to be found."""
        for _ in range(10):
            other = self.talkers.draw(rng)
            if other.item.path != recording.item.path:
                break
        return other.window

    def _piece(self, window: Window, rng: Rng, *, speech: bool) -> Window:
        length = int(rng.uniform(self.mix.shortest, self.mix.longest) * FRAME_RATE)
        for _ in range(5):
            piece = _cut(window, _start(window, length, rng), length)
            if not speech or _has_speech(piece, 0.5):
                break
        return piece


def _sound_only(window: Window) -> Window:
    return Window(window.start, window.end, window.waveform, window.speech)


def _picture_only(window: Window, rng: Rng, crops: int) -> Window:
    """The window without sound, and with `crops` neighbouring face crops."""
    assert (
        window.face_crops is not None and window.crop_frames is not None and window.crop_landmarks is not None
    )
    first = int(rng.integers(0, max(1, len(window.face_crops) - crops + 1)))
    some = slice(first, first + crops)
    size = window.face_crops.shape[1]
    pictures = shrunk(window.face_crops[some])
    return Window(
        0.0,
        len(pictures) * CROP_EVERY / FRAME_RATE,
        track=window.track,
        face_crops=pictures,
        crop_frames=np.arange(len(pictures)) * CROP_EVERY,
        crop_landmarks=window.crop_landmarks[some] * np.float32(pictures.shape[1] / size),
    )


def _start(window: Window, length: int, rng: Rng) -> int:
    return int(rng.integers(0, max(1, window.steps - length + 1)))


def _cut(window: Window, first: int, length: int) -> Window:
    """`length` frames from frame `first`; shorter where the window ends."""
    return _cut_apart(window, first, length, 0)


def _cut_apart(window: Window, first: int, length: int, lag: int) -> Window:
    """As `_cut`, with the sound taken `lag` frames earlier, so that it is late by `lag`; zeros where there is none."""
    length = min(length, window.steps - first)
    step = SAMPLE_RATE // FRAME_RATE
    frames = slice(first, first + length)
    return replace(
        window,
        end=window.start + length / FRAME_RATE,
        waveform=_slice(window.waveform, (first - lag) * step, length * step),
        speech=_slice(window.speech, first - lag, length),
        found=None if window.found is None else window.found[frames],
        landmarks=None if window.landmarks is None else window.landmarks[frames],
        mouth_crops=None if window.mouth_crops is None else window.mouth_crops[frames],
    )


def _paced(window: Window, factor: float) -> Window:
    """Mouth and sound played `factor` times as fast, together: other speakers' pace and pitch; no face crops."""
    assert window.waveform is not None and window.landmarks is not None
    assert window.speech is not None and window.found is not None
    steps = int(window.steps / factor)
    times = np.arange(steps) * factor
    low = np.minimum(times.astype(int), window.steps - 1)
    high, share = np.minimum(low + 1, window.steps - 1), (times - low).astype(np.float32)[:, None, None]
    samples = np.arange(steps * SAMPLE_RATE // FRAME_RATE) * factor
    waveform = np.interp(samples, np.arange(len(window.waveform)), window.waveform).astype(np.float32)
    landmarks = window.landmarks[low] * (1 - share) + window.landmarks[high] * share
    return Window(
        window.start,
        window.start + steps / FRAME_RATE,
        waveform,
        window.speech[low],
        window.track,
        window.found[low],
        landmarks,
    )


def _slice(values: np.ndarray[Any, Any] | None, first: int, length: int) -> Any:
    if values is None:
        return None
    out = np.zeros(length, values.dtype)
    begin, end = max(0, first), min(len(values), first + length)
    if end > begin:
        out[begin - first : end - first] = values[begin:end]
    return out


def _degraded(window: Window, rng: Rng, strength: float) -> Window:
    """Sound through the usual chain; landmarks with the jitter of another camera, mirrored half of the time."""
    assert window.waveform is not None and window.landmarks is not None
    landmarks = window.landmarks.copy()
    if rng.random() < 0.5:
        landmarks = mirrored(landmarks)
    scale = float(np.ptp(landmarks[:, :, 0], axis=1).mean())
    jitter = np.float32(0.004 * scale * strength * rng.random())
    landmarks += jitter * rng.standard_normal(landmarks.shape, dtype=np.float32)
    return replace(window, waveform=degrade_audio(window.waveform, rng, 0.5 * strength), landmarks=landmarks)


def collate_examples(examples: Sequence[Example]) -> dict[str, torch.Tensor]:
    """A batch for FusionModel, with `labels` and `true_lag`."""
    batch = collate([example.window for example in examples])
    batch["labels"] = torch.tensor([label_row(example.label) for example in examples])
    lags = [float("nan") if example.lag is None else float(example.lag) for example in examples]
    batch["true_lag"] = torch.tensor(lags)
    return batch
