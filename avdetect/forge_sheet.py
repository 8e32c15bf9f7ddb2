"""A contact sheet of forgeries: each beside its source, as pictures, their difference, and spectrograms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from avdetect.forgeries import FORGERIES, TOGETHER, Act
from avdetect.media import frames, open_clip
from avdetect.types import FRAME_RATE, SAMPLE_RATE, Bytes, Clip, Floats, Item, Segment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS = 24
"""Rows on a sheet, evenly spread over all forgeries."""
SHOWN = 4
"""Moments of each."""
Row = Callable[[Sequence["Axes"], Clip, Clip, Sequence[Segment]], None]
"""Draws source and forgery, and the segments made, on three axes."""
_SIDE = 128
_LOUDER = 4  # differences are shown so many times as large


def contact_sheet(items: Sequence[Item], path: Path) -> Path | None:
    """Write a png of up to ROWS forgeries of a `forge` manifest's items; None where there are none.

    What was forged in picture and sound has a row for each.
    """
    from matplotlib.figure import Figure

    sources = {item.pair_id: item for item in items if not _acts(item)}
    rows = [(item, row) for item in items if item.pair_id in sources for row in _rows_of(item)]
    if not rows:
        return None
    chosen = [rows[int(at)] for at in np.unique(np.linspace(0, len(rows) - 1, min(ROWS, len(rows))).round())]
    figure = Figure(figsize=(15, 2.1 * len(chosen)), layout="constrained")
    grid = figure.subplots(len(chosen), 3, squeeze=False, width_ratios=(1, 1, 1))
    for axes, (item, row) in zip(grid, chosen, strict=True):
        source = sources[item.pair_id]
        row(axes, open_clip(source.path), open_clip(item.path), item.label.segments)
        axes[0].set_ylabel(f"{item.extra['forgery']}\n{source.path.stem[:20]}", fontsize=7)
    for axes, title in zip(
        grid[0], ("source", "forgery", "difference, or made stretches (red)"), strict=True
    ):
        axes.set_title(title, fontsize=9)
    figure.savefig(path, dpi=80)
    return path


def _acts(item: Item) -> set[Act]:
    """What the item's forgeries do; nothing where it is a copy of a source."""
    names = item.extra.get("forgery", "").split(TOGETHER)
    return {FORGERIES[name].act for name in names if name in FORGERIES}


def _rows_of(item: Item) -> list[Row]:
    seen = {Act.REORDER_PICTURE, Act.PAINT}
    acts = _acts(item)
    return [*([_picture_row] if acts & seen else []), *([_sound_row] if acts - seen else [])]


def _picture_row(axes: Sequence[Axes], source: Clip, forged: Clip, segments: Sequence[Segment]) -> None:
    middle = [segment for segment in segments if segment.length > 0] or [Segment(0.0, source.duration)]
    start, end = middle[0].start, middle[-1].end
    indices = [int(t * FRAME_RATE) for t in np.linspace(start, end, SHOWN + 2)[1:-1]]
    real, fake = (_pictures(clip, indices) for clip in (source, forged))
    apart = np.abs(real.astype(np.int16) - fake)
    box = _changed_box(apart)
    rows = [np.hstack([_tile(image, box) for image in images]) for images in (real, fake)]
    rows.append(np.hstack([_tile(np.minimum(_LOUDER * image, 255).astype(np.uint8), box) for image in apart]))
    for one, row in zip(axes, rows, strict=True):
        one.imshow(row)
        one.set(xticks=[], yticks=[])


def _pictures(clip: Clip, indices: Sequence[int]) -> Bytes:
    """The frames [K, H, W, 3] at some indices; a missing one is the last before it."""
    found: list[Bytes] = []
    last: Bytes | None = None
    for frame in frames(clip):
        while len(found) < len(indices) and frame.index > indices[len(found)] and last is not None:
            found.append(last)
        last = frame.image
        if len(found) == len(indices):
            break
    while len(found) < len(indices) and last is not None:
        found.append(last)
    return np.stack(found)


def _changed_box(apart: np.ndarray[Any, Any]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what changed by more than encoding does, with some room."""
    strength = cv2.blur(apart.max((0, 3)).astype(np.float32), (9, 9))
    changed = strength > max(6.0, 0.3 * float(strength.max()))
    height, width = changed.shape
    if not changed.any():
        return 0, 0, width, height
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    room = round(0.15 * max(rows[-1] - rows[0], columns[-1] - columns[0])) + 4
    return (
        max(0, int(columns[0]) - room),
        max(0, int(rows[0]) - room),
        min(width, int(columns[-1]) + room),
        min(height, int(rows[-1]) + room),
    )


def _tile(image: Bytes, box: tuple[int, int, int, int]) -> Bytes:
    left, top, right, bottom = box
    part = image[top:bottom, left:right]
    scale = _SIDE / max(part.shape[:2])
    small = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(
        cv2.copyMakeBorder(small, 0, 0, 0, 3, cv2.BORDER_CONSTANT, value=(255, 255, 255)), np.uint8
    )


def _sound_row(axes: Sequence[Axes], source: Clip, forged: Clip, segments: Sequence[Segment]) -> None:
    for one, clip in zip(axes, (source, forged), strict=False):
        if clip.waveform is not None:
            one.imshow(
                _spectrogram(clip.waveform),
                origin="lower",
                aspect="auto",
                extent=(0, clip.duration, 0, SAMPLE_RATE / 2000),
                vmin=-80,
                vmax=0,
                cmap="magma",
            )
        one.set_yticks([])
    for clip, colour in ((source, "0.6"), (forged, "tab:blue")):
        if clip.waveform is not None:
            loud = np.sqrt(np.mean(np.resize(clip.waveform, (clip.waveform.size // 320, 320)) ** 2, 1))
            axes[2].plot(np.arange(len(loud)) / 50, loud, color=colour, linewidth=0.8)
    for segment in segments:
        axes[2].axvspan(segment.start, segment.end, color="tab:red", alpha=0.12, linewidth=0)
    axes[2].set(xlim=(0, max(source.duration, 0.1)), yticks=[])


def _spectrogram(waveform: Floats) -> Floats:
    """[F, T] in dB below the loudest."""
    from scipy.signal import stft

    magnitude = np.abs(stft(waveform, SAMPLE_RATE, nperseg=512, noverlap=384)[2]) + 1e-7
    return np.asarray(20 * np.log10(magnitude / magnitude.max()), np.float32)
