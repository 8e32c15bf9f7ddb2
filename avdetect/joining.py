"""A claim from one run and the others from another: runs that trained claims apart become one model.

With `fusion = "evidence"` a claim reads streams of its own and nothing else, so that its streams, calibration and
thresholds can be taken over whole: what it says of a clip stays the same to the last bit. Or the claim reads the
streams of both runs: what it says is then the mean of all of them, and is scored and calibrated anew on what the folds
held out.
"""

from __future__ import annotations

import avdetect.compat  # noqa: F401  (must stand before transformers)

# isort: split
import copy
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from avdetect.calibration import calibrate
from avdetect.committee import called
from avdetect.config import build
from avdetect.errors import ConfigError
from avdetect.folds import deal, read_scores, write_scores
from avdetect.fusion import FusionConfig, FusionModel
from avdetect.fusion_settings import SYNC, Fusion
from avdetect.hub import load
from avdetect.manifest import read_manifest
from avdetect.model_card import write_card
from avdetect.network import COMPARED
from avdetect.recipe import DataSettings
from avdetect.train import fold_folder, fold_model, load_clips, of_splits, without_left_out
from avdetect.types import CLAIMS, Claim, Item
from avdetect.validation import Score, validate


def joined_model(
    model: FusionModel, claim: Claim, other: FusionModel, *, beside: bool = False
) -> FusionModel:
    """`model` with `claim` as `other` tells it, or `beside` as the mean of the streams of both tells it.

    `model` need not tell the claim yet, unless it is `beside`. ConfigError where its streams can't be told apart in
    both. Calibration and thresholds are those of `other`.
    """
    _check_fusion(model)
    for one in (model, other) if beside or claim.value in model.config.claims else (other,):
        _check(one, claim)
    if beside:
        _check_beside(model, claim, other)
    if model.config.window != other.config.window:
        raise ConfigError(
            f"the runs cut clips apart: windows are {model.config.window} and {other.config.window}; train again"
        )
    gone, taken = [] if beside else _streams(model, claim), _streams(other, claim)
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
    recipes = _apart(config, claim, other.config, beside=beside)
    if beside:
        config.claims[claim.value] = [*model.config.claims[claim.value], *taken]
    sources = sorted({*getattr(config, "sources", []), *getattr(other.config, "sources", [])})
    vars(config).update(apart=recipes, sources=sources)
    joint = FusionModel(config)
    with torch.no_grad():
        joint.load_state_dict(_weights(model, claim, other, beside=beside))
    return joint.float().eval()


def _apart(mine: FusionConfig, claim: Claim, theirs: FusionConfig, *, beside: bool) -> dict[str, list[str]]:
    """The recipes of each claim that was not trained with the others."""
    known: dict[str, list[str]] = getattr(mine, "apart", {})
    own = known.get(claim.value, list(getattr(mine, "recipes", []))) if beside else []
    taken = getattr(theirs, "apart", {}).get(claim.value, list(getattr(theirs, "recipes", [])))
    return {**known, claim.value: list(dict.fromkeys([*own, *taken]))}


def _check_beside(model: FusionModel, claim: Claim, other: FusionModel) -> None:
    if claim is Claim.LIP_SYNC_MISMATCH:
        raise ConfigError(
            f"{claim.value} is told by one pair of streams; those of two runs can't stand beside each other"
        )
    both = sorted(set(_streams(model, claim)) & set(_streams(other, claim)))
    if both:
        raise ConfigError(f"both runs have a stream called {both[0]}; rename it in one of them")
    sizes = [getattr(one.config, "committee", 1) for one in (model, other)]
    if sizes[0] != sizes[1]:
        raise ConfigError(
            f"the runs' models are the mean of {sizes[0]} and of {sizes[1]}; give both the same training.committee"
        )


def _check_fusion(model: FusionModel) -> None:
    if model.config.fusion != Fusion.EVIDENCE.value:
        raise ConfigError('claims can be joined where fusion = "evidence"; attention reads streams together')


def _check(model: FusionModel, claim: Claim) -> None:
    _check_fusion(model)
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


def _weights(
    model: FusionModel, claim: Claim, other: FusionModel, *, beside: bool
) -> dict[str, torch.Tensor]:
    """All of `model` but the claim's streams, and those of `other`; `beside`: of both, each with its share."""
    index = CLAIMS.index(claim)
    own, taken = set(_streams(model, claim)), set(_streams(other, claim))
    gone = set() if beside else own

    def of(name: str, streams: set[str]) -> bool:
        part, stream = [*name.split("."), ""][:2]
        if part == "synchrony":
            return claim is Claim.LIP_SYNC_MISMATCH
        return part in ("encoders", "heads") and stream in streams

    mine, theirs = model.float().state_dict(), other.float().state_dict()
    out = {name: value for name, value in mine.items() if not of(name, gone)}
    out |= {name: value for name, value in theirs.items() if of(name, taken)}
    counts = _told_apart(model, own), _told_apart(other, taken)
    share = counts[0] / sum(counts) if beside else 0.0
    if beside:
        for name in [name for name in out if name.startswith("heads.") and ".evidence." in name]:
            part = share if of(name, own) else 1 - share if of(name, taken) else 1.0
            out[name] = out[name] * part
    sharpness = share * mine["sharpness"] + (1 - share) * theirs["sharpness"]
    out["sharpness"] = mine["sharpness"].clone()
    out["sharpness"][index] = sharpness[index]
    return out


