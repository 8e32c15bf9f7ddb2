"""Labelled forgeries of one's own real footage: a folder of media in groups, each a source and what was made of it.

All clips of a group are written by the same road: 25 frames a second and H.264, sound in one band and at one gain, AAC
(or 16-bit PCM where there is sound alone), of one length and one number of bytes. So nothing but the forgery differs.
The gain differs from group to group: were every source brought to one level, what is not exactly there would be forged.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from avdetect.errors import AvdetectError, ConfigError, MediaError
from avdetect.folders import claim
from avdetect.forge_donors import find_donor, look_at, wanting
from avdetect.forge_media import Faked, Footage, fake, images
from avdetect.forgeries import FORGERIES, TOGETHER, Donor, Kind, clash, draw
from avdetect.manifest import read_manifest, write_manifest
from avdetect.types import CLAIMS, SAMPLE_RATE, Claim, Floats, Item, Label
from avdetect.writing import write_clip

RECORD, MANIFEST = "forge.json", "manifest.csv"
"""What stands in a folder of forgeries beside the clips: the settings they were made with, and their labels."""
SOURCE = "source"
"""Method, in `Item.extra["forgery"]`, of the copies of what was forged."""
MARK = "FORGED by avdetect ({}): a labelled fake for training and testing detectors, made from {}"
COPY = "re-encoded by avdetect, nothing forged: the counterpart of labelled fakes made from {}"
"""What the files' own metadata say."""
_LOW = 60.0  # Hz
_LEVELS = (-33.0, -23.0)  # dB below full scale, RMS of a source
_BIT_RATE = 64_000
_CRF = 18
_BOX = 8  # bytes of an empty box of an mp4, or chunk of a wav


@dataclass(frozen=True)
class ForgeSettings:
    """What is made: `kinds` (kinds or names of forgeries, or several joined by TOGETHER), the dice's `seed`, `strength`
    0..1, seconds of the forged `stretch` (None: all of the clip) and of the `longest` part of a clip that is used.
    """

    kinds: tuple[str, ...] = tuple(Kind)
    seed: int = 0
    strength: float = 1.0
    stretch: float | None = None
    longest: float = 30.0

    def __post_init__(self) -> None:
        for entry in self.kinds:
            _check(entry.split(TOGETHER))
        if not self.kinds:
            raise ConfigError("--kinds is empty; name at least one, e.g. face")
        if not 0 < self.strength <= 1:
            raise ConfigError(f"--strength is {self.strength:g}, must be above 0 and at most 1")
        if not 1 <= self.longest <= 120:
            raise ConfigError(f"--longest is {self.longest:g} s, must be 1 to 120")
        if self.stretch is not None and not 0.2 <= self.stretch <= self.longest:
            raise ConfigError(f"--stretch is {self.stretch:g} s, must be 0.2 to {self.longest:g}")


def _check(parts: Sequence[str]) -> None:
    for name in parts:
        if name not in (*Kind, *FORGERIES):
            raise ConfigError(f"--kinds: '{name}' is unknown; known are {', '.join([*Kind, *FORGERIES])}")
    named = [name for name in parts if name in FORGERIES]
    problem = clash(named) if named else None
    if problem is not None:
        raise ConfigError(f"--kinds: {problem}")


@dataclass(frozen=True)
class Group:
    """A source's copy and its forgeries, and one line for each that could not be made."""

    items: tuple[Item, ...]
    problems: tuple[str, ...] = ()


def forge_all(sources: Sequence[Item], folder: Path, settings: ForgeSettings) -> Iterator[Group]:
    """Forge every source into `folder`; gives a group for each, in order. What is there from before is not made again.

    The folder's manifest is complete after every group. Raises InputError where the folder holds anything else.
    """
    done = _open_folder(folder, settings)
    made = [item for items in done.values() for item in items]
    for source in sources:
        try:
            key = _key(source)
            group = (
                _before(source, done[key], settings)
                if key in done
                else _group(source, key, sources, folder, settings)
            )
        except MediaError as error:
            group = Group((), (str(error),))
        if group.items and group.items[0].pair_id not in done:
            done[str(group.items[0].pair_id)] = list(group.items)
            made += group.items
            write_manifest(made, folder / MANIFEST)
        yield group


