"""LFCC-GMM, the baseline "B02" of ASVspoof 2019: cepstra of speech under two mixtures of Gaussians.

Todisco et al., "ASVspoof 2019: future horizons in spoofed and fake audio detection" (2019), with the features of
Sahidullah et al., "A comparison of features for synthetic speech detection" (2015). One mixture learns real voices, the
other fake ones; a recording's score is the mean over its frames of the log-likelihood ratio. Nothing is normalised and
pauses count, as in the baseline: it hears recording conditions as much as voices.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from avdetect.errors import ConfigError, InputError, ModelError
from avdetect.types import SAMPLE_RATE, Floats

if TYPE_CHECKING:
    import torch
    from sklearn.mixture import GaussianMixture

WINDOW, HOP = SAMPLE_RATE // 50, SAMPLE_RATE // 100
"""Samples of a frame, 20 ms, and from one to the next."""
COEFFICIENTS = 20
"""Linear bands up to 8 kHz, and as many cepstral coefficients, the 0th among them."""
DIM = 3 * COEFFICIENTS
"""Cepstra, their slopes and the slopes of these."""
PRE_EMPHASIS = 0.97
STRETCH = 6000
"""Frames whose likelihoods are worked out at once: one minute, 25 MB at 512 components."""
VARIANCE_FLOOR = 1e-3
"""Added to each component's variances, in units of the frames' own: digital silence has none."""
KINDS = ("real", "fake")
FORMAT = "lfcc-gmm 1"


@cache
def _cosines() -> torch.Tensor:
    """[COEFFICIENTS bands, COEFFICIENTS] orthonormal DCT-II."""
    import torch

    import avdetect.compat  # noqa: F401  (must stand before torchaudio)

    # isort: split
    from torchaudio.functional import create_dct

    with torch.inference_mode(False):
        return create_dct(COEFFICIENTS, COEFFICIENTS, "ortho")


def lfcc(waveform: Floats) -> Floats:
    """[T, DIM] of sound [S] at 16 kHz, T = 1 + (S - WINDOW) // HOP; shorter sound than WINDOW is filled with zeros."""
    import torch

    import avdetect.compat  # noqa: F401  (must stand before torchaudio)

    # isort: split
    from torchaudio.functional import compute_deltas, preemphasis

    from avdetect.encoders.spectra import FFT, linear_bands

    with torch.inference_mode():
        sound = torch.nn.functional.pad(torch.from_numpy(waveform), (0, max(0, WINDOW - len(waveform))))
        frames = preemphasis(sound[None], PRE_EMPHASIS)[0].unfold(0, WINDOW, HOP)
        window = torch.hamming_window(WINDOW, periodic=False)
        power = torch.fft.rfft(frames * window, FFT).abs().square()
        energy = power @ linear_bands(COEFFICIENTS, 0.0, SAMPLE_RATE / 2, power.device)
        cepstra = (energy + torch.finfo(torch.float32).eps).log() @ _cosines()
        slopes = compute_deltas(cepstra.T, win_length=3)
        features: Floats = torch.cat([cepstra.T, slopes, compute_deltas(slopes, win_length=3)]).T.numpy()
    return features


@dataclass(frozen=True)
class GmmSettings:
    """`components` of each mixture; EM takes `iterations` steps over at most `frames` frames of each class.

    512 components on 100,000 frames need 0.9 GB and about two seconds of a core per step.
    """

    components: int = 512
    frames: int = 100_000
    iterations: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("components", "frames", "iterations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)} is not a positive number")
        if self.frames < self.components:
            raise ConfigError(f"frames = {self.frames} are fewer than components = {self.components}")


