"""Training: a TOML recipe and a manifest in, a run folder with a model, its numbers and its card out.

The loop is transformers' Trainer; what is ours is the data (an index is an example, so a resumed run sees the same
ones), the validation (whole clips, per claim) and what is written down about a run.
"""

from __future__ import annotations

import avdetect.compat  # noqa: F401  (must stand before transformers)

# isort: split
import difflib
import inspect
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from avdetect import metrics
from avdetect.calibration import calibrate
from avdetect.config import read_config
from avdetect.errors import ConfigError
from avdetect.folds import deal, read_scores, write_scores
from avdetect.fusion import FusionConfig, FusionModel
from avdetect.hub import load
from avdetect.manifest import read_manifest
from avdetect.model_card import probes_of, write_calibration, write_card, write_curves
from avdetect.prepared import PreparedClip, prepare_all
from avdetect.probes import without
from avdetect.progress import track
from avdetect.recipe import DataSettings, TrainConfig
from avdetect.recordings import ExampleSet, collate_examples, recordings_of
from avdetect.types import CLAIMS, Item, Split
from avdetect.validation import Score, arrays, validate
from avdetect.windows import WindowSettings


class ClaimTrainer(Trainer):
    """Trainer that draws batches in order and validates whole clips."""

    def __init__(self, *args: Any, clips: Sequence[PreparedClip], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.clips = clips

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> torch.utils.data.Sampler[int]:
        assert isinstance(self.train_dataset, ExampleSet)
        return torch.utils.data.SequentialSampler(self.train_dataset)

    @property
    def fusion_model(self) -> FusionModel:
        """The model without what accelerate wraps around it."""
        model = self.accelerator.unwrap_model(self.model)
        assert isinstance(model, FusionModel)
        return model

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """AUC and EER per claim on the validation clips, and the mean AUC as `eval_score`."""
        began = time.perf_counter()
        results = {
            f"eval_{name}": value for name, value in validation_metrics(self.fusion_model, self.clips).items()
        }
        results["eval_runtime"] = time.perf_counter() - began
        self.log(results)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, results)
        return results


def validation_metrics(model: FusionModel, clips: Sequence[PreparedClip]) -> dict[str, float]:
    """AUC and EER per claim, and their mean AUC as `score`."""
    model.eval()
    scores, results = validate(model, clips), {}
    for claim in CLAIMS:
        logits, fake = arrays(scores, claim)
        if len(set(fake.tolist())) == 2:
            results[f"{claim.value}_auc"] = metrics.auc(logits, fake)
            results[f"{claim.value}_eer"] = metrics.eer(logits, fake)
    values = [value for name, value in results.items() if name.endswith("_auc")]
    results["score"] = float(np.mean(values)) if values else 0.0
    return results


def load_clips(items: Sequence[Item], data: DataSettings, label: str) -> list[PreparedClip]:
    """Prepared clips of the items; those that cannot be read are told on stderr and left out."""
    settings = WindowSettings(data.window, data.window)
    clips = []
    for clip in track(prepare_all(items, data.cache, settings), f"preparing {label}", len(items)):
        if clip.reason:
            print(f"left out: {clip.reason}", file=sys.stderr)
        elif clip.windows:
            clips.append(without(clip, data.hide))
    return clips


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
        model.config.name, model.config.version = config.name, config.version
        return _channels_last(model)
    known = [name for name in inspect.signature(FusionConfig).parameters if name != "kwargs"]
    for name in config.model:
        if name not in known:  # transformers would keep it, unread
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"[model]: unknown setting '{name}'; {hint}")
    settings = FusionConfig(**config.model)
    settings.name, settings.version = config.name, config.version
    return _channels_last(FusionModel(settings))


def _channels_last(model: FusionModel) -> FusionModel:
    """The same model; the 2-D convolutions of small encoders run faster on a CPU so."""
    model.to(memory_format=torch.channels_last)  # type: ignore[call-arg]  # transformers narrows the signature
    return model


