"""What cameras, encoders and platforms do to face crops, real and fake alike.

`(crops [N, H, W, 3] uint8, rng) -> crops`; one draw per window, so that nothing flickers that didn't before.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from avdetect.types import Bytes

Rng = np.random.Generator


def shrink(crops: Bytes, rng: Rng) -> Bytes:
    """Down to 48 to 200 px and back, with random kernels: small faces, thumbnails, upscaled uploads."""
    size = crops.shape[1]
    small = int(size * rng.uniform(0.22, 0.9))
    back = [cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4][int(rng.integers(3))]
    return np.stack(
        [
            cv2.resize(
                cv2.resize(c, (small, small), interpolation=cv2.INTER_AREA), (size, size), interpolation=back
            )
            for c in crops
        ]
    )


def jpeg(crops: Bytes, rng: Rng) -> Bytes:
    """Block compression at quality 25 to 95, on a randomly placed grid."""
    quality = int(rng.uniform(25, 95))
    dx, dy = (int(v) for v in rng.integers(0, 8, 2))
    out = np.empty_like(crops)
    for index, crop in enumerate(crops):
        moved = np.roll(crop, (dy, dx), (0, 1))
        _, data = cv2.imencode(".jpg", moved[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        out[index] = np.roll(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1], (-dy, -dx), (0, 1))
    return out


def blur(crops: Bytes, rng: Rng) -> Bytes:
    """Out of focus, or moving."""
    if rng.random() < 0.6:
        sigma = float(rng.uniform(0.4, 2.0))
        return np.stack([cv2.GaussianBlur(c, (0, 0), sigma) for c in crops])
    length = int(rng.integers(2, 7))
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1 / length
    turn = cv2.getRotationMatrix2D((length / 2 - 0.5, length / 2 - 0.5), float(rng.uniform(0, 180)), 1)
    turned = cv2.warpAffine(kernel, turn, (length, length))
    turned = turned / max(float(turned.sum()), 1e-3)
    return np.stack([cv2.filter2D(c, -1, turned) for c in crops])


def sharpen(crops: Bytes, rng: Rng) -> Bytes:
    """Unsharp masking, as cameras and apps do it."""
    amount, sigma = float(rng.uniform(0.2, 1.2)), float(rng.uniform(0.6, 2.0))
    return np.stack(
        [cv2.addWeighted(c, 1 + amount, cv2.GaussianBlur(c, (0, 0), sigma), -amount, 0) for c in crops]
    )


def grain(crops: Bytes, rng: Rng) -> Bytes:
    """Sensor noise of 1 to 10 grey levels."""
    noise = rng.standard_normal(crops.shape, dtype=np.float32) * np.float32(rng.uniform(1, 10))
    return np.clip(crops + noise, 0, 255).astype(np.uint8)


def colour(crops: Bytes, rng: Rng) -> Bytes:
    """Light, contrast, gamma, tint and saturation."""
    gain = rng.uniform(0.75, 1.25) * rng.uniform(0.92, 1.08, 3)
    levels = np.arange(256) / 255
    table = np.clip((levels ** rng.uniform(0.75, 1.35))[:, None] * gain + rng.uniform(-0.08, 0.08), 0, 1)
    out = np.stack([table[:, k][crops[..., k]] for k in range(3)], -1).astype(np.float32)
    grey = out.mean(-1, keepdims=True)
    out = grey + (out - grey) * np.float32(rng.uniform(0.3, 1.3))
    return (np.clip(out, 0, 1) * 255).astype(np.uint8)


def reframe(crops: Bytes, rng: Rng) -> Bytes:
    """A little nearer, farther, aside or turned, and mirrored half of the time."""
    size = crops.shape[1]
    turn, grow = float(rng.normal(0, 4)), float(rng.uniform(0.92, 1.25))
    matrix = np.asarray(cv2.getRotationMatrix2D((size / 2, size / 2), turn, grow), np.float64)
    matrix[:, 2] += rng.normal(0, 0.03 * size, 2)
    out = np.empty_like(crops)
    for index, crop in enumerate(crops):
        out[index] = cv2.warpAffine(crop, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
    return out[:, :, ::-1].copy() if rng.random() < 0.5 else out


FACES: dict[Callable[[Bytes, Rng], Bytes], float] = {
    reframe: 0.9,
    colour: 0.6,
    blur: 0.2,
    shrink: 0.5,
    sharpen: 0.15,
    grain: 0.25,
    jpeg: 0.5,
}
"""Change -> chance, in the order in which a picture would meet them."""


def degrade_faces(crops: Bytes, rng: Rng, strength: float = 1.0) -> Bytes:
    """A random chain of the changes above; `strength` scales their chances."""
    for change, chance in FACES.items():
        if rng.random() < chance * strength:
            crops = change(crops, rng)
    return crops