def _before(source: Item, items: Sequence[Item], settings: ForgeSettings) -> Group:
    """A group that is there already; what it lacks is told again."""
    lacking = len(settings.kinds) - (len(items) - 1)
    problem = (
        f"{source.path}: {lacking} of {len(settings.kinds)} forgeries could not be made in an earlier run"
    )
    return Group(tuple(items), (problem,) if lacking else ())


def _open_folder(folder: Path, settings: ForgeSettings) -> dict[str, list[Item]]:
    """The groups that are there already, by `pair_id`."""
    claim(folder, RECORD, {"made by": "avdetect forge", **asdict(settings)}, "forgeries")
    done: dict[str, list[Item]] = {}
    for item in read_manifest(folder / MANIFEST) if (folder / MANIFEST).is_file() else []:
        done.setdefault(item.pair_id or "", []).append(item)
    whole = {key: items for key, items in done.items() if all(item.path.is_file() for item in items)}
    return whole


def _key(source: Item) -> str:
    """Names a group: by the source's content, so that neither folders nor order matter."""
    paths = [path for path in (source.path, source.audio_path) if path is not None]
    return hashlib.sha256(" ".join(_digest(path) for path in paths).encode()).hexdigest()[:16]


@lru_cache(maxsize=4096)
def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MediaError(path, f"cannot be read ({error.strerror or error})") from error


def _group(source: Item, key: str, sources: Sequence[Item], folder: Path, settings: ForgeSettings) -> Group:
    footage = look_at(source.path, settings.longest, source.audio_path)
    problems, made = [], []
    for number, entry in enumerate(settings.kinds):
        rng = np.random.default_rng([settings.seed, number, int(key, 16)])
        try:
            made.append(_forged(source, footage, entry, rng, sources, settings))
        except (ValueError, AvdetectError) as error:
            problems.append(f"{source.path}: no '{entry}' forgery ({error})")
    if not made:
        return Group((), tuple(problems))
    treatment = _treatment(footage.window.waveform, np.random.default_rng([settings.seed, int(key, 16)]))
    stem = f"{_plain(source.path.stem)}-{key[:6]}"
    items = [_written(folder, f"{stem}-{SOURCE}", source, footage, None, SOURCE, key, treatment)]
    for name, faked in made:
        number = sum(item.extra["forgery"] == name for item in items)
        ending = f"{name}-{number + 1}" if number else name
        items.append(_written(folder, f"{stem}-{ending}", source, footage, faked, name, key, treatment))
    _same_size([item.path for item in items])
    return Group(tuple(items), tuple(problems))


def _forged(
    source: Item,
    footage: Footage,
    entry: str,
    rng: np.random.Generator,
    sources: Sequence[Item],
    settings: ForgeSettings,
) -> tuple[str, Faked]:
    """A forgery of the kinds or names `entry`, and its names. ValueError where footage or donors lack what it takes."""
    parts = entry.split(TOGETHER)
    for part in parts:
        lacking = footage.lacks(next(name for name in FORGERIES if part in (name, FORGERIES[name].kind)))
        if lacking is not None:
            raise ValueError(lacking)
    names = _drawn(parts, rng, donor=any(item.path != source.path for item in sources))
    donor = find_donor(source, footage, names, sources, rng, settings.longest)
    if donor is None and any(FORGERIES[name].donor is Donor.NEEDED for name in names):
        for name in parts:
            if name in FORGERIES and FORGERIES[name].donor is Donor.NEEDED:
                raise ValueError(wanting(name))
        names = _drawn(parts, rng, donor=False)
    return TOGETHER.join(names), fake(footage, names, rng, donor, settings.strength, settings.stretch)


def _drawn(parts: Sequence[str], rng: np.random.Generator, *, donor: bool) -> list[str]:
    """Names for kinds, drawn again where they clash."""
    for _ in range(10):
        names = [draw(part, rng, donor=donor) if part in tuple(Kind) else part for part in parts]
        if clash(names) is None:
            break
    return names


def _plain(stem: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in stem)[:60]


