"""Other systems, asked as an evaluation asks our own: voice cloning alone, from a file of weights that a user names.

Their score is the sigmoid of log-odds that nobody has calibrated: read its ranking, not its probability.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from pathlib import Path

import torch

from avdetect import hub
from avdetect.encoders.aasist import CHUNK, AasistDetector
from avdetect.errors import MediaError, ModelError
from avdetect.gmm import LfccGmm
from avdetect.types import CLAIMS, Claim, ClaimResult, Floats, ModelInfo, Outcome, Status, Verdict
from avdetect.windows import Prepared, WindowSettings, prepare

CLAIM = Claim.VOICE_CLONING


class SoundScorer(ABC):
    """A system that hears a whole clip: `log_odds` of a waveform is all that it needs to tell."""

    settings = WindowSettings()

    def __init__(self, name: str, path: Path) -> None:
        """`path` is the file that the weights were read from; its hash is the model's."""
        self.model_info = ModelInfo(name, "published", _digest(path))

    @abstractmethod
    def log_odds(self, waveform: Floats) -> float:
        """Log-odds of fake against real for sound [S] at 16 kHz, not silent; higher = more fake."""

    def detect(
        self, path: Path, *, audio_path: Path | None = None, prepared: Prepared | None = None
    ) -> Verdict:
        """The verdict on a file; one that cannot be read gives a verdict with `error` set."""
        try:
            clip = (prepared or prepare(path, self.settings, audio_path=audio_path)).clip
        except MediaError as error:
            return Verdict(Path(path), Outcome.ERROR, self.model_info, error=str(error))
        claims = {claim: _unasked(claim, "this model does not answer it") for claim in CLAIMS}
        outcome, score = Outcome.NOT_ASSESSABLE, None
        if clip.waveform is None or not clip.waveform.any():
            claims[CLAIM] = _unasked(CLAIM, "there is no sound")
        else:
            score = 1 / (1 + math.exp(-min(max(self.log_odds(clip.waveform), -700.0), 700.0)))
            outcome = Outcome.MANIPULATED if score >= 0.5 else Outcome.NO_MANIPULATION_FOUND
            claims[CLAIM] = ClaimResult(CLAIM, Status.ASSESSED, outcome, score, low=0.5, high=0.5)
        return Verdict(path, outcome, self.model_info, clip.sha256, clip.duration, score, claims=claims)


class AasistScorer(SoundScorer):
    """AASIST or AASIST-L (Jung et al., 2022) as published: from a clip's first 4.04 s, shorter ones repeated.

    `path` is the authors' checkpoint (.pth, read as weights alone) or a `.safetensors` file of ours. ModelError
    where it is neither.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        """`device` is cpu, cuda or cuda:N."""
        hub.check_device(device)
        read = AasistDetector.load if path.suffix == ".safetensors" else AasistDetector.from_published
        self._device, self._model = device, read(path).to(device)
        super().__init__(self._model.name, path)

    def log_odds(self, waveform: Floats) -> float:
        """Of the first chunk."""
        sound = torch.from_numpy(waveform[:CHUNK].copy())[None].to(self._device)
        lengths = torch.tensor([sound.shape[1]], device=self._device)
        with torch.inference_mode():
            return float(self._model.scores(sound, lengths)[0, 0])


class GmmScorer(SoundScorer):
    """The LFCC-GMM baseline of ASVspoof, from a file that it was saved to; ModelError where it is none."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        """`device` is not used: mixtures run on the CPU."""
        self._model = LfccGmm.load(path)
        super().__init__("lfcc-gmm", path)

    def log_odds(self, waveform: Floats) -> float:
        """The mean over the clip's frames."""
        return self._model.score(waveform)


def _unasked(claim: Claim, reason: str) -> ClaimResult:
    return ClaimResult(claim, Status.NOT_ASSESSABLE, Outcome.NOT_ASSESSABLE, reason=reason)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); name the weights' file") from None
