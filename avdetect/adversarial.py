"""What it costs to fool a model: clips changed along its own gradient within small budgets, and by mere noise.

Projected gradient descent (Madry et al., "Towards deep learning models resistant to adversarial attacks", 2018) through
the model's own front end. Fakes are pushed towards "real", real clips towards "fake". Faces are changed in the crops
that the model sees, each pixel by at most so many levels (L-inf); voices and lip-sync in the waveform, at most so loud
(L2, dB below the clip). One change per crop and sample, whichever windows it stands in, rounded to what 8 and 16 bits
hold.

Not modelled: attackers who don't know the weights, changes that must outlive an encoder or the way from a frame to its
crop, mouths moved on purpose. The numbers are what the strongest attacker needs, not what the next one will do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from avdetect.batch import collate
from avdetect.detect import Detector, probability
from avdetect.pooling import ClipEvidence
from avdetect.types import CLAIMS, FRAME_RATE, SAMPLE_RATE, Claim, Floats, Window
from avdetect.windows import Prepared


class Surface(Protocol):
    """What of a clip may be changed: `clean` is as it was."""

    clean: Tensor

    def inputs(self, x: Tensor) -> dict[str, Tensor]:
        """The model's inputs with `x` in place of what was `clean`."""
        ...

    def stepped(self, x: Tensor, gradient: Tensor, budget: float, share: float) -> Tensor:
        """`x` moved against the gradient by a share of the budget, and brought back into it."""
        ...

    def noise(self, rng: np.random.Generator, budget: float) -> Tensor:
        """A random change that spends the whole budget."""
        ...

    def kept(self, x: Tensor) -> Tensor:
        """`x` as a file can hold it."""
        ...


class Crops:
    """Face crops [U, 3, H, W] in 0..1; one that stands in several windows is changed in all alike."""

    def __init__(self, batch: Mapping[str, Tensor]) -> None:
        faces = batch["faces"]
        self._batch, self._shape = batch, faces.shape
        flat = faces.flatten(0, 1)
        number: dict[bytes, int] = {}
        order = [number.setdefault(one.cpu().numpy().tobytes(), len(number)) for one in flat]
        first = [order.index(at) for at in range(len(number))]
        self._order = torch.tensor(order, device=faces.device)
        self.clean = flat[first].float() / 255

    def inputs(self, x: Tensor) -> dict[str, Tensor]:
        """As Surface.inputs."""
        return {**self._batch, "faces": x[self._order].view(self._shape)}

    def stepped(self, x: Tensor, gradient: Tensor, budget: float, share: float) -> Tensor:
        """As Surface.stepped; `budget` in levels of 255."""
        reach = budget / 255
        change = (x - share * reach * gradient.sign() - self.clean).clamp(-reach, reach)
        return (self.clean + change).clamp(0, 1)

    def noise(self, rng: np.random.Generator, budget: float) -> Tensor:
        """As Surface.noise: each pixel up or down by the budget."""
        signs = rng.integers(0, 2, self.clean.shape, np.int8) * 2 - 1
        return (self.clean + torch.from_numpy(signs).to(self.clean) * budget / 255).clamp(0, 1)

    def kept(self, x: Tensor) -> Tensor:
        """As Surface.kept: 8 bits."""
        return (x * 255).round() / 255


class Sound:
    """The clip's waveform [S] as far as `windows` reach; each sample is changed once."""

    def __init__(self, batch: Mapping[str, Tensor], waveform: Floats, windows: Sequence[Window]) -> None:
        self._batch = batch
        step = SAMPLE_RATE // FRAME_RATE
        self._starts = [round(window.start * FRAME_RATE) * step for window in windows]
        self._lengths = [0 if window.waveform is None else len(window.waveform) for window in windows]
        end = max(start + length for start, length in zip(self._starts, self._lengths, strict=True))
        self._beyond = max(0, end - len(waveform))
        self.clean = torch.from_numpy(np.ascontiguousarray(waveform[:end])).to(batch["waveform"].device)

    def inputs(self, x: Tensor) -> dict[str, Tensor]:
        """As Surface.inputs."""
        whole, width = nn.functional.pad(x, (0, self._beyond)), self._batch["waveform"].shape[1]
        rows = [whole[at : at + size] for at, size in zip(self._starts, self._lengths, strict=True)]
        stacked = torch.stack([nn.functional.pad(row, (0, width - len(row))) for row in rows])
        return {**self._batch, "waveform": stacked}

    def stepped(self, x: Tensor, gradient: Tensor, budget: float, share: float) -> Tensor:
        """As Surface.stepped; `budget` in dB below the clip."""
        reach = self._reach(budget)
        change = x - share * reach * gradient / gradient.norm().clamp_min(1e-20) - self.clean
        change = change * (reach / change.norm().clamp_min(1e-20)).clamp_max(1)
        return (self.clean + change).clamp(-1, 1)

    def noise(self, rng: np.random.Generator, budget: float) -> Tensor:
        """As Surface.noise: white."""
        white = torch.from_numpy(rng.standard_normal(len(self.clean), dtype=np.float32)).to(self.clean)
        return (self.clean + white * self._reach(budget) / white.norm()).clamp(-1, 1)

    def kept(self, x: Tensor) -> Tensor:
        """As Surface.kept: 16 bits."""
        return (x * 32768).round() / 32768

    def _reach(self, decibels: float) -> Tensor:
        return self.clean.norm() * 10 ** (-decibels / 20)


