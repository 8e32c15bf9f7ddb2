"""`python -m avdetect gmm`: train the LFCC-GMM baseline on a manifest's voices, and score voices with it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from avdetect.errors import ConfigError, DatasetError, InputError

if TYPE_CHECKING:
    from avdetect.types import Floats, Item

EPILOG = """\
examples:
  python -m avdetect gmm train manifest.csv --split train --out b02.safetensors
  python -m avdetect gmm score b02.safetensors manifest.csv --split val --out b02.txt
  python -m avdetect evaluate scores --scores b02.txt
"""
SPLITS = ("train", "val", "test")


def gmm_parser() -> argparse.ArgumentParser:
    """The arguments of `gmm`."""
    parser = argparse.ArgumentParser(
        "avdetect gmm",
        description='The LFCC-GMM baseline ("B02") of ASVspoof 2019, on the voices of any manifest.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="gmm_command", required=True, metavar="train|score")
    learn = commands.add_parser("train", help="fit a model", allow_abbrev=False)
    learn.add_argument("manifest", type=Path, metavar="MANIFEST", help="rows with voice_cloning 0 or 1 count")
    learn.add_argument("--out", type=Path, required=True, metavar="FILE", help="the model, .safetensors")
    learn.add_argument("--split", choices=SPLITS, default="train", help="rows to learn from (train)")
    learn.add_argument(
        "--components", type=int, default=512, metavar="N", help="of each of the two mixtures (512)"
    )
    learn.add_argument(
        "--frames",
        type=int,
        default=100_000,
        metavar="N",
        help="10 ms frames to keep of each class, drawn evenly; memory grows with N times components (100000)",
    )
    learn.add_argument("--iterations", type=int, default=20, metavar="N", help="steps of EM (20)")
    learn.add_argument("--seed", type=int, default=0, metavar="N", help="of the dice (0)")
    learn.set_defaults(run=_train)
    rate = commands.add_parser("score", help="score voices", allow_abbrev=False)
    rate.add_argument("model", type=Path, metavar="MODEL", help="a file that `gmm train` wrote")
    rate.add_argument("manifest", type=Path, metavar="MANIFEST")
    rate.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="as ASVspoof's: FILE SYSTEM KEY SCORE, higher = bona fide; FILE SCORE where no voice is labelled",
    )
    rate.add_argument("--split", choices=SPLITS, help="only the rows of this split")
    rate.set_defaults(run=_score)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run `gmm`: 1 where some clip could not be read (the others were). Raises AvdetectError."""
    return int(args.run(args))


def _train(args: argparse.Namespace) -> int:
    from avdetect.gmm import GmmSettings, LfccGmm
    from avdetect.outputs import check_output

    settings = GmmSettings(args.components, args.frames, args.iterations, args.seed)
    items = _voices(args.manifest, args.split)
    if args.out.exists():
        raise ConfigError(f"--out {args.out}: is there already; remove it or name another file")
    check_output(args.out, "--out")
    failed: list[str] = []
    sounds = ((sound, bool(item.label.voice_cloning)) for item, sound in _heard(items, failed))
    model = LfccGmm.fit(sounds, settings)
    try:
        model.save(args.out)
    except OSError as error:
        raise InputError(f"--out {args.out}: cannot be written ({error.strerror or error})") from None
    print(f"{args.out}: {len(items) - len(failed):,} voices, two mixtures of {settings.components}")
    return _told(failed)


def _score(args: argparse.Namespace) -> int:
    from avdetect.gmm import LfccGmm
    from avdetect.outputs import check_output
    from avdetect.scores import Export, write_scores

    model = LfccGmm.load(args.model)
    items = _voices(args.manifest, args.split, labelled=False)
    check_output(args.out, "--out", [args.model, args.manifest])
    names = dict(zip(map(id, items), trial_names(items), strict=True))
    failed: list[str] = []
    scored = [(item, model.score(sound)) for item, sound in _heard(items, failed)]
    labels = [item.label.voice_cloning for item, _ in scored]
    known = bool(scored) and None not in labels
    write_scores(
        args.out,
        Export.ASVSPOOF2019 if known else Export.ASVSPOOF2021,
        [names[id(item)] for item, _ in scored],
        [score for _, score in scored],
        [bool(label) for label in labels] if known else None,
        [_one_word(item.method or "") or None for item, _ in scored],
    )
    print(f"{args.out}: {len(scored):,} scores")
    return _told(failed)


def _voices(manifest: Path, split: str | None, *, labelled: bool = True) -> list[Item]:
    """Rows whose voice is labelled; without `labelled` all rows, where none is. DatasetError for no row."""
    from avdetect.manifest import read_manifest

    items = [item for item in read_manifest(manifest) if split is None or item.split == split]
    known = [item for item in items if item.label.voice_cloning is not None]
    if not known and (labelled or not items):
        where = f" in split {split}" if split else ""
        raise DatasetError(f"{manifest}: no row{where}{' with a label on voice_cloning' if labelled else ''}")
    return known or items


def _heard(items: Sequence[Item], failed: list[str]) -> Iterator[tuple[Item, Floats]]:
    """Items with their sound [S]; why one has none is added to `failed`."""
    from avdetect.errors import MediaError
    from avdetect.media import open_clip
    from avdetect.progress import track

    for item in track(items, "listening", len(items)):
        path = item.audio_path or item.path
        try:
            waveform = open_clip(path).waveform
        except MediaError as error:
            failed.append(str(error))
            continue
        if waveform is None or not len(waveform):
            failed.append(f"{path}: has no sound; give a clip with a voice")
            continue
        yield item, waveform


def _told(failed: Iterable[str]) -> int:
    from avdetect.wording import printable

    for reason in failed:
        print(f"avdetect: left out: {printable(reason)}", file=sys.stderr)
    return int(bool(failed))


def trial_names(items: Sequence[Item]) -> list[str]:
    """A word for each item: its file's bare name where all differ, else with its folders."""
    short = [_one_word(item.path.stem) for item in items]
    if len(set(short)) == len(short):
        return short
    return [_one_word("_".join(item.path.absolute().with_suffix("").parts[1:])) for item in items]


def _one_word(text: str) -> str:
    """Without blanks, which part the columns of a score file."""
    return "_".join(text.split())
