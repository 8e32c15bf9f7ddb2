"""Make the sample clip: a public-domain photograph brought to speech with a synthetic voice.

    pip install --no-deps scikit-image   # carries the photograph, skimage/data/astronaut.png
    apt-get install espeak-ng            # the voice
    python examples/make_sample.py [--out data/samples]

Writes `sample.mp4`, its sound alone, `sample_voice.flac`, and `sample_late.mp4`, the same with its sound 0.8 s
late. All are fake by construction and say so in their metadata: the face is moved by warping one still, the
lips follow nothing but the voice's loudness.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import soundfile
from numpy.typing import NDArray

from avdetect.errors import AvdetectError, InputError, MissingDependencyError
from avdetect.faces import FaceFinder
from avdetect.types import FRAME_RATE, Bytes, Floats
from avdetect.writing import write_clip

TEXT = (
    "This is a sample clip. The face is a photograph that a computer moves, "
    "and the voice is a machine's. Nobody said this."
)
COMMENT = (
    "Fake by construction: a NASA photograph (public domain) warped to the loudness of an espeak-ng voice; "
    "made by examples/make_sample.py of avdetect"
)
VOICE = ("-v", "en-us+f3", "-s", "175", "-p", "45")
PHOTO_SHA256 = "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"
HEAD = (105, 0, 230)
"""Left, top and side of the square of the photograph that is shown: head and shoulders."""
SIDE = 512
"""Pixels of the clip's side."""
DARK = np.array([52, 22, 20], np.float32)
"""Colour inside an open mouth."""
LEAD, TAIL = 0.4, 0.5
"""Seconds of silence before and after the voice."""
LATE = 0.8
"""Seconds by which the sound of `sample_late.mp4` comes after its picture."""
BLINK_SECONDS = 0.28

UPPER_INNER = [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308]
LOWER_INNER = [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308]
LOWER_OUTER = [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291]
JAW = {152: 0.9, 148: 0.85, 377: 0.85, 176: 0.75, 400: 0.75, 149: 0.55, 378: 0.55, 150: 0.35, 379: 0.35,
       136: 0.2, 365: 0.2, 172: 0.08, 397: 0.08}  # fmt: skip
"""Points of the jaw line, and what share of the lower lip's way they go."""
STILL = [58, 288, 132, 361, 234, 454, 61, 291, 98, 327, 2, 50, 280, 33, 133, 263, 362, 10, 105, 334]
"""Points that do not move with the jaw."""
EYES = (
    ([33, 246, 161, 160, 159, 158, 157, 173, 133], [33, 7, 163, 144, 145, 153, 154, 155, 133],
     [70, 63, 105, 66, 107, 46, 53, 52, 65, 55]),
    ([362, 398, 384, 385, 386, 387, 388, 466, 263], [362, 382, 381, 380, 374, 373, 390, 249, 263],
     [336, 296, 334, 293, 300, 285, 295, 282, 283, 276]),
)  # fmt: skip
"""Per eye, from left to right in the image: upper lid, lower lid, brow."""


@dataclass(frozen=True)
class Layer:
    """A part of the picture that slides over the rest: `image` [H, W, 3], its `mask` [H, W] in 0..1."""

    image: Floats
    mask: Floats

    def over(self, below: Floats, shift: Floats) -> Floats:
        """The layer, moved down by `shift` [H, W] pixels, on top of `below`."""
        alpha = slide(self.mask, shift)[..., None]
        return alpha * slide(self.image, shift) + (1 - alpha) * below


@dataclass(frozen=True)
class Puppet:
    """A photograph cut into layers, with the fields [H, W] that move them; made once, posed for every frame.

    `opening` and `closing` are pixels that the lower face goes down for a mouth wide open, and for a closed
    one (negative: up); `lids` those that upper lids go down for closed eyes.
    """

    base: Floats
    jaw: Layer
    opening: Floats
    closing: Floats
    lids: tuple[tuple[Layer, Floats], ...]
    centre: Floats

    def pose(self, mouth: float, blink: float, move: tuple[float, float, float]) -> Bytes:
        """A frame: `mouth` from -1 (closed) over 0 (as photographed) to 1 (open), `blink` 0..1, and how far
        the head goes right and down (pixels) and turns clockwise (radians).
        """
        shift = mouth * self.opening if mouth > 0 else -mouth * self.closing
        image = self.jaw.over(self.base, shift)
        for lid, way in self.lids if blink else ():
            image = lid.over(image, blink * way)
        return np.clip(np.rint(self._sway(image, *move)), 0, 255).astype(np.uint8)

    def _sway(self, image: Floats, right: float, down: float, turn: float) -> Floats:
        """The head moved as a whole, less and less with distance, so that the background stands still."""
        x, y = grid()
        dx, dy = x - self.centre[0], y - self.centre[1]
        weight = np.exp(-((np.hypot(dx, dy) / 190) ** 4)).astype(np.float32)
        return remap(image, x - weight * (right - turn * dy), y - weight * (down + turn * dx))


