"""What a model folder, or a bare file of weights, holds: told without building a model of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from avdetect.errors import AvdetectError, ModelError
from avdetect.hub import info, read_config
from avdetect.starts import ENCODER, PUBLISHED, Weights, check_file, origin, read_tensors


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a .safetensors file, from its header; ModelError where it has none."""
    from safetensors import SafetensorError, safe_open

    check_file(path)
    try:
        with safe_open(path, "np") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in sorted(file.keys())}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read as safetensors ({error}); copy it again") from None


def parts_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Numbers per part of a model: a stream with its head, or what all streams share."""
    sizes: Counter[str] = Counter()
    for name, shape in shapes.items():
        kind, _, rest = name.partition(".")
        sizes[rest.split(".")[0] if kind in ("encoders", "heads") else kind] += prod(shape)
    return dict(sizes)


def describe(folder: Path) -> dict[str, Any]:
    """All that a model folder says of itself: identity, parts, claims, how scores are read, what it reached."""
    config = read_config(folder)
    weights = folder / "model.safetensors"
    if config.get("model_type") == ENCODER:
        shapes = shapes_of(weights)
        kept = {name: config.get(name) for name in ("encoder", "origin")}
        return {"folder": str(folder), **kept, **origin(folder), "numbers": sum(map(prod, shapes.values()))}
    known, results = info(folder), _results(folder)
    streams = config.get("streams", {})
    parts = parts_of(shapes_of(weights))
    return {
        "folder": str(folder),
        "name": known.name,
        "version": known.version,
        "sha256": known.sha256,
        "numbers": sum(parts.values()),
        "parts": parts,
        "streams": {name: _stream(stream) for name, stream in streams.items()},
        "claims": {
            claim: {
                "streams": reads,
                "calibration": config.get("calibration", {}).get(claim),
                "thresholds": config.get("thresholds", {}).get(claim),
                **{key: results.get(claim, {}).get(key) for key in ("n_real", "n_fake", "auc", "auc_ci")},
                "sources": sorted(results.get(claim, {}).get("sources", {})),
            }
            for claim, reads in config.get("claims", {}).items()
        },
        "window": config.get("window"),
        "recipes": config.get("recipes", []),
        "folds": config.get("folds", 0),
        "starts": config.get("starts", {}),
    }


def _stream(stream: Mapping[str, Any]) -> str:
    options = ", ".join(f"{name} {value}" for name, value in stream.get("options", {}).items())
    return f"{stream.get('encoder')}" + (f" ({options})" if options else "")


def _results(folder: Path) -> dict[str, Any]:
    """What the model reached when it was made, where its folder says so."""
    try:
        found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def describe_file(path: Path) -> dict[str, Any]:
    """Tensors of a bare file of weights, and whose they are as far as their names and shapes tell."""
    tensors = read_tensors(path)
    return {
        **origin(path),
        "numbers": sum(value.numel() for value in tensors.values()),
        "tensors": {
            name: [str(value.dtype).removeprefix("torch."), *value.shape] for name, value in tensors.items()
        },
        "fits": fits(path, tensors),
    }


def fits(path: Path, tensors: Weights) -> list[str]:
    """The encoders whose weights these are: as avdetect writes them, or as their authors publish them."""
    from avdetect.encoders import ENCODERS, build_encoder

    found = []
    inner = {name.removeprefix("encoder."): value.shape for name, value in tensors.items()}
    for encoder in ENCODERS:
        try:
            own: Any = build_encoder(encoder)
        except AvdetectError:  # needs options that only its user knows
            continue
        wanted = {name: value.shape for name, value in own.state_dict().items()}
        if wanted and all(inner.get(name) == shape for name, shape in wanted.items()):
            found.append(encoder)
    for encoder, read in PUBLISHED.items():
        try:
            read(path, encoder)
        except AvdetectError:
            continue
        found.append(f"{encoder} (published)")
    return found
