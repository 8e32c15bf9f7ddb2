"""Models by name or folder: safetensors only, so that nothing that a user hands in is ever unpickled."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avdetect.errors import ConfigError, ModelError
from avdetect.loading import first_line, load_network
from avdetect.types import ModelInfo

if TYPE_CHECKING:
    from avdetect.fusion import FusionModel

WEIGHTS = Path(__file__).parent / "weights"
"""Where the models that ship with the package lie, one folder each."""
DEFAULT = "base"
LONGEST_WINDOW = 60.0
"""Seconds; a model that asks for longer windows is not believed."""


def names() -> list[str]:
    """The models that ship with the package."""
    return sorted(path.parent.name for path in WEIGHTS.glob("*/config.json"))


def find(name_or_folder: str | Path) -> Path:
    """The folder of a model; ModelError where there is none, or where it isn't one of avdetect's.

    A string that is a shipped model's name is that model; a folder of the same name is given as ./name.
    """
    shipped = isinstance(name_or_folder, str) and name_or_folder in names()
    folder = WEIGHTS / name_or_folder if shipped else Path(name_or_folder)
    if not os.path.isdir(folder):
        known = ", ".join(names()) or "none ships with this installation"
        raise ModelError(
            f"no model '{name_or_folder}': give the folder of a trained model, or a name ({known})"
        )
    config = read_config(folder)
    if config.get("model_type") != "avdetect":
        kind = config.get("model_type", "unknown")
        raise ModelError(
            f"{folder}: config.json describes a model of type '{kind}', not 'avdetect'; "
            "give a folder that `avdetect train` made"
        )
    if not (folder / "model.safetensors").is_file():
        raise ModelError(
            f"{folder}: model.safetensors is missing; pickled weights (.bin, .pt, .pth) are never loaded, "
            "save the model with save_pretrained()"
        )
    check_readings(folder, config)
    return folder


def read_config(folder: Path) -> dict[str, Any]:
    """A model folder's config.json; ModelError where it is missing or broken."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{folder}: not a model folder, config.json is missing; give a folder that `avdetect train` made"
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read as JSON ({error}); copy the model again") from None
    if not isinstance(config, dict):
        raise ModelError(f"{path}: holds no settings; copy the model again")
    return config


def check_readings(folder: Path, config: dict[str, Any]) -> None:
    """ModelError where the settings by which clips are cut and scores are read are no usable numbers."""

    def table(where: Any, name: str) -> dict[str, Any]:
        value = where.get(name, {})
        if not isinstance(value, dict):
            raise ModelError(f"{folder}: config.json: {name} = {value!r} is not a table")
        return value

    def number(where: dict[str, Any], name: str, default: float, low: float, high: float) -> float:
        value = where.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ModelError(
                f"{folder}: config.json: {name} = {value!r} is not a number from {low:g} to {high:g}"
            )
        return float(value)

    window = table(config, "window")
    length = number(window, "length", 4.0, 1.0, LONGEST_WINDOW)
    number(window, "hop", 2.0, 0.2, length)
    for name, stream in table(config, "streams").items():
        options = stream.get("options") if isinstance(stream, dict) else None
        elsewhere = options.get("pretrained") if isinstance(options, dict) else None
        if elsewhere is not None:  # a saved model holds all of its own, and loading one asks no hub
            raise ModelError(
                f"{folder}: config.json: the stream '{name}' takes weights from elsewhere ({elsewhere!r}); "
                "save the model again"
            )
    thresholds, calibration = table(config, "thresholds"), table(config, "calibration")
    for claim in table(config, "claims"):
        if thresholds:
            limits = table(thresholds, claim)
            number(limits, "low", -1, 0.0, number(limits, "high", -1, 0.0, 1.0))
        if calibration:
            line = table(calibration, claim)
            number(line, "scale", 0, 1e-6, 1e6)
            number(line, "bias", math.inf, -1e6, 1e6)


def info(folder: Path) -> ModelInfo:
    """Name, version and hash of the weights in a model folder."""
    config = read_config(folder)
    try:
        with (folder / "model.safetensors").open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{folder}: model.safetensors cannot be read ({error.strerror})") from None
    return ModelInfo(str(config.get("name", folder.name)), str(config.get("version", "0")), digest)


def trained_sources(folder: Path) -> frozenset[str]:
    """The sources of the clips that a model was trained on, as far as its folder tells."""
    named = read_config(folder).get("sources")
    return frozenset(map(str, named)) if isinstance(named, list) else frozenset()


def check_device(device: str) -> None:
    """ConfigError unless `device` is cpu, or a GPU that is there."""
    if device == "cpu":
        return
    if not re.fullmatch(r"cuda(:\d{1,3})?", device):
        raise ConfigError(f"device '{device}' is not known; give cpu, cuda or cuda:N")
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device {device} cannot be used ({first_line(error)}); leave it out for cpu"
        ) from None


def load(name_or_folder: str | Path = DEFAULT, device: str = "cpu") -> FusionModel:
    """A model to go on training from, in single precision; `loading.load_network` gives one that only scores.

    ModelError where the folder isn't a model or its weights don't fit its config.
    """
    folder = find(name_or_folder)
    from avdetect.fusion import FusionConfig, FusionModel

    model = load_network(folder, device, lambda config: FusionModel(FusionConfig(**config)))
    assert isinstance(model, FusionModel)
    return model
