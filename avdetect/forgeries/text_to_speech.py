"""Speech from whatever engine this machine has: espeak-ng, espeak, flite or pico2wave, found when it is asked for."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from avdetect.errors import MissingDependencyError
from avdetect.forgeries.spectra import levelled
from avdetect.forgeries.voices import Spoken
from avdetect.types import SAMPLE_RATE, Floats

Rng = np.random.Generator
ENGINES: dict[str, tuple[str, ...]] = {
    "espeak-ng": ("-v", "{voice}", "-s", "{pace}", "-p", "{pitch}", "-w", "{file}", "{text}"),
    "espeak": ("-v", "{voice}", "-s", "{pace}", "-p", "{pitch}", "-w", "{file}", "{text}"),
    "flite": ("-t", "{text}", "-o", "{file}"),
    "pico2wave": ("-w", "{file}", "{text}"),
}
"""Program -> its arguments."""
VOICES = ("en-us", "en-gb", "en-gb-scotland", "en-us+f3", "en-gb+f2", "en-us+m3", "en-gb+m7", "en-us+f5")
SECONDS = 30
"""An engine that takes longer is given up."""
SENTENCES = (
    "The first train leaves before six, and the next one only after lunch.",
    "I have read the report twice, but I still don't see what it is about.",
    "We met him on the bridge, and he told us to wait for the others.",
    "Nobody expected the water to rise so quickly during the night.",
    "Please send the papers to my office by the end of the week.",
    "She keeps a small garden behind the house, with roses and beans.",
    "The machine stopped, and it took an hour to find out why.",
    "What you heard yesterday is true, although not all of it.",
    "They asked for more time, more money and a larger room.",
    "My brother plays the piano, while I can hardly sing.",
    "In the morning it was cold, and there was snow on the hills.",
    "The question is simple, yet the answer changes every year.",
)


@cache
def engine() -> str:
    """The first installed engine. MissingDependencyError without one."""
    for program in ENGINES:
        if shutil.which(program):
            return program
    raise MissingDependencyError(
        f"no speech engine is installed ({', '.join(ENGINES)}); install one, e.g. apt-get install espeak-ng"
    )


def read_aloud(waveform: Floats, rng: Rng, donor: Floats | None, strength: float) -> Spoken:
    """Some sentences, spoken by the engine for as long as the waveform [S] lasts, at its level and over its background.

    `strength` is the share of the waveform, from its start, that is replaced.
    """
    length = round(strength * len(waveform))
    if not length:
        return Spoken(waveform, ())
    spoken = np.zeros(0, np.float32)
    while len(spoken) < length:
        text = " ".join(rng.permutation(SENTENCES)[: 2 + length // (3 * SAMPLE_RATE)])
        spoken = np.concatenate([spoken, _said(text, rng)])
    made = levelled(spoken[:length], waveform[:length])
    out = np.concatenate([made + _background(waveform, length, rng), waveform[length:]])
    return Spoken(out.astype(np.float32), ((0, length),), reworded=True)


def _said(text: str, rng: Rng) -> Floats:
    import librosa

    program = engine()
    pace, pitch = str(int(rng.integers(130, 190))), str(int(rng.integers(25, 75)))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "said.wav"
        fields = {
            "voice": str(rng.choice(VOICES)),
            "pace": pace,
            "pitch": pitch,
            "file": str(file),
            "text": text,
        }
        call = [program, *(part.format(**fields) for part in ENGINES[program])]
        try:
            subprocess.run(call, check=True, capture_output=True, timeout=SECONDS)
            samples, _ = librosa.load(file, sr=SAMPLE_RATE)
        except (subprocess.SubprocessError, OSError) as error:
            raise MissingDependencyError(
                f"{program} gave no speech ({error}); check its installation"
            ) from error
    if not len(samples):
        raise MissingDependencyError(f"{program} gave no speech for '{text[:40]}'; check its installation")
    return np.asarray(samples, np.float32)


def _background(waveform: Floats, length: int, rng: Rng) -> Floats:
    """Noise [length] as loud and as coloured as the quietest tenth of the recording."""
    steps = max(1, len(waveform) // 640)
    frames = np.resize(waveform, steps * 640).reshape(steps, 640)
    quiet = frames[np.argsort(frames.std(1))[: max(1, steps // 10)]]
    colour = np.sqrt(np.mean(np.abs(np.fft.rfft(quiet, axis=1)) ** 2, axis=0) / 640)
    spectrum = np.fft.rfft(rng.standard_normal(length))
    gain = np.interp(np.linspace(0, 1, len(spectrum)), np.linspace(0, 1, len(colour)), colour)
    return np.fft.irfft(spectrum * gain, length).astype(np.float32)