def _written(
    folder: Path,
    name: str,
    source: Item,
    footage: Footage,
    faked: Faked | None,
    forgery: str,
    key: str,
    treatment: Treatment,
) -> Item:
    """Writes the copy (`faked` None) or the forgery and gives its row."""
    video = footage.clip.has_video
    path = folder / f"{name}{'.mp4' if video else '.wav'}"
    waveform = footage.window.waveform if faked is None else faked.waveform
    text = (COPY if faked is None else MARK.format(faked.method, "{}")).format(source.path.name)
    sound = None if waveform is None else _treated(waveform, treatment)
    write_clip(
        path,
        images(footage, faked) if video else None,
        sound,
        crf=_CRF,
        audio_bit_rate=_BIT_RATE if video else None,
        metadata={"title": "avdetect forge", "comment": text},
        overwrite=True,  # left by a run that was cut off: what is whole stands in the manifest
    )
    real = _known(footage.label, source.label)
    label = real if faked is None else _merged(real, faked.label, forgery)
    return replace(
        source,
        path=path,
        audio_path=None,
        label=label,
        method=None if faked is None else faked.method,
        pair_id=key,
        source=source.source or key,
        extra={**source.extra, "forgery": forgery},
    )


def _known(seen: Label, stated: Label) -> Label:
    """What is real in the footage; of a labelled source only what its manifest says is."""
    if stated.is_fake is None:
        return seen
    face, voice, lip_sync = (
        False if seen[claim] is False and stated[claim] is False else None for claim in CLAIMS
    )
    return Label(face, voice, lip_sync)


def _merged(source: Label, forged: Label, name: str) -> Label:
    """The source's label with what the forgeries made true; a face that was redrawn leaves lip-sync unknown."""
    lip_sync = forged.lip_sync_mismatch
    if lip_sync is None and all(FORGERIES[part].kind is not Kind.FACE for part in name.split(TOGETHER)):
        lip_sync = source.lip_sync_mismatch
    face, voice = forged.face_manipulation, forged.voice_cloning
    return Label(
        source.face_manipulation if face is None else face,
        source.voice_cloning if voice is None else voice,
        lip_sync,
        forged.segments,
    )


@dataclass(frozen=True)
class Treatment:
    """What all sound of a group gets: a `gain`, and an end to its `band` in Hz."""

    gain: float
    band: float


def _treatment(source: Floats | None, rng: np.random.Generator) -> Treatment:
    """The band in which nearly all of the source lies (what is made above it would tell the class); a level by lot."""
    if source is None or not source.any():
        return Treatment(1.0, SAMPLE_RATE / 2)
    power = np.cumsum(np.abs(np.fft.rfft(source)) ** 2)
    edge = int(np.searchsorted(power, 0.9995 * power[-1]))
    band = float(np.clip(1.05 * edge / len(power) * SAMPLE_RATE / 2, 3000, SAMPLE_RATE / 2))
    level = float(np.sqrt(np.mean(np.square(source, dtype=np.float64))))
    return Treatment(min(10 ** (float(rng.uniform(*_LEVELS)) / 20) / max(level, 1e-6), 100.0), band)


def _treated(waveform: Floats, treatment: Treatment) -> Floats:
    """Sound within the group's band and at its gain."""
    hertz, band = np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE), treatment.band
    slope = np.clip((hertz / _LOW - 0.8) / 0.4, 0, 1) * np.clip((band - hertz) / (0.03 * band) + 1, 0, 1)
    out = np.fft.irfft(np.fft.rfft(waveform) * slope, len(waveform)) * treatment.gain
    return np.clip(out, -1.0, 1.0).astype(np.float32)


def _same_size(paths: Sequence[Path]) -> None:
    """Brings files to one number of bytes by an empty box (mp4) or chunk (wav) at their end, which players pass over.

    Otherwise the length of what the metadata say, and how well a face compresses, would tell.
    """
    sizes = [path.stat().st_size for path in paths]
    whole = max(sizes) + _BOX
    for path, size in zip(paths, sizes, strict=True):
        room = whole - size
        with path.open("r+b") as file:
            if path.suffix == ".wav":  # RIFF: the chunk's size without its head; the file's, without its own
                file.seek(4)
                file.write((whole - _BOX).to_bytes(4, "little"))
                head = b"JUNK" + (room - _BOX).to_bytes(4, "little")
            else:
                head = room.to_bytes(4, "big") + b"free"
            file.seek(0, os.SEEK_END)
            file.write(head + bytes(room - _BOX))


def real_sources(items: Sequence[Item]) -> list[Item]:
    """The items that may be forged: those that no label calls fake."""
    return [item for item in items if item.label.is_fake is not True]


def claims_of(items: Sequence[Item]) -> dict[Claim, int]:
    """How many items are fake in each claim."""
    return {claim: sum(item.label[claim] is True for item in items) for claim in CLAIMS}
