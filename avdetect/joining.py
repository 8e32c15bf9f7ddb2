"""A claim from one run and the others from another: runs that trained claims apart become one model.

With `fusion = "evidence"` a claim reads streams of its own and nothing else, so that its streams, calibration and
thresholds can be taken over whole: what it says of a clip stays the same to the last bit.
"""

from __future__ import annotations

import avdetect.compat  # noqa: F401  (must stand before transformers)

# isort: split
import copy
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from avdetect.errors import ConfigError
from avdetect.folds import read_scores, write_scores
from avdetect.fusion import FusionModel
from avdetect.fusion_settings import SYNC, Fusion
from avdetect.hub import load
from avdetect.model_card import write_calibration, write_card
from avdetect.network import COMPARED
from avdetect.types import CLAIMS, Claim, Item
from avdetect.validation import Score


def joined_model(model: FusionModel, claim: Claim, other: FusionModel) -> FusionModel:
    """`model` with `claim` as `other` tells it. ConfigError where the claim's streams can't be told apart in both."""
    for one in (model, other):
        _check(one, claim)
    if model.config.window != other.config.window:
        raise ConfigError(
            f"the runs cut clips apart: windows are {model.config.window} and {other.config.window}; train again"
        )
    gone, taken = _streams(model, claim), _streams(other, claim)
    config = copy.deepcopy(model.config)
    config.streams = {
        **{name: stream for name, stream in model.config.streams.items() if name not in gone},
        **{name: copy.deepcopy(other.config.streams[name]) for name in taken},
    }
    if len(config.streams) < len(model.config.streams) - len(gone) + len(taken):
        raise ConfigError(
            f"both runs have a stream of the same name for different claims, of {', '.join(taken)}; rename it"
        )
    for table in ("claims", "calibration", "thresholds"):
        vars(config)[table] = {
            **getattr(config, table),
            claim.value: getattr(other.config, table)[claim.value],
        }
    recipes = {**getattr(config, "apart", {}), claim.value: list(getattr(other.config, "recipes", []))}
    sources = sorted({*getattr(config, "sources", []), *getattr(other.config, "sources", [])})
    vars(config).update(apart=recipes, sources=sources)
    joint = FusionModel(config)
    with torch.no_grad():
        joint.load_state_dict(_weights(model, claim, other))
    return joint.float().eval()


def _check(model: FusionModel, claim: Claim) -> None:
    if model.config.fusion != Fusion.EVIDENCE.value:
        raise ConfigError('claims can be joined where fusion = "evidence"; attention reads streams together')
    if claim.value not in model.config.claims:
        raise ConfigError(f"a model that is to be joined tells nothing of {claim.value}")
    mine = set(_streams(model, claim))
    for name in model.config.claims:
        shared = mine & set(_streams(model, Claim(name))) if name != claim.value else set()
        if shared:
            raise ConfigError(
                f"{claim.value} shares the stream {sorted(shared)[0]} with {name}: train both together"
            )


def _streams(model: FusionModel, claim: Claim) -> list[str]:
    """The configured streams that a claim reads, itself or through the comparison of lips and speech."""
    names = [name for name in model.config.claims.get(claim.value, []) if name != SYNC]
    if SYNC in model.config.claims.get(claim.value, []):
        names += [name for name in (*COMPARED, "mouth") if name in model.config.streams]
    return list(dict.fromkeys(names))


def _weights(model: FusionModel, claim: Claim, other: FusionModel) -> dict[str, torch.Tensor]:
    """All of `model` but the claim's streams, and those of `other`."""
    index = CLAIMS.index(claim)
    gone, taken = set(_streams(model, claim)), set(_streams(other, claim))

    def of(name: str, streams: set[str]) -> bool:
        part, stream = [*name.split("."), ""][:2]
        if part == "synchrony":
            return claim is Claim.LIP_SYNC_MISMATCH
        return part in ("encoders", "heads") and stream in streams

    mine, theirs = model.float().state_dict(), other.float().state_dict()
    out = {name: value for name, value in mine.items() if not of(name, gone)}
    out |= {name: value for name, value in theirs.items() if of(name, taken)}
    out["sharpness"] = mine["sharpness"].clone()
    out["sharpness"][index] = theirs["sharpness"][index]
    return out


def join_runs(
    run: Path, claim: Claim, other: Path, items: Sequence[Item], out: Path, version: str = ""
) -> None:
    """Writes a run folder `out`: the model of `run` with `claim` from `other`, the scores of both and a card.

    `items`: the clips of both runs, which must have seen the same manifest. ConfigError where they can't be joined.
    """
    if out.exists():
        raise ConfigError(f"{out}: is there already; give a new folder")
    facts = [_data(folder)["manifest_sha256"] for folder in (run, other)]
    if facts[0] != facts[1]:
        raise ConfigError(f"{run} and {other} were trained on different manifests")
    model = joined_model(load(run / "model"), claim, load(other / "model"))
    if version:
        vars(model.config).update(version=version)
    scores = joined_scores(
        read_scores(run / "scores.csv", items), claim, read_scores(other / "scores.csv", items)
    )
    disable_progress_bar()  # of every file that is saved
    out.mkdir(parents=True)
    model.save_pretrained(out / "model", safe_serialization=True)
    for name in ("config.json", "data.json"):
        shutil.copyfile(run / name, out / name)
    write_scores(scores, items, out / "scores.csv")
    write_calibration(model, scores, out / "calibration.png")
    write_card(model, scores, out)


def joined_scores(scores: Sequence[Score], claim: Claim, others: Sequence[Score]) -> list[Score]:
    """The scores of all other claims, and those of `claim` from `others`."""
    return [s for s in scores if s.claim is not claim] + [s for s in others if s.claim is claim]


def _data(run: Path) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads((run / "data.json").read_text(encoding="utf-8"))
        return {"manifest_sha256": found["manifest_sha256"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{run}: not a finished run, data.json is missing or damaged") from None
