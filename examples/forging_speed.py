"""How many training windows a second one process makes, forgeries and degradation included.

    python examples/forging_speed.py corpus/manifest.csv --cache .cache/prepared

Draws batches of the recipe `base` as training does, for each claim alone, without a model; 40 % of the faces are
forged, where `base` itself forges none. Training has to wait for its data where a step of the model takes less time
than its windows; more `training.workers` then help.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

from avdetect.config import find_recipe, read_config
from avdetect.manifest import read_manifest
from avdetect.recipe import TrainConfig
from avdetect.recordings import ExampleSet, collate_examples, recordings_of
from avdetect.train import load_clips, of_splits


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--cache", type=Path, default=Path(".cache/prepared"))
    parser.add_argument("--batches", type=int, default=10)
    args = parser.parse_args()

    overrides = [f"data.manifest={args.manifest}", f"data.cache={args.cache}", "mix.forged_faces=0.4"]
    config = read_config(TrainConfig, find_recipe("base"), overrides)
    items = of_splits(read_manifest(args.manifest), config.data.train)
    recordings = recordings_of(load_clips(items, config.data, "training clips"))
    print(f"{'examples of':<12}{'windows':>8}{'windows/s':>11}")
    for part in ("voice", "face", "sync"):
        others = {name: 0 for name in ("voice", "face", "sync") if name != part}
        made = ExampleSet(recordings, replace(config.mix, **others), args.batches, seed=0)  # type: ignore[arg-type]
        began = time.perf_counter()
        for first in range(0, len(made), made.mix.batch):
            collate_examples([made[first + n] for n in range(made.mix.batch)])
        print(f"{part:<12}{len(made):>8}{len(made) / (time.perf_counter() - began):>11.0f}", flush=True)


if __name__ == "__main__":
    main()
