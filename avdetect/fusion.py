"""The model: streams of evidence, encoded apart, aligned in time and fused into three claims.

Every stream is optional, in the configuration and in each row of a batch: what is absent is masked and adds nothing,
so absence is never read as "real". Each claim reads only the streams that the configuration lists for it.
"""

from __future__ import annotations

import avdetect.compat  # noqa: F401  (must stand before transformers)

# isort: split
import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils.generic import ModelOutput

from avdetect.encoders import build_encoder
from avdetect.encoders.masking import step_mask
from avdetect.errors import ConfigError
from avdetect.synchrony import Synchrony, SynchronyCurve
from avdetect.types import CLAIMS, FRAME_RATE, Claim, EncoderOutput

STEP_RATE = 5.0
"""Steps per second of the time axis on which streams are fused."""


class FusionConfig(PreTrainedConfig):
    """What a FusionModel is made of, and how its scores are to be read.

    streams: name -> {"encoder": a name in encoders.ENCODERS, "options": {...}}
    claims: claim -> names of the streams it may read ("sync" is the comparison of "lips" with "speech")
    calibration: claim -> {"scale", "bias"}: probability = sigmoid(scale * logit + bias)
    thresholds: claim -> {"low", "high"} on that probability
    window: {"length", "hop"} in seconds
    """

    model_type = "avdetect"

    def __init__(
        self,
        streams: dict[str, dict[str, Any]] | None = None,
        claims: dict[str, list[str]] | None = None,
        dim: int = 64,
        heads: int = 4,
        layers: int = 1,
        dropout: float = 0.2,
        stream_dropout: float = 0.2,
        lags: int = 25,
        calibration: dict[str, dict[str, float]] | None = None,
        thresholds: dict[str, dict[str, float]] | None = None,
        window: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        self.streams = streams or {}
        self.claims = claims or {}
        self.dim, self.heads, self.layers = dim, heads, layers
        self.dropout, self.stream_dropout = dropout, stream_dropout
        self.lags = lags
        self.calibration = calibration or {claim.value: {"scale": 1.0, "bias": 0.0} for claim in CLAIMS}
        self.thresholds = thresholds or {claim.value: {"low": 0.5, "high": 0.5} for claim in CLAIMS}
        self.window = window or {"length": 4.0, "hop": 2.0}
        super().__init__(**kwargs)

    def check(self) -> None:
        """ConfigError where a claim or a stream is unknown, or a size impossible."""
        self._check_shape()
        for claim, streams in self.claims.items():
            if claim not in {c.value for c in CLAIMS}:
                raise ConfigError(f"no claim is called '{claim}'; {_hint(claim, CLAIMS)}")
            for stream in streams:
                if stream != SYNC and stream not in self.streams:
                    hint = _hint(stream, self.streams)
                    raise ConfigError(
                        f"claim '{claim}' reads the stream '{stream}', which is not configured; {hint}"
                    )
                if stream == SYNC and not {"lips", "speech"} <= set(self.streams):
                    raise ConfigError("the stream 'sync' compares 'lips' with 'speech': configure both")

    def _check_shape(self) -> None:
        for name, table in (("streams", self.streams), ("claims", self.claims)):
            if not isinstance(table, dict):
                raise ConfigError(f"'{name}' = {table!r} is not a table of names")
        for name, stream in self.streams.items():
            if not isinstance(stream, dict) or "encoder" not in stream:
                raise ConfigError(f"the stream '{name}' names no encoder; give it as encoder = \"...\"")
        sizes = {name: getattr(self, name) for name in ("dim", "heads", "layers", "lags")}
        for name, value in sizes.items():
            if not isinstance(value, int) or value < (name != "layers"):
                raise ConfigError(f"{name} = {value!r} is not a positive whole number")
        if self.dim % self.heads:
            raise ConfigError(f"dim = {self.dim} cannot be divided among heads = {self.heads}")


SYNC = "sync"


def _hint(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, [*known], 1)
    return f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}"


