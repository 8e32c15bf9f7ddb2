"""Ask about clips from Python: one model for all of them, each claim with its score or its reason.

python examples/detect_clip.py CLIP...
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from avdetect import Detector
from avdetect.errors import AvdetectError
from avdetect.types import ClaimResult


def answer(result: ClaimResult) -> str:
    """One claim in one line; a claim that could not be assessed has no score but a reason."""
    if result.score is None:
        return f"{result.verdict}: {result.reason}"
    worst = max(result.segments, key=lambda segment: segment.score or 0.0, default=None)
    where = f", most of all from {worst.start:.1f} to {worst.end:.1f} s" if worst else ""
    return f"{result.verdict} (score {result.score:.2f}{where})"


def main() -> int:
    """Arguments in, exit code out."""
    parser = argparse.ArgumentParser(description="Tell whether clips have been faked.")
    parser.add_argument("clips", type=Path, nargs="+", metavar="CLIP")
    parser.add_argument("--model", default="base", help="name or folder of a model (default: %(default)s)")
    arguments = parser.parse_args()
    failed = False
    try:
        detector = Detector.from_pretrained(arguments.model)
        for path in arguments.clips:
            verdict = detector.detect(path)
            if verdict.error is not None:
                print(verdict.error, file=sys.stderr)
                failed = True
                continue
            print(f"{path}: {verdict.outcome}")
            for claim, result in verdict.claims.items():
                print(f"  {claim.replace('_', ' '):<18} {answer(result)}")
    except AvdetectError as error:
        print(error, file=sys.stderr)
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
