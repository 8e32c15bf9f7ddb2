"""AASIST and AASIST-L: spectro-temporal graph attention on raw waveforms, as an encoder and as the published detector.

Jung et al., "AASIST: audio anti-spoofing using integrated spectro-temporal graph attention networks" (2021). The
network hears 64600 samples at a time and gives one embedding for them; `Aasist` is the encoder made of that, one step
per chunk. `AasistDetector` adds the authors' two-class output and reads the checkpoints that they publish.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from avdetect.encoders.graph_attention import GraphAttention, GraphPool, MixedGraphAttention
from avdetect.encoders.masking import step_mask
from avdetect.encoders.published import read_weights
from avdetect.encoders.raw_res import BANDS, RawResidualNetwork
from avdetect.errors import ConfigError, ModelError
from avdetect.types import SAMPLE_RATE, EncoderOutput

CHUNK = 64_600
"""Samples that the network hears at once: 4.04 s, in training and in every published score."""
AT_ONCE = 8
"""Chunks that the network hears together outside training: it takes about 45 MB for each."""
MIXED = 32
"""Features of nodes that know of both time and frequency."""
TEMPERATURE, MIXED_TEMPERATURE = 2.0, 100.0


@dataclass(frozen=True)
class Plan:
    """The sizes in which the two published networks differ; shares are of nodes that pooling keeps."""

    width: int
    spectral_share: float
    temporal_share: float
    mixed_share: float


FULL = Plan(64, 0.5, 0.7, 0.5)
LIGHT = Plan(24, 0.4, 0.5, 0.7)
PLANS = {"aasist": FULL, "aasist_l": LIGHT}


class Branch(nn.Module):
    """One of the two ways in which temporal and spectral nodes are brought together, with a master node of its own."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.master = nn.Parameter(torch.randn(1, 1, plan.width))
        self.first = MixedGraphAttention(plan.width, MIXED, MIXED_TEMPERATURE)
        self.temporal_pool = GraphPool(MIXED, plan.mixed_share)
        self.spectral_pool = GraphPool(MIXED, plan.mixed_share)
        self.second = MixedGraphAttention(MIXED, MIXED, MIXED_TEMPERATURE)
        self.dropout = nn.Dropout(0.2)

    def forward(self, temporal: Tensor, spectral: Tensor) -> list[Tensor]:
        """Temporal nodes, spectral nodes and the master, each [B, nodes, MIXED]."""
        master = self.master.expand(len(temporal), -1, -1)
        temporal, spectral, master = self.first(temporal, spectral, master)
        nodes = (self.temporal_pool(temporal), self.spectral_pool(spectral), master)
        changes = self.second(*nodes)
        return [self.dropout(node + change) for node, change in zip(nodes, changes, strict=True)]


class AasistNetwork(nn.Module):
    """Chunks of speech [B, CHUNK] -> embeddings [B, 5 * MIXED]."""

    def __init__(self, plan: Plan, masked: int = 20) -> None:
        super().__init__()
        self.front = RawResidualNetwork(plan.width, masked)
        self.position = nn.Parameter(torch.randn(1, BANDS, plan.width))
        self.spectral = GraphAttention(plan.width, plan.width, TEMPERATURE)
        self.temporal = GraphAttention(plan.width, plan.width, TEMPERATURE)
        self.spectral_pool = GraphPool(plan.width, plan.spectral_share)
        self.temporal_pool = GraphPool(plan.width, plan.temporal_share)
        self.branches = nn.ModuleList(Branch(plan) for _ in range(2))

    def forward(self, chunks: Tensor) -> Tensor:
        """[B, CHUNK] -> [B, 5 * MIXED]."""
        seen = self.front(chunks).abs().to(self.position.dtype)
        # Which nodes are kept hangs on small differences between scores: lower precision would choose others.
        with torch.autocast(chunks.device.type, enabled=False):
            return self._graphs(seen)

    def _graphs(self, seen: Tensor) -> Tensor:
        """Magnitudes [B, C, T, F] -> [B, 5 * MIXED]."""
        spectral = seen.amax(2).transpose(1, 2) + self.position
        temporal = seen.amax(3).transpose(1, 2)
        spectral = self.spectral_pool(self.spectral(spectral))
        temporal = self.temporal_pool(self.temporal(temporal))
        ways = [branch(temporal, spectral) for branch in self.branches]
        temporal, spectral, master = (torch.maximum(*nodes) for nodes in zip(*ways, strict=True))
        both = [summary for nodes in (temporal, spectral) for summary in (nodes.abs().amax(1), nodes.mean(1))]
        return torch.cat([*both, master[:, 0]], 1)


