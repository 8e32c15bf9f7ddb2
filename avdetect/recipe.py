"""A training recipe as typed settings: what a TOML file of `recipes/` may say."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avdetect.errors import ConfigError
from avdetect.probes import Hidden
from avdetect.recordings import MixSettings


@dataclass(frozen=True)
class DataSettings:
    """`manifest`: csv or parquet with train and val rows. `cache`: where prepared clips are kept.

    `window`: seconds of the pieces that clips are kept in; training draws shorter ones out of them. `hide`: a probe
    for shortcuts, "faces" or "speech" is taken out of every clip. `leave_out`: files, as their paths end, that are
    neither trained nor scored on, because their labels are known to be wrong.
    """

    manifest: Path
    cache: Path = Path(".cache/prepared")
    window: float = 10.0
    train: tuple[str, ...] = ("train",)
    validate: tuple[str, ...] = ("val",)
    hide: Hidden = Hidden.NOTHING
    leave_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingSettings:
    """Optimiser steps and what belongs to them; `patience` in evaluations without a better one (0: never stop).

    `backbone_rate`: with what share of `learning_rate` networks learn that were pretrained on other data.

    `start`: a trained model to go on from, by name or folder, instead of a fresh one of [model].
    `folds`: 0 chooses the best checkpoint on the rows of data.validate. K >= 2 chooses nothing: K models, each trained
    without one group of sources, score what they never saw; these scores calibrate and describe the model that is then
    trained on all rows. `probes`: finished runs in `out` that the card quotes, with part of the evidence hidden
    (data.hide), or with nothing hidden and no folds, as a check on the rows of data.validate. `committee`: of how many
    models the mean ships, the one of all rows and those of the first folds (see `committee`); one without folds.
    `apart`: groups of streams; each is trained in a run of its own, and they are joined (see `apart`).
    `fit_batches`: on how many batches of examples linear heads are fitted after the last step (see `linear_heads`).
    """

    steps: int = 3000
    learning_rate: float = 2e-3
    backbone_rate: float = 1.0
    weight_decay: float = 0.02
    warmup: float = 0.1
    evaluate_every: int = 300
    patience: int = 0
    accumulate: int = 1
    clip_norm: float = 2.0
    bf16: bool = True
    workers: int = 1
    seed: int = 0
    out: Path = Path("runs")
    start: str | None = None
    folds: int = 0
    probes: tuple[str, ...] = ()
    committee: int = 1
    apart: tuple[tuple[str, ...], ...] = ()
    fit_batches: int = 150

    def __post_init__(self) -> None:
        for name in ("steps", "evaluate_every", "accumulate", "fit_batches"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"training.{name} = {getattr(self, name)} is not a positive number")
        if self.folds < 0 or self.folds == 1:
            raise ConfigError(f"training.folds = {self.folds}: give 0, or 2 and more")
        if self.committee < 1 or (self.folds and self.committee > self.folds + 1):
            raise ConfigError(
                f"training.committee = {self.committee}: there are {self.folds + 1} models to take with "
                f"training.folds = {self.folds}"
            )


@dataclass(frozen=True)
class TrainConfig:
    """A whole recipe."""

    name: str
    data: DataSettings
    model: dict[str, Any] = field(default_factory=dict)
    version: str = "0"
    mix: MixSettings = field(default_factory=MixSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
