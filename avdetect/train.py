"""Training: a TOML recipe and a manifest in, a run folder with a model, its numbers and its card out."""

from __future__ import annotations

import avdetect.compat  # noqa: F401  (must stand before transformers)

# isort: split
import copy
import difflib
import inspect
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from avdetect.calibration import calibrate
from avdetect.checkpoints import newest, processes_of
from avdetect.committee import committee
from avdetect.errors import ConfigError
from avdetect.folds import deal, read_scores, write_scores
from avdetect.fusion import FusionConfig, FusionModel
from avdetect.hub import load
from avdetect.linear_heads import fit_linear, linear_streams, resting, still_taught
from avdetect.manifest import read_manifest
from avdetect.model_card import probes_of, write_card, write_curves
from avdetect.prepared import PreparedClip, prepare_all
from avdetect.probes import without
from avdetect.processes import by_main, is_main, join
from avdetect.progress import track
from avdetect.recipe import DataSettings, TrainConfig
from avdetect.recordings import recordings_of
from avdetect.run_folder import begin, check_same, difference_to, write_facts
from avdetect.starts import start
from avdetect.trainer import ClaimTrainer, make_trainer
from avdetect.types import Item, Split
from avdetect.validation import Score, validate
from avdetect.windows import WindowSettings


def load_clips(items: Sequence[Item], data: DataSettings, label: str) -> list[PreparedClip]:
    """Prepared clips of the items; those that cannot be read are told on stderr and left out.

    The main process prepares them, the others find them prepared.
    """
    settings = WindowSettings(data.window, data.window)
    clips = []
    with join().main_process_first():
        workers = torch.get_num_threads() if is_main() else 1  # as many as cores, or as it may use of them
        found = prepare_all(items, data.cache, settings, workers)
        for clip in track(found, f"preparing {label}", len(items)) if is_main() else found:
            if clip.reason and is_main():
                print(f"left out: {clip.reason}", file=sys.stderr)
            elif clip.windows:
                clips.append(without(clip, data.hide))
    return clips


def without_left_out(items: Sequence[Item], names: Sequence[str]) -> list[Item]:
    """The items whose paths end in none of `names`."""
    ends = tuple(f"/{name.lstrip('/')}" for name in names)
    return [item for item in items if not (ends and item.path.absolute().as_posix().endswith(ends))]


def of_splits(items: Sequence[Item], splits: Sequence[str]) -> list[Item]:
    """Items of the named splits; ConfigError where there is none."""
    unknown = sorted(set(splits) - {split.value for split in Split})
    if unknown:
        raise ConfigError(f"no split is called '{unknown[0]}'; there are {', '.join(Split)}")
    wanted = {Split(name) for name in splits}
    chosen = [item for item in items if item.split in wanted]
    if not chosen:
        raise ConfigError(f"the manifest has no rows of split {' or '.join(splits)}")
    return chosen


def build_model(config: TrainConfig) -> FusionModel:
    """The recipe's model: a fresh one of [model], or the one that it goes on from."""
    if config.training.start is not None:
        if config.model:
            raise ConfigError(
                "[model] and training.start are both set: a started model keeps its own settings"
            )
        model = load(config.training.start)
        return _named(model, config)
    known = [name for name in inspect.signature(FusionConfig).parameters if name != "kwargs"]
    for name in config.model:
        _check_known(name, known, "[model]")  # transformers would keep it, unread
    settings = copy.deepcopy(config.model)
    begun = take_weights(settings.get("streams"))
    model = FusionModel(FusionConfig(**settings))
    starts = {
        name: start(model.encoders[name], settings["streams"][name]["encoder"], path)
        for name, path in begun.items()
    }
    if starts:
        vars(model.config).update(starts=starts)
    return _named(model, config)


