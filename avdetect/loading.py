"""A network from a model folder, ready to score: safetensors into plain PyTorch, without transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avdetect.errors import AvdetectError, ModelError

if TYPE_CHECKING:
    from avdetect.network import FusionNetwork

    Build = Callable[[dict[str, Any]], FusionNetwork]


def load_network(folder: Path, device: str = "cpu", build: Build | None = None) -> FusionNetwork:
    """The network of a model folder (see `hub.find`), in single precision, in eval mode.

    `build` makes it from what config.json holds (None: a plain one). ModelError where the weights don't fit its config.
    """
    from safetensors import SafetensorError

    # What a strange config.json makes PyTorch raise.
    unusable = (
        *(SafetensorError, AvdetectError, OSError, RuntimeError, TypeError, ValueError, LookupError),
        *(AttributeError, AssertionError, ArithmeticError, ImportError, MemoryError),
    )
    try:
        network, unfit = _read(folder, build or _plain)
    except unusable as error:
        raise ModelError(
            f"{folder}: the weights cannot be loaded ({first_line(error)}); copy or train the model again"
        ) from error
    if unfit:
        raise ModelError(
            f"{folder}: the weights cannot be loaded ({len(unfit)} do not fit config.json, the first is "
            f"'{unfit[0]}'); copy or train the model again"
        )
    return network.float().eval().to(device)


def _plain(config: dict[str, Any]) -> FusionNetwork:
    from avdetect.fusion_settings import FusionSettings
    from avdetect.network import FusionNetwork

    return FusionNetwork(FusionSettings.from_config(config))


def _read(folder: Path, build: Build) -> tuple[FusionNetwork, list[str]]:
    """The network, and the names of weights that are missing, one too many or of another shape."""
    from safetensors.torch import load_file

    from avdetect import stored

    with stored.replaced():
        network = build(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    given, wanted = load_file(folder / "model.safetensors"), network.state_dict()
    unfit = given.keys() ^ wanted.keys()
    unfit |= {name for name in given.keys() & wanted.keys() if given[name].shape != wanted[name].shape}
    if not unfit:
        network.load_state_dict(given)
    return network, sorted(unfit)


def first_line(error: BaseException) -> str:
    """What an error says, on one line of bearable length."""
    text = " ".join(str(error).split("\n\n")[0].split())
    return text[:200] or type(error).__name__
