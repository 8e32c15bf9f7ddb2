"""`evaluate export`: scores in, an official submission out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from avdetect.types import CLAIMS, Claim

FORMATS = (
    *("asvspoof2019", "asvspoof2021", "asvspoof5"),
    *("faceforensics", "av-deepfake1m", "av-deepfake1m-segments", "lav-df"),
)
EPILOG = """\
SCORES is the --csv or --parquet of an evaluation, the --json of `avdetect CLIP...` (where labels are withheld),
or a plain score file.

  asvspoof2019|2021|5      score files of the challenges, higher = bona fide
  faceforensics            the FaceForensics Benchmark's json in its zip
  av-deepfake1m            file;score lines of the detection task
  av-deepfake1m-segments   json of the localisation task, seconds
  lav-df                   json that LAV-DF's evaluation reads, frames of 25 fps

example: python -m avdetect evaluate export lav-df lavdf.csv --root /data/LAV-DF --out predictions.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `evaluate export`."""
    parser.add_argument("format", choices=FORMATS, metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument("scores", type=Path, metavar="SCORES", help="rows, verdicts or a score file")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--claim",
        choices=[c.value for c in CLAIMS],
        action="append",
        help="whose scores; of several the highest (default: voice for ASVspoof, face for FaceForensics, else both)",
    )
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="names in the file are paths below this folder"
    )
    parser.add_argument(
        "--threshold", type=float, default=0.5, metavar="X", help="fake from here on, for hard labels (0.5)"
    )


def run(args: argparse.Namespace) -> int:
    """Writes the submission; 1 where something in it will count against it, which is told."""
    from avdetect.exporters import CLAIMS_OF, FAKED, FORMATS, Settings, read_predictions
    from avdetect.outputs import check_output
    from avdetect.wording import printable

    claims = [Claim(name) for name in args.claim or ()] or CLAIMS_OF.get(args.format, FAKED)
    predictions = read_predictions(args.scores, claims)
    if not args.out.is_file() or args.out.suffix != ".zip":  # an earlier submission may be replaced
        check_output(args.out, "--out", [args.scores])
    warnings = FORMATS[args.format](predictions, args.out, Settings(args.root, args.threshold))
    print(f"{args.out}: {len(predictions)} clips as {args.format}")
    for warning in warnings:
        print(f"avdetect: {printable(warning)}", file=sys.stderr)
    return int(bool(warnings))
