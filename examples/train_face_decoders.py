"""Train small autoencoders of faces on the real faces of a manifest, as makers of face forgeries.

    python examples/train_face_decoders.py corpus/manifest.csv --minutes 15 --out decoders
    python examples/train_face_decoders.py corpus/manifest.csv --score decoders/faces-late.safetensors

Rows of split `train` whose face is labelled real are learned from, those of `val` tell how good it became. The first
part of the time goes to differences of pixels and edges alone, the rest to an adversary as well; a snapshot is written
at the end of each (`-early`, `-late`). `--score` only measures files.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from avdetect.forgeries.face_decoders import ENDINGS, STRIDE, FaceCoder, load, save
from avdetect.manifest import read_manifest
from avdetect.prepared import prepare_all
from avdetect.types import Bytes, Claim, Split
from avdetect.windows import WindowSettings

SETTINGS = {"channels": 12, "width": 32}
BATCH, SIDE, FACE = 8, 96, 160
"""Patches of a step, and the pixels of a side: theirs, and at most of the faces they are cut from."""
NOISE = 0.05
"""What is added to codes, so that their neighbours decode alike."""
ALONE = 0.5
"""Share of the time before the adversary speaks."""


def faces(manifest: Path, split: Split, cache: Path, most: int = 12) -> list[Bytes]:
    """Face crops [N, S, S, 3] of each real clip of a split, at most so many."""
    items = [
        item
        for item in read_manifest(manifest)
        if item.split is split and item.label[Claim.FACE_MANIPULATION] is False
    ]
    found = []
    for clip in prepare_all(items, cache, WindowSettings(10.0, 10.0)):
        crops = [small(w.face_crops) for w in clip.windows if w.face_crops is not None]
        if crops:
            every = np.concatenate([c for c in crops if c.shape[1] == crops[0].shape[1]])
            found.append(every[:: max(1, len(every) // most)][:most])
    return [crops for crops in found if crops.shape[1] >= SIDE]


def small(crops: Bytes) -> Bytes:
    """Crops [N, C, C, 3] at no more than FACE pixels, so that more of a face falls into a patch."""
    if crops.shape[1] <= FACE:
        return crops
    return np.stack([cv2.resize(c, (FACE, FACE), interpolation=cv2.INTER_AREA) for c in crops]).astype(
        np.uint8
    )


def batches(clips: list[Bytes], rng: np.random.Generator) -> Iterator[Tensor]:
    """Patches [BATCH, 3, SIDE, SIDE] in 0..1 without end, mirrored half of the time."""
    while True:
        yield torch.from_numpy(np.stack([_patch(clips, rng) for _ in range(BATCH)])).float() / 255


def _patch(clips: list[Bytes], rng: np.random.Generator) -> Bytes:
    clip = clips[int(rng.integers(len(clips)))]
    picture = clip[int(rng.integers(len(clip)))]
    top, left = (int(rng.integers(0, picture.shape[0] - SIDE + 1)) for _ in range(2))
    patch = picture[top : top + SIDE, left : left + SIDE]
    patch = patch[:, ::-1] if rng.random() < 0.5 else patch
    return np.ascontiguousarray(patch.transpose(2, 0, 1))


class Adversary(nn.Module):
    """Says patch by patch whether a picture is real; gives what every layer says."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(3, width, 4, 2, 1),
                nn.Conv2d(width, 2 * width, 4, 2, 1),
                nn.Conv2d(2 * width, 2 * width, 3, padding=1),
                nn.Conv2d(2 * width, 1, 3, padding=1),
            ]
        )

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """What each layer gives; the last is the judgement, high for real."""
        given = [pictures - 0.5]
        for layer in self.layers:
            given.append(layer(nn.functional.leaky_relu(given[-1], 0.2) if len(given) > 1 else given[0]))
        return given[1:]


def distance(made: Tensor, real: Tensor) -> Tensor:
    """Mean difference of pixels, and of edges at three sizes."""
    total = (made - real).abs().mean()
    for _ in range(3):
        for axis in (2, 3):
            total = total + (made.diff(dim=axis) - real.diff(dim=axis)).abs().mean()
        made, real = (nn.functional.avg_pool2d(x, 2) for x in (made, real))
    return total


