"""Batch norms of several processes: running statistics as of one process that saw every micro-batch in turn.

A batch norm moves its running mean and variance r by each micro-batch's own s: r <- (1 - m) r + m s. Processes that
begin with the same r and see one micro-batch each end apart. So each tells what it added, and all add it in the order
of their ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from avdetect.processes import join

BatchNorm = nn.modules.batchnorm._BatchNorm


@contextmanager
def seen_by_all(model: nn.Module) -> Iterator[None]:
    """Around a forward pass in training: afterwards `model` has the same running statistics in every process.

    They must be the same before. A process whose batch norms rest, having no row for them, adds nothing. Statistics
    that are plain averages of all batches (momentum None) are left as they are.
    """
    norms = _moving(model) if join().num_processes > 1 else []
    if not norms:
        yield
        return
    from accelerate.utils import gather  # type: ignore[import-untyped]

    before, counts = _statistics(norms), _batches(norms)
    yield
    seen = _batches(norms) - counts
    added = _statistics(norms) - _kept(norms, seen) * before
    every: Tensor = gather(torch.cat([seen, added])[None])  # [processes, norms + statistics]
    seen, added = every[:, : len(norms)], every[:, len(norms) :]
    statistics = before
    for kept, more in zip(_kept(norms, seen), added, strict=True):
        statistics = kept * statistics + more
    _set(norms, statistics, counts + seen.sum(0))


def _moving(model: nn.Module) -> list[BatchNorm]:
    """The batch norms whose running statistics each batch moves by a fixed share."""
    norms = [module for module in model.modules() if isinstance(module, BatchNorm)]
    return [norm for norm in norms if norm.running_mean is not None and norm.momentum is not None]


def _statistics(norms: Sequence[BatchNorm]) -> Tensor:
    """All means and variances, norm after norm [N], in double precision."""
    both = [(norm.running_mean, norm.running_var) for norm in norms]
    return torch.cat([value.double() for pair in both for value in pair if value is not None])


def _batches(norms: Sequence[BatchNorm]) -> Tensor:
    """How many batches each norm has seen [K], in double precision."""
    return torch.stack([n.num_batches_tracked.double() for n in norms if n.num_batches_tracked is not None])


def _kept(norms: Sequence[BatchNorm], seen: Tensor) -> Tensor:
    """The share [..., N] of the old statistics that so many batches [..., K] have left."""
    share = torch.tensor([1 - (norm.momentum or 0.0) for norm in norms], dtype=seen.dtype, device=seen.device)
    sizes = torch.tensor([2 * norm.num_features for norm in norms], device=seen.device)
    return (share**seen).repeat_interleave(sizes, -1)


def _set(norms: Sequence[BatchNorm], statistics: Tensor, batches: Tensor) -> None:
    """Writes what `_statistics` and `_batches` read."""
    parts = iter(statistics.split([norm.num_features for norm in norms for _ in range(2)]))
    for norm, count in zip(norms, batches, strict=True):
        for value in (norm.running_mean, norm.running_var):
            assert value is not None
            value.copy_(next(parts))
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.copy_(count)
