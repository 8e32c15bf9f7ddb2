"""A workshop for tests that train: small clips of a talking face, a manifest, and a recipe of tiny streams."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import make_video
from safetensors.torch import load_file
from torch import Tensor

from avdetect.apart import train
from avdetect.prepared import PreparedClip, prepare_cached
from avdetect.types import Item
from avdetect.windows import WindowSettings

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "samples" / "sample.mp4"
SIDE = 256
RECIPE = """
name = "tiny"
[data]
manifest = "manifest.csv"
window = 2.0
[model]
dim = 16
lags = 10
[model.streams]
voice = {encoder = "spectral_resnet", options = {widths = [4, 8], dim = 8, bands = 32}}
lips = {encoder = "lip_motion", options = {width = 16, dim = 8, layers = 1}}
speech = {encoder = "sync_speech", options = {width = 16, dim = 8, layers = 1}}
face = {encoder = "face_cnn", options = {widths = [4, 8], size = 48}}
[model.claims]
face_manipulation = ["face"]
voice_cloning = ["voice"]
lip_sync_mismatch = ["sync"]
[mix]
voice = 2
face = 2
sync = 2
crops = 2
shortest = 1.0
longest = 1.6
[training]
steps = 4
evaluate_every = 2
learning_rate = 0.01
bf16 = false
workers = 0
"""
ROWS = """file,split,face_manipulation,voice_cloning,lip_sync_mismatch,method,identity,source
0.mp4,train,0,0,0,,a,one
1.mp4,train,1,1,,made,b,two
2.mp4,val,0,0,0,,c,three
3.mp4,val,1,1,0,made,d,four
gone.mp4,val,0,0,0,,e,five
"""


def cut_sample(folder: Path) -> None:
    """Four small clips of the sample's talking face, two seconds each."""
    with av.open(str(SAMPLE)) as source:
        images = [frame.reformat(SIDE, SIDE, "rgb24").to_ndarray() for frame in source.decode(video=0)]
    with av.open(str(SAMPLE)) as source:
        resampler = av.AudioResampler("flt", "mono", 16_000)
        sound = np.concatenate(
            [part.to_ndarray() for frame in source.decode(audio=0) for part in resampler.resample(frame)], 1
        )
    for number, (start, end) in enumerate(pairwise((0, 49, 98, 147, 196))):
        piece = np.ascontiguousarray(sound[:, start * 640 : end * 640])
        make_video(folder / f"{number}.mp4", 1.96, size=(SIDE, SIDE), images=images[start:end], audio=piece)


def make_workshop(folder: Path) -> Path:
    """Puts clips, manifest.csv and tiny.toml into `folder`."""
    if not SAMPLE.is_file():
        pytest.skip(f"no sample clip at {SAMPLE} (examples/make_sample.py makes it)")
    cut_sample(folder)
    (folder / "manifest.csv").write_text(ROWS)
    (folder / "tiny.toml").write_text(RECIPE)
    return folder


def prepare_here(
    items: Sequence[Item], cache: Path, settings: WindowSettings, _: Any
) -> Iterator[PreparedClip]:
    """In the place of `prepare_all`: clips are prepared in this process, starting others would take longer."""
    return (prepare_cached(item, cache, settings) for item in items)


def settings_of(workshop: Path, name: str, *overrides: str) -> list[str]:
    """What a run of the workshop is told."""
    return [
        f"name={name}",
        f"data.manifest={workshop / 'manifest.csv'}",
        f"data.cache={workshop / 'cache'}",
        f"training.out={workshop / 'runs'}",
        *overrides,
    ]


def run(workshop: Path, name: str, *overrides: str, **options: Any) -> Path:
    """Trains the workshop's recipe in this process; gives the run folder. `options` as `train` takes them."""
    return train(workshop / "tiny.toml", settings_of(workshop, name, *overrides), **options)


def history(folder: Path) -> list[dict[str, float]]:
    """The log of a finished run."""
    rows: list[dict[str, float]] = json.loads((folder / "metrics.json").read_text())
    return rows


def losses(folder: Path) -> list[tuple[float, float, float]]:
    """Step, loss and length of the gradient, as logged."""
    return [(row["step"], row["loss"], row["grad_norm"]) for row in history(folder) if "loss" in row]


def weights(folder: Path) -> dict[str, Tensor]:
    """What a finished run has learnt."""
    return load_file(folder / "model" / "model.safetensors")
