"""Streams trained in runs of their own, and joined into one model, as `training.apart` of a recipe asks for.

Streams that share no weight gain nothing from learning at the same time.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from avdetect import train as single
from avdetect.config import read_config
from avdetect.errors import ConfigError
from avdetect.folds import read_scores, write_scores
from avdetect.fusion_settings import SYNC
from avdetect.hub import load
from avdetect.joining import items_of, join_runs
from avdetect.linear_heads import KINDS
from avdetect.model_card import probes_of, write_card
from avdetect.network import COMPARED, MOUTH
from avdetect.processes import join
from avdetect.recipe import TrainConfig
from avdetect.run_folder import begin, difference_to, write_facts
from avdetect.side_by_side import pieces_of, train_pieces
from avdetect.types import Claim

EXAMPLES = {**KINDS, Claim.LIP_SYNC_MISMATCH: "sync"}
"""The examples of `MixSettings` that teach a claim."""


def train(
    recipe: Path,
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    fold: int | None = None,
    part: str | None = None,
    jobs: int = 1,
) -> Path:
    """Runs a recipe, in parts where it says so; gives the run folder. See `train.train` for the rest.

    A part that is finished is taken over. With `fold` each part runs that one; with `part` only the one of that name.
    With `jobs` so many folds and parts are trained at a time, see `side_by_side`.
    """
    if jobs < 1:
        raise ConfigError(f"--jobs {jobs}: give 1, or more to train at a time")
    config = read_config(TrainConfig, recipe, overrides)
    parts = parts_of(config) if config.training.apart else []
    if part is not None:
        config, parts = _named(parts, part), []
    elif parts and join().num_processes > 1:
        raise ConfigError(
            "training.apart: the parts run in one process; share them out by --part and --fold, or train all streams "
            "at once with training.apart=[]"
        )
    if jobs > 1:
        _side_by_side(
            config, parts, [str(recipe), *overrides], resume=resume, fold=fold, part=part, jobs=jobs
        )
    if not parts:
        return single.train(config, recipe, resume=resume, fold=fold)
    run = config.training.out / config.name
    if jobs == 1:  # or it was seen to above, before there was anything in its folder
        single.check_start(config, run, resume=resume, fold=fold)
    probes = probes_of([config.training.out / name for name in config.training.probes])
    for number, one in enumerate(parts, 1):
        print(f"part {number} of {len(parts)}: {one.name}", file=sys.stderr)
        if not _is_done(one):
            single.train(one, recipe, resume=resume, fold=fold)
    if fold is None:
        _put_together(config, parts, run, probes)
    return run


def _side_by_side(
    config: TrainConfig,
    parts: Sequence[TrainConfig],
    command: Sequence[str],
    *,
    resume: bool,
    fold: int | None,
    part: str | None,
    jobs: int,
) -> None:
    """Trains what of a run can be trained at the same time; what is wrong with it shows first."""
    if not parts and not config.training.folds:
        raise ConfigError(
            "--jobs: there is one model to train; training.folds and training.apart make several"
        )
    run = config.training.out / config.name
    single.check_start(config, run, resume=resume, fold=fold)
    probes_of([config.training.out / name for name in config.training.probes])
    unfinished = [one for one in parts if not _is_done(one)] if parts else [config]
    for one in unfinished:
        single.check_start(one, folder_of(one), resume=resume, fold=fold)
        single.build_model(one)
    runs = {one.name if parts else part: one for one in unfinished}
    pieces = pieces_of(runs, fold, whole=bool(parts) and fold is None)
    train_pieces(pieces, config, [*command, *(["--resume"] if resume else [])], jobs, run / "logs")


def _named(parts: Sequence[TrainConfig], name: str) -> TrainConfig:
    """The recipe of one part; ConfigError where none is called so."""
    for part in parts:
        if part.name == name:
            return part
    known = (
        f"the parts are {', '.join(part.name for part in parts)}" if parts else "training.apart names none"
    )
    raise ConfigError(f"there is no part '{name}': {known}")


def parts_of(config: TrainConfig) -> list[TrainConfig]:
    """The recipe of each part. ConfigError where the streams can't be trained so."""
    streams: dict[str, Any] = config.model.get("streams", {})
    groups = config.training.apart
    named = [name for group in groups for name in group]
    if sorted(named) != sorted(streams):
        wrong = sorted(set(named) ^ set(streams)) or sorted({n for n in named if named.count(n) > 1})
        raise ConfigError(
            f"training.apart: stream '{wrong[0]}' must stand in [model.streams] and in one group; the streams are "
            f"{', '.join(streams)}; training.apart=[] trains all at once"
        )
    parts = [_part(config, group) for group in groups]
    for part in parts:
        if not part.mix.batch:
            kinds = " and ".join(f"mix.{EXAMPLES[Claim(claim)]} = 0" for claim in part.model["claims"])
            raise ConfigError(
                f"training.apart: {part.name} has nothing to learn from, {kinds}; training.apart=[] trains all at once"
            )
    told = [claim for part in parts for claim in part.model["claims"]]
    split = {claim for claim in told if told.count(claim) > 1}
    for part in parts:
        shared = split & set(part.model["claims"])
        if shared and len(part.model["claims"]) > 1:
            raise ConfigError(
                f"training.apart: {sorted(shared)[0]} is told by several parts; {part.name} must tell nothing else"
            )
    if split and not config.training.folds:
        raise ConfigError(
            f"training.apart: {sorted(split)[0]} is told by several parts, which only folds can score together; give "
            "training.folds, or train all streams at once with training.apart=[]"
        )
    return parts


