"""The network: streams of evidence, encoded apart, aligned in time and fused into three claims.

Every stream is optional, in the configuration and in each row of a batch: what is absent is masked and adds nothing,
so absence is never read as "real". Each claim reads only the streams that the configuration lists for it.

This is plain PyTorch, all that scoring needs. `fusion.FusionModel` is the same network as a transformers model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avdetect.cross_attention import CrossModalAttention
from avdetect.encoders import build_encoder
from avdetect.errors import ConfigError
from avdetect.fusion_layers import LinearHead, StreamHead, joined, resample_steps, soft_maximum, speech_steps
from avdetect.fusion_settings import STEP_RATE, SYNC, Fusion, FusionSettings
from avdetect.losses import claim_losses, teaching_rows
from avdetect.synchrony import FEATURES, LocalCurve, Synchrony, SynchronyCurve
from avdetect.types import CLAIMS, FRAME_RATE, Claim, EncoderByCrop, EncoderOutput

COMPARED = ("lips", "speech")
"""The streams whose comparison is the stream "sync"."""
MOUTH = "mouth"
"""A stream of this name beside those is compared with speech together with the lips (see `joined`)."""
MOUTH_CROPS = "mouth_crops"
"""The modality of streams that see mouth crops."""
LIP_SYNC = CLAIMS.index(Claim.LIP_SYNC_MISMATCH)


@dataclass
class FusionOutput:
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


@dataclass(frozen=True)
class _Compared:
    """Lips against speech in a batch: the windows' curves, and the curve around each fusion step."""

    curve: SynchronyCurve
    local: LocalCurve