@dataclass
class FusionOutput(ModelOutput):
    """What the model says of a batch of B windows; K steps of STEP_RATE, C claims in the order of CLAIMS.

    loss: scalar where labels were given. clip_logits [B, C], claim_mask [B, C]: whether there was evidence.
    step_logits [B, K, C], step_mask [B, K, C]. curve [B, 2 lags + 1]: sum over steps of lip/speech similarity at
    each lag; curve_weight [B, 2 lags + 1]: how many steps it is summed over.
    """

    loss: Tensor | None = None
    clip_logits: Tensor | None = None
    claim_mask: Tensor | None = None
    step_logits: Tensor | None = None
    step_mask: Tensor | None = None
    curve: Tensor | None = None
    curve_weight: Tensor | None = None


def resample_steps(output: EncoderOutput, steps: int) -> tuple[Tensor, Tensor]:
    """Features on the fusion axis [B, steps, D], averaged over each step's span, and their mask [B, steps]."""
    ratio = output.frame_rate / STEP_RATE
    position = torch.arange(output.features.shape[1], device=output.features.device)
    target = torch.div(position + 0.5, ratio, rounding_mode="floor").long().clamp_max(steps - 1)
    if ratio < 1:  # fewer features than steps: each step takes the nearest feature
        source = ((torch.arange(steps, device=position.device) + 0.5) * ratio).long()
        source = source.clamp_max(output.features.shape[1] - 1)
        present = step_mask(output.features.shape[1], output.lengths)[:, source]
        return output.features[:, source] * present[..., None], present
    mask = step_mask(output.features.shape[1], output.lengths).to(output.features.dtype)
    total = output.features.new_zeros(len(mask), steps, output.features.shape[2])
    total.index_add_(1, target, output.features * mask[..., None])
    count = mask.new_zeros(len(mask), steps).index_add_(1, target, mask)
    return total / count.clamp_min(1)[..., None], count > 0


def soft_maximum(logits: Tensor, mask: Tensor, sharpness: Tensor) -> Tensor:
    """Log-mean-exp of [..., K] over valid steps, with a sharpness [...].

    It is the mean for sharpness -> 0, the maximum for sharpness -> inf. With a learned sharpness a short fake
    stretch in a long real clip survives as far as the training data has shown that it should. Rows without a
    valid step give 0.
    """
    scaled = (logits * sharpness[..., None]).masked_fill(~mask, float("-inf"))
    count = mask.sum(-1)
    pooled = torch.logsumexp(scaled.masked_fill(count[..., None] == 0, 0.0), -1) - count.clamp_min(1).log()
    return torch.where(count > 0, pooled / sharpness, torch.zeros_like(pooled))


class TemporalAttention(nn.Module):
    """Self-attention over time inside one stream [B, K, D], blind to absent steps."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(
            dim, heads, 2 * dim, dropout, "gelu", batch_first=True, norm_first=True
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`mask` [B, K]."""
        attend = mask[:, None, :] | torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
        heads = self.layer.self_attn.num_heads
        blocked = ~attend.repeat_interleave(heads, 0)
        y: Tensor = self.layer(x, src_mask=blocked)
        return y * mask[..., None]