@dataclass(frozen=True)
class Victim:
    """A clip's windows, as the model takes them in, and one claim about it."""

    detector: Detector
    prepared: Prepared
    windows: tuple[Window, ...]
    claim: Claim
    surface: Surface

    @property
    def thresholds(self) -> Mapping[str, float]:
        """The model's "low" and "high" for the claim."""
        bounds: Mapping[str, float] = cast("Any", self.detector.model.config).thresholds[self.claim.value]
        return bounds

    def objective(self, x: Tensor) -> Tensor:
        """The mean logit of the windows that have evidence, with its gradient."""
        output = self.detector.model(**self.surface.inputs(x))
        assert output.clip_logits is not None and output.claim_mask is not None
        at = CLAIMS.index(self.claim)
        mask = output.claim_mask[:, at].to(output.clip_logits)
        mean: Tensor = (output.clip_logits[:, at] * mask).sum() / mask.sum().clamp_min(1)
        return mean

    def score(self, x: Tensor) -> float | None:
        """The clip's calibrated probability, pooled as the detector pools it; None where it can't be assessed."""
        model: Any = self.detector.model
        evidence = ClipEvidence()
        with torch.inference_mode():
            evidence.add(list(self.windows), model(**self.surface.inputs(x)))
        usable = {track.id for track in self.prepared.tracks if track.assessable}
        pooled = evidence.pool(model, self.claim, self.prepared.clip.duration, usable)
        return None if pooled is None else float(probability(pooled.logit, model.config, self.claim))

    def fooled(self, fake: bool, budget: float, steps: int) -> Tensor:
        """The clip changed towards the other class in so many steps; the best point on the way."""
        sign = 1.0 if fake else -1.0
        share = 1.0 if steps == 1 else 2.5 / steps
        x = self.surface.clean
        best, lowest = x, float("inf")
        for number in range(steps + 1):
            x = x.detach().requires_grad_()
            loss = sign * self.objective(x)
            if float(loss.detach()) < lowest:
                best, lowest = x.detach(), float(loss.detach())
            if number < steps:
                (gradient,) = torch.autograd.grad(loss, x)
                x = self.surface.stepped(x.detach(), gradient, budget, share)
        return self.surface.kept(best)


def victim(detector: Detector, prepared: Prepared, windows: Sequence[Window], claim: Claim) -> Victim | None:
    """A clip laid out for an attack on a claim, by its face crops or its waveform; None where it has neither."""
    laid = collate(windows, mouth_crops=detector.model.sees_mouth_crops)
    batch = {name: tensor.to(detector.model.device) for name, tensor in laid.items()}
    batch = _read(batch, detector, claim)
    surface: Surface
    if claim is Claim.FACE_MANIPULATION and "faces" in batch:
        surface = Crops(batch)
    elif claim is not Claim.FACE_MANIPULATION and "waveform" in batch and prepared.clip.waveform is not None:
        surface = Sound(batch, prepared.clip.waveform, windows)
    else:
        return None
    return Victim(detector, prepared, tuple(windows), claim, surface)


_INPUTS = {
    "audio": ("waveform", "waveform_lengths", "speech"),
    "mouth": ("mouth", "mouth_lengths", "found"),
    "mouth_crops": ("mouth_crops", "mouth_crop_lengths", "found"),
    "face": ("faces", "face_lengths"),
}


def _read(batch: Mapping[str, Tensor], detector: Detector, claim: Claim) -> dict[str, Tensor]:
    """The inputs that the claim is read from: a gradient through the others would cost time for nothing."""
    model: Any = detector.model
    streams = set(model.config.claims.get(claim.value, []))
    streams |= {"lips", "mouth", "speech"} if "sync" in streams else set()
    kinds = {model.modalities[stream] for stream in streams if stream in model.modalities}
    wanted = {name for kind in kinds for name in _INPUTS[kind]}
    return {name: tensor for name, tensor in batch.items() if name in wanted}