def take_weights(streams: Any) -> dict[str, Path]:
    """Where the streams of [model] begin, taken out of their tables; ConfigError for what no stream can have."""
    begun = {}
    for name, stream in streams.items() if isinstance(streams, dict) else ():
        if not isinstance(stream, dict):
            continue  # FusionConfig tells what is wrong with it
        for key in stream:
            _check_known(key, ("encoder", "options", "head", "penalty", "weights"), f"[model.streams.{name}]")
        weights = stream.pop("weights", None)
        if weights is not None and not isinstance(weights, str):
            raise ConfigError(f"[model.streams.{name}]: weights = {weights!r} is not a file or folder")
        if weights is not None:
            begun[name] = Path(weights)
    return begun


def _check_known(name: str, known: Sequence[str], where: str) -> None:
    """ConfigError, with the nearest known name, for a setting that nobody would read."""
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
        raise ConfigError(f"{where}: unknown setting '{name}'; {hint}")


def _named(model: FusionModel, config: TrainConfig) -> FusionModel:
    """The same model, named as the recipe says; the 2-D convolutions of small encoders run faster on a CPU so."""
    vars(model.config).update(name=config.name, version=config.version)
    for weight in model.parameters():
        if weight.ndim == 4:  # there is no such order for the 3-D convolutions of video networks
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return model


def train(config: TrainConfig, recipe: Path, *, resume: bool = False, fold: int | None = None) -> Path:
    """One run of the settings of `recipe`; gives the run folder.

    With `resume` a run that was cut off goes on from its last checkpoint.

    With `fold` only that one of `training.folds` is run, so that several machines can share them; what they have
    finished is not run again. Under torchrun every process calls this, and the first one writes.
    """
    run = config.training.out / config.name
    by_main(lambda: check_start(config, run, resume=resume, fold=fold))
    probes = probes_of([config.training.out / name for name in config.training.probes])
    build_model(config)  # before the clips: what is wrong with it shows at once
    items = without_left_out(read_manifest(config.data.manifest), config.data.leave_out)
    train_items, held_items = of_splits(items, config.data.train), of_splits(items, config.data.validate)
    clips = load_clips(train_items, config.data, "training clips")
    held_out = load_clips(held_items, config.data, "validation clips")
    everything = [*clips, *held_out]
    job = Job(config, recipe, items, resume)
    if config.training.folds:
        wanted = [fold] if fold is not None else range(config.training.folds)
        scores = run_folds(job, everything, run, wanted)
        if fold is not None:
            return fold_folder(run, fold)
        trainer = fit(job, everything, [], run)
    else:
        trainer = fit(job, clips, held_out, run)
        scores = validate(trainer.fusion_model.float(), held_out) if is_main() else []
    if is_main():
        items = [clip.item for clip in everything]
        members = config.training.committee if config.training.folds else 1
        finish(trainer, scores, items, run, probes, members)
    return run


def check_start(config: TrainConfig, run: Path, *, resume: bool, fold: int | None) -> None:
    """ConfigError where the run can't be begun, or gone on with, in its folder."""
    folds = config.training.folds
    if fold is not None and not 0 <= fold < folds:
        raise ConfigError(f"there is no fold {fold}: training.folds = {folds}, counted from 0")
    busy = run / "model" if folds else run
    if fold is None and busy.exists() and any(busy.iterdir()) and not resume:
        raise ConfigError(f"{run}: holds a run already; add --resume to go on with it, or give another name=")


@dataclass(frozen=True)
class Job:
    """What all folds of a run share."""

    config: TrainConfig
    recipe: Path
    items: Sequence[Item]
    resume: bool


def fit(job: Job, clips: Sequence[PreparedClip], held_out: Sequence[PreparedClip], run: Path) -> ClaimTrainer:
    """A model trained on `clips`; the best checkpoint on `held_out`, or the last one where that is empty."""
    config = job.config
    torch.manual_seed(config.training.seed)
    model = build_model(config)
    recipes = [*getattr(model.config, "recipes", []), job.recipe.stem]
    sources = sorted({clip.item.source for clip in clips if clip.item.source})
    vars(model.config).update(recipes=recipes, folds=config.training.folds, sources=sources)
    model.resting = resting(model.train())
    learning = model.resting < set(model.encoders)
    mix = still_taught(model, config.mix) if learning else config.mix
    trainer = make_trainer(model, replace(config, mix=mix), clips, held_out, run)
    last = by_main(lambda: open_run(job, run))
    if learning:
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
    model.resting = frozenset()
    t = config.training
    if is_main():
        fit_linear(trainer.fusion_model, recordings_of(clips), config.mix, t.fit_batches, t.seed)
    return trainer