class StreamHead(nn.Module):
    """One stream's features brought to the fusion axis, read in context, and turned into evidence per claim."""

    def __init__(self, inputs: int, config: FusionConfig) -> None:
        super().__init__()
        self.project = nn.Linear(inputs, config.dim)
        self.context = nn.ModuleList(
            TemporalAttention(config.dim, config.heads, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.dim)
        self.evidence = nn.Linear(config.dim, len(CLAIMS))

    def forward(self, output: EncoderOutput, steps: int) -> tuple[Tensor, Tensor]:
        """Evidence [B, K, C] and mask [B, K]."""
        x, mask = resample_steps(output, steps)
        x = self.project(x) * mask[..., None]
        for layer in self.context:
            x = layer(x, mask)
        return self.evidence(self.norm(x)) * mask[..., None], mask


class FusionModel(PreTrainedModel):
    """Windows in, three claims out. See `batch.collate` for the inputs and FusionOutput for the outputs."""

    config_class = FusionConfig
    base_model_prefix = "avdetect"
    main_input_name = "waveform"

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        config.check()
        self.encoders = nn.ModuleDict()
        self.modalities: dict[str, str] = {}
        self.heads = nn.ModuleDict()
        for name, stream in config.streams.items():
            encoder = build_encoder(stream["encoder"], **stream.get("options", {}))
            assert isinstance(encoder, nn.Module)
            self.encoders[name] = encoder
            self.modalities[name] = encoder.modality
            if name not in ("lips", "speech"):
                self.heads[name] = StreamHead(encoder.dim, config)
        self.sharpness = nn.Parameter(torch.zeros(len(CLAIMS)))
        if {"lips", "speech"} <= set(config.streams):
            self.synchrony = Synchrony(config.lags)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Each module keeps its own initialisation."""

    def forward(
        self,
        waveform: Tensor | None = None,
        waveform_lengths: Tensor | None = None,
        speech: Tensor | None = None,
        mouth: Tensor | None = None,
        mouth_lengths: Tensor | None = None,
        found: Tensor | None = None,
        faces: Tensor | None = None,
        face_lengths: Tensor | None = None,
        labels: Tensor | None = None,
        true_lag: Tensor | None = None,
    ) -> FusionOutput:
        """Waveform [B, S] and lengths in samples (0: no sound); speech [B, T] where someone speaks;

        mouth [B, T, P] and lengths in frames; found [B, T]; faces [B, N, 3, H, W] uint8 or 0..1 and lengths in crops;
        labels [B, C] in {0, 1, nan}; true_lag [B] frames by which the sound is late, nan where unknown.
        """
        inputs = {
            "audio": (waveform, waveform_lengths),
            "mouth": (mouth, mouth_lengths),
            "face": (_as_float(faces, self.dtype), face_lengths),
        }
        batch = next(len(x) for x, _ in inputs.values() if x is not None)
        seconds = max(self._seconds(kind, x) for kind, (x, _) in inputs.items() if x is not None)
        steps = max(1, int(seconds * STEP_RATE + 0.5))
        encoded = self._encode(inputs, batch, labels)
        step_logits, step_valid = self._evidence(encoded, batch, steps, speech)
        sharpness = nn.functional.softplus(self.sharpness)
        clip_logits = soft_maximum(step_logits.transpose(1, 2), step_valid.transpose(1, 2), sharpness)
        output = FusionOutput(step_logits=step_logits, step_mask=step_valid)
        curve = self._curve(encoded, found)
        if curve is not None:
            index = CLAIMS.index(Claim.LIP_SYNC_MISMATCH)
            clip_logits = clip_logits.clone()
            clip_logits[:, index] = self.synchrony.logit(curve.total, curve.weight)
            local, valid = self.synchrony.local_logits(curve, steps, FRAME_RATE / STEP_RATE)
            output.step_logits = step_logits.index_copy(
                2, torch.tensor([index], device=local.device), local[..., None]
            )
            output.step_mask = step_valid.index_copy(
                2, torch.tensor([index], device=local.device), valid[..., None]
            )
            output.curve, output.curve_weight = curve.total, curve.weight
        output.clip_logits = clip_logits
        assert output.step_mask is not None
        output.claim_mask = output.step_mask.any(1)
        if labels is not None:
            output.loss = self._loss(output, labels, curve, true_lag)
        return output

    @staticmethod
    def _seconds(kind: str, x: Tensor) -> float:
        rate = {"audio": 16_000.0, "mouth": float(FRAME_RATE), "face": STEP_RATE}[kind]
        return x.shape[1] / rate

    def _encode(
        self, inputs: dict[str, tuple[Tensor | None, Tensor | None]], batch: int, labels: Tensor | None
    ) -> dict[str, EncoderOutput]:
        """Each stream over the rows that have its input and, where labels are given, whose labels can teach it."""
        encoded = {}
        for name, encoder in self.encoders.items():
            x, lengths = inputs[self.modalities[name]]
            if x is None or lengths is None or not bool((lengths > 0).any()):
                continue
            wanted = lengths > 0
            if labels is not None:
                wanted = wanted & ~labels[:, self._claims_of(name)].isnan().all(1)
            rows = torch.nonzero(wanted)[:, 0]
            if len(rows) == 0:
                continue
            longest = int(lengths[rows].max())  # other rows may be padded further for another stream
            out = encoder(x[rows, :longest], lengths[rows])
            features = out.features.new_zeros(batch, *out.features.shape[1:]).index_copy(
                0, rows, out.features
            )
            valid = torch.zeros_like(lengths).index_copy(0, rows, out.lengths.to(lengths.dtype))
            encoded[name] = EncoderOutput(features, valid, out.frame_rate)
        return encoded

    def _claims_of(self, stream: str) -> list[int]:
        """Indices of the claims that read a stream, itself or through the comparison of lips and speech."""
        names = {stream, SYNC} if stream in ("lips", "speech") else {stream}
        return [i for i, claim in enumerate(CLAIMS) if names & set(self.config.claims.get(claim.value, []))]

    def _evidence(
        self, encoded: dict[str, EncoderOutput], batch: int, steps: int, speech: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Sum over the streams that a claim reads [B, K, C], and where at least one of them was there."""
        device = self.sharpness.device
        total = torch.zeros(batch, steps, len(CLAIMS), device=device)
        valid = torch.zeros(batch, steps, len(CLAIMS), dtype=torch.bool, device=device)
        for name, head in self.heads.items():
            if name not in encoded:
                continue
            evidence, mask = head(encoded[name], steps)
            if speech is not None and self.modalities[name] == "audio":
                mask = mask & _speech_steps(speech, steps)
            mask = mask & self._kept(batch, device)[:, None]
            reads = mask[..., None] & self._reads(name).to(device)
            total = total + evidence.float() * reads
            valid = valid | reads
        return total, valid

    def _reads(self, stream: str) -> Tensor:
        """[C] which claims read a stream."""
        return torch.tensor([stream in self.config.claims.get(claim.value, []) for claim in CLAIMS])

    def _kept(self, batch: int, device: torch.device) -> Tensor:
        """[B] False where this stream is dropped; never for a model with a single stream per claim."""
        if not self.training or max(map(len, self.config.claims.values()), default=0) < 2:
            return torch.ones(batch, dtype=torch.bool, device=device)
        return torch.rand(batch, device=device) >= self.config.stream_dropout

    def _curve(self, encoded: dict[str, EncoderOutput], found: Tensor | None) -> SynchronyCurve | None:
        if not hasattr(self, "synchrony") or not {"lips", "speech"} <= set(encoded):
            return None
        curve: SynchronyCurve = self.synchrony(encoded["lips"], encoded["speech"], found)
        return curve

    def _loss(
        self, output: FusionOutput, labels: Tensor, curve: SynchronyCurve | None, true_lag: Tensor | None
    ) -> Tensor:
        """Masked cross-entropy per claim on clips and steps, and the contrastive loss of the sync pair."""
        assert output.clip_logits is not None and output.step_logits is not None
        assert output.claim_mask is not None and output.step_mask is not None
        known = ~labels.isnan() & output.claim_mask
        target = labels.nan_to_num(0.5) * 0.96 + 0.02
        clip = nn.functional.binary_cross_entropy_with_logits(output.clip_logits, target, reduction="none")
        per_step = target[:, None].expand_as(output.step_logits)
        step = nn.functional.binary_cross_entropy_with_logits(output.step_logits, per_step, reduction="none")
        step_known = output.step_mask & known[:, None]
        step = (step * step_known).sum(1) / step_known.sum(1).clamp_min(1)
        per_claim = ((clip + 0.3 * step) * known).sum(0) / known.sum(0).clamp_min(1)
        loss = per_claim.sum()
        if curve is not None and true_lag is not None:
            loss = loss + self.synchrony.contrastive_loss(curve, true_lag)
        return loss

    def pool(self, step_logits: Tensor, claim: Claim) -> float:
        """One logit for a whole clip from all its valid steps [K]: the same learned soft maximum as in a window."""
        index = CLAIMS.index(claim)
        sharpness = nn.functional.softplus(self.sharpness[index])
        mask = torch.ones_like(step_logits, dtype=torch.bool)
        return float(soft_maximum(step_logits, mask, sharpness).detach())


def _as_float(faces: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if faces is None or faces.is_floating_point():
        return faces
    return faces.to(dtype) / 255


def _speech_steps(speech: Tensor, steps: int) -> Tensor:
    """[B, T] on the video grid -> [B, steps]: whether someone speaks within the step."""
    per_step = int(FRAME_RATE / STEP_RATE)
    padded = nn.functional.pad(speech, (0, max(0, steps * per_step - speech.shape[1])))[:, : steps * per_step]
    return padded.unflatten(1, (steps, per_step)).any(2)
