"""Models by name or folder: safetensors only, so that nothing that a user hands in is ever unpickled."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avdetect.errors import AvdetectError, ConfigError, ModelError
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
            f"device {device} cannot be used ({_first_line(error)}); leave it out for cpu"
        ) from None


def load(name_or_folder: str | Path = DEFAULT, device: str = "cpu") -> FusionModel:
    """A model ready to score, in single precision.

    ModelError where the folder isn't a model or its weights don't fit its config.
    """
    folder = find(name_or_folder)
    from safetensors import SafetensorError

    # What a strange config.json makes PyTorch and transformers raise.
    unusable = (
        *(SafetensorError, AvdetectError, OSError, RuntimeError, TypeError, ValueError, LookupError),
        *(AttributeError, AssertionError, ArithmeticError, ImportError, MemoryError),
    )
    try:
        with _quiet():
            model, unfit = _load(folder)
    except unusable as error:
        raise ModelError(
            f"{folder}: the weights cannot be loaded ({_first_line(error)}); copy or train the model again"
        ) from error
    if unfit:  # transformers would go on with random numbers in their place
        raise ModelError(
            f"{folder}: the weights cannot be loaded ({len(unfit)} do not fit config.json, the first is "
            f"'{unfit[0]}'); copy or train the model again"
        )
    placed: Any = model.train(False)
    ready: FusionModel = placed.to(device)
    return ready


def _load(folder: Path) -> tuple[FusionModel, list[str]]:
    """The model, and the names of weights that are missing, one too many or of another shape."""
    from avdetect.fusion import FusionModel

    read: Any = FusionModel.from_pretrained  # its stubs know nothing of what it gives with loading info
    model, loading = read(
        folder,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are told below
        dtype="float32",
    )
    misshapen = {name for name, *_ in loading["mismatched_keys"]}
    return model, sorted({*loading["missing_keys"], *loading["unexpected_keys"], *misshapen})


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the notes of transformers: what they tell is told by ModelError."""
    import avdetect.fusion  # noqa: F401  (imports transformers, with what it needs before)

    notes: Any = import_module("transformers.utils.logging")
    level, bars = notes.get_verbosity(), notes.is_progress_bar_enabled()
    notes.set_verbosity(notes.CRITICAL)
    notes.disable_progress_bar()
    try:
        yield
    finally:
        notes.set_verbosity(level)
        if bars:
            notes.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    """What an error says, on one line of bearable length."""
    text = " ".join(str(error).split("\n\n")[0].split())
    return text[:200] or type(error).__name__