def train(clips: list[Bytes], minutes: float, out: Path, seed: int) -> list[Path]:
    """Train for some minutes; the snapshots' paths."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model, adversary = FaceCoder(**SETTINGS), Adversary()
    painter = torch.optim.AdamW(model.parameters(), 2e-3, betas=(0.8, 0.99), weight_decay=1e-3)
    critic = torch.optim.AdamW(adversary.parameters(), 5e-4, betas=(0.8, 0.99))
    began, paths = time.monotonic(), []
    for step, real in enumerate(batches(clips, rng)):
        share = (time.monotonic() - began) / (60 * minutes)
        for name, at in (("early", ALONE), ("late", 1.0)):
            path = out / f"faces-{name}.safetensors"
            if share >= at and path not in paths:
                save(model, SETTINGS, path)
                paths.append(path)
        if share >= 1:
            return paths
        for group in painter.param_groups:
            group["lr"] = rate(share, step)
        made = model(real, ENDINGS[step % len(ENDINGS)], NOISE)
        loss = pixels = distance(made, real)
        if share > ALONE:
            judge(adversary, critic, real, made.detach())
            loss = 4 * pixels + deception(adversary, real, made)
        painter.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        painter.step()
        if step % 50 == 0:
            print(f"{60 * minutes * share:5.0f} s  step {step:5d}  distance {pixels.item():.4f}", flush=True)
    raise AssertionError("batches never end")


def rate(share: float, step: int) -> float:
    """Learning rate: up over 30 steps, down along a cosine within each of the two parts."""
    within = share / ALONE if share < ALONE else (share - ALONE) / (1 - ALONE)
    top = 2e-3 if share < ALONE else 1e-3
    return (
        top * min(1.0, (step + 1) / 30) * (0.05 + 0.95 * 0.5 * (1 + float(np.cos(np.pi * min(within, 1.0)))))
    )


def judge(adversary: Adversary, critic: torch.optim.Optimizer, real: Tensor, made: Tensor) -> None:
    """One step of the adversary (hinge loss)."""
    loss = (1 - adversary(real)[-1]).relu().mean() + (1 + adversary(made)[-1]).relu().mean()
    critic.zero_grad()
    loss.backward()
    critic.step()


def deception(adversary: Adversary, real: Tensor, made: Tensor) -> Tensor:
    """What the decoder is told by the adversary: be taken for real, and look alike in every layer."""
    given = adversary(made)
    with torch.no_grad():
        true = adversary(real)
    total = -0.1 * given[-1].mean()
    for x, y in zip(true[:-1], given[:-1], strict=True):
        total = total + (x - y).abs().mean() / x.abs().mean().clamp_min(1e-3)
    return total


def score(clips: list[Bytes], model: FaceCoder) -> dict[str, float]:
    """Per ending the peak signal-to-noise ratio of copies in dB, and the share of the finest detail that is left."""
    found: dict[str, float] = {}
    for ending in ENDINGS:
        errors, kept = [], []
        for crops in clips:
            side = crops.shape[1] // STRIDE * STRIDE
            real = torch.from_numpy(crops[:2, :side, :side].transpose(0, 3, 1, 2).copy()).float() / 255
            with torch.inference_mode():
                made = model(real, ending).clamp(0, 1)
            errors.append(-10 * np.log10(float((made - real).square().mean())))
            kept.append(float(_detail(made) / _detail(real).clamp_min(1e-9)))
        found |= {f"{ending} dB": float(np.mean(errors)), f"{ending} detail": float(np.median(kept))}
    return found


def _detail(pictures: Tensor) -> Tensor:
    return (pictures - nn.functional.avg_pool2d(pictures, 3, 1, 1, count_include_pad=False)).abs().mean()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("decoders"))
    parser.add_argument(
        "--cache", type=Path, default=Path(".cache/prepared"), help="where clips lie prepared"
    )
    parser.add_argument("--score", type=Path, nargs="+", metavar="FILE", help="measure these, train nothing")
    args = parser.parse_args()

    paths = args.score or train(
        faces(args.manifest, Split.TRAIN, args.cache), args.minutes, args.out, args.seed
    )
    held_out = faces(args.manifest, Split.VAL, args.cache)
    for path in paths:
        measured = score(held_out, load(path))
        print(f"{path.stem:12s}", "  ".join(f"{key} {value:.2f}" for key, value in measured.items()))


if __name__ == "__main__":
    main()