class Aasist(nn.Module):
    """Waveform [B, S] -> EncoderOutput [B, T, 160], a step every `hop` seconds.

    A step's features are those of the CHUNK of samples around it. Where that would begin before the row or end after
    it, it is moved inside; a row that is shorter than a chunk is repeated to its length, as the authors do. `hop` must
    not be longer than a chunk, its default; `masked`: see SincBands.
    """

    modality = "audio"
    dim = 5 * MIXED

    def __init__(self, plan: Plan, hop: float = CHUNK / SAMPLE_RATE, masked: int = 20) -> None:
        super().__init__()
        self.hop = round(hop * SAMPLE_RATE)
        if not 0 < self.hop <= CHUNK:
            raise ConfigError(f"hop = {hop!r} is not a time up to a chunk's {CHUNK / SAMPLE_RATE} seconds")
        self.network = AasistNetwork(plan, masked)

    def forward(self, inputs: Tensor, lengths: Tensor) -> EncoderOutput:
        """Features of speech `inputs` [B, S] at 16 kHz; `lengths` [B] in samples."""
        lengths = lengths.clamp(1, inputs.shape[1])
        steps = torch.div(lengths + self.hop - 1, self.hop, rounding_mode="floor")
        middle = (torch.arange(int(steps.max()), device=inputs.device) + 0.5) * self.hop
        starts = (middle - CHUNK / 2).long()[None].clamp_min(0)
        starts = torch.minimum(starts, (lengths - CHUNK).clamp_min(0)[:, None])
        mask = step_mask(starts.shape[1], steps)
        rows = torch.arange(len(inputs), device=inputs.device)[:, None].expand_as(starts)
        # Steps near a row's ends hear the same chunk, which is looked at once.
        wanted, which = torch.unique(torch.stack([rows[mask], starts[mask]], 1), dim=0, return_inverse=True)
        place = torch.arange(CHUNK, device=inputs.device) + wanted[:, 1:]
        chunks = inputs[wanted[:, :1], place % lengths[wanted[:, :1]]]
        # Batch norms in training need all at once; else some at a time, for the sake of memory in long recordings.
        parts = [chunks] if self.training else chunks.split(AT_ONCE)
        embedded = torch.cat([self.network(part) for part in parts])
        features = embedded.new_zeros(*mask.shape, self.dim)
        features[mask] = embedded[which]
        return EncoderOutput(features, steps, SAMPLE_RATE / self.hop)


