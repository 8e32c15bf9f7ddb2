"""`python -m avdetect forge`: labelled fakes from one's own real footage."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from avdetect.types import Item

SHEET = "contact_sheet.png"
# fmt: off
SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".3gp",
    ".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus", ".wma",
)
# fmt: on
"""Files of a folder that are taken as clips."""
_SHOWN = 10

EPILOG = """\
kinds: face, voice, sync draw one forgery of that kind; or name them; a+b makes both of one clip:
  face   self_blended, mouth, face_swap, reenactment, generator, decoder, flicker
  voice  fourier_vocoder, acoustic_model, codec_model, diffusion_vocoder, neural_vocoder, neural_codec, griffin_lim,
         mel_inversion, source_filter, upsampling_traces, linear_prediction, world_like, voice_conversion,
         partial_resynthesis, word_edit, text_to_speech
  sync   shift, swap, swap_same_sex, swap_same_person, drift, retimed, dubbed, frozen, looped, frozen_mouth

examples:
  python -m avdetect forge interview.mp4 --out forged
  python -m avdetect forge footage/ --kinds mouth,fourier_vocoder,dubbed --stretch 2 --seed 7 --out forged
  python -m avdetect forge footage/ --kinds face_swap+voice_conversion,swap_same_sex --out forged

The folder holds a copy of each source and its forgeries, all written alike, manifest.csv with labels and segments, and
contact_sheet.png. The same command goes on where it stopped; other settings need another folder.
Forge only footage of people who agreed to it. Every forged file says in its metadata that it is one.
"""


def forge_parser() -> argparse.ArgumentParser:
    """The arguments of `forge`."""
    parser = argparse.ArgumentParser(
        "avdetect forge",
        description="Makes labelled fakes from real clips, to train and test detectors on one's own footage.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        metavar="CLIP|DIR|MANIFEST",
        help="real footage; of a manifest (.csv, .parquet) the rows that are not labelled fake",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="an empty folder, or one to go on with"
    )
    parser.add_argument(
        "--kinds",
        default="face,voice,sync",
        metavar="NAMES",
        help="what to make of each clip, see below (default: one of each kind)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the dice (default: 0)")
    parser.add_argument(
        "--strength", type=float, default=1.0, metavar="X", help="above 0, at most 1 (default: 1)"
    )
    parser.add_argument(
        "--stretch",
        type=float,
        metavar="SECONDS",
        help="forge only a stretch of this length (default: the whole clip)",
    )
    parser.add_argument(
        "--longest",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="longer clips are cut to their first so many seconds (default: 30)",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Forge; 1 where some forgery could not be made. Raises AvdetectError where inputs or folder cannot be used."""
    from avdetect.errors import ConfigError
    from avdetect.forge import MANIFEST, ForgeSettings, claims_of, forge_all
    from avdetect.forge_sheet import contact_sheet
    from avdetect.progress import track
    from avdetect.wording import printable

    entries = args.kinds.replace(" ", "").split(",")
    kinds = tuple(dict.fromkeys(entry for entry in entries if entry))
    if args.seed < 0:
        raise ConfigError(f"--seed is {args.seed}, must be 0 or more")
    settings = ForgeSettings(kinds, args.seed, args.strength, args.stretch, args.longest)
    sources = _sources(args.inputs)
    items: list[Item] = []
    problems: list[str] = []
    for group in track(forge_all(sources, args.out, settings), "forging", len(sources)):
        items += group.items
        problems += group.problems
    forged = [item for item in items if item.label.is_fake]
    print(f"{len(forged):,} forgeries of {len(items) - len(forged):,} clips: {args.out / MANIFEST}")
    for claim, count in claims_of(forged).items():
        print(f"  {claim.value}: {count:,}")
    sheet = contact_sheet(items, args.out / SHEET)
    if sheet is not None:
        print(f"  {sheet}")
    for line in problems[:_SHOWN]:
        print(printable(line), file=sys.stderr)
    if len(problems) > _SHOWN:
        print(f"and {len(problems) - _SHOWN:,} more", file=sys.stderr)
    return int(bool(problems))


def _sources(inputs: list[Path]) -> list[Item]:
    """The clips that the inputs name, each once."""
    from avdetect.errors import InputError
    from avdetect.forge import real_sources
    from avdetect.manifest import read_manifest
    from avdetect.types import Item, Label

    found: dict[Path, Item] = {}
    for given in inputs:
        if given.is_dir():
            paths = sorted(p for p in given.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            found |= {path: Item(path, Label()) for path in paths}
        elif given.suffix.lower() in (".csv", ".parquet"):
            found |= {item.path: item for item in real_sources(read_manifest(given))}
        elif given.exists():
            found.setdefault(given, Item(given, Label()))
        else:
            raise InputError(f"{given}: no such file or folder")
    if not found:
        raise InputError(f"{', '.join(map(str, inputs))}: no clips of real footage found")
    return list(found.values())
