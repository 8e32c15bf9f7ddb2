"""Train a small neural vocoder on the real speech of a manifest, as a maker of voice forgeries.

    python examples/train_vocoder.py corpus/manifest.csv --design fourier --minutes 15 --out vocoders
    python examples/train_vocoder.py corpus/manifest.csv --score vocoders/fourier-late.safetensors

Rows of split `train` whose voice is labelled real are learned from, those of `val` tell how good it became, beside
Griffin-Lim from the same mel spectra. The first part of the time goes to spectral losses alone, the rest to an
adversary as well; a snapshot is written at the end of each (`-early`, `-late`). `--score` only measures files.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from avdetect.augment import band_limit
from avdetect.forgeries.spectra import istft, made_consistent, mel_filters, stft, through_mel
from avdetect.forgeries.vocoders import BANDS, DESIGNS, HOP, MEL_FFT, Vocoder, load, log_mel, save, speak
from avdetect.forgeries.voicing import pitch, sources, voiced
from avdetect.manifest import read_manifest
from avdetect.sound import read_sound
from avdetect.types import SAMPLE_RATE, Claim, Floats, Split

SETTINGS: dict[str, dict[str, int]] = {
    "fourier": {"dim": 128, "wide": 320, "blocks": 4},
    "convolution": {"width": 128},
}
"""Design -> how large it is."""
FRAMES = {"fourier": 100, "convolution": 60}
"""Design -> length of a training example, in hops."""
BATCH = 8
ALONE = 0.5
"""Share of the time before the adversary speaks."""
RESOLUTIONS = ((1024, 256), (512, 128), (256, 64))
"""Transform lengths and hops that losses and adversary look at."""


@dataclass(frozen=True)
class Speech:
    """A recording: `waveform` [S] and the `sources` [2, S] that a vocoder starts from."""

    waveform: Floats
    sources: Floats


def recordings(manifest: Path, split: Split) -> list[Speech]:
    """Real voices of a split, at least half a second long and not silent."""
    rng = np.random.default_rng(0)
    found = []
    for item in read_manifest(manifest):
        if item.split is not split or item.label[Claim.VOICE_CLONING] is not False:
            continue
        sound, _ = read_sound(item.audio_path or item.path)
        if sound is None or len(sound.waveform) < SAMPLE_RATE // 2 or sound.waveform.std() < 1e-4:
            continue
        waveform = sound.waveform * np.float32(0.5 / np.abs(sound.waveform).max())
        found.append(Speech(waveform, sources(waveform, rng, HOP)))
    return found


def batches(speech: list[Speech], frames: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Waveforms [BATCH, S] and sources [BATCH, 2, S] of `frames` frames without end, at many levels and bandwidths."""
    length = frames * HOP
    shares = np.array([len(one.waveform) for one in speech], float)
    while True:
        chosen = rng.choice(len(speech), BATCH, p=shares / shares.sum())
        pairs = [_example(speech[index], length, rng) for index in chosen]
        waveforms, excited = (torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True))
        yield waveforms, excited