def train(
    recipe: Path, overrides: Sequence[str] = (), *, resume: bool = False, fold: int | None = None
) -> Path:
    """Runs a recipe; gives the run folder. With `resume` a run that was cut off goes on from its last checkpoint.

    With `fold` only that one of `training.folds` is run, so that several machines can share them; what they have
    finished is not run again.
    """
    config = read_config(TrainConfig, recipe, overrides)
    folds = config.training.folds
    if fold is not None and not 0 <= fold < folds:
        raise ConfigError(f"there is no fold {fold}: training.folds = {folds}, counted from 0")
    run = config.training.out / config.name
    busy = run / "model" if folds else run
    if fold is None and busy.exists() and any(busy.iterdir()) and not resume:
        raise ConfigError(f"{run}: holds a run already; add --resume to go on with it, or give another name=")
    probes = probes_of([config.training.out / name for name in config.training.probes])
    build_model(config)  # before the clips: what is wrong with it shows at once
    items = read_manifest(config.data.manifest)
    train_items, held_items = of_splits(items, config.data.train), of_splits(items, config.data.validate)
    clips = load_clips(train_items, config.data, "training clips")
    held_out = load_clips(held_items, config.data, "validation clips")
    if folds:
        wanted = [fold] if fold is not None else range(folds)
        scores = run_folds(config, recipe, clips + held_out, run, wanted, resume=resume)
        if fold is not None:
            return fold_folder(run, fold)
        trainer = fit(config, recipe, clips + held_out, [], run, resume=resume)
    else:
        trainer = fit(config, recipe, clips, held_out, run, resume=resume)
        scores = validate(trainer.fusion_model.float(), held_out)
    write_facts(run, config, items)
    finish(trainer, scores, [clip.item for clip in clips + held_out], run, probes)
    return run


def fit(
    config: TrainConfig,
    recipe: Path,
    clips: Sequence[PreparedClip],
    held_out: Sequence[PreparedClip],
    run: Path,
    *,
    resume: bool,
) -> ClaimTrainer:
    """A model trained on `clips`; the best checkpoint on `held_out`, or the last one where that is empty."""
    torch.manual_seed(config.training.seed)
    model = build_model(config)
    model.config.recipes = [*getattr(model.config, "recipes", []), recipe.stem]
    model.config.folds = config.training.folds
    run.mkdir(parents=True, exist_ok=True)
    trainer = make_trainer(model, config, clips, held_out, run)
    last = get_last_checkpoint(str(run / "checkpoints")) if (run / "checkpoints").is_dir() else None
    trainer.train(resume_from_checkpoint=last if resume else None)
    return trainer


def fold_folder(run: Path, fold: int) -> Path:
    """Where a fold's scores and checkpoints lie."""
    return run / "folds" / str(fold)


def run_folds(
    config: TrainConfig,
    recipe: Path,
    clips: Sequence[PreparedClip],
    run: Path,
    wanted: Sequence[int],
    *,
    resume: bool,
) -> list[Score]:
    """The wanted folds' scores of the clips that each held out; those that are finished are read."""
    items = [clip.item for clip in clips]
    places = deal(items, config.training.folds)
    scores: list[Score] = []
    for fold in wanted:
        folder = fold_folder(run, fold)
        done = folder / "scores.csv"
        if not (done.is_file() and _same_config(folder, config)):
            rest = [clip for clip, place in zip(clips, places, strict=True) if place != fold]
            out = [clip for clip, place in zip(clips, places, strict=True) if place == fold]
            print(f"fold {fold}: {len(rest)} clips to train on, {len(out)} held out", file=sys.stderr)
            trainer = fit(config, recipe, rest, [], folder, resume=resume)
            model = trainer.fusion_model.float().eval()
            _write_config(folder, config)
            write_scores(validate(model, out), items, done)
        scores += read_scores(done, items)
    return scores


def _same_config(folder: Path, config: TrainConfig) -> bool:
    """Whether a finished fold was run as this one would be."""
    path = folder / "config.json"
    return path.is_file() and path.read_text() == _as_json(config)


def _as_json(config: TrainConfig) -> str:
    return json.dumps(asdict(config), indent=1, default=str) + "\n"


def _write_config(run: Path, config: TrainConfig) -> None:
    (run / "config.json").write_text(_as_json(config))


