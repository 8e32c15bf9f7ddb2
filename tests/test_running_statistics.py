"""What batch norms keep, of several processes: as if one process had seen every part in turn."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from avdetect import running_statistics
from avdetect.running_statistics import seen_by_all

PARTS = [0, 1, 2]
"""How often each of three processes passes its model: one of them has no row for its batch norms."""


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4, momentum=0.3)
    ).train()


def inputs(process: int) -> list[Tensor]:
    source = torch.Generator().manual_seed(process)
    return [torch.randn(5, 2, 20, generator=source) + process for _ in range(PARTS[process])]


def in_processes(start: nn.Module, monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The models of all processes after one part; what they would tell each other is gathered one by one first."""
    told: list[Tensor] = []

    def tell(own: Tensor) -> Tensor:
        told.append(own)
        return own

    def one(process: int) -> nn.Module:
        model = copy.deepcopy(start)
        with seen_by_all(model), torch.no_grad():
            for part in inputs(process):
                model(part)
        return model

    monkeypatch.setattr(running_statistics, "join", lambda: SimpleNamespace(num_processes=len(PARTS)))
    monkeypatch.setattr("accelerate.utils.gather", tell)
    for process in range(len(PARTS)):
        one(process)
    every = torch.cat(told)
    monkeypatch.setattr("accelerate.utils.gather", lambda _: every)
    return [one(process) for process in range(len(PARTS))]


def test_all_processes_keep_what_one_keeps_that_sees_the_parts_in_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = network()
    start(torch.randn(4, 2, 20))  # not what a batch norm begins with
    alone = copy.deepcopy(start)
    with torch.no_grad():
        for process in range(len(PARTS)):
            for part in inputs(process):
                alone(part)
    expected = alone.state_dict()
    assert expected["1.num_batches_tracked"] == 1 + sum(PARTS)
    for model in in_processes(start, monkeypatch):
        for name, value in model.state_dict().items():
            torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-7, msg=name)


def test_one_process_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.utils.gather", lambda _: pytest.fail("nobody to tell"))
    one, other = network(), network()
    with seen_by_all(one):
        one(inputs(1)[0])
    other(inputs(1)[0])
    assert all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_a_model_without_batch_norms_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_statistics, "join", lambda: SimpleNamespace(num_processes=2))
    told: list[Tensor] = []
    monkeypatch.setattr("accelerate.utils.gather", told.append)
    model = nn.Linear(2, 2)
    before = copy.deepcopy(model.state_dict())
    with seen_by_all(model):
        model(torch.ones(1, 2))
    assert not told and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