def grid() -> tuple[Floats, Floats]:
    """X and y [SIDE, SIDE] of every pixel."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    return x, y


def remap(image: Floats, x: Floats, y: Floats) -> Floats:
    """`image` read at `x`, `y` [H, W]."""
    flags, border = cv2.INTER_CUBIC if image.ndim == 3 else cv2.INTER_LINEAR, cv2.BORDER_REPLICATE
    return np.asarray(
        cv2.remap(image, x.astype(np.float32), y.astype(np.float32), flags, borderMode=border), np.float32
    )


def slide(image: Floats, shift: Floats) -> Floats:
    """`image` with what is at (x, y) brought to (x, y + shift[y, x])."""
    x, y = grid()
    source = y - shift
    for _ in range(12):  # the shift belongs to where a pixel comes from, not to where it goes
        source = y - remap(shift, x, source)
    return remap(image, x, source)


def thin_plate(points: NDArray[np.float64], values: NDArray[np.float64]) -> Floats:
    """[SIDE, SIDE]: the smoothest surface that has `values` [N] at `points` [N, 2] (thin-plate spline)."""

    def kernel(squared: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.multiply(squared, np.log(squared + 1e-9))

    points, count = points / SIDE, len(points)
    between = np.square(points[:, None] - points[None]).sum(-1)
    flat = np.column_stack([np.ones(count), points])
    system = np.block([[kernel(between), flat], [flat.T, np.zeros((3, 3))]])
    solution = np.linalg.solve(system, np.concatenate([values, np.zeros(3)]))
    x, y = (axis.astype(np.float64) / SIDE for axis in grid())
    surface = solution[count] + solution[count + 1] * x + solution[count + 2] * y
    for (px, py), weight in zip(points, solution[:count], strict=True):
        surface += weight * kernel((x - px) ** 2 + (y - py) ** 2)
    return np.asarray(surface, np.float32)


def filled(outline: NDArray[np.float64], feather: float) -> Floats:
    """Mask [SIDE, SIDE] in 0..1 of a polygon [N, 2], with a soft edge of `feather` pixels."""
    mask = np.zeros((SIDE, SIDE), np.float32)
    cv2.fillPoly(mask, [np.rint(outline * 16).astype(np.int32)], [1.0], cv2.LINE_AA, 4)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), feather), np.float32)


def build(photo: Bytes, points: NDArray[np.float64]) -> Puppet:
    """The puppet of a face with landmarks `points` [478, 2] in `photo` [SIDE, SIDE, 3]."""
    image = photo.astype(np.float32)
    lower, upper = points[LOWER_INNER], points[UPPER_INNER]
    width = float(np.hypot(*(lower[-1] - lower[0])))
    across = np.linspace(-1, 1, len(lower))
    opening = jaw_field(points, 0.2 * width * (1 - across**2))
    closing = jaw_field(points, np.minimum(0.0, upper[:, 1] - lower[:, 1]))
    edge = np.concatenate([[[0, points[61, 1]], points[61]], lower, [points[291], [SIDE, points[291, 1]]]])
    jaw = Layer(image, filled(np.concatenate([edge, [[SIDE, 2 * SIDE], [0, 2 * SIDE]]]), 1.0))
    base = image + inside_of_mouth(lower, width)[..., None] * (DARK - image)
    lids = tuple(eyelid(image, points, *eye) for eye in EYES)
    return Puppet(base, jaw, opening, closing, lids, points[:468].mean(0).astype(np.float32))


def jaw_field(points: NDArray[np.float64], lip: NDArray[np.float64]) -> Floats:
    """How far each pixel goes down when the lower lip goes by `lip` [11], right to left; the chin follows."""
    middle = lip[len(lip) // 2]
    face = points[152, 1] - points[10, 1]
    neck = points[[172, 136, 150, 149, 152, 378, 379, 365, 397]] + [0, 0.3 * face]
    away = np.array([[0.2], [0.4], [0.6], [0.8]])
    cheeks = [
        points[corner] + away * (points[ear] - points[corner]) for corner, ear in ((61, 132), (291, 361))
    ]
    frame = [
        (x, y) for x in (0, SIDE / 2, SIDE) for y in (0, SIDE / 2, SIDE) if (x, y) != (SIDE / 2, SIDE / 2)
    ]
    still = np.concatenate([points[STILL], neck, *cheeks, frame])
    where = np.concatenate([points[LOWER_INNER[1:-1]], points[LOWER_OUTER[1:-1]], points[list(JAW)], still])
    chin = middle * 0.75 * np.array(list(JAW.values()))
    return thin_plate(where, np.concatenate([lip[1:-1], 0.92 * lip[1:-1], chin, np.zeros(len(still))]))


def inside_of_mouth(lower: NDArray[np.float64], width: float) -> Floats:
    """Mask of the dark that shows between the teeth and a lower lip that has gone down."""
    across = np.linspace(-1, 1, len(lower))
    depth = np.column_stack([np.zeros(len(lower)), 0.3 * width * (1 - across**2)])
    return filled(np.concatenate([lower, (lower + depth)[::-1]]), 1.5)


def eyelid(
    image: Floats, points: NDArray[np.float64], upper: list[int], lower: list[int], brow: list[int]
) -> tuple[Layer, Floats]:
    """The skin above an eye, and how far down it goes to close it."""
    lid, rim = points[upper], points[lower]
    high = 1.6 * (points[brow].mean(0) - lid.mean(0))[1]
    around = [(-30, 0), (-30, high), (-30, -high)], [(30, 0), (30, high), (30, -high)]
    still = np.concatenate([points[brow], lid[[0, -1]], lid[0] + around[0], lid[-1] + around[1]])
    field = thin_plate(
        np.concatenate([lid[1:-1], still]),
        np.concatenate([0.95 * (rim - lid)[1:-1, 1], np.zeros(len(still))]),
    )
    corners = np.array([lid[-1] + (0, high), lid[0] + (0, high)])
    area = filled(np.concatenate([lid, corners]), 0.8)
    return Layer(image, area), field


def openness(waveform: Floats, rate: int, frames: int) -> Floats:
    """[frames] in -1..1, how far the mouth is open: 32 dB below the loudest frame, and less, is closed."""
    step = rate // FRAME_RATE
    padded = np.pad(waveform, (0, max(0, frames * step - len(waveform))))[: frames * step]
    power = np.square(padded.reshape(frames, step)).mean(1)
    level = 10 * np.log10(power / power.max() + 1e-6)
    smooth = np.convolve(np.clip(level / 32 + 1, 0, 1), [0.2, 0.6, 0.2], "same")
    return np.clip(2.1 * smooth**1.4 - 1, -1, 1).astype(np.float32)


def blinks(frames: int, rng: np.random.Generator) -> Floats:
    """[frames] in 0..1, how far the eyes are closed: a blink every two to three seconds."""
    times = np.arange(frames) / FRAME_RATE
    closed, at = np.zeros(frames), 1.1
    while at < times[-1] - BLINK_SECONDS:
        closed = np.maximum(closed, np.clip(1.25 - 2.5 * np.abs(times - at) / BLINK_SECONDS, 0, 1))
        at += rng.uniform(1.9, 3.0)
    return closed.astype(np.float32)


def wander(frames: int, size: float, rng: np.random.Generator) -> Floats:
    """[frames] of smooth aimless motion within about `size`, starting anywhere."""
    times = np.arange(frames) / FRAME_RATE
    waves = [np.sin(2 * np.pi * (rate * times + rng.random())) for rate in (0.13, 0.29, 0.61)]
    return np.asarray(size * np.average(waves, axis=0, weights=[3, 2, 1]), np.float32)


def animate(puppet: Puppet, mouth: Floats, seed: int) -> Iterator[Bytes]:
    """The frames [SIDE, SIDE, 3] of the clip, one for each value of `mouth`."""
    rng, count = np.random.default_rng(seed), len(mouth)
    closed = blinks(count, rng)
    right, down, turn = (wander(count, size, rng) for size in (10.0, 6.0, 0.035))
    for index in range(count):
        move = (float(right[index]), float(down[index]), float(turn[index]))
        yield puppet.pose(float(mouth[index]), float(closed[index]), move)


def read_photo(path: Path | None) -> Bytes:
    """The head of the photograph, [SIDE, SIDE, 3] RGB."""
    if path is None:
        spec = importlib.util.find_spec("skimage")
        if spec is None or spec.origin is None:
            raise MissingDependencyError(
                "scikit-image, which carries the photograph, is missing: pip install --no-deps scikit-image, "
                "or name a copy of its skimage/data/astronaut.png with --photo"
            )
        path = Path(spec.origin).parent / "data" / "astronaut.png"
    if not path.is_file():
        raise InputError(f"{path}: no such file; name a copy of skimage/data/astronaut.png with --photo")
    if hashlib.sha256(path.read_bytes()).hexdigest() != PHOTO_SHA256:
        raise InputError(
            f"{path}: not the photograph that scikit-image 0.26 carries as skimage/data/astronaut.png"
        )
    left, top, side = HEAD
    with av.open(str(path)) as picture:
        photo = next(picture.decode(video=0)).to_ndarray(format="rgb24")
    head = photo[top : top + side, left : left + side]
    return np.asarray(cv2.resize(head, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), np.uint8)


def speak(text: str) -> tuple[Floats, int]:
    """The text in espeak-ng's voice with silence around it, [S] in -1..1, and its sample rate."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "voice.wav")
        try:
            subprocess.run(["espeak-ng", *VOICE, "-w", str(path), text], check=True, capture_output=True)
        except FileNotFoundError as error:
            raise MissingDependencyError(
                "espeak-ng, the voice, is missing: apt-get install espeak-ng"
            ) from error
        except subprocess.CalledProcessError as error:
            raise MissingDependencyError(f"espeak-ng failed: {error.stderr.decode().strip()}") from error
        voice, rate = soundfile.read(path, dtype="float32")
    voice *= 0.7 / np.abs(voice).max()
    return np.pad(voice, (round(LEAD * rate), round(TAIL * rate))), rate


