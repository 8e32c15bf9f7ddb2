"""Pictures degraded: a recipe for each setting, and `rendered`, which carries it out on a clip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from avdetect.degradations.family import AAC, Encoding, Recipe, Rng
from avdetect.degradations.sound import chained
from avdetect.media import open_clip
from avdetect.pictures import steady
from avdetect.types import Bytes, Clip, Floats
from avdetect.writing import write_clip


def rendered(clip: Clip, recipe: Recipe, folder: Path, rng: Rng) -> Path:
    """The clip's picture through `recipe`, as a file in `folder`; its sound is not written.

    Streamed, one file per pass, each deleted once the next one is made: no more than two lie there at a time.
    MediaError where a pass cannot be written or read.
    """
    change = recipe.change
    path = None
    for number, encoding in enumerate(recipe.passes):
        source = clip if path is None else open_clip(path)
        images = steady(source, encoding.fps)
        if change is not None and path is None:
            images = (change(image, rng) for image in images)
        target = write_clip(
            folder / f"pass{number}.mp4", _sized(images, encoding), fps=encoding.fps, crf=encoding.crf
        )
        if path is not None:
            path.unlink()
        path = target
    assert path is not None
    return path


def _sized(images: Iterator[Bytes], encoding: Encoding) -> Iterator[Bytes]:
    for image in images:
        height, width = image.shape[:2]
        if encoding.side is None or min(height, width) <= encoding.side:
            yield image
            continue
        scale = encoding.side / min(height, width)
        size = max(2, round(width * scale)), max(2, round(height * scale))
        yield np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


# Recipes


def reencoded(setting: int) -> Recipe:
    """H.264 at a constant rate factor."""
    return Recipe(passes=(Encoding(setting),))


def scaled(setting: int) -> Recipe:
    """The shorter side at most `setting` pixels."""
    return Recipe(passes=(Encoding(18, side=setting),))


def slowed(setting: float) -> Recipe:
    """Fewer frames per second."""
    return Recipe(passes=(Encoding(18, fps=setting),))


def shared(setting: tuple[Encoding, ...]) -> Recipe:
    """Uploaded, downloaded, uploaded again: resized and encoded in each pass, the sound as AAC."""
    return Recipe(passes=setting, sound=partial(_as_aac, len(setting)))


def _as_aac(passes: int, waveform: Floats, rng: Rng) -> Floats:
    return chained(waveform, (AAC,) * passes, rng)


def _each(function: Callable[[Bytes, float, Rng], Bytes]) -> Callable[[float], Recipe]:
    def recipe(setting: float) -> Recipe:
        return Recipe(lambda image, rng: function(image, setting, rng))

    return recipe


def _blurred(image: Bytes, sigma: float, rng: Rng) -> Bytes:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma * min(image.shape[:2]) / 360), np.uint8)


def _grainy(image: Bytes, levels: float, rng: Rng) -> Bytes:
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(levels)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def _cropped(image: Bytes, share: float, rng: Rng) -> Bytes:
    height, width = image.shape[:2]
    high, wide = (max(2, round(side * share)) for side in (height, width))
    top, left = (height - high) // 2, (width - wide) // 2
    return image[top : top + high, left : left + wide]


def _mirrored(image: Bytes, setting: float, rng: Rng) -> Bytes:
    return np.ascontiguousarray(image[:, ::-1])


def _gamma(image: Bytes, gamma: float, rng: Rng) -> Bytes:
    table = (255 * (np.arange(256) / 255) ** gamma).round().astype(np.uint8)
    return table[image]


def _contrast(image: Bytes, factor: float, rng: Rng) -> Bytes:
    table = np.clip(128 + (np.arange(256) - 128) * factor, 0, 255).round().astype(np.uint8)
    return table[image]


blurred = _each(_blurred)
grainy = _each(_grainy)
cropped = _each(_cropped)
mirrored = _each(_mirrored)
lit = _each(_gamma)
contrasted = _each(_contrast)
