"""Train a fusion model on your own manifest, then use it on a clip.

    python examples/train_fusion.py corpus/manifest.csv --steps 500 --clip clip.mp4

The manifest is a csv or parquet with the columns of data/README.md: file, split (train or val), and
face_manipulation, voice_cloning, lip_sync_mismatch as 0, 1 or empty. What is empty is never guessed. The best
checkpoint on the val rows is kept; training.folds=4 leaves sources out instead, which takes five times as long.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from avdetect import Detector
from avdetect.apart import train
from avdetect.config import find_recipe


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--clip", type=Path, help="a clip to judge with the new model")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="more settings of the recipe")
    args = parser.parse_intermixed_args()

    overrides = [
        f"data.manifest={args.manifest}",
        f"training.out={args.out}",
        f"training.steps={args.steps}",
        "training.folds=0",
        "training.apart=[]",
        f"training.evaluate_every={max(1, args.steps // 4)}",
        "name=mine",
        *args.settings,
    ]
    run = train(find_recipe("base"), overrides)
    print(f"model and card: {run / 'model'}, curves: {run / 'curves.png'}")
    if args.clip:
        verdict = Detector.from_pretrained(run / "model").detect(args.clip)
        print(f"{args.clip}: {verdict.outcome} ({verdict.score})")


if __name__ == "__main__":
    main()