class AasistDetector(nn.Module):
    """The whole published detector: the encoder, and a linear layer with two outputs."""

    def __init__(self, name: str = "aasist", **options: Any) -> None:
        super().__init__()
        if name not in PLANS:
            raise ConfigError(f"no published detector is called '{name}'; there are {', '.join(PLANS)}")
        self.name = name
        self.encoder = Aasist(PLANS[name], **options)
        self.dropout = nn.Dropout(0.5)
        self.output = nn.Linear(self.encoder.dim, 2)

    def forward(self, inputs: Tensor, lengths: Tensor) -> EncoderOutput:
        """Logits [B, T, 2] (spoof, bona fide) of speech [B, S], `lengths` [B] in samples; a step as in `Aasist`.

        The authors' own score of a recording is that of its first chunk: step 0.
        """
        out = self.encoder(inputs, lengths)
        mask = step_mask(out.features.shape[1], out.lengths)[..., None]
        return EncoderOutput(self.output(self.dropout(out.features)) * mask, out.lengths, out.frame_rate)

    def scores(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """[B, T] log-odds of spoof against bona fide, higher = more fake; 0 beyond a row's steps.

        The score files of the ASVspoof challenges have the other sign.
        """
        logits = self(inputs, lengths).features
        return logits[..., 0] - logits[..., 1]

    def save(self, path: Path) -> None:
        """Write the weights as safetensors."""
        values = {name: value.contiguous() for name, value in self.state_dict().items()}
        save_file(values, path, {"detector": self.name})

    @classmethod
    def load(cls, path: Path) -> AasistDetector:
        """The detector in evaluation mode, from a file that `save` wrote; ModelError where that is not one."""
        try:
            return cls._filled(path, load_file(path))
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path}: cannot be read as safetensors ({error})") from None

    @classmethod
    def from_published(cls, path: Path) -> AasistDetector:
        """The detector in evaluation mode, from a checkpoint (.pth) in the authors' format.

        Its sizes tell which of the two it is. Only tensors are unpickled; ModelError for a file with anything else in
        it, or of another network.
        """
        published = read_weights(path, "download AASIST.pth or AASIST-L.pth again from its authors")
        return cls._filled(path, _translated(published))

    @classmethod
    def _filled(cls, path: Path, values: Mapping[str, Tensor]) -> AasistDetector:
        """The detector whose sizes fit `values`, with these as its weights."""
        position = values.get("encoder.network.position")
        fitting = [
            n for n, plan in PLANS.items() if position is not None and position.shape[-1:] == (plan.width,)
        ]
        if not fitting:
            raise ModelError(
                f"{path}: these are not the weights of AASIST or AASIST-L; give AASIST.pth or AASIST-L.pth"
            )
        detector = cls(fitting[0])
        try:
            detector.load_state_dict(values)
        except RuntimeError as error:
            problem = " ".join(str(error).split())[:200]
            raise ModelError(f"{path}: the weights do not fit {fitting[0]} ({problem})") from None
        return detector.eval()


TRANSLATION = {
    "pos_S": "position",
    "first_bn": "front.norm",
    "encoder": "front.blocks",
    "conv1": "first",
    "bn2": "norm",
    "conv2": "second",
    "conv_downsample": "shortcut",
    "GAT_layer_S": "spectral",
    "GAT_layer_T": "temporal",
    "pool_S": "spectral_pool",
    "pool_T": "temporal_pool",
    **{f"master{n + 1}": f"branches.{n}.master" for n in range(2)},
    **{f"pool_hS{n + 1}": f"branches.{n}.spectral_pool" for n in range(2)},
    **{f"pool_hT{n + 1}": f"branches.{n}.temporal_pool" for n in range(2)},
    **{f"HtrgGAT_layer_ST{n + 1}1": f"branches.{n}.first" for n in range(2)},
    **{f"HtrgGAT_layer_ST{n + 1}2": f"branches.{n}.second" for n in range(2)},
    "bn": "norm",
    "proj": "score",
    "proj_type1": "temporal",
    "proj_type2": "spectral",
    "att_proj": "compare",
    "att_weight": "weight",
    "att_weight11": "both_temporal",
    "att_weight22": "both_spectral",
    "att_weight12": "mixed",
    "proj_with_att": "gather.attended",
    "proj_without_att": "gather.own",
    "att_projM": "master_compare",
    "att_weightM": "master_weight",
    "proj_with_attM": "master_gather.attended",
    "proj_without_attM": "master_gather.own",
}
"""The parts of the names in published checkpoints, and ours."""
UNUSED = re.compile(r"encoder\.\d\.0\.bn1\.")
"""Norms that the published network holds but does not apply."""


def _translated(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published checkpoint's weights under the names and in the shapes that they have here."""
    values = {}
    for name, value in published.items():
        if UNUSED.match(name):
            continue
        parts = re.sub(r"^(encoder\.\d)\.0\.", r"\1.", name).split(".")
        ours = ".".join(TRANSLATION.get(part, part) for part in parts)
        ours = (
            re.sub(r"^out_layer\.", "output.", ours) if parts[0] == "out_layer" else f"encoder.network.{ours}"
        )
        if parts[-1].startswith("att_weight"):
            value = value.flatten()
        elif value.ndim == 4:  # theirs are frequency by time
            value = value.transpose(2, 3)
        values[ours] = _without_subnormal(value)
    return values


def _without_subnormal(value: Tensor) -> Tensor:
    """Numbers below 1.2e-38 set to zero.

    Weight decay has left thousands of them in the published graph layers, where they make a CPU 20 times as slow.
    """
    if not value.is_floating_point():
        return value
    return torch.where(value.abs() < torch.finfo(value.dtype).tiny, torch.zeros_like(value), value)