class Reservoir:
    """A sample of at most `size` rows of a stream, each row with the same chance (Vitter's algorithm R, in blocks)."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.size, self.seen = size, 0
        self._rng = rng
        self._rows = np.empty((0, DIM), np.float32)

    def add(self, rows: Floats) -> None:
        """Take in rows [N, DIM]."""
        free = max(0, self.size - len(self._rows))
        if free:
            self._rows = np.concatenate([self._rows, rows[:free]])
        rest = rows[free:]
        number = np.arange(self.seen + min(free, len(rows)), self.seen + len(rows))
        place = self._rng.integers(0, number + 1) if len(number) else number
        kept = place < self.size
        self._rows[place[kept]] = rest[kept]
        self.seen += len(rows)

    @property
    def rows(self) -> Floats:
        """[at most `size`, DIM]."""
        return self._rows


class LfccGmm:
    """Two mixtures of Gaussians over LFCC frames: `fit` or `load` one, then `score` recordings."""

    def __init__(self, settings: GmmSettings, values: Mapping[str, Floats]) -> None:
        """`values`: of "real" and "fake" each weights [components], means and covariances [components, DIM].

        KeyError or ValueError where they are none.
        """
        self.settings, self.values = settings, values
        self.mixtures = {kind: _mixture(values, kind, settings) for kind in KINDS}

    @classmethod
    def fit(cls, sounds: Iterable[tuple[Floats, bool]], settings: GmmSettings | None = None) -> LfccGmm:
        """A model of `sounds`, each [S] at 16 kHz and whether it is fake, which are walked through once.

        Memory stays bounded: of each class `settings.frames` frames are kept, drawn evenly. InputError where a class
        has fewer frames than there are components.
        """
        settings = settings or GmmSettings()
        rng = np.random.default_rng(settings.seed)
        kept = {kind: Reservoir(settings.frames, rng) for kind in KINDS}
        for waveform, fake in sounds:
            kept[KINDS[fake]].add(lfcc(waveform))
        for kind in KINDS:
            if len(kept[kind].rows) < settings.components:
                raise InputError(
                    f"{kept[kind].seen} frames of {kind} voices are too few for {settings.components} components; "
                    "give more clips or fewer components"
                )
        # One scale for both, so that variances have one floor: else it would tell silent frames apart by itself.
        spread = np.sqrt(np.mean([part.rows.var(0, dtype=np.float64) for part in kept.values()], 0))
        values: dict[str, Floats] = {}
        for kind in KINDS:
            found = _fitted(kept[kind].rows, spread, settings)
            values |= {f"{kind}.{name}": part for name, part in found.items()}
        return cls(settings, values)

    def frame_scores(self, waveform: Floats) -> NDArray[np.float64]:
        """Log-likelihood ratio [T] of each frame of sound [S] at 16 kHz, higher = more fake."""
        frames = lfcc(waveform).astype(np.float64)
        parts = np.split(frames, range(STRETCH, len(frames), STRETCH))
        ratios = [
            self.mixtures["fake"].score_samples(part) - self.mixtures["real"].score_samples(part)
            for part in parts
        ]
        return np.concatenate(ratios)

    def score(self, waveform: Floats) -> float:
        """The mean log-likelihood ratio of sound [S] at 16 kHz, higher = more fake; ASVspoof's has the other sign."""
        return float(self.frame_scores(waveform).mean())

    def save(self, path: Path) -> None:
        """Write the mixtures as safetensors. OSError where that cannot be done."""
        from safetensors.numpy import save_file

        save_file(dict(self.values), path, {"format": FORMAT, "settings": json.dumps(asdict(self.settings))})

    @classmethod
    def load(cls, path: Path) -> LfccGmm:
        """A model that `save` wrote; ModelError where the file is something else."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "np") as file:
                about = file.metadata() or {}
                values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path}: cannot be read as safetensors ({error})") from None
        if about.get("format") != FORMAT:
            raise ModelError(f"{path}: holds no LFCC-GMM; give a file that `gmm train` wrote")
        try:
            return cls(GmmSettings(**json.loads(about["settings"])), values)
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise ModelError(f"{path}: the LFCC-GMM in it is damaged ({error}); train it again") from None

    @property
    def parameters(self) -> int:
        """Numbers that were learned."""
        return sum(part.size for part in self.values.values())


def _fitted(frames: Floats, spread: NDArray[np.float64], settings: GmmSettings) -> dict[str, Floats]:
    """Weights, means and covariances of a mixture over `frames` [N, DIM], whose scale `spread` [DIM] tells."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    # At unit variance single precision is enough, which halves the memory. What does not vary stays near zero.
    middle, spread = frames.mean(0, dtype=np.float64), spread + 1e-3
    mixture = GaussianMixture(
        settings.components,
        covariance_type="diag",
        reg_covar=VARIANCE_FLOOR,
        max_iter=settings.iterations,
        init_params="k-means++",
        random_state=settings.seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of steps, as the baseline takes
        mixture.fit(((frames - middle) / spread).astype(np.float32))
    values = {
        "weights": mixture.weights_,
        "means": mixture.means_ * spread + middle,
        "covariances": mixture.covariances_ * spread**2,
    }
    return {name: np.ascontiguousarray(part, np.float32) for name, part in values.items()}


def _mixture(values: Mapping[str, Floats], kind: str, settings: GmmSettings) -> GaussianMixture:
    """A mixture of given values, in double precision. KeyError or ValueError where they are none."""
    from sklearn.mixture import GaussianMixture

    mixture, count = GaussianMixture(settings.components, covariance_type="diag"), settings.components
    weights, means, spreads = (values[f"{kind}.{name}"] for name in ("weights", "means", "covariances"))
    if weights.shape != (count,) or means.shape != (count, DIM) or spreads.shape != (count, DIM):
        raise ValueError(f"{kind}: not {count} components of {DIM} numbers")
    if not all(np.isfinite(part).all() for part in (weights, means, spreads)) or spreads.min() <= 0:
        raise ValueError(f"{kind}: numbers that are none of a mixture")
    mixture.weights_, mixture.means_, mixture.covariances_ = (
        part.astype(np.float64) for part in (weights, means, spreads)
    )
    mixture.precisions_cholesky_ = 1 / np.sqrt(mixture.covariances_)
    return mixture
