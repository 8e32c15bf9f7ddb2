"""What does a model say of clips that it was not made for? A tool that knows its limits hardly calls one manipulated.

    python examples/out_of_domain.py corpus/manifest.csv [--clips 12] [--model base]

From real clips of the manifest, one source after the other, it makes cartoons, screen recordings, photographs with a
voice, voices over pictures without a face and voices over music; music and scrolling text it makes from nothing. Prints
how many of each are called manipulated by which claim. Where the model has learnt from the clips themselves this
says only what the treatment does to it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from avdetect import Detector
from avdetect.errors import AvdetectError, ConfigError
from avdetect.manifest import read_manifest
from avdetect.media import frames, open_clip, write_clip
from avdetect.progress import track
from avdetect.types import CLAIMS, FRAME_RATE, SAMPLE_RATE, Bytes, Claim, Floats, Item, Outcome, Verdict

SECONDS = 6
WIDTH, HEIGHT = 1280, 720
Images = Iterator[Bytes]
Make = Callable[[Images, Floats, np.random.Generator], tuple[Images, Floats]]
"""Images and waveform of a real clip -> those of the clip to judge."""


def music(rng: np.random.Generator, seconds: float = SECONDS) -> Floats:
    """Chords of plucked strings with a drum, a new one every half second."""
    half = SAMPLE_RATE // 2
    time = np.arange(half) / SAMPLE_RATE
    beats = []
    for _ in range(round(2 * seconds)):
        root = 110 * 2 ** (rng.integers(0, 12) / 12)
        notes = [root * 2 ** (step / 12) for step in (0, 4 - rng.integers(0, 2), 7, 12)]
        strings = [
            np.sin(2 * np.pi * note * part * time) * np.exp(-time * (2 + part)) / part
            for note in notes
            for part in range(1, 9)
        ]
        beats.append(np.sum(strings, 0) / 8 + rng.normal(0, 0.3, half) * np.exp(-time * 40))
    tune = np.concatenate(beats)
    return (0.4 * tune / np.abs(tune).max()).astype(np.float32)


def desktop(rng: np.random.Generator) -> Images:
    """Lines of text that scroll by under a still bar, as in a recording of a screen."""
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz    "))
    lines = ["".join(rng.choice(letters, 70)) for _ in range(80)]
    for index in range(SECONDS * FRAME_RATE):
        image = np.full((HEIGHT, WIDTH, 3), 245, np.uint8)
        for number, line in enumerate(lines):
            place = (20, 90 + 26 * number - 4 * index)
            cv2.putText(image, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (40, 40, 40), 1, cv2.LINE_AA)
        image[:50] = (60, 90, 160)
        yield image


def cartoon(image: Bytes) -> Bytes:
    """Flat colours between dark outlines, at most 400 lines of them."""
    scale = min(1.0, 400 / image.shape[0])
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.uint8)
    smooth = cv2.bilateralFilter(image, 5, 60, 5)
    flat = cv2.LUT(smooth, (np.arange(256) // 40 * 40 + 20).astype(np.uint8))
    grey = cv2.medianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 5)
    lines = cv2.adaptiveThreshold(grey, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, 9, 4)
    return np.where(lines[..., None] > 0, flat, 0).astype(np.uint8)


def _cartoon(images: Images, voice: Floats, rng: np.random.Generator) -> tuple[Images, Floats]:
    return map(cartoon, images), voice


def _screen(images: Images, voice: Floats, rng: np.random.Generator) -> tuple[Images, Floats]:
    def placed() -> Images:
        for image, screen in zip(images, desktop(rng), strict=False):
            scale = 300 / image.shape[0]
            small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[:, : WIDTH - 40]
            screen[-320:-20, -20 - small.shape[1] : -20] = small
            yield screen

    return placed(), voice


def _photograph(images: Images, voice: Floats, rng: np.random.Generator) -> tuple[Images, Floats]:
    first = next(images)
    return iter([first] * round(len(voice) / SAMPLE_RATE * FRAME_RATE)), voice


def _voice_over(images: Images, voice: Floats, rng: np.random.Generator) -> tuple[Images, Floats]:
    return islice(desktop(rng), round(len(voice) / SAMPLE_RATE * FRAME_RATE)), voice


def _over_music(
    images: Images, voice: Floats, rng: np.random.Generator, *, decibels: float
) -> tuple[Images, Floats]:
    tune = music(rng, SECONDS)[: len(voice)]
    level = np.sqrt(np.mean(voice**2) / np.mean(tune**2)) * 10 ** (-decibels / 20)
    return images, np.clip(voice + level * tune, -1, 1).astype(np.float32)


def _music(images: Images, voice: Floats, rng: np.random.Generator) -> tuple[Images, Floats]:
    return desktop(rng), music(rng)


def _as_it_is(images: Images, voice: Floats, rng: np.random.Generator) -> tuple[Images, Floats]:
    return images, voice


KINDS: dict[str, Make] = {
    "as it is": _as_it_is,
    "cartoon of it": _cartoon,
    "in a corner of a screen recording": _screen,
    "its first picture with its voice": _photograph,
    "its voice over scrolling text": _voice_over,
    "music 10 dB below its voice": partial(_over_music, decibels=10),
    "music as loud as its voice": partial(_over_music, decibels=0),
    "music and scrolling text": _music,
}


def chosen(items: Sequence[Item], count: int) -> list[Item]:
    """Real talking clips with picture and sound, a source's first ones before any source's second."""
    real = [item for item in items if item.label[Claim.FACE_MANIPULATION] is False]
    real = [item for item in real if item.label[Claim.LIP_SYNC_MISMATCH] is False]
    seen: Counter[str | None] = Counter()
    ranked = []
    for item in real:
        ranked.append((seen[item.source], item.path, item))
        seen[item.source] += 1
    if not ranked:
        raise ConfigError("the manifest has no clip whose face is real and whose lips and speech are in sync")
    return [item for *_, item in sorted(ranked, key=lambda row: row[:2])[:count]]


def judged(detector: Detector, path: Path, make: Make, seed: int, folder: Path) -> Verdict:
    """The verdict on what `make` makes of the clip."""
    clip = open_clip(path)
    assert clip.waveform is not None
    images = (frame.image for frame in islice(frames(clip), SECONDS * FRAME_RATE))
    voice = clip.waveform[: SECONDS * SAMPLE_RATE]
    target = write_clip(
        folder / "clip.mp4", *make(images, voice, np.random.default_rng(seed)), overwrite=True
    )
    return detector.detect(target)


def row(name: str, verdicts: Sequence[Verdict]) -> str:
    """One line of the table: how many clips end in which verdict, and which claims were held to be manipulated."""
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    held = Counter(
        claim
        for verdict in verdicts
        for claim, result in verdict.claims.items()
        if result.verdict is Outcome.MANIPULATED
    )
    asked = (Outcome.MANIPULATED, Outcome.INCONCLUSIVE, Outcome.NO_MANIPULATION_FOUND, Outcome.NOT_ASSESSABLE)
    cells = [name, *(str(outcomes[outcome]) for outcome in asked), *(str(held[claim]) for claim in CLAIMS)]
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Arguments in, exit code out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--clips", type=int, default=12, help="clips of each kind (default: %(default)s)")
    parser.add_argument("--model", default="base", help="name or folder of a model (default: %(default)s)")
    args = parser.parse_args()
    heads = [
        "",
        "manipulated",
        "inconclusive",
        "nothing found",
        "not assessable",
        "face",
        "voice",
        "lip-sync",
    ]
    try:
        items = chosen(read_manifest(args.manifest), args.clips)
        detector = Detector.from_pretrained(args.model)
        print(f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", sep="\n")
        with tempfile.TemporaryDirectory() as folder:
            for name, make in KINDS.items():
                verdicts = [
                    judged(detector, item.path, make, seed, Path(folder))
                    for seed, item in enumerate(track(items, name))
                ]
                print(row(name, verdicts), flush=True)
    except AvdetectError as error:
        print(f"out_of_domain: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
