"""How well a clip's class can be told without looking at what it shows or says.

Container, codec, sample rate, bandwidth, loudness, resolution and leading silence differ between the real and
the fake half of nearly every public set (leading silence alone separates ASVspoof 2019 LA at about 15 % EER).
`measure` reads them from clips; `separability` is the AUC that a small classifier reaches with nothing else.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avdetect.errors import MediaError
from avdetect.types import SAMPLE_RATE, Claim, Clip, Floats, Item

FEATURES: Mapping[str, tuple[str, ...]] = {
    "file": ("container", "video_codec", "audio_codec", "sample_rate", "channels", "bit_rate"),
    "streams": ("has_audio", "has_video"),
    "duration": ("duration",),
    "picture": ("width", "height", "fps"),
    "level": ("loudness", "peak"),
    "silence": ("leading_silence", "trailing_silence"),
    "bandwidth": ("bandwidth",),
}
"""What a class might be told by, in groups; `all` stands for every one of them."""

NON_SPEECH = ("leading_silence", "trailing_silence", "silent_share", "silence_level", "silence_centre")
"""What the quiet parts of the sound tell by themselves; no part of `all`."""
_GROUPS = {**FEATURES, "non-speech": NON_SPEECH}

_FRAME = SAMPLE_RATE // 50  # 20 ms
_SILENCE = 10 ** (-40 / 20)  # relative to the loudest 20 ms of the clip
_FOLDS = 5
_FEWEST = 10  # items of each class below which an AUC says nothing


@dataclass(frozen=True)
class Measurement:
    """What can be told of a clip without its content. Seconds, Hz, dB below full scale, bits per second.

    `silent_share` (0..1), `silence_level` and `silence_centre` (of its spectrum) are of the frames of 20 ms that lie
    at least 40 dB below the loudest one. `warnings` say what is damaged though readable.
    """

    container: str
    video_codec: str | None
    audio_codec: str | None
    sample_rate: int | None
    channels: int | None
    bit_rate: float
    has_audio: bool
    has_video: bool
    duration: float
    width: int | None
    height: int | None
    fps: float | None
    loudness: float | None = None
    peak: float | None = None
    leading_silence: float | None = None
    trailing_silence: float | None = None
    bandwidth: float | None = None
    silent_share: float | None = None
    silence_level: float | None = None
    silence_centre: float | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unreadable:
    """A clip that could not be opened, and why, in one line."""

    reason: str

    def __str__(self) -> str:
        """The reason."""
        return self.reason


@dataclass(frozen=True)
class Separability:
    """AUC of a classifier on one group of features for a claim: items dealt at random, and whole sources
    held out.

    None where there are too few items, or too few sources, to say.
    """

    claim: Claim
    features: str
    real: int
    fake: int
    random_folds: float | None
    held_out_sources: float | None


def measure(clip: Clip, sound: Clip | None = None, warnings: Sequence[str] = ()) -> Measurement:
    """Measurements of an open clip, with the sound of another where the voice lies apart."""
    heard = sound or clip
    return Measurement(
        container=clip.container,
        video_codec=clip.video_codec,
        audio_codec=heard.audio_codec,
        sample_rate=heard.source_sample_rate,
        channels=heard.source_channels,
        bit_rate=8 * os.path.getsize(clip.path) / max(clip.duration, 1e-3),
        has_audio=heard.waveform is not None,
        has_video=clip.has_video,
        duration=clip.duration,
        width=clip.width,
        height=clip.height,
        fps=clip.fps,
        warnings=tuple(warnings),
        **(_sound(heard.waveform) if heard.waveform is not None and heard.waveform.size else {}),
    )


def measure_items(
    items: Sequence[Item],
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
    *,
    pictures: bool = False,
) -> list[Measurement | Unreadable]:
    """A measurement, or why there is none, for each item; `progress` is called with the number done.

    With `pictures` every frame is decoded too, so that `warnings` tell of damage in any of them.
    """
    files = [item.path for item in items], [item.audio_path for item in items], [pictures] * len(items)
    if workers <= 1:
        return _counted(map(_measure_files, *files), progress)
    # started afresh: a process that has already run threads (video decoding does) must not be forked
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return _counted(pool.map(_measure_files, *files, chunksize=8), progress)


def separability(
    items: Sequence[Item], measured: Sequence[Measurement], claim: Claim, features: str = "all"
) -> Separability:
    """How well `features` (a key of FEATURES, "non-speech" or "all") tell the classes of `claim` apart.

    Gradient-boosted trees, five folds. Held-out sources are those of `Item.source`, or else the pair, the
    person or the file. An AUC of 0.5 is chance; 1 means that the class can be read from the files' outside.
    """
    rows = [(item, row) for item, row in zip(items, measured, strict=True) if item.label[claim] is not None]
    labels = np.array([bool(item.label[claim]) for item, _ in rows])
    table = _table([row for _, row in rows], _names(features))
    groups = np.array([_source(item) for item, _ in rows])
    fake = int(labels.sum())
    real = len(labels) - fake
    enough = min(real, fake) >= _FEWEST
    return Separability(
        claim,
        features,
        real,
        fake,
        _auc(table, labels, None) if enough else None,
        _auc(table, labels, groups) if enough and _spread(groups, labels) >= _FOLDS else None,
    )


def told_apart(
    one: Sequence[Measurement], other: Sequence[Measurement], features: str = "all"
) -> float | None:
    """AUC with which `features` tell the clips of one source from another's; None with too few of either."""
    if min(len(one), len(other)) < _FEWEST:
        return None
    labels = np.arange(len(one) + len(other)) >= len(one)
    return _auc(_table([*one, *other], _names(features)), labels, None)


