"""The vocoders that ship, and how they are trained, stored and put to use."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from commands import ROOT, VOICE
from test_augment import speechlike

from avdetect.errors import ModelError
from avdetect.forgeries import WEIGHTS as SHARES
from avdetect.forgeries import Kind
from avdetect.forgeries.resynthesis import RESYNTHESES
from avdetect.forgeries.spectra import levelled
from avdetect.forgeries.trained_vocoder import _averaged, _coded, spoken_again
from avdetect.forgeries.vocoders import (
    BANDS,
    DESIGNS,
    HOP,
    WEIGHTS,
    Vocoder,
    load,
    log_mel,
    names,
    save,
    speak,
)
from avdetect.forgeries.voicing import pitch, sources, voiced
from avdetect.types import Floats

SMALL = {"fourier": {"dim": 8, "wide": 16, "blocks": 1}, "convolution": {"width": 8}}
TRAINED = ("fourier_vocoder", "acoustic_model", "codec_model", "diffusion_vocoder")


def sentence() -> Floats:
    samples, rate = soundfile.read(VOICE, dtype="float32")
    at = np.arange(int(min(len(samples) / rate, 3.0) * 16_000)) * rate / 16_000
    return np.interp(at, np.arange(len(samples)), samples).astype(np.float32)


def small(design: str) -> Vocoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DESIGNS[design](**SMALL[design])


def distance(one: Floats, other: Floats) -> float:
    """Mean difference of log mel spectra, nepers."""
    a, b = (log_mel(torch.from_numpy(x)[None]) for x in (one, other))
    return float(3 * (a - b).abs().mean())


def said(name: str, speech: Floats) -> Floats:
    excited = torch.from_numpy(sources(speech, np.random.default_rng(0), HOP))
    return levelled(
        speak(load(WEIGHTS / f"{name}.safetensors"), torch.from_numpy(speech), excited).numpy(), speech
    )


def test_vocoders_ship_and_are_small() -> None:
    assert names() and {name.split("-")[0] for name in names()} <= set(DESIGNS)
    assert sum((WEIGHTS / f"{name}.safetensors").stat().st_size for name in names()) < 4e6
    card = (WEIGHTS / "README.md").read_text(encoding="utf-8")
    assert all(name in card for name in names())


@pytest.mark.parametrize("name", names())
def test_a_shipped_vocoder_says_the_same_at_the_same_pitch(name: str) -> None:
    speech = sentence()
    made = said(name, speech)
    noise = np.random.default_rng(0).standard_normal(len(speech)).astype(np.float32)
    assert distance(speech, made) < 0.6 < distance(speech, levelled(noise, speech))
    (hertz, sure), (other, less) = pitch(speech, HOP), pitch(made, HOP)
    both = (voiced(sure) > 0.5) & (voiced(less) > 0.5)
    assert both.sum() > 0.5 * (voiced(sure) > 0.5).sum()
    assert np.median(np.abs(np.log2(other[both] / hertz[both]))) < 0.02


@pytest.mark.parametrize("design", DESIGNS)
class TestEveryDesign:
    @pytest.mark.parametrize("length", [1024, 1600, 16_001])
    def test_gives_back_as_many_samples(self, design: str, length: int) -> None:
        waveform = torch.from_numpy(speechlike(2.0)[:length])
        assert speak(small(design), waveform, torch.zeros(2, length)).shape == (length,)

    def test_is_stored_in_half_precision_and_found_again(self, design: str, tmp_path: Path) -> None:
        model, path = small(design), tmp_path / "deep" / "one.safetensors"
        save(model, design, SMALL[design], path)
        again = load(path)
        assert type(again) is DESIGNS[design] and not again.training
        for a, b in zip(model.parameters(), again.parameters(), strict=True):
            torch.testing.assert_close(a.detach(), b, atol=1e-3, rtol=1e-3)
            assert not b.requires_grad and b.dtype == torch.float32

    def test_listens_to_spectrum_and_source(self, design: str) -> None:
        model = small(design)
        one, other = (torch.from_numpy(speechlike(1.0, seed)) for seed in (0, 1))
        excited = torch.randn(2, len(one), generator=torch.Generator().manual_seed(0))
        plain = speak(model, one, excited)
        assert not torch.allclose(plain, speak(model, other, excited), atol=1e-6)
        assert not torch.allclose(plain, speak(model, one, excited.flip(0)), atol=1e-6)


def test_files_that_are_no_vocoder_are_refused(tmp_path: Path) -> None:
    broken, foreign = tmp_path / "broken.safetensors", tmp_path / "foreign.safetensors"
    broken.write_bytes(b"no weights")
    save(small("fourier"), "wavenet", {}, foreign)
    other = tmp_path / "other.safetensors"
    save(small("fourier"), "fourier", {"dim": 16, "wide": 16, "blocks": 1}, other)
    for path in (broken, foreign, other, tmp_path / "missing.safetensors"):
        with pytest.raises(ModelError, match=rf"{path.name}: not a vocoder of avdetect .*install"):
            load(path)


def test_trained_vocoders_make_about_half_of_the_forged_voices() -> None:
    shares = SHARES[Kind.VOICE]
    assert set(TRAINED) <= set(RESYNTHESES)
    assert 0.4 < sum(shares[name] for name in TRAINED) / sum(shares.values()) < 0.6


@pytest.mark.parametrize("change", [_averaged, _coded])
def test_a_changed_spectrum_is_smoother_or_coarser_but_still_that_speech(change) -> None:  # type: ignore[no-untyped-def]
    mel = log_mel(torch.from_numpy(sentence())[None])[0]
    for seed in range(10):
        altered = change(mel, np.random.default_rng(seed))
        assert altered.shape == (BANDS, mel.shape[1])
        assert 0.005 < float((altered - mel).abs().mean()) < 0.7
        assert np.corrcoef(mel.flatten(), altered.flatten())[0, 1] > 0.75


def test_copies_come_from_every_snapshot_of_a_design(monkeypatch: pytest.MonkeyPatch) -> None:
    from avdetect.forgeries import trained_vocoder

    asked: set[str] = set()

    def loaded(path: Path) -> Vocoder:
        asked.add(path.stem)
        return load(path)

    monkeypatch.setattr(trained_vocoder, "load", loaded)
    rng = np.random.default_rng(0)
    for _ in range(12):
        spoken_again(speechlike(0.5), rng, "fourier")
    assert asked == {name for name in names() if name.startswith("fourier")}


@pytest.mark.parametrize("design", DESIGNS)
def test_the_training_example_runs(design: str, tmp_path: Path) -> None:
    for split in ("train", "val"):
        shutil.copy(VOICE, tmp_path / f"{split}.flac")
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        rows = [["file", "split", "voice_cloning"], ["train.flac", "train", "0"], ["val.flac", "val", "0"]]
        csv.writer(file).writerows(rows)
    command = [sys.executable, ROOT / "examples" / "train_vocoder.py", "manifest.csv"]
    done = subprocess.run(
        [*command, "--design", design, "--minutes", "0.05"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ("Griffin-Lim", f"{design}-early", f"{design}-late"))
    assert type(load(tmp_path / "vocoders" / f"{design}-late.safetensors")) is DESIGNS[design]
