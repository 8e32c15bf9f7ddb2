"""Weights to begin a stream's training with: published, converted by `models convert`, or of a trained model.

Tensors alone are read of a file, code never: a pickle that holds anything else is refused unread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avdetect.encoders.published import read_weights
from avdetect.errors import ModelError
from avdetect.hub import read_config

if TYPE_CHECKING:
    from torch import Tensor, nn

Weights = Mapping[str, "Tensor"]
ENCODER = "avdetect-encoder"
"""`model_type` of a folder that holds one encoder's weights."""
FILE_REMEDY = "give a file of tensors, saved with torch.save(model.state_dict(), ...) or as .safetensors"


def _aasist(path: Path, encoder: str) -> Weights:
    from avdetect.encoders.aasist import AasistDetector

    detector = AasistDetector.from_published(path)
    if detector.name != encoder:
        raise ModelError(f"{path}: holds the weights of {detector.name}, not of {encoder}; name that encoder")
    weights: Weights = detector.encoder.state_dict()
    return weights


def _xception(path: Path, encoder: str) -> Weights:
    from avdetect.encoders.xception import Xception, read_encoder

    network = Xception()
    read_encoder(network, path)
    weights: Weights = network.state_dict()
    return weights


PUBLISHED: dict[str, Callable[[Path, str], Weights]] = {
    "aasist": _aasist,
    "aasist_l": _aasist,
    "xception": _xception,
}
"""Encoder -> reader of the checkpoints that its authors publish."""


def check_file(path: Path) -> None:
    """ModelError where `path` cannot hold weights: missing, a folder, empty, a Git LFS pointer, a web page."""
    if path.is_dir():
        raise ModelError(f"{path}: is a folder; give the file of weights in it")
    try:
        with path.open("rb") as file:
            head = file.read(200)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from None
    if not head:
        raise ModelError(f"{path}: is empty; download it again")
    if head.startswith(b"version https://git-lfs"):
        raise ModelError(
            f"{path}: is a Git LFS pointer, not the weights; run `git lfs pull` where it comes from"
        )
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise ModelError(f"{path}: is a web page, not the weights; download the file itself")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors file, or of a pickled table of weights; ModelError for anything else."""
    check_file(path)
    if path.suffix != ".safetensors":
        return read_weights(path, FILE_REMEDY)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read as safetensors ({error}); copy it again") from None
    return tensors


def read_published(path: Path, encoder: str) -> Weights:
    """A published checkpoint's weights under the encoder's own names. ModelError where none are known for it."""
    check_file(path)
    if path.suffix == ".safetensors":
        read_tensors(path)  # says what is wrong with it
        raise ModelError(f"{path}: is safetensors already, there is nothing to convert; use it as it is")
    if encoder not in PUBLISHED:
        near = get_close_matches(encoder, PUBLISHED, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"they are for {', '.join(PUBLISHED)}"
        raise ModelError(f"{path}: no published checkpoints are known for the encoder '{encoder}'; {hint}")
    return PUBLISHED[encoder](path, encoder)


def read_start(path: Path, encoder: str) -> Weights:
    """Weights of `encoder` under its own names, from a folder of `convert`, a trained model, or a file."""
    if path.is_dir():
        return _of_folder(path, encoder)
    if path.suffix == ".safetensors":
        values = read_tensors(path)
        inner = {
            name.removeprefix("encoder."): v for name, v in values.items() if name.startswith("encoder.")
        }
        return inner or values  # a detector's file has the encoder beside its output layer
    return read_published(path, encoder)


def _of_folder(folder: Path, encoder: str) -> Weights:
    config = read_config(folder)
    values = read_tensors(folder / "model.safetensors")
    if config.get("model_type") == ENCODER:
        if config.get("encoder") != encoder:
            raise ModelError(f"{folder}: holds the encoder '{config.get('encoder')}', not '{encoder}'")
        return values
    streams: Any = config.get("streams")
    named = streams if isinstance(streams, dict) else {}
    fitting = [name for name, s in named.items() if isinstance(s, dict) and s.get("encoder") == encoder]
    if len(fitting) != 1:
        raise ModelError(f"{folder}: has {len(fitting)} streams of the encoder '{encoder}', one is needed")
    prefix = f"encoders.{fitting[0]}."
    return {name.removeprefix(prefix): v for name, v in values.items() if name.startswith(prefix)}


def start(module: nn.Module, encoder: str, path: Path) -> dict[str, str]:
    """Puts the weights at `path` into an encoder; gives where they come from, for the model's config.

    ModelError where they aren't exactly its own, by name and shape.
    """
    values, wanted = read_start(path, encoder), module.state_dict()
    unfit = sorted(values.keys() ^ wanted.keys())
    unfit += [n for n in sorted(values.keys() & wanted.keys()) if values[n].shape != wanted[n].shape]
    if unfit:
        raise ModelError(
            f"{path}: {len(unfit)} of the weights do not fit the encoder '{encoder}' and its options, the first is "
            f"'{unfit[0]}'"
        )
    module.load_state_dict(values)
    return origin(path)


def origin(path: Path) -> dict[str, str]:
    """Name and hash of the file that weights come from."""
    file = path / "model.safetensors" if path.is_dir() else path
    with file.open("rb") as opened:
        return {"file": path.name, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}
