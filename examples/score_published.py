"""The voices of a manifest, scored by the published AASIST or AASIST-L.

    python examples/score_published.py AASIST.pth MANIFEST --split val --out aasist.txt
    python -m avdetect evaluate scores --scores aasist.txt

As its authors do it, the first 4 seconds of each recording are heard. The file holds FILE SYSTEM KEY SCORE,
higher = bona fide, for the rows with voice_cloning 0 or 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from avdetect.errors import AvdetectError, InputError
from avdetect.gmm_cli import trial_names


def score(checkpoint: Path, manifest: Path, split: str | None, out: Path) -> str:
    """Write the scores; gives what to tell. Raises AvdetectError."""
    import torch

    from avdetect.encoders.aasist import CHUNK, AasistDetector
    from avdetect.manifest import read_manifest
    from avdetect.media import open_clip
    from avdetect.scores import Export, write_scores

    detector = AasistDetector.from_published(checkpoint)
    known = [item for item in read_manifest(manifest) if item.label.voice_cloning is not None]
    items = [item for item in known if split is None or item.split == split]
    if not items:
        raise InputError(f"{manifest}: no row with a label on voice_cloning; check --split")
    values = []
    for item in items:
        waveform = open_clip(item.audio_path or item.path).waveform
        if waveform is None:
            raise InputError(f"{item.path}: has no sound; take its row out of the manifest")
        first = torch.from_numpy(waveform[:CHUNK])[None]
        with torch.inference_mode():
            values.append(float(detector.scores(first, torch.tensor([first.shape[1]]))[0, 0]))
    labels = [bool(item.label.voice_cloning) for item in items]
    systems = ["_".join((item.method or "-").split()) for item in items]
    write_scores(out, Export.ASVSPOOF2019, trial_names(items), values, labels, systems)
    return f"{out}: {len(items)} scores of {detector.name}"


def main() -> int:
    """Arguments in, exit code out."""
    parser = argparse.ArgumentParser(description="Score voices with the published AASIST or AASIST-L.")
    parser.add_argument("checkpoint", type=Path, help="AASIST.pth or AASIST-L.pth")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", choices=["train", "val", "test"])
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    args = parser.parse_args()
    try:
        print(score(args.checkpoint, args.manifest, args.split, args.out))
    except AvdetectError as error:
        print(f"score_published: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
