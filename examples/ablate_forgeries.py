"""What each kind of forgery adds, in training, to the detection of *real* fakes that were never trained on.

    python examples/ablate_forgeries.py corpus/manifest.csv --claim face_manipulation --steps 150 --out runs/ablation

Trains the recipe `base` (faces with the encoder `face_cnn`, which learns from the beginning) on the manifest's train
rows again and again at equal steps: with no forgery, with one kind, with all; and scores each model's last step on the
val rows, whose fakes are real ones. The table (csv and markdown) gives the AUC with its interval, and the difference to
"no forgery" on the same clips with DeLong's test. What is there already is not run again.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from avdetect import metrics
from avdetect.config import find_recipe, read_config
from avdetect.folds import read_scores, write_scores
from avdetect.forgeries import FORGERIES, Kind
from avdetect.forgeries.resynthesis import RESYNTHESES
from avdetect.intervals import bootstrap, delong
from avdetect.manifest import read_manifest
from avdetect.prepared import PreparedClip
from avdetect.recipe import TrainConfig
from avdetect.train import Job, fit, load_clips, of_splits
from avdetect.types import Claim, Label
from avdetect.validation import Score, arrays, validate

PARTS = {
    Claim.FACE_MANIPULATION: ("face", "forged_faces", Kind.FACE),
    Claim.VOICE_CLONING: ("voice", "forged_voices", Kind.VOICE),
}
"""Claim -> its part of a batch, its share of forgeries, and the kind of forgeries that teach it."""
LEARNING = {
    Claim.FACE_MANIPULATION: 'model.streams.face={encoder="face_cnn", options={every=2}}',
    Claim.VOICE_CLONING: 'model.claims.voice_cloning=["lcnn", "harmonics"]',
}
"""What stands in the place of the recipe's frozen features, or is left without them: forgeries can't teach those."""
FORGED_FACES = 0.4


def configured(args: argparse.Namespace, claim: Claim, kind: str) -> TrainConfig:
    """The recipe for one claim alone, with no forgery ("none"), one, or "all" by their weights."""
    part, share, _ = PARTS[claim]
    overrides = [f"data.manifest={args.manifest}", f"data.cache={args.cache}", f"training.out={args.out}"]
    overrides += [f"training.steps={args.steps}", f"training.evaluate_every={args.steps}", "training.folds=0"]
    overrides.append("training.apart=[]")
    overrides += [f"mix.{other}=0" for other in ("voice", "face", "sync") if other != part]
    overrides.append(LEARNING[claim])
    if claim is Claim.FACE_MANIPULATION:
        overrides.append(f"mix.{share}={FORGED_FACES}")
    if kind == "none":
        overrides.append(f"mix.{share}=0.0")
    elif kind != "all":
        overrides.append(f'mix.kinds=["{kind}"]')
    return read_config(TrainConfig, find_recipe("base"), [*overrides, f"name={claim.value}-{kind}"])


def scores_of(
    config: TrainConfig, clips: Sequence[PreparedClip], held_out: Sequence[PreparedClip]
) -> list[Score]:
    """Scores of the held-out clips by the last step of a run; read where they are there already."""
    run = config.training.out / config.name
    done = run / "scores.csv"
    items = [clip.item for clip in held_out]
    if not done.is_file():
        trainer = fit(Job(config, find_recipe("base"), items, resume=False), clips, [], run)
        write_scores(validate(trainer.fusion_model.float().eval(), held_out), items, done)
    return read_scores(done, items)


def asking(claim: Claim, clip: PreparedClip) -> PreparedClip:
    """The clip with the label of one claim alone: no time is spent on scoring others."""
    known = clip.item.label[claim]
    face = claim is Claim.FACE_MANIPULATION
    label = Label(face_manipulation=known) if face else Label(voice_cloning=known)
    return replace(clip, item=replace(clip.item, label=label))


def row_of(kind: str, claim: Claim, scores: Sequence[Score], baseline: Sequence[Score]) -> dict[str, str]:
    """One line of the table."""
    logits, fake = arrays(scores, claim)
    before, _ = arrays(baseline, claim)
    interval = bootstrap(logits, fake, metrics=("auc",))["auc"]
    row = {
        "forgery": kind,
        "real": str(int((~fake).sum())),
        "fake": str(int(fake.sum())),
        "auc": f"{metrics.auc(logits, fake):.3f}",
        "interval": f"{interval.low:.3f} to {interval.high:.3f}",
    }
    if kind == "none":
        return row | {"difference": "", "p": ""}
    test = delong(logits, before, fake)
    return row | {"difference": f"{test.difference:+.3f}", "p": f"{test.p:.2f}"}


def write_table(rows: Sequence[dict[str, str]], path: Path) -> None:
    """The rows as csv, and as markdown beside it."""
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join(row.values()) + " |" for row in rows]
    path.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--claim", choices=[c.value for c in PARTS], required=True)
    parser.add_argument("--kinds", nargs="+", help="some of the forgeries (all of the claim's kind)")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--cache", type=Path, default=Path(".cache/prepared"))
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    args = parser.parse_args()

    claim = Claim(args.claim)
    kinds = args.kinds or [name for name, member in FORGERIES.items() if member.kind is PARTS[claim][2]]
    kinds = [name for name in kinds if claim is Claim.FACE_MANIPULATION or name in RESYNTHESES]
    config = configured(args, claim, "all")
    items = [item for item in read_manifest(args.manifest) if item.label[claim] is not None]
    clips = load_clips(of_splits(items, config.data.train), config.data, "training clips")
    held_out = load_clips(of_splits(items, config.data.validate), config.data, "validation clips")
    held_out = [asking(claim, clip) for clip in held_out]
    rows: list[dict[str, str]] = []
    baseline: list[Score] = []
    for kind in ["none", "all", *kinds]:
        scores = scores_of(configured(args, claim, kind), clips, held_out)
        baseline = baseline or scores
        rows.append(row_of(kind, claim, scores, baseline))
        print(*rows[-1].values(), sep="\t", flush=True)
        write_table(rows, args.out / claim.value)


if __name__ == "__main__":
    main()