def describe(
    items: Sequence[Item], measured: Sequence[Measurement], claim: Claim
) -> list[tuple[str, str, str]]:
    """Each feature's commonest words, or median and 5th to 95th percentile, of real and of fake items."""
    rows: dict[bool, list[Measurement]] = {False: [], True: []}
    for item, row in zip(items, measured, strict=True):
        value = item.label[claim]
        if value is not None:
            rows[value].append(row)
    names = [name for group in FEATURES.values() for name in group]
    return [(name, _summary(rows[False], name), _summary(rows[True], name)) for name in names]


def sample(items: Sequence[Item], number: int) -> list[Item]:
    """At most `number` items, always the same: those whose paths' SHA-256 come first, in manifest order."""
    if number >= len(items):
        return list(items)
    order = sorted(range(len(items)), key=lambda at: sha256(str(items[at].path).encode()).digest())
    return [items[at] for at in sorted(order[:number])]


def _counted(
    results: Iterable[Measurement | Unreadable], progress: Callable[[int], None] | None
) -> list[Measurement | Unreadable]:
    done = []
    for result in results:
        done.append(result)
        if progress is not None:
            progress(len(done))
    return done


def _measure_files(path: Path, sound_path: Path | None, pictures: bool) -> Measurement | Unreadable:
    from avdetect.media import frames, open_clip

    try:
        sound = open_clip(sound_path) if sound_path is not None else None
        clip = open_clip(path)
        warnings = [*clip.warnings, *(sound.warnings if sound is not None else ())]
        for _ in frames(clip, warnings=warnings) if pictures else ():
            pass
        return measure(clip, sound, warnings)
    except MediaError as error:
        return Unreadable(str(error))