def make_trainer(
    model: FusionModel,
    config: TrainConfig,
    clips: Sequence[PreparedClip],
    held_out: Sequence[PreparedClip],
    run: Path,
) -> ClaimTrainer:
    """The Trainer of a recipe; the best checkpoint on `held_out` is kept, the last one where that is empty."""
    t = config.training
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(run / "tensorboard")
    arguments = TrainingArguments(
        output_dir=str(run / "checkpoints"),
        max_steps=t.steps,
        per_device_train_batch_size=config.mix.batch,
        gradient_accumulation_steps=t.accumulate,
        learning_rate=t.learning_rate,
        weight_decay=t.weight_decay,
        warmup_steps=int(t.warmup * t.steps),
        lr_scheduler_type="cosine",
        max_grad_norm=t.clip_norm,
        bf16=t.bf16,
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="steps" if held_out else "no",
        eval_steps=t.evaluate_every,
        save_strategy="steps",
        save_steps=t.evaluate_every,
        save_total_limit=2,
        load_best_model_at_end=bool(held_out),
        metric_for_best_model="eval_score",
        greater_is_better=True,
        logging_steps=max(1, min(50, t.evaluate_every)),
        report_to=["tensorboard"],
        dataloader_num_workers=t.workers,
        dataloader_persistent_workers=t.workers > 0,
        remove_unused_columns=False,
        label_names=["labels"],
        seed=t.seed,
        data_seed=t.seed,
        disable_tqdm=not sys.stderr.isatty(),
    )
    examples = ExampleSet(recordings_of(clips), config.mix, t.steps * t.accumulate, t.seed)
    return ClaimTrainer(
        model=model,
        args=arguments,
        train_dataset=examples,
        eval_dataset=examples,  # Trainer asks for one; `evaluate` uses the validation clips
        data_collator=collate_examples,
        callbacks=[EarlyStoppingCallback(t.patience)] if t.patience else [],
        clips=held_out,
    )


def write_facts(run: Path, config: TrainConfig, items: Sequence[Item]) -> None:
    """The recipe as it was run, the environment and the data's fingerprint."""
    _write_config(run, config)
    versions = {
        name: __import__(name).__version__ for name in ("torch", "torchaudio", "transformers", "numpy", "av")
    }
    environment = {"python": platform.python_version(), "machine": platform.machine(), **versions}
    (run / "environment.json").write_text(json.dumps(environment, indent=1) + "\n")
    (run / "data.json").write_text(json.dumps(fingerprint(config.data, items), indent=1) + "\n")


def fingerprint(data: DataSettings, items: Sequence[Item]) -> dict[str, Any]:
    """What says that two runs saw the same data: the manifest's hash, and rows by split and claim."""
    import hashlib

    counts: dict[str, dict[str, int]] = {}
    for item in items:
        row = counts.setdefault(item.split.value if item.split else "none", {})
        for claim in CLAIMS:
            known = item.label[claim]
            name = f"{claim.value}={'unknown' if known is None else int(known)}"
            row[name] = row.get(name, 0) + 1
    used = {Split(name) for name in (*data.train, *data.validate)}
    sources = sorted({item.source for item in items if item.source and item.split in used})
    return {
        "sources": sources,
        "manifest_sha256": hashlib.sha256(data.manifest.read_bytes()).hexdigest(),
        "rows": counts,
    }


def finish(
    trainer: ClaimTrainer,
    scores: Sequence[Score],
    items: Sequence[Item],
    run: Path,
    probes: Sequence[dict[str, Any]] = (),
) -> None:
    """Calibrates the model on scores of clips that it, or its like in the folds, wasn't trained on, and writes it."""
    model = trainer.fusion_model.float().eval()
    model.config.calibration, model.config.thresholds = calibrate(scores)
    model.save_pretrained(run / "model", safe_serialization=True)
    history = trainer.state.log_history
    (run / "metrics.json").write_text(json.dumps(history, indent=1) + "\n")
    write_curves(history, run / "curves.png")
    write_scores(scores, items, run / "scores.csv")
    write_calibration(model, scores, run / "calibration.png")
    write_card(model, scores, run, probes)
