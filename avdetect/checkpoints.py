"""Checkpoints of a run that are whole: a list of their files with sizes and hashes, written last, says so.

A run can be killed at any moment, also while a checkpoint is being written or an old one removed. What has no list, or
isn't as its list says, is never gone on from.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LIST = "complete.json"


def seal(checkpoint: Path, processes: int) -> None:
    """States that every file of `checkpoint` is written, by so many processes."""
    files = {path.relative_to(checkpoint).as_posix(): _facts(path) for path in _files(checkpoint)}
    partial = checkpoint / (LIST + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump({"processes": processes, "files": files}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(checkpoint / LIST)


def flaw(checkpoint: Path) -> str | None:
    """In words, why a checkpoint can't be gone on from; None where it is whole, and the best one so far is too."""
    listed = _listed(checkpoint)
    if listed is None:
        return "it was not written to its end"
    for name, facts in listed["files"].items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if _facts(path) != facts:
            return f"{name} is damaged"
    best = json.loads((checkpoint / "trainer_state.json").read_text()).get("best_model_checkpoint")
    if best and Path(best).name != checkpoint.name:
        problem = flaw(checkpoint.parent / Path(best).name)
        return None if problem is None else f"the best one so far, {Path(best).name}, is unusable ({problem})"
    return None


def newest(folder: Path) -> tuple[Path | None, list[str]]:
    """The last checkpoint of `folder` that is whole, and a sentence for each later one, which isn't."""
    remarks: list[str] = []
    for checkpoint in sorted(_checkpoints(folder), key=_step, reverse=True):
        problem = flaw(checkpoint)
        if problem is None:
            return checkpoint, remarks
        remarks.append(f"{checkpoint}: cannot be gone on from, {problem}; the one before it is taken")
    return None, remarks


def processes_of(checkpoint: Path) -> int:
    """By how many processes a whole checkpoint was written."""
    listed = _listed(checkpoint)
    return 1 if listed is None else int(listed["processes"])


def _checkpoints(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name))


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def _listed(checkpoint: Path) -> dict[str, Any] | None:
    try:
        listed = json.loads((checkpoint / LIST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(listed, dict) and isinstance(listed.get("files"), dict)
    return listed if whole and "trainer_state.json" in listed["files"] else None


def _files(checkpoint: Path) -> list[Path]:
    return sorted(p for p in checkpoint.rglob("*") if p.is_file() and not p.name.startswith(LIST))


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
