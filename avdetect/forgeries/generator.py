"""What picture generators leave: up-sampling, checkerboards, spectral peaks, skin without pores, colours of their own.

Every trace is one draw per clip, the same for all its pictures, as one network made them all.
Durall et al., "Watch your up-convolution" (2020); Zhang et al., "Detecting and simulating artifacts in GAN fake
images" (2019); Chandrasegaran et al., "A closer look at Fourier spectrum discrepancies" (2021).
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from avdetect.forgeries.canvas import Faces, Painted
from avdetect.forgeries.geometry import OVAL, grown, hull_mask
from avdetect.types import Bytes, Floats

Rng = np.random.Generator
Trace = Callable[[Bytes], Floats]
"""One picture [S, S, 3] uint8 in, float32 of the same shape out."""


def _kernel(rng: Rng, side: int, wobble: float) -> Floats:
    """A smoothing kernel [side, side] as training might have left it: near bilinear, uneven."""
    line = np.minimum(np.arange(1, side + 1), np.arange(side, 0, -1)).astype(np.float32)
    kernel = np.outer(line, line) * (1 + wobble * rng.standard_normal((side, side), dtype=np.float32))
    return np.asarray(kernel / max(float(kernel.sum()), 0.2 * float(np.outer(line, line).sum())), np.float32)


def _evened(kernel: Floats, stride: int, uneven: float) -> Floats:
    """The kernel with every one of the `stride` x `stride` phases of its output brought near the same sum.

    What is left of their difference, `uneven`, is the checkerboard that training does not quite remove.
    """
    out = kernel.copy()
    for row in range(stride):
        for column in range(stride):
            phase = out[row::stride, column::stride]
            total = float(phase.sum())
            phase /= total / (1 + uneven * (-1) ** (row + column)) if abs(total) > 1e-3 else 1e3
    return out


def upsampled(rng: Rng, size: int) -> Trace:
    """Down by an uneven kernel, and up again by a transposed convolution of stride 2 or 3, by nearest or lanczos."""
    factor = int(rng.choice([2, 2, 2, 3]))
    wobble = float(rng.uniform(0.02, 0.25))
    down = _kernel(rng, factor + 1, 0.3 * wobble)
    up = _evened(
        _kernel(rng, 2 * factor - int(rng.integers(0, 2)), wobble), factor, float(rng.uniform(0.0, 0.05))
    )
    style = str(rng.choice(["transposed", "nearest", "lanczos"], p=[0.6, 0.2, 0.2]))
    keep = float(rng.uniform(0.0, 0.75))

    def trace(image: Bytes) -> Floats:
        small = cv2.filter2D(image, cv2.CV_32F, down)[::factor, ::factor]
        if style == "transposed":
            stuffed = np.zeros(image.shape, np.float32)
            stuffed[::factor, ::factor] = small
            made = cv2.filter2D(stuffed, cv2.CV_32F, up)
        else:
            how = cv2.INTER_NEAREST if style == "nearest" else cv2.INTER_LANCZOS4
            made = cv2.resize(small, image.shape[1::-1], interpolation=how)
            made = cv2.filter2D(made, cv2.CV_32F, _fixed) if style == "nearest" else made
        detail = image - cv2.GaussianBlur(image, (0, 0), 1.0).astype(np.float32)
        return np.asarray(made + keep * detail, np.float32)

    _fixed = _kernel(rng, 3, wobble)
    return trace


def checkered(rng: Rng, size: int) -> Trace:
    """A pattern of period 2, 4 or 8 in the frame's own grid, stronger where there is texture."""
    period = int(rng.choice([2, 4, 4, 8]))
    tile = rng.standard_normal((period, period, 3), dtype=np.float32)
    tile = (tile - tile.mean((0, 1))) * np.array([1, 1, 1], np.float32) * float(rng.uniform(0.5, 2.5))
    if rng.random() < 0.6:
        tile = np.repeat(tile.mean(-1, keepdims=True), 3, -1)
    pattern = np.tile(tile, (size // period + 1, size // period + 1, 1))[:size, :size]
    textured = bool(rng.random() < 0.5)

    def trace(image: Bytes) -> Floats:
        base = image.astype(np.float32)
        if not textured:
            return base + pattern
        rough = np.abs(base - cv2.blur(base, (5, 5))).mean(-1)
        return base + pattern * (0.3 + cv2.blur(rough, (9, 9)) / 6)[..., None]

    return trace


def peaked(rng: Rng, size: int) -> Trace:
    """A few faint waves fixed in the picture: the peaks of a generator's spectrum."""
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    waves: Floats = np.zeros((size, size), np.float32)
    for _ in range(int(rng.integers(1, 5))):
        across, down = rng.choice([0.0, 0.125, 0.25, 0.375, 0.5], 2) + rng.normal(0, 0.004, 2)
        turn = 2 * np.pi * (across * columns + down * rows) + rng.uniform(0, 2 * np.pi)
        waves = waves + np.asarray(rng.uniform(0.5, 1.8) * np.cos(turn), np.float32)
    tint = (1 + rng.normal(0, 0.3, 3)).astype(np.float32)
    return lambda image: image + waves[..., None] * tint


def smoothed(rng: Rng, size: int) -> Trace:
    """Skin without pores: bilateral or guided filtering, or the median, and edges sharpened after it."""
    style = str(rng.choice(["bilateral", "guided", "median"], p=[0.45, 0.4, 0.15]))
    spread, reach = float(rng.uniform(8, 35)), float(rng.uniform(1.2, 3.0)) * size / 160
    amount = float(rng.choice([0.0, 0.0, 0.5, 1.0])) * float(rng.uniform(0.3, 1.2))

    def trace(image: Bytes) -> Floats:
        if style == "bilateral":
            flat = cv2.bilateralFilter(image, 5, spread, reach).astype(np.float32)
        elif style == "guided":
            flat = _guided(image.astype(np.float32), max(2, round(1.5 * reach)), spread**2 / 3)
        else:
            flat = cv2.medianBlur(image, 3 if reach < 2 else 5).astype(np.float32)
        return flat + amount * (flat - cv2.GaussianBlur(flat, (0, 0), 1.2))

    return trace


def _guided(image: Floats, reach: int, spread: float) -> Floats:
    """Edge-keeping smoothing by a local linear model of the picture on itself (He et al., 2010)."""
    window = (2 * reach + 1, 2 * reach + 1)
    mean = cv2.blur(image, window)
    varies = cv2.blur(image * image, window) - mean * mean
    gain = varies / (varies + spread)
    return np.asarray(cv2.blur(gain, window) * image + cv2.blur(mean * (1 - gain), window), np.float32)


def coded(rng: Rng, size: int) -> Trace:
    """Through a bottleneck: overlapping 8 x 8 cosine blocks of which only the large coefficients are kept."""
    bar = float(rng.uniform(6, 28))
    basis = _cosines(8)
    offsets = rng.integers(0, 8, 2)

    def trace(image: Bytes) -> Floats:
        side = -(-(size + 8) // 8) * 8
        total = np.zeros((side, side, 3), np.float32)
        for dy, dx in ((0, 0), (int(offsets[0]), int(offsets[1]))):
            padded = cv2.copyMakeBorder(
                image, dy, side - size - dy, dx, side - size - dx, cv2.BORDER_REFLECT_101
            ).astype(np.float32)
            blocks = padded.reshape(side // 8, 8, side // 8, 8, 3).transpose(0, 2, 4, 1, 3)
            parts = basis @ blocks @ basis.T
            small = np.abs(parts) < bar
            small[..., 0, 0] = False
            parts[small] *= 0.15
            rebuilt = (basis.T @ parts @ basis).transpose(0, 3, 1, 4, 2).reshape(side, side, 3)
            total[:size, :size] += rebuilt[dy : dy + size, dx : dx + size]
        return total[:size, :size] / 2

    return trace


def _cosines(size: int) -> Floats:
    """The orthonormal cosine transform [size, size]."""
    at = np.arange(size)
    rows = np.cos(np.pi * (2 * at + 1) * at[:, None] / (2 * size)) * np.sqrt(2 / size)
    rows[0] /= np.sqrt(2)
    return rows.astype(np.float32)


def rebanded(rng: Rng, size: int) -> Trace:
    """Another balance of coarse and fine: each octave louder or fainter, the finest made up from the next one."""
    gains = np.exp(rng.normal(0, 0.45, 3) - np.array([0.35, 0.1, 0.0])).astype(np.float32)
    made_up = float(rng.choice([0.0, rng.uniform(0.2, 0.8)]))
    kernel = rng.standard_normal((3, 3), dtype=np.float32)
    kernel -= kernel.mean()
    kernel /= np.abs(kernel).sum() / 2

    def trace(image: Bytes) -> Floats:
        rest = image.astype(np.float32)
        bands = []
        for sigma in (0.8, 1.6, 3.2):
            low = np.asarray(cv2.GaussianBlur(rest, (0, 0), sigma), np.float32)
            bands.append(rest - low)
            rest = low
        finest = (1 - made_up) * bands[0] + made_up * cv2.filter2D(bands[1], cv2.CV_32F, kernel)
        return np.asarray(rest + gains[0] * finest + gains[1] * bands[1] + gains[2] * bands[2], np.float32)

    return trace


def recoloured(rng: Rng, size: int) -> Trace:
    """Colour as networks give it: coarse in place, narrower or wider in range, channels leaning on each other."""
    mix = np.eye(3, dtype=np.float32) + rng.normal(0, 0.05, (3, 3)).astype(np.float32)
    mix /= mix.sum(1, keepdims=True)
    coarse = int(rng.choice([1, 2, 3, 4, 6]))
    contrast, lift = float(rng.uniform(0.88, 1.1)), float(rng.normal(0, 4))
    vivid = float(rng.uniform(0.75, 1.25))

    def trace(image: Bytes) -> Floats:
        turned = (image.astype(np.float32) - 128) @ mix.T * contrast + 128 + lift
        grey = turned.mean(-1, keepdims=True)
        tint = turned - grey
        if coarse > 1:
            small = cv2.resize(tint, (size // coarse, size // coarse), interpolation=cv2.INTER_AREA)
            tint = cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR)
        return np.asarray(grey + vivid * tint, np.float32)

    return trace


def resolved(rng: Rng, size: int) -> Trace:
    """As from a generator of fewer pixels: made small, then brought up to the picture's size."""
    side = max(24, round(size * float(rng.uniform(0.35, 0.9))))
    up = [cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4][int(rng.integers(3))]
    dull = float(rng.uniform(0.0, 0.9))

    def trace(image: Bytes) -> Floats:
        small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), dull) if dull > 0.3 else small
        return np.asarray(cv2.resize(small, (size, size), interpolation=up), np.float32)

    return trace


TRACES: dict[Callable[[Rng, int], Trace], float] = {
    resolved: 0.35,
    smoothed: 0.4,
    coded: 0.2,
    upsampled: 0.4,
    rebanded: 0.3,
    recoloured: 0.35,
    checkered: 0.15,
    peaked: 0.15,
}
"""Trace -> chance, in the order in which a generator would leave them."""


def drawn(rng: Rng, size: int, most: int = 3) -> list[Trace]:
    """One to `most` traces for pictures of `size` pixels."""
    chosen = [trace for trace, chance in TRACES.items() if rng.random() < chance]
    if not chosen:
        chosen = [list(TRACES)[int(rng.choice(len(TRACES), p=_shares()))]]
    while len(chosen) > most:
        chosen.pop(int(rng.integers(len(chosen))))
    return [trace(rng, size) for trace in chosen]


def _shares() -> list[float]:
    return [chance / sum(TRACES.values()) for chance in TRACES.values()]


def rendered(images: Bytes, traces: list[Trace]) -> Bytes:
    """Pictures [N, S, S, 3] through every trace."""
    out = np.empty_like(images)
    for index, image in enumerate(images):
        for trace in traces:
            image = cv2.convertScaleAbs(np.maximum(trace(image), 0))  # rounds, and cuts at 255
        out[index] = image
    return out


def generated(faces: Faces, rng: Rng, donor: Faces | None = None) -> Painted:
    """The crops as a generator would have drawn them: the whole picture, or the face alone with a soft edge."""
    size = faces.size
    images = rendered(faces.images, drawn(rng, size))
    if rng.random() < 0.6:
        return Painted(images, np.ones(images.shape[:3], np.float32))
    wide, soft = float(rng.uniform(0.92, 1.15)), float(rng.uniform(0.01, 0.05)) * size
    return Painted(
        images, np.stack([hull_mask(grown(p[list(OVAL)], wide), size, soft) for p in faces.landmarks])
    )
