"""The autoencoders of faces that ship, and how they are trained, stored and put to use."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from commands import ROOT
from test_forgery_family import face
from workshop import SAMPLE

from avdetect.errors import ModelError
from avdetect.forgeries.canvas import Faces
from avdetect.forgeries.face_decoders import ENDINGS, WEIGHTS, FaceCoder, load, names, save
from avdetect.forgeries.trained_decoder import decoded
from avdetect.types import Bytes

SMALL = {"channels": 4, "width": 4}


def faces(count: int = 2) -> Faces:
    picture, landmarks = face()
    return Faces(np.stack([picture] * count), np.stack([landmarks[:, :2]] * count).astype(np.float32))


def small() -> FaceCoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FaceCoder(**SMALL)


def noise_ratio(one: Bytes, other: Bytes) -> float:
    """Peak signal-to-noise ratio, dB."""
    return float(-10 * np.log10(np.square((one.astype(float) - other) / 255).mean()))


def test_autoencoders_ship_and_are_small() -> None:
    assert names()
    assert sum((WEIGHTS / f"{name}.safetensors").stat().st_size for name in names()) < 6e6
    card = (WEIGHTS / "README.md").read_text(encoding="utf-8")
    assert all(name in card for name in names())


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_shipped_decoder_draws_the_same_face(name: str, ending: str) -> None:
    picture = cv2.resize(faces(1).images[0], (224, 224), interpolation=cv2.INTER_CUBIC)[None]
    with torch.inference_mode():
        made = load(WEIGHTS / f"{name}.safetensors")(
            torch.from_numpy(picture).permute(0, 3, 1, 2).float() / 255, ending
        )
    drawn = (made.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    assert noise_ratio(drawn, picture) > 22 > noise_ratio(np.full_like(picture, 128), picture)


def test_a_clip_is_drawn_by_one_decoder_from_the_seed_alone() -> None:
    clip = faces()
    for seed in range(8):
        one, again = (decoded(clip, np.random.default_rng(seed)) for _ in range(2))
        np.testing.assert_array_equal(one.images, again.images)
        assert one.images.shape == clip.images.shape and one.images.dtype == np.uint8
        assert 15 < noise_ratio(one.images, clip.images) < 50


def test_whole_pictures_faces_and_lower_faces_are_drawn() -> None:
    clip = faces()
    shares = {round(float(decoded(clip, np.random.default_rng(seed)).masks.mean()), 1) for seed in range(20)}
    assert 1.0 in shares and len(shares) >= 3


def test_is_stored_in_half_precision_and_found_again(tmp_path: Path) -> None:
    model, path = small(), tmp_path / "deep" / "one.safetensors"
    save(model, SMALL, path)
    for a, b in zip(model.parameters(), load(path).parameters(), strict=True):
        torch.testing.assert_close(a.detach(), b, atol=1e-3, rtol=1e-3)
        assert not b.requires_grad and b.dtype == torch.float32


def test_files_that_are_no_autoencoder_are_refused(tmp_path: Path) -> None:
    broken, other = tmp_path / "broken.safetensors", tmp_path / "other.safetensors"
    broken.write_bytes(b"no weights")
    save(small(), {"channels": 8, "width": 4}, other)
    for path in (broken, other, tmp_path / "missing.safetensors"):
        with pytest.raises(ModelError, match=rf"{path.name}: not an autoencoder of avdetect .*install"):
            load(path)


def test_the_training_example_runs(tmp_path: Path) -> None:
    if not SAMPLE.is_file():
        pytest.skip(f"no sample clip at {SAMPLE} (examples/make_sample.py makes it)")
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "split", "face_manipulation"])
        for split in ("train", "val"):
            shutil.copy(SAMPLE, tmp_path / f"{split}.mp4")
            writer.writerow([f"{split}.mp4", split, "0"])
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "train_face_decoders.py", "manifest.csv", "--minutes", "0.05"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ("faces-early", "faces-late", "shuffled dB"))
    assert isinstance(load(tmp_path / "decoders" / "faces-late.safetensors"), FaceCoder)