def _example(speech: Speech, length: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    first = int(rng.integers(max(1, len(speech.waveform) - length + 1)))
    waveform = speech.waveform[first : first + length]
    excited = speech.sources[:, first : first + length]
    missing = (0, length - len(waveform))
    waveform, excited = np.pad(waveform, missing), np.pad(excited, ((0, 0), missing))
    if rng.random() < 0.3:
        waveform = band_limit(waveform, rng)
    return waveform * np.float32(10 ** rng.uniform(-1.2, 0.2)), excited


class Judge(nn.Module):
    """Sees compressed real and imaginary parts of spectra [B, F, T] and says, place by place, whether they are real."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, width, (7, 3), (4, 2), padding=(3, 1)),
            nn.Conv2d(width, width, (5, 3), (2, 1), padding=(2, 1)),
            nn.Conv2d(width, 2 * width, (5, 3), (2, 2), padding=(2, 1)),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.Conv2d(2 * width, 1, 3, padding=1),
        )

    def forward(self, spectra: Tensor) -> list[Tensor]:
        """What every layer gives; the last is the judgement, high for real."""
        x = torch.view_as_real(spectra / spectra.abs().clamp_min(1e-3) ** 0.6).permute(0, 3, 1, 2)
        given: list[Tensor] = []
        for layer in self.layers:
            given.append(layer(nn.functional.leaky_relu(given[-1], 0.1) if given else x))
        return given


class Adversary(nn.Module):
    """A judge per resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.judges = nn.ModuleList(Judge() for _ in RESOLUTIONS)

    def forward(self, spectra: list[Tensor]) -> list[list[Tensor]]:
        """What each judge gives."""
        return [judge(one) for judge, one in zip(self.judges, spectra, strict=True)]


def transforms(waveforms: Tensor) -> list[Tensor]:
    """Complex spectra [B, F, T] of waveforms [B, S] at each resolution."""
    return [
        torch.stft(waveforms, fft, hop, window=torch.hann_window(fft), return_complex=True)
        for fft, hop in RESOLUTIONS
    ]


def spectral_loss(real: list[Tensor], made: list[Tensor]) -> Tensor:
    """Distance of magnitudes, linear and logarithmic, at every resolution and in mel bands of the longest."""
    mel = mel_filters(RESOLUTIONS[0][0], BANDS)
    total = torch.zeros(())
    for number, (a, b) in enumerate(zip(real, made, strict=True)):
        x, y = a.abs(), (b.real**2 + b.imag**2 + 1e-10).sqrt()
        total = total + (x - y).norm() / x.norm() + (log(x) - log(y)).abs().mean()
        if number == 0:
            total = total + 2 * (log(mel @ x) - log(mel @ y)).abs().mean()
    return total


def log(magnitude: Tensor) -> Tensor:
    """Logarithm above a floor that no ear reaches."""
    return magnitude.clamp_min(1e-4).log()


def train(design: str, speech: list[Speech], minutes: float, out: Path, seed: int) -> list[Path]:
    """Train for some minutes; the snapshots' paths."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model, adversary = DESIGNS[design](**SETTINGS[design]), Adversary()
    speaker = torch.optim.AdamW(model.parameters(), 2e-3, betas=(0.8, 0.99), weight_decay=1e-3)
    critic = torch.optim.AdamW(adversary.parameters(), 5e-4, betas=(0.8, 0.99))
    began, paths = time.monotonic(), []
    for step, (waveforms, excited) in enumerate(batches(speech, FRAMES[design], rng)):
        share = (time.monotonic() - began) / (60 * minutes)
        for name, at in (("early", ALONE), ("late", 1.0)):
            path = out / f"{design}-{name}.safetensors"
            if share >= at and path not in paths:
                save(model, design, SETTINGS[design], path)
                paths.append(path)
        if share >= 1:
            return paths
        for group in speaker.param_groups:
            group["lr"] = rate(share, step)
        with torch.autocast("cpu", torch.bfloat16):
            made = model(log_mel(waveforms), excited)
        real, fake = transforms(waveforms), transforms(made)
        loss = spectral = spectral_loss(real, fake)
        if share > ALONE:
            judge(adversary, critic, real, [one.detach() for one in fake])
            loss = 3 * spectral + deception(adversary, real, fake)
        speaker.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        speaker.step()
        if step % 50 == 0:
            print(
                f"{60 * minutes * share:5.0f} s  step {step:5d}  spectral loss {spectral.item():.3f}",
                flush=True,
            )
    raise AssertionError("batches never end")


def rate(share: float, step: int) -> float:
    """Learning rate: up over 30 steps, down along a cosine within each of the two parts."""
    within = share / ALONE if share < ALONE else (share - ALONE) / (1 - ALONE)
    top = 2e-3 if share < ALONE else 1e-3
    return (
        top * min(1.0, (step + 1) / 30) * (0.05 + 0.95 * 0.5 * (1 + float(np.cos(np.pi * min(within, 1.0)))))
    )


def judge(
    adversary: Adversary, critic: torch.optim.Optimizer, real: list[Tensor], fake: list[Tensor]
) -> None:
    """One step of the adversary (hinge loss)."""
    with torch.autocast("cpu", torch.bfloat16):
        yes, no = adversary(real), adversary(fake)
    loss = sum(
        ((1 - a[-1].float()).relu().mean() + (1 + b[-1].float()).relu().mean())
        for a, b in zip(yes, no, strict=True)
    )
    assert isinstance(loss, Tensor)
    critic.zero_grad()
    loss.backward()
    critic.step()


def deception(adversary: Adversary, real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """What the vocoder is told by the adversary: be taken for real, and look alike in every layer."""
    with torch.autocast("cpu", torch.bfloat16):
        made = adversary(fake)
        with torch.no_grad():
            true = adversary(real)
    total = torch.zeros(())
    for a, b in zip(true, made, strict=True):
        total = total - b[-1].float().mean()
        for x, y in zip(a[:-1], b[:-1], strict=True):
            total = total + 2 * (x.float() - y.float()).abs().mean() / x.float().abs().mean().clamp_min(1e-3)
    return total / len(made)


def griffin_lim(waveform: Tensor) -> Tensor:
    """Speech [S] from the same mel bands by 32 turns of Griffin-Lim, to compare with."""
    magnitude = through_mel(stft(waveform, MEL_FFT, HOP).abs(), MEL_FFT, BANDS)
    start = torch.polar(magnitude, 2 * torch.pi * torch.rand(magnitude.shape))
    made = made_consistent(start, magnitude, MEL_FFT, HOP, len(waveform), 32)
    return istft(made, MEL_FFT, HOP, len(waveform))


def score(speech: list[Speech], vocoder: Vocoder | None) -> dict[str, float]:
    """Distances of copies from recordings: log mel (nepers), log spectrum (dB), phase, pitch (cents), voicing."""
    rows, spent, heard = [], 0.0, 0.0
    for one in speech:
        waveform = torch.from_numpy(one.waveform)
        began = time.perf_counter()
        made = (
            griffin_lim(waveform)
            if vocoder is None
            else speak(vocoder, waveform, torch.from_numpy(one.sources))
        )
        spent, heard = spent + time.perf_counter() - began, heard + len(waveform) / SAMPLE_RATE
        rows.append(_distances(waveform, made))
    means = {name: float(np.nanmean([row[name] for row in rows])) for name in rows[0]}
    return means | {"x real time": heard / spent}


def _distances(waveform: Tensor, made: Tensor) -> dict[str, float]:
    mels = (3 * (log_mel(waveform[None]) - log_mel(made[None]))).abs().mean()
    a, b = (stft(x, 512, 128).abs().clamp_min(1e-4).log10() * 20 for x in (waveform, made))
    (hertz, sure), (other, less) = (pitch(x.numpy(), HOP) for x in (waveform, made))
    both = (voiced(sure) > 0.5) & (voiced(less) > 0.5)
    cents = np.abs(1200 * np.log2(other[both] / hertz[both])) if both.any() else np.array([np.nan])
    return {
        "mel": float(mels),
        "spectrum dB": float(((a - b) ** 2).mean(0).sqrt().mean()),
        "pitch cents": float(np.mean(np.minimum(cents, 600))),
        "voicing differs": float(np.mean((voiced(sure) > 0.5) != (voiced(less) > 0.5))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--design", choices=DESIGNS, default="fourier")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("vocoders"))
    parser.add_argument("--score", type=Path, nargs="+", metavar="FILE", help="measure these, train nothing")
    args = parser.parse_args()

    paths = args.score or train(
        args.design, recordings(args.manifest, Split.TRAIN), args.minutes, args.out, args.seed
    )
    held_out = recordings(args.manifest, Split.VAL)
    rows = {"Griffin-Lim": None, **{path.stem: load(path) for path in paths}}
    for name, vocoder in rows.items():
        measured = score(held_out, vocoder)
        print(f"{name:20s}", "  ".join(f"{key} {value:.3f}" for key, value in measured.items()))


if __name__ == "__main__":
    main()
