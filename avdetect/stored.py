"""The small networks that ship inside the package, as files: half precision, and beside it what builds them again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from avdetect.errors import ModelError

Model = TypeVar("Model", bound=nn.Module)
_replaced: ContextVar[bool] = ContextVar("replaced", default=False)


@contextmanager
def replaced() -> Iterator[None]:
    """In here networks are built whose weights a saved model's are about to replace."""
    token = _replaced.set(True)
    try:
        yield
    finally:
        _replaced.reset(token)


def is_wanted(weight: torch.Tensor) -> bool:
    """Whether what `load` would give is to stay in the place of `weight`."""
    return not weight.is_meta and not _replaced.get()


def save(model: nn.Module, about: dict[str, str], path: Path) -> None:
    """Write a network's weights in half precision, with `about` in the file's header."""
    from safetensors.torch import save_file

    weights = {name: value.detach().half().contiguous() for name, value in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path, about)


def load(path: Path, build: Callable[[Mapping[str, str]], Model], what: str) -> Model:
    """The network that `build` makes of what `save` noted, with its weights; ModelError where the file is no `what`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        with torch.device("meta"):
            model = build(about)
        model.load_state_dict(weights, assign=True)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{path}: not {what} of avdetect ({reason}); install the package again") from None
    return model.eval().requires_grad_(False)
