"""Several models as one: the mean of what each says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_fusion import STREAMS, make_batch, make_model, run

from avdetect.committee import committee
from avdetect.config import read_config
from avdetect.errors import ConfigError
from avdetect.fusion import FusionModel
from avdetect.loading import load_network
from avdetect.recipe import TrainConfig
from avdetect.types import CLAIMS, Claim

LIP_SYNC = CLAIMS.index(Claim.LIP_SYNC_MISMATCH)


def members(count: int = 3) -> list[FusionModel]:
    made = [make_model() for _ in range(count)]
    for seed, model in enumerate(made):
        torch.manual_seed(seed)
        with torch.no_grad():
            for weight in model.parameters():
                weight += 0.1 * torch.randn_like(weight)
    return made


def test_steps_are_the_mean_of_the_members() -> None:
    some, batch = members(), make_batch()
    alone = [run(one, **batch) for one in some]
    joint = run(committee(some), **batch)
    assert joint.step_logits is not None and joint.step_mask is not None
    for index, claim in enumerate(CLAIMS):
        if index == LIP_SYNC:
            continue
        every = torch.stack([one.step_logits[..., index] for one in alone])  # type: ignore[index]
        assert every.std(0).max() > 0.01
        assert torch.allclose(joint.step_logits[..., index], every.mean(0), atol=1e-5), claim
        assert torch.equal(joint.step_mask[..., index], alone[0].step_mask[..., index])  # type: ignore[index]


def test_lips_and_speech_are_compared_by_the_mean_similarity() -> None:
    some, batch = members(), make_batch()
    alone = [run(one, **batch) for one in some]
    joint = run(committee(some), **batch)
    assert joint.curve is not None and joint.curve_weight is not None
    every = torch.stack([one.curve for one in alone])  # type: ignore[misc]
    assert torch.allclose(joint.curve, every.mean(0), atol=1e-4)
    assert torch.equal(joint.curve_weight, alone[0].curve_weight)  # type: ignore[arg-type]


def test_a_committee_of_one_is_that_model() -> None:
    (one,), batch = members(1), make_batch()
    mine, joint = run(one, **batch).clip_logits, run(committee([one]), **batch).clip_logits
    assert mine is not None and joint is not None and torch.allclose(mine, joint, atol=1e-6)


def test_it_is_saved_and_read_as_any_model(tmp_path: Path) -> None:
    joint, batch = committee(members(2)), make_batch()
    joint.save_pretrained(tmp_path / "model", safe_serialization=True)
    again = run(load_network(tmp_path / "model"), **batch).clip_logits
    now = run(joint, **batch).clip_logits
    assert now is not None and again is not None and torch.equal(now, again)


def test_models_of_other_streams_cannot_sit_in_it() -> None:
    smaller = make_model(
        {name: STREAMS[name] for name in ("lips", "speech")}, claims={"lip_sync_mismatch": ["sync"]}
    )
    with pytest.raises(ConfigError, match="the same streams"):
        committee([*members(1), smaller])


def test_a_recipe_cannot_ask_for_more_members_than_there_are() -> None:
    recipe = Path("avdetect/recipes/base.toml")
    with pytest.raises(ConfigError, match=r"committee = 6: there are 5 models to take"):
        read_config(TrainConfig, recipe, ["training.committee=6"])
    assert (
        read_config(TrainConfig, recipe, ["training.folds=0"]).training.folds == 0
    )  # one model, whatever base says