def open_run(job: Job, run: Path) -> Path | None:
    """Begins a run in its folder, or finds the checkpoint to go on from; ConfigError where that is another run's."""
    processes = join().num_processes
    last = None
    if job.resume and (run / "config.json").exists():
        check_same(run, job.config)
        last, remarks = newest(run / "checkpoints")
        for remark in remarks:
            print(remark, file=sys.stderr)
        if last is not None and processes_of(last) != processes:
            raise ConfigError(
                f"{last}: was written by {processes_of(last)} process(es), not {processes}: each step would see "
                "other examples; start as many again"
            )
        print(f"{run}: going on {f'from {last.name}' if last else 'from the beginning'}", file=sys.stderr)
    else:
        begin(run, job.config)
    write_facts(run, job.config, job.items, processes)
    return last


def fold_folder(run: Path, fold: int) -> Path:
    """Where a fold's scores and checkpoints lie."""
    return run / "folds" / str(fold)


def run_folds(job: Job, clips: Sequence[PreparedClip], run: Path, wanted: Sequence[int]) -> list[Score]:
    """The wanted folds' scores of the clips that each held out; those that are finished are read.

    Only the main process has scores to give.
    """
    items = [clip.item for clip in clips]
    places = deal(items, job.config.training.folds)
    scores: list[Score] = []
    for fold in wanted:
        folder = fold_folder(run, fold)
        done = folder / "scores.csv"
        if not by_main(partial(fold_is_done, folder, job.config)):
            rest = [clip for clip, place in zip(clips, places, strict=True) if place != fold]
            out = [clip for clip, place in zip(clips, places, strict=True) if place == fold]
            if is_main():
                print(f"fold {fold}: {len(rest)} clips to train on, {len(out)} held out", file=sys.stderr)
            trainer = fit(job, rest, [], folder)
            if is_main():
                model = trainer.fusion_model.float().eval()
                if linear_streams(model):
                    model.save_pretrained(folder / "model", safe_serialization=True)
                write_scores(validate(model, out), items, done)
        if is_main():
            scores += read_scores(done, items)
    return scores


def fold_model(run: Path, fold: int) -> FusionModel:
    """The model of a finished fold; ConfigError where its last checkpoint isn't whole."""
    fitted = fold_folder(run, fold) / "model"  # after its last step, see `linear_heads`
    if fitted.is_dir():
        return load(fitted)
    checkpoint, remarks = newest(fold_folder(run, fold) / "checkpoints")
    if checkpoint is None or remarks:
        raise ConfigError(
            f"{fold_folder(run, fold)}: its last checkpoint is missing or damaged; remove the folder and run "
            f"--fold {fold} again"
        )
    return load(checkpoint)


def fold_is_done(folder: Path, config: TrainConfig) -> bool:
    """Whether the fold in a folder is finished, and was run as it would be now."""
    return (folder / "scores.csv").is_file() and difference_to(folder, config) is None


def finish(
    trainer: ClaimTrainer,
    scores: Sequence[Score],
    items: Sequence[Item],
    run: Path,
    probes: Sequence[dict[str, Any]] = (),
    members: int = 1,
) -> None:
    """Calibrates the model on scores of clips that it, or its like in the folds, wasn't trained on, and writes it.

    With `training.committee` that is the mean of it and of models of the folds.
    """
    model = trainer.fusion_model.float().eval()
    if members > 1:
        model = committee([model, *(fold_model(run, fold) for fold in range(members - 1))])
        vars(model.config).update(committee=members)
    model.config.calibration, model.config.thresholds = calibrate(scores)
    model.save_pretrained(run / "model", safe_serialization=True)
    history = trainer.state.log_history
    (run / "metrics.json").write_text(json.dumps(history, indent=1) + "\n")
    write_curves(history, run / "curves.png")
    write_scores(scores, items, run / "scores.csv")
    write_card(model, scores, run, probes)