def stamp(path: Path, source: Path, late: float = 0.0) -> None:
    """Copy the streams of `source` to `path`, sound `late` seconds later, with the comment that says what they are."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        new.metadata.update({"title": "avdetect sample (fake)", "comment": COMMENT})
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is not None and packet.pts is not None:
                if packet.stream.type == "audio":
                    shift = round(late / packet.time_base)
                    packet.dts, packet.pts = packet.dts + shift, packet.pts + shift
                packet.stream = streams[packet.stream.index]
                new.mux(packet)


def make(out: Path, photo: Path | None, seed: int) -> list[Path]:
    """Write the samples into `out`; their paths."""
    image = read_photo(photo)
    with FaceFinder() as finder:
        faces = finder.find(image)
    if not faces:
        raise InputError(f"{photo}: no face was found in the photograph")
    puppet = build(image, faces[0][:, :2].astype(np.float64))
    voice, rate = speak(TEXT)
    mouth = openness(voice, rate, round(len(voice) / rate * FRAME_RATE))
    made = [out / "sample.mp4", out / "sample_voice.flac"]
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        clip, sound = (Path(folder, path.name) for path in made)
        write_clip(clip, animate(puppet, mouth, seed), voice, sample_rate=rate, crf=23, audio_bit_rate=64_000)
        write_clip(sound, waveform=voice, sample_rate=rate)
        for path, source in zip(made, (clip, sound), strict=True):
            stamp(path, source)
        stamp(out / "sample_late.mp4", clip, LATE)
    return [*made, out / "sample_late.mp4"]


def main() -> int:
    """Arguments in, exit code out."""
    parser = argparse.ArgumentParser(description="Make the sample clip of avdetect.")
    parser.add_argument(
        "--out", type=Path, default=Path("data/samples"), help="folder (default: %(default)s)"
    )
    parser.add_argument(
        "--photo", type=Path, help="skimage/data/astronaut.png, where scikit-image is not installed"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="of blinks and head motion (default: %(default)s)"
    )
    arguments = parser.parse_args()
    try:
        for path in make(arguments.out, arguments.photo, arguments.seed):
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    except AvdetectError as error:
        print(f"make_sample: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
