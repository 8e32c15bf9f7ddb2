"""The processes of one training run, as torchrun starts them: one of them writes, and all agree on what it finds.

A run that was started without torchrun is the one process of its kind: all this costs nothing then.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from avdetect.errors import AvdetectError

if TYPE_CHECKING:
    from accelerate import PartialState  # type: ignore[import-untyped]

T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""How long processes wait for the first one, which prepares clips and validates."""


def is_main() -> bool:
    """Whether this process is the one that writes and speaks."""
    return os.environ.get("RANK", "0") == "0"


def join() -> PartialState:
    """Meets the other processes: over nccl where there is a GPU, else over gloo."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)


def by_main(work: Callable[[], T]) -> T:
    """What the main process makes of `work`, in every process; an AvdetectError of it is raised in every process."""
    from accelerate.utils import broadcast_object_list  # type: ignore[import-untyped]

    state = join()
    if state.num_processes == 1:
        return work()
    answer: list[tuple[T | None, AvdetectError | None]] = [(None, None)]
    if state.is_main_process:
        try:
            answer[0] = (work(), None)
        except AvdetectError as error:
            answer[0] = (None, error)
    found, failure = broadcast_object_list(answer)[0]
    if failure is not None:
        raise failure
    result: T = found
    return result


def leave() -> None:
    """Ends the connection to the other processes, if there are any."""
    state = join()
    if state.num_processes > 1:
        state.destroy_process_group()