class FusionNetwork(nn.Module):
    """Windows in, three claims out. See `batch.collate` for the inputs and FusionOutput for the outputs."""

    output_type: type[FusionOutput] = FusionOutput
    config: FusionSettings

    def __init__(self, config: FusionSettings) -> None:
        super().__init__()
        self.config = config
        self.assemble(config)

    def assemble(self, config: FusionSettings) -> None:
        """Builds what the settings name; ConfigError where they can't be."""
        config.check()
        self.encoders = nn.ModuleDict()
        self.modalities: dict[str, str] = {}
        self.resting: frozenset[str] = frozenset()  # streams to leave out, see `linear_heads`
        widths = {SYNC: FEATURES}
        if not self._joint:
            self.heads = nn.ModuleDict()
        for name, stream in config.streams.items():
            encoder = build_encoder(stream["encoder"], **stream.get("options", {}))
            assert isinstance(encoder, nn.Module)
            if hasattr(
                encoder, "options"
            ):  # what was read by name, written out: a saved model asks no hub for it
                config.streams = {**config.streams, name: {**stream, "options": encoder.options}}
            self.encoders[name] = encoder
            self.modalities[name] = encoder.modality
            widths[name] = encoder.dim
            if not self._joint and name not in self._compared:
                linear = stream.get("head") == "linear"
                self.heads[name] = LinearHead(encoder.dim) if linear else StreamHead(encoder.dim, config)
        self.sharpness = nn.Parameter(torch.zeros(len(CLAIMS)))
        if set(COMPARED) <= set(config.streams):
            _check_widths({name: widths[name] for name in self._compared if name in widths})
            self.synchrony = Synchrony(config.lags)
        if self._joint:
            asked = sorted({name for names in config.claims.values() for name in names})
            self.attention = CrossModalAttention({name: widths[name] for name in asked}, config)

    @property
    def _joint(self) -> bool:
        return self.config.fusion == Fusion.ATTENTION

    @property
    def _compared(self) -> tuple[str, ...]:
        """COMPARED, and the mouth where there are lips for it to stand beside."""
        return (*COMPARED, MOUTH) if "lips" in self.config.streams else COMPARED

    @property
    def sees_mouth_crops(self) -> bool:
        """Whether any stream reads mouth crops, so that `batch.collate` has to give them."""
        return MOUTH_CROPS in self.modalities.values()

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.sharpness.device

    def forward(
        self,
        waveform: Tensor | None = None,
        waveform_lengths: Tensor | None = None,
        speech: Tensor | None = None,
        mouth: Tensor | None = None,
        mouth_lengths: Tensor | None = None,
        found: Tensor | None = None,
        mouth_crops: Tensor | None = None,
        mouth_crop_lengths: Tensor | None = None,
        faces: Tensor | None = None,
        face_lengths: Tensor | None = None,
        labels: Tensor | None = None,
        true_lag: Tensor | None = None,
        num_items_in_batch: Tensor | None = None,
        known: Mapping[str, EncoderOutput] | None = None,
    ) -> FusionOutput:
        """Waveform [B, S] and lengths in samples (0: no sound); speech [B, T] where someone speaks;

        mouth [B, T, P] and lengths in frames; found [B, T]; mouth_crops [B, T, M, M] and lengths in frames;
        faces [B, N, 3, H, W] and lengths in crops, both kinds of crops uint8 or 0..1;
        labels [B, C] in {0, 1, nan}; true_lag [B] frames by which the sound is late, nan where unknown;
        num_items_in_batch [C + 1]: how many rows of a whole training step teach each claim (see `losses`);
        known: what streams make of the rows, from `hear` and `see`; they do not encode them again.
        """
        inputs = {
            "audio": (waveform, waveform_lengths),
            "mouth": (mouth, mouth_lengths),
            MOUTH_CROPS: (mouth_crops, mouth_crop_lengths),
            "face": (faces, face_lengths),
        }
        batch = next(len(x) for x, _ in inputs.values() if x is not None)
        seconds = max(self.seconds_of(kind, x) for kind, (x, _) in inputs.items() if x is not None)
        steps = max(1, int(seconds * STEP_RATE + 0.5))
        encoded = self._encode(inputs, batch, labels, known)
        compared = self._compare(encoded, found, steps)
        said: dict[str, tuple[Tensor, Tensor]] = {}
        if self._joint:
            logits, valid = self._attend(encoded, compared, batch, steps, speech)
        else:
            said = self._evidence(encoded, batch, steps, speech)
            logits, valid = self._add_up(said, batch, steps)
        logits, valid = self._with_sync(compared, logits, valid)
        output = self.output_type(
            clip_logits=self._clip_logits(compared, logits, valid),
            claim_mask=valid.any(1),
            step_logits=logits,
            step_mask=valid,
            curve=None if compared is None else compared.curve.total,
            curve_weight=None if compared is None else compared.curve.weight,
        )
        if labels is not None:
            output.loss = self._loss(output, labels, compared, true_lag, num_items_in_batch, said)
        return output

    def hear(self, waveform: Tensor, waveform_lengths: Tensor) -> dict[str, EncoderOutput]:
        """What each audio encoder makes of sound [B, S] alone, to be given to `forward` once faces are there."""
        return self._encode({"audio": (waveform, waveform_lengths)}, len(waveform), None)

    @property
    def seeing(self) -> dict[str, EncoderByCrop]:
        """The streams that see each face crop by itself, so that it can be encoded before its window is whole."""
        return {name: one for name, one in self.encoders.items() if isinstance(one, EncoderByCrop)}

    def see(self, stream: str, crops: Tensor) -> Tensor:
        """What a stream of `seeing` makes of face crops [M, 3, H, W], uint8 or 0..1: [M, dim]."""
        return self.seeing[stream].see(_as_float(crops))

    @staticmethod
    def seconds_of(kind: str, x: Tensor) -> float:
        """How long an input is, padding included; `kind`: its modality."""
        rates = {"audio": 16_000.0, "mouth": FRAME_RATE, MOUTH_CROPS: FRAME_RATE, "face": STEP_RATE}
        return x.shape[1] / rates[kind]

    def _encode(
        self,
        inputs: dict[str, tuple[Tensor | None, Tensor | None]],
        batch: int,
        labels: Tensor | None,
        known: Mapping[str, EncoderOutput] | None = None,
    ) -> dict[str, EncoderOutput]:
        """Each stream over the rows that have its input and, where labels are given, whose labels can teach it."""
        encoded = dict(known or {})
        for name, encoder in self.encoders.items():
            x, lengths = inputs.get(self.modalities[name], (None, None))
            if name in encoded or name in self.resting:
                continue
            if x is None or lengths is None or not bool((lengths > 0).any()):
                continue
            wanted = lengths > 0
            if labels is not None:
                wanted = wanted & ~labels[:, self._claims_of(name)].isnan().all(1)
            rows = torch.nonzero(wanted)[:, 0]
            if len(rows) == 0:
                continue
            longest = int(lengths[rows].max())  # other rows may be padded further for another stream
            out = encoder(_as_float(x[rows, :longest]), lengths[rows])
            features = out.features.new_zeros(batch, *out.features.shape[1:]).index_copy(
                0, rows, out.features
            )
            valid = torch.zeros_like(lengths).index_copy(0, rows, out.lengths.to(lengths.dtype))
            encoded[name] = EncoderOutput(features, valid, out.frame_rate)
        return encoded

    def _claims_of(self, stream: str) -> list[int]:
        """Indices of the claims that read a stream, itself or through the comparison of lips and speech."""
        names = {stream, SYNC} if stream in self._compared else {stream}
        return [i for i, claim in enumerate(CLAIMS) if names & set(self.config.claims.get(claim.value, []))]

    def inputs_of(self, claims: Iterable[Claim]) -> set[str]:
        """The modalities that these claims read."""
        wanted = {CLAIMS.index(claim) for claim in claims}
        return {self.modalities[name] for name in self.encoders if wanted & set(self._claims_of(name))}

    def _evidence(
        self, encoded: dict[str, EncoderOutput], batch: int, steps: int, speech: Tensor | None
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """What each stream says [B, K, C], zero where it says nothing, and where it says something [B, K, C]."""
        said = {}
        for name, head in self.heads.items():
            if name not in encoded:
                continue
            evidence, mask = head(encoded[name], steps)
            mask = self.spoken(name, mask, speech) & self._kept(name, batch)[:, None]
            reads = mask[..., None] & self._reads(name)
            said[name] = evidence.float() * reads, reads
        return said

    def _add_up(
        self, said: dict[str, tuple[Tensor, Tensor]], batch: int, steps: int
    ) -> tuple[Tensor, Tensor]:
        """Sum over the streams that a claim reads [B, K, C], and where at least one of them was there."""
        total = torch.zeros(batch, steps, len(CLAIMS), device=self.device)
        valid = torch.zeros(batch, steps, len(CLAIMS), dtype=torch.bool, device=self.device)
        for evidence, reads in said.values():
            total = total + evidence
            valid = valid | reads
        return total, valid

    def _attend(
        self,
        encoded: dict[str, EncoderOutput],
        compared: _Compared | None,
        batch: int,
        steps: int,
        speech: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """What the attention reads in all streams together [B, K, C], and where there was something to read."""
        streams = {}
        for name, output in encoded.items():
            if name in self.attention.project:
                x, mask = resample_steps(output, steps)
                streams[name] = x, self.spoken(name, mask, speech)
        if compared is not None and SYNC in self.attention.project:
            local = compared.local
            streams[SYNC] = self.synchrony.features(local.total, local.weight), local.present
        logits, valid = self.attention(streams, batch, steps)
        return logits, valid

    def spoken(self, stream: str, mask: Tensor, speech: Tensor | None) -> Tensor:
        """A stream's mask [B, K]; of sound, only where someone speaks."""
        if speech is None or self.modalities[stream] != "audio":
            return mask
        return mask & speech_steps(speech, mask.shape[1])

    def _reads(self, stream: str) -> Tensor:
        """[C] which claims read a stream."""
        reads = [stream in self.config.claims.get(claim.value, []) for claim in CLAIMS]
        return torch.tensor(reads, device=self.device)

    def _kept(self, stream: str, batch: int) -> Tensor:
        """[B] False where this stream is dropped; never where it is all that its claims read."""
        alone = all(names == [stream] for names in self.config.claims.values() if stream in names)
        if not self.training or alone:
            return torch.ones(batch, dtype=torch.bool, device=self.device)
        return torch.rand(batch, device=self.device) >= self.config.stream_dropout

    def _compare(
        self, encoded: dict[str, EncoderOutput], found: Tensor | None, steps: int
    ) -> _Compared | None:
        seen = [encoded[name] for name in ("lips", MOUTH) if name in encoded and name in self._compared]
        if not hasattr(self, "synchrony") or not seen or "speech" not in encoded:
            return None
        curve: SynchronyCurve = self.synchrony(joined(seen), encoded["speech"], found)
        return _Compared(curve, self.synchrony.around(curve, steps, FRAME_RATE / STEP_RATE))

    def _with_sync(self, compared: _Compared | None, logits: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Steps and their mask, with lip-sync told by the comparison and, where there is one, the attention beside it.

        Other streams alone say nothing of it: lips and speech must both be there.
        """
        index = torch.tensor([LIP_SYNC], device=self.device)
        if compared is None:
            return logits, valid.index_fill(2, index, False)
        local = compared.local
        step = self.synchrony.logit(local.total, local.weight)
        if self._joint:
            step = step + logits[..., LIP_SYNC]
        return logits.index_copy(2, index, step[..., None]), valid.index_copy(
            2, index, local.present[..., None]
        )

    def _clip_logits(self, compared: _Compared | None, logits: Tensor, valid: Tensor) -> Tensor:
        """[B, C]: the soft maximum of a claim's steps; for lip-sync see `_whole`."""
        sharpness = nn.functional.softplus(self.sharpness)
        pooled = soft_maximum(logits.transpose(1, 2), valid.transpose(1, 2), sharpness)
        if compared is None:
            return pooled
        whole = self._whole(compared.curve.total, compared.curve.weight, pooled[:, LIP_SYNC])
        index = torch.tensor([LIP_SYNC], device=self.device)
        return pooled.index_copy(1, index, whole[:, None])

    def _whole(self, total: Tensor, weight: Tensor, pooled: Tensor) -> Tensor:
        """[B] lip-sync logits of the curve over all steps; half of it is the steps' where attention reads them."""
        logit = self.synchrony.logit(total, weight)
        return (logit + pooled) / 2 if self._joint else logit

    def _loss(
        self,
        output: FusionOutput,
        labels: Tensor,
        compared: _Compared | None,
        true_lag: Tensor | None,
        counts: Tensor | None,
        said: dict[str, tuple[Tensor, Tensor]],
    ) -> Tensor:
        """Masked cross-entropy per claim on clips and steps, and the contrastive loss of the sync pair.

        `counts` [C + 1]: how many rows of the whole step teach each of them; None: this batch is all of it.
        """
        assert output.clip_logits is not None and output.step_logits is not None
        assert output.claim_mask is not None and output.step_mask is not None
        own = teaching_rows(labels, true_lag)
        total = (own if counts is None else counts).clamp_min(1)
        sums = claim_losses(
            output.clip_logits, output.step_logits, output.claim_mask, output.step_mask, labels
        )
        if self.config.own_loss and said:
            sums = sums + self.config.own_loss * (self._own_losses(said, labels, sums) - sums)
        loss = (sums / total[:-1]).sum()
        if compared is not None and true_lag is not None:
            loss = loss + self.synchrony.contrastive_loss(compared.curve, true_lag) * own[-1] / total[-1]
        return loss

    def _own_losses(self, said: dict[str, tuple[Tensor, Tensor]], labels: Tensor, together: Tensor) -> Tensor:
        """[C] the mean loss of a claim's streams, each taken for all of them; of a claim with one, `together`."""
        reading = torch.stack([self._reads(name) for name in self.heads]).sum(0)
        there = torch.stack([self._reads(name) for name in said]).sum(0)
        total = torch.zeros_like(together)
        for evidence, reads in said.values():
            alone = evidence * reading
            clips = self._clip_logits(None, alone, reads)
            total = total + claim_losses(clips, alone, reads.any(1), reads, labels)
        return torch.where(reading > 1, total / there.clamp_min(1), together)

    def pool(self, step_logits: Tensor, claim: Claim) -> float:
        """One logit for a whole clip from all its valid steps [K]: the same learned soft maximum as in a window."""
        index = CLAIMS.index(claim)
        sharpness = nn.functional.softplus(self.sharpness[index])
        mask = torch.ones_like(step_logits, dtype=torch.bool)
        return float(soft_maximum(step_logits, mask, sharpness).detach())

    def pool_sync(self, step_logits: Tensor, total: Tensor, weight: Tensor) -> float:
        """One lip-sync logit for a whole clip from its valid steps [K] and its summed curve [L], as in a window."""
        pooled = torch.tensor(self.pool(step_logits, Claim.LIP_SYNC_MISMATCH), device=total.device)
        return float(self._whole(total, weight, pooled).detach())


def _check_widths(compared: dict[str, int]) -> None:
    """ConfigError where streams that are compared have features of different widths."""
    if len(set(compared.values())) > 1:
        told = ", ".join(f"'{name}' {width}" for name, width in compared.items())
        raise ConfigError(f"streams that are compared differ in width ({told}); give them the same dim")


def _as_float(x: Tensor) -> Tensor:
    """Pictures of bytes as 0..1, all else as it is."""
    return x.float() / 255 if x.dtype == torch.uint8 else x