def _sound(waveform: Floats) -> dict[str, float]:
    frames = np.array_split(waveform, max(1, waveform.size // _FRAME))
    power = np.array([float(np.mean(frame**2)) for frame in frames])
    loud = np.flatnonzero(power > power.max() * _SILENCE**2)
    seconds = waveform.size / SAMPLE_RATE / len(power)
    spectrum = np.cumsum(np.abs(np.fft.rfft(waveform)) ** 2)
    edge = int(np.searchsorted(spectrum, 0.999 * spectrum[-1]))
    return {
        "loudness": 10 * float(np.log10(power.mean() + 1e-10)),
        "peak": 20 * float(np.log10(np.abs(waveform).max() + 1e-5)),
        "leading_silence": seconds * (int(loud[0]) if loud.size else len(power)),
        "trailing_silence": seconds * (len(power) - 1 - int(loud[-1]) if loud.size else len(power)),
        "bandwidth": edge / max(1, len(spectrum) - 1) * SAMPLE_RATE / 2,
        **_silence(frames, power, loud),
    }


def _silence(
    frames: Sequence[Floats], power: NDArray[np.float64], loud: NDArray[np.int64]
) -> dict[str, float]:
    quiet = np.setdiff1d(np.arange(len(power)), loud)
    if not quiet.size:
        return {"silent_share": 0.0}
    spectrum = sum(np.abs(np.fft.rfft(frames[at], 2 * _FRAME)) ** 2 for at in quiet)
    hertz = np.fft.rfftfreq(2 * _FRAME, 1 / SAMPLE_RATE)
    return {
        "silent_share": quiet.size / len(power),
        "silence_level": 10 * float(np.log10(power[quiet].mean() + 1e-12)),
        "silence_centre": float(hertz @ spectrum / (np.sum(spectrum) + 1e-12)),
    }


def _names(features: str) -> tuple[str, ...]:
    return _GROUPS.get(features) or tuple(name for group in FEATURES.values() for name in group)


def _source(item: Item) -> str:
    return item.source or item.pair_id or ";".join(item.identities) or str(item.path)


def _table(rows: Sequence[Measurement], names: Sequence[str]) -> NDArray[np.float64]:
    """Features [items, names]; words become the rank of their frequency, what is absent lies below."""
    columns = []
    for name in names:
        values = [getattr(row, name) for row in rows]
        if any(isinstance(value, str) for value in values):
            counts = Counter(value for value in values if value is not None)
            rank = {
                word: at for at, word in enumerate(sorted(counts, key=lambda word: (-counts[word], word)))
            }
            values = [None if value is None else rank[value] for value in values]
        absent = min((float(value) for value in values if value is not None), default=0.0) - 1
        columns.append([absent if value is None else float(value) for value in values])
    return np.array(columns, dtype=np.float64).T.reshape(len(rows), len(names))


def _summary(rows: Sequence[Measurement], name: str) -> str:
    values = [value for row in rows if (value := getattr(row, name)) is not None]
    if not values:
        return "none"
    if isinstance(values[0], float):
        low, middle, high = np.percentile(values, (5, 50, 95))
        return f"{middle:.4g} ({low:.4g} to {high:.4g})"
    return ", ".join(f"{value} {count / len(values):.0%}" for value, count in Counter(values).most_common(3))


def _spread(groups: NDArray[np.str_], labels: NDArray[np.bool_]) -> int:
    """Sources of the class that has fewer of them."""
    return min(len(set(groups[labels])), len(set(groups[~labels])))


def _auc(table: NDArray[np.float64], labels: NDArray[np.bool_], groups: NDArray[np.str_] | None) -> float:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    folds = (StratifiedKFold if groups is None else StratifiedGroupKFold)(
        _FOLDS, shuffle=True, random_state=0
    )
    scores = np.zeros(len(labels))
    with threadpool_limits(
        1
    ):  # for so small a table, threads on a busy machine wait for each other for minutes
        for train, test in folds.split(table, labels, groups):
            model = HistGradientBoostingClassifier(max_iter=60, min_samples_leaf=5, random_state=0)
            scores[test] = model.fit(table[train], labels[train]).predict_proba(table[test])[:, 1]
    return float(roc_auc_score(labels, scores))