def _told_apart(model: FusionModel, streams: set[str]) -> int:
    """How many streams a recipe names for these: a committee has each of them once for every member, or for all."""
    numbers = range(1, getattr(model.config, "committee", 1))
    return len(streams - {called(name, number) for name in streams for number in numbers})


def join_runs(
    *,
    run: Path,
    claim: Claim,
    other: Path,
    manifest: Path,
    out: Path,
    name: str = "",
    version: str = "",
    beside: bool = False,
) -> None:
    """Writes a run folder `out`: the model of `run` with `claim` from `other`, the scores of both and a card.

    `manifest`: what both were trained on. `beside`: the claim reads the streams of both runs, and is scored by the
    models of their folds. `name`, `version`: of the joined model, those of `run` where empty. ConfigError where they
    can't be joined.
    """
    if out.exists():
        raise ConfigError(f"{out}: is there already; give a new folder")
    facts = [_data(folder)["manifest_sha256"] for folder in (run, other)]
    if facts[0] != facts[1]:
        raise ConfigError(f"{run} and {other} were trained on different manifests")
    items = items_of(run, manifest)
    model = joined_model(load(run / "model"), claim, load(other / "model"), beside=beside)
    told = {key: value for key, value in (("name", name), ("version", version)) if value}
    vars(model.config).update(told)
    folds: list[FusionModel] = []
    if beside:
        folds, others = folds_beside(run, claim, other, items, manifest)
        fit, limits = calibrate(others)
        model.config.calibration[claim.value] = fit[claim.value]
        model.config.thresholds[claim.value] = limits[claim.value]
    else:
        others = read_scores(other / "scores.csv", items)
    scores = joined_scores(read_scores(run / "scores.csv", items), claim, others)
    disable_progress_bar()  # of every file that is saved
    out.mkdir(parents=True)
    model.save_pretrained(out / "model", safe_serialization=True)
    for number, fold in enumerate(folds):  # so that a third run can be joined beside these two
        fold.save_pretrained(fold_folder(out, number) / "model", safe_serialization=True)
    for name in ("config.json", "data.json"):
        shutil.copyfile(run / name, out / name)
    write_scores(scores, items, out / "scores.csv")
    write_card(model, scores, out)


def items_of(run: Path, manifest: Path) -> list[Item]:
    """The clips of the manifest that a run was trained and scored on."""
    return without_left_out(read_manifest(manifest), _settings(run)["data"].get("leave_out", []))


def folds_beside(
    run: Path, claim: Claim, other: Path, items: Sequence[Item], manifest: Path
) -> tuple[list[FusionModel], list[Score]]:
    """The models of both runs' folds, joined, and what each says with `claim` of those `items` that it held out.

    The clips come from the cache of `run`. ConfigError where the folds held out other clips, or their models are gone.
    """
    mine, theirs = _settings(run), _settings(other)
    for section, name in (("data", "leave_out"), ("data", "hide"), ("data", "window"), ("training", "folds")):
        one, two = (settings[section].get(name) for settings in (mine, theirs))
        if one != two:
            raise ConfigError(
                f"{run} and {other} were trained on different clips: {section}.{name} is {one} and {two}"
            )
    if not mine["training"].get("folds"):
        raise ConfigError(
            f"{run}: has no folds to score anew what both say together; train with training.folds"
        )
    models = [
        joined_model(fold_model(run, fold), claim, fold_model(other, fold), beside=True)
        for fold in range(mine["training"]["folds"])
    ]
    data = build(DataSettings, {**mine["data"], "manifest": str(manifest)}, str(run / "config.json"))
    clips = [
        clip
        for split in (data.train, data.validate)
        for clip in load_clips(of_splits(items, split), data, "clips")
    ]
    places = deal([clip.item for clip in clips], len(models))
    scores: list[Score] = []
    for fold, model in enumerate(models):
        held = [clip for clip, place in zip(clips, places, strict=True) if place == fold]
        wanted = [clip for clip in held if clip.item.label[claim] is not None]
        scores += [score for score in validate(model, wanted) if score.claim is claim]
    known = {(item.path, item.audio_path): item for item in items}  # a prepared clip has an item of its own
    return models, [replace(s, item=known[s.item.path, s.item.audio_path]) for s in scores]


def _settings(run: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((run / "config.json").read_text(encoding="utf-8"))
        return {"data": dict(found["data"]), "training": dict(found.get("training", {}))}
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{run}: not a finished run, config.json is missing or damaged") from None


def joined_scores(scores: Sequence[Score], claim: Claim, others: Sequence[Score]) -> list[Score]:
    """The scores of all other claims, and those of `claim` from `others`."""
    return [s for s in scores if s.claim is not claim] + [s for s in others if s.claim is claim]


def _data(run: Path) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads((run / "data.json").read_text(encoding="utf-8"))
        return {"manifest_sha256": found["manifest_sha256"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{run}: not a finished run, data.json is missing or damaged") from None
