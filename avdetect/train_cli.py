"""`python -m avdetect train`: the arguments of a training run."""

from __future__ import annotations

import argparse

DESCRIPTION = """\
Trains a fusion model from a recipe (TOML) on a manifest: csv or parquet with train and val rows (see data --help).

The run folder runs/NAME holds the settings (config.json), where and on what it ran (environment.json, data.json),
checkpoints, TensorBoard events, and at the end metrics.json, curves.png, scores.csv and model/ with its card.
The best checkpoint on the val rows is kept; with training.folds=K, sources are left out in turn instead. With
training.apart groups of streams are trained in runs of their own, runs/NAME/parts, and joined. Folds and parts can be
trained at the same time (--jobs; what each says is in the run's logs), or beforehand and on several machines (--part,
--fold): the run itself takes over what is finished.
"""
EPILOG = """\
examples:
  python -m avdetect train base data.manifest=corpus/manifest.csv training.steps=500
  python -m avdetect train base data.manifest=corpus/manifest.csv training.steps=500 --resume
  python -m avdetect train audio-only data.manifest=m.csv 'model.streams.voice={encoder="aasist", weights="AASIST.pth"}'
  python -m avdetect train base data.manifest=corpus/manifest.csv --jobs 8
  python -m avdetect train base data.manifest=corpus/manifest.csv --part face --fold 0
  torchrun --nproc-per-node=2 -m avdetect train audio-only data.manifest=corpus/manifest.csv
  tensorboard --logdir runs

Any setting of the recipe can be given as section.key=value; one that doesn't exist is refused with the nearest name.
A run that was killed and resumed gives the same weights as one that was not. N processes give what one gives with
training.accumulate=N, but for the running statistics of batch norms, which are the first process's own.
"""


def train_parser() -> argparse.ArgumentParser:
    """The arguments of `train`."""
    parser = argparse.ArgumentParser(
        "avdetect train",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "recipe", metavar="RECIPE", help="a .toml file, or the name of a shipped recipe (base)"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings to change, as section.key=value"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with a run that was cut off, from its last whole checkpoint",
    )
    parser.add_argument(
        "--fold",
        type=int,
        metavar="K",
        help="run only this one of training.folds, from 0; the run itself reads it",
    )
    parser.add_argument(
        "--part",
        metavar="NAME",
        help="run only this group of training.apart: its streams' names, joined by hyphens",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="train N folds and parts at a time, each in a process with its share of the cores (default: 1)",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Trains; prints the model's folder, or the fold's, on stdout. Raises AvdetectError."""
    from avdetect.config import find_recipe
    from avdetect.processes import is_main, leave

    recipe = find_recipe(args.recipe)
    from avdetect.apart import train

    folder = train(recipe, args.overrides, resume=args.resume, fold=args.fold, part=args.part, jobs=args.jobs)
    leave()
    if is_main():
        print(folder / "model" if args.fold is None else folder)
    return 0