def _part(config: TrainConfig, group: Sequence[str]) -> TrainConfig:
    """The recipe with the streams of a group alone, and examples of what they tell."""
    compared = set(COMPARED) <= set(group)
    if not compared and set(group) & {*COMPARED, MOUTH}:
        raise ConfigError(f"training.apart: {' and '.join(COMPARED)} are compared; put them into one group")
    kept = {*group, *([SYNC] if compared else [])}
    claims = {
        claim: [name for name in names if name in kept]
        for claim, names in config.model.get("claims", {}).items()
        if kept & set(names)
    }
    if not claims:
        raise ConfigError(f"training.apart: no claim reads any of {', '.join(group)}")
    model = {
        **config.model,
        "streams": {name: config.model["streams"][name] for name in group},
        "claims": claims,
    }
    idle: dict[str, Any] = {kind: 0 for claim, kind in EXAMPLES.items() if claim.value not in claims}
    out = config.training.out / config.name / "parts"
    training = replace(config.training, apart=(), probes=(), out=out)
    return replace(
        config, name="-".join(group), model=model, mix=replace(config.mix, **idle), training=training
    )


def folder_of(part: TrainConfig) -> Path:
    """The run of a part."""
    return part.training.out / part.name


def _is_done(part: TrainConfig) -> bool:
    """Whether a part is finished, and was run as it would be now."""
    whole = [folder_of(part) / name for name in ("model/README.md", "scores.csv")]
    return all(file.is_file() for file in whole) and difference_to(folder_of(part), part) is None


def _put_together(
    config: TrainConfig, parts: Sequence[TrainConfig], run: Path, probes: Sequence[dict[str, Any]]
) -> None:
    """The model, scores and card of all parts."""
    whole = _Joining(run / "parts", config.data.manifest).of(parts)
    items = items_of(whole, config.data.manifest)
    begin(run, config)
    write_facts(run, config, items, 1)
    model, scores = load(whole / "model"), read_scores(whole / "scores.csv", items)
    # One command made all of it, so that no claim was taken over from another's run.
    vars(model.config).update(name=config.name, version=config.version, apart={})
    model.save_pretrained(run / "model", safe_serialization=True)
    write_scores(scores, items, run / "scores.csv")
    write_card(model, scores, run, probes)


@dataclass
class _Joining:
    """Joins runs in `folder`, each into one of its own."""

    folder: Path
    manifest: Path
    count: int = 0

    def of(self, parts: Sequence[TrainConfig]) -> Path:
        """The run of all parts."""
        runs: dict[tuple[str, ...], Path] = {}
        for part in parts:
            claims = tuple(part.model["claims"])
            runs[claims] = (
                self._joined(runs[claims], claims[0], folder_of(part), beside=True)
                if claims in runs
                else folder_of(part)
            )
        (_, whole), *others = runs.items()
        for claims, other in others:
            for claim in claims:
                whole = self._joined(whole, claim, other)
        return whole

    def _joined(self, run: Path, claim: str, other: Path, *, beside: bool = False) -> Path:
        self.count += 1
        out = self.folder / f"joined-{self.count}"
        shutil.rmtree(out, ignore_errors=True)  # of a run that was cut off
        join_runs(run=run, claim=Claim(claim), other=other, manifest=self.manifest, out=out, beside=beside)
        return out
