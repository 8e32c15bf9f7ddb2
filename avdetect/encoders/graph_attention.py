"""Graph attention over spectral and temporal nodes, as AASIST has it: every node is joined to every other.

Jung et al., "AASIST: audio anti-spoofing using integrated spectro-temporal graph attention networks" (2021), sections 3
and 4; graph pooling after Gao & Ji, "Graph U-Nets" (2019). Node features are [B, N, D].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def _weight(dim: int) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(dim, 1))[:, 0])


def _pairs(x: Tensor) -> Tensor:
    """Products of the features of all pairs: [B, N, D] -> [B, N, N, D]."""
    return x[:, :, None] * x[:, None]


class Gather(nn.Module):
    """Nodes and what they attend to, each through a projection of its own: the sum of the two."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.attended = nn.Linear(inputs, outputs)
        self.own = nn.Linear(inputs, outputs)

    def forward(self, attention: Tensor, x: Tensor, own: Tensor) -> Tensor:
        """`attention` [B, M, N] over nodes `x` [B, N, D], for `own` [B, M, D] -> [B, M, outputs]."""
        return self.attended(attention @ x) + self.own(own)


class NodeNorm(nn.BatchNorm1d):
    """Batch norm over all nodes [B, N, D], and SELU."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]."""
        return functional.selu(super().forward(x.flatten(0, 1))).view_as(x)


class GraphAttention(nn.Module):
    """Attention among nodes of one kind: [B, N, inputs] -> [B, N, outputs]."""

    def __init__(self, inputs: int, outputs: int, temperature: float, dropout: float = 0.2) -> None:
        super().__init__()
        self.temperature = temperature
        self.dropout = nn.Dropout(dropout)
        self.compare = nn.Linear(inputs, outputs)
        self.weight = _weight(outputs)
        self.gather = Gather(inputs, outputs)
        self.norm = NodeNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, inputs] -> [B, N, outputs]."""
        x = self.dropout(x)
        scores = torch.tanh(self.compare(_pairs(x))) @ self.weight
        return self.norm(self.gather(torch.softmax(scores / self.temperature, -1), x, x))


class MixedGraphAttention(nn.Module):
    """Attention among temporal and spectral nodes, and of a master node that gathers from all of them.

    Who is compared (two temporal nodes, two spectral ones, one of each) decides with which weights.
    """

    def __init__(self, inputs: int, outputs: int, temperature: float, dropout: float = 0.2) -> None:
        super().__init__()
        self.temperature = temperature
        self.dropout = nn.Dropout(dropout)
        self.temporal = nn.Linear(inputs, inputs)
        self.spectral = nn.Linear(inputs, inputs)
        self.compare = nn.Linear(inputs, outputs)
        self.both_temporal = _weight(outputs)
        self.both_spectral = _weight(outputs)
        self.mixed = _weight(outputs)
        self.gather = Gather(inputs, outputs)
        self.norm = NodeNorm(outputs)
        self.master_compare = nn.Linear(inputs, outputs)
        self.master_weight = _weight(outputs)
        self.master_gather = Gather(inputs, outputs)

    def forward(self, temporal: Tensor, spectral: Tensor, master: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`master` [B, 1, inputs]; gives the three with `outputs` features."""
        x = self.dropout(torch.cat([self.temporal(temporal), self.spectral(spectral)], 1))
        among = torch.softmax(self._scores(x, temporal.shape[1]) / self.temperature, -1)
        told = torch.tanh(self.master_compare(x * master)) @ self.master_weight
        master = self.master_gather(torch.softmax(told / self.temperature, -1)[:, None], x, master)
        y = self.norm(self.gather(among, x, x))
        return y[:, : temporal.shape[1]], y[:, temporal.shape[1] :], master

    def _scores(self, x: Tensor, temporal: int) -> Tensor:
        """[B, N, N]; the first `temporal` nodes are temporal ones."""
        compared = torch.tanh(self.compare(_pairs(x)))
        weights = torch.stack([self.both_temporal, self.both_spectral, self.mixed], 1)
        both_temporal, both_spectral, mixed = (compared @ weights).unbind(-1)
        upper = torch.cat([both_temporal[:, :temporal, :temporal], mixed[:, :temporal, temporal:]], 2)
        lower = torch.cat([mixed[:, temporal:, :temporal], both_spectral[:, temporal:, temporal:]], 2)
        return torch.cat([upper, lower], 1)


class GraphPool(nn.Module):
    """Keeps the nodes that score best, times their scores: [B, N, D] -> [B, max(1, int(share * N)), D]."""

    def __init__(self, inputs: int, share: float, dropout: float = 0.3) -> None:
        super().__init__()
        self.share = share
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Linear(inputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, M, D], the best first."""
        scores = torch.sigmoid(self.score(self.dropout(x)))
        best = scores.topk(max(1, int(self.share * x.shape[1])), 1).indices
        return (x * scores).gather(1, best.expand(-1, -1, x.shape[2]))
