"""A training run that kills its own process: python killed_run.py WORKSHOP NAME step|writing COUNT key=value...

"step": at the COUNTth micro-batch, its gradient computed; "writing": when the COUNTth checkpoint has its weights, and
half of its optimizer's state.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

from workshop import prepare_here, run

from avdetect.trainer import ClaimTrainer


def dies_at(count: int, method: Any, *, early: bool) -> Any:
    """`method`, ending the process at its COUNTth call."""
    calls = 0

    def watched(self: ClaimTrainer, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count and early:
            optimizer = Path(args[0]) / "optimizer.pt"
            optimizer.write_bytes(b"PK\x03\x04 half of it")
            os.kill(os.getpid(), signal.SIGKILL)
        result = method(self, *args, **kwargs)
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return watched


if __name__ == "__main__":
    workshop, name, where, count, *overrides = sys.argv[1:]
    attribute = {"step": "training_step", "writing": "_save_optimizer_and_scheduler"}[where]
    deadly = dies_at(int(count), getattr(ClaimTrainer, attribute), early=where == "writing")
    with patch("avdetect.train.prepare_all", prepare_here), patch.object(ClaimTrainer, attribute, deadly):
        run(Path(workshop), name, *overrides)
