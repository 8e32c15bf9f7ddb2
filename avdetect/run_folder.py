"""The facts of a run, written when it begins: its settings, where it ran, and which data it saw."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from avdetect import __version__
from avdetect.errors import ConfigError
from avdetect.recipe import DataSettings, TrainConfig
from avdetect.types import CLAIMS, Item, Split

HARMLESS = {"data.cache", "training.out", "training.workers", "training.probes", "training.committee"}
"""Settings that may change when a run goes on: they don't touch what it computes."""


def begin(run: Path, config: TrainConfig) -> None:
    """Makes `run` the folder of a new run: what an earlier one with other settings left to go on from is removed."""
    run.mkdir(parents=True, exist_ok=True)
    for left in ("checkpoints", "model"):
        shutil.rmtree(run / left, ignore_errors=True)
    (run / "scores.csv").unlink(missing_ok=True)
    (run / "config.json").write_text(_as_json(config))


def check_same(run: Path, config: TrainConfig) -> None:
    """ConfigError where `run` was begun with settings that give another result than `config`."""
    difference = difference_to(run, config)
    if difference is not None:
        raise ConfigError(
            f"{run}: cannot go on with other settings, {difference}; give another name= to begin anew"
        )


def difference_to(run: Path, config: TrainConfig) -> str | None:
    """The first setting in which `config` differs from that of `run`, in words; None where the result is the same."""
    try:
        known = json.loads((run / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "config.json is missing or damaged"
    before, now = dict(_flat(known)), dict(_flat(json.loads(_as_json(config))))
    for name in sorted(before.keys() | now.keys()):
        if name not in HARMLESS and before.get(name) != now.get(name):
            return f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
    return None


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _as_json(config: TrainConfig) -> str:
    return json.dumps(asdict(config), indent=1, default=str) + "\n"


def write_facts(run: Path, config: TrainConfig, items: Sequence[Item], processes: int) -> None:
    """The environment and the data's fingerprint; ConfigError where the run was begun on another manifest."""
    facts = fingerprint(config.data, items)
    known = run / "data.json"
    if known.is_file() and json.loads(known.read_text())["manifest_sha256"] != facts["manifest_sha256"]:
        raise ConfigError(
            f"{config.data.manifest}: has changed since {run} was begun; give another name= to begin anew"
        )
    (run / "environment.json").write_text(json.dumps(environment(processes), indent=1) + "\n")
    known.write_text(json.dumps(facts, indent=1) + "\n")


def environment(processes: int) -> dict[str, Any]:
    """Versions, machine, processes, and the hash of this package's own code."""
    import torch

    names = ("torch", "torchaudio", "transformers", "numpy", "av")
    return {
        "avdetect": __version__,
        "code_sha256": code_hash(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "processes": processes,
        **{name: __import__(name).__version__ for name in names},
    }


def code_hash() -> str:
    """SHA-256 over the names and contents of the package's Python files."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def fingerprint(data: DataSettings, items: Sequence[Item]) -> dict[str, Any]:
    """What says that two runs saw the same data: the manifest's hash, and rows by split and claim."""
    counts: dict[str, dict[str, int]] = {}
    for item in items:
        row = counts.setdefault(item.split.value if item.split else "none", {})
        for claim in CLAIMS:
            known = item.label[claim]
            name = f"{claim.value}={'unknown' if known is None else int(known)}"
            row[name] = row.get(name, 0) + 1
    used = {Split(name) for name in (*data.train, *data.validate)}
    sources = sorted({item.source for item in items if item.source and item.split in used})
    return {
        "sources": sources,
        "manifest_sha256": hashlib.sha256(data.manifest.read_bytes()).hexdigest(),
        "rows": counts,
    }
