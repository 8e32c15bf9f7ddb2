"""Models by name or folder: safetensors only, so that nothing that a user hands in is ever unpickled."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avdetect.errors import ModelError
from avdetect.types import ModelInfo

if TYPE_CHECKING:
    from avdetect.fusion import FusionModel

WEIGHTS = Path(__file__).parent / "weights"
"""Where the models that ship with the package lie, one folder each."""
DEFAULT = "base"


def names() -> list[str]:
    """The models that ship with the package."""
    return sorted(folder.name for folder in WEIGHTS.iterdir() if (folder / "config.json").is_file())


def find(name_or_folder: str | Path) -> Path:
    """The folder of a model; ModelError where there is none, or where it isn't one of avdetect's."""
    folder = WEIGHTS / str(name_or_folder) if str(name_or_folder) in names() else Path(name_or_folder)
    if not folder.is_dir():
        known = ", ".join(names()) or "none ships with this installation"
        raise ModelError(
            f"no model '{name_or_folder}': give the folder of a trained model, or a name ({known})"
        )
    config = read_config(folder)
    if config.get("model_type") != "avdetect":
        kind = config.get("model_type", "unknown")
        raise ModelError(f"{folder}: config.json describes a model of type '{kind}', not 'avdetect'")
    if not (folder / "model.safetensors").is_file():
        raise ModelError(
            f"{folder}: model.safetensors is missing; pickled weights (.bin, .pt, .pth) are never loaded, save the "
            "model with save_pretrained()"
        )
    return folder


def read_config(folder: Path) -> dict[str, Any]:
    """A model folder's config.json; ModelError where it is missing or broken."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder}: not a model folder, config.json is missing") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(config, dict):
        raise ModelError(f"{path}: holds no settings")
    return config


@lru_cache(maxsize=8)
def info(folder: Path) -> ModelInfo:
    """Name, version and hash of the weights in a model folder."""
    config = read_config(folder)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    return ModelInfo(str(config.get("name", folder.name)), str(config.get("version", "0")), digest)


def load(name_or_folder: str | Path = DEFAULT, device: str = "cpu") -> FusionModel:
    """A model ready to score. ModelError where the folder isn't a model or its weights don't fit its config."""
    folder = find(name_or_folder)
    from safetensors import SafetensorError

    from avdetect.errors import ConfigError
    from avdetect.fusion import FusionModel
    from transformers.utils import logging

    logging.disable_progress_bar()

    try:
        model: FusionModel
        model, loading = FusionModel.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (SafetensorError, ConfigError, OSError, RuntimeError, TypeError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{folder}: the weights cannot be loaded ({reason})") from error
    unfit = sorted({*loading["missing_keys"], *loading["unexpected_keys"]})
    if unfit:  # transformers would go on with random numbers in their place
        raise ModelError(f"{folder}: {len(unfit)} weights do not fit config.json, the first is '{unfit[0]}'")
    return model.eval().to(device)
