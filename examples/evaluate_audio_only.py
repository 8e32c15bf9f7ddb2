"""How well is a cloned voice told from a real one, where nothing else is fake?

    python examples/evaluate_audio_only.py corpus/manifest.csv --split val

Real clips against fakes whose voice alone is fake: sound files, and videos with an untouched face. Prints the equal
error rate and AUC with 95 % intervals, per method, and how many clips could be scored at all.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from avdetect import Detector
from avdetect.evaluate import Slice, evaluate, tables
from avdetect.evaluate_cli import to_text
from avdetect.manifest import read_manifest
from avdetect.types import Claim


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--model", default="base")
    args = parser.parse_args()

    claim = Claim.VOICE_CLONING
    items = [
        item
        for item in read_manifest(args.manifest)
        if item.split == args.split and item.label[claim] is not None and Slice.AUDIO_ONLY.holds(item)
    ]
    rows = [row for found in evaluate(Detector.from_pretrained(args.model), items, [claim]) for row in found]
    print(to_text(tables(rows, [claim])))


if __name__ == "__main__":
    main()
