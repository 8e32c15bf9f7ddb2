"""What a process may use, and what lets one that gives verdicts do less beside it. Importing this costs nothing."""

from __future__ import annotations

import gc
import os
import sys

TURN = 0.0002
"""Seconds after which a thread that waits for Python's lock gets it, Python's own 0.005: faces are followed, in many
short steps, while another thread decodes them or imports PyTorch."""
SELDOM = (1_000, 1_000, 1_000)
"""When Python looks for garbage: among what is new nearly as often as ever, among what stayed hardly at all. It would
look through what importing PyTorch makes again and again, a tenth of the time that takes."""
ALONE = {"OMP_WAIT_POLICY": "passive", "OPENBLAS_NUM_THREADS": "1"}
"""Environment in which the threads of libraries, while they wait for each other, leave the cores to faces."""


def brisk() -> None:
    """Sets this process up; before NumPy is imported. What the user has set in the environment stays."""
    sys.setswitchinterval(TURN)
    gc.set_threshold(*SELDOM)
    for name, value in ALONE.items():
        os.environ.setdefault(name, value)


def cores() -> int:
    """How many cores this process may use; where the system doesn't tell that, how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
