"""`python -m avdetect data prepare`: every clip of a manifest into the cache that training and evaluation read."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avdetect.shards import CACHE

if TYPE_CHECKING:
    from avdetect.prepared import Kept
    from avdetect.types import Item

_SHOWN = 10
_GIB = 1 << 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `data prepare`."""
    parser.add_argument("manifest", type=Path, metavar="MANIFEST")
    parser.add_argument(
        "--cache",
        type=Path,
        default=CACHE,
        metavar="DIR",
        help=f"what is there is kept and used (default: {CACHE}, where training and evaluation look)",
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as json too")


def run(args: argparse.Namespace) -> int:
    """Prepare every clip; 1 where some could not be. A run that was killed goes on where it stopped.

    Raises AvdetectError where the manifest, the cache folder or the report's file cannot be used.
    """
    from avdetect.errors import InputError
    from avdetect.manifest import read_manifest
    from avdetect.outputs import check_output, open_output

    if args.workers < 1:
        raise InputError(f"--workers is {args.workers}, must be at least 1")
    items = read_manifest(args.manifest)
    if args.json:
        check_output(args.json, "--json", [args.manifest])
    try:
        args.cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{args.cache}: cannot be a cache folder ({error.strerror or error})") from error
    report = _report(_kept(items, args.cache, args.workers))
    report |= {"cache": str(args.cache), "cache_bytes": _size(args.cache)}
    _print(report)
    if args.json:
        with open_output(args.json, "--json") as file:
            file.write(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return int(bool(report["left_out"]))


def _kept(items: Sequence[Item], cache: Path, workers: int) -> Iterable[Kept]:
    from concurrent.futures.process import BrokenProcessPool

    from avdetect.errors import AvdetectError
    from avdetect.prepared import keep_all
    from avdetect.progress import track
    from avdetect.windows import WindowSettings

    try:
        yield from track(keep_all(items, cache, WindowSettings(), workers), "preparing", len(items))
    except BrokenProcessPool:
        raise AvdetectError(
            f"a worker was killed, perhaps for want of memory; what is done stays in {cache}: "
            "run this again with fewer --workers"
        ) from None
    except OSError as error:
        raise AvdetectError(f"{cache}: cannot be written ({error.strerror or error})") from error


def _report(clips: Iterable[Kept]) -> dict[str, Any]:
    """Counts, hours of media, bytes they take up, and the clips left out with the reason."""
    done, held, seconds = 0, 0, 0.0
    left_out = []
    for clip in clips:
        if clip.reason is not None:
            left_out.append({"file": str(clip.item.path), "reason": clip.reason})
            continue
        done += 1
        held += clip.size
        seconds += clip.seconds
    return {
        "clips": done,
        "hours": seconds / 3600,
        "bytes": held,
        "bytes_per_hour": held / seconds * 3600 if seconds else None,
        "left_out": left_out,
    }


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.tar"))


def _print(report: dict[str, Any]) -> None:
    print(f"{report['clips']:,} clips prepared, {report['hours']:.2f} hours")
    if report["bytes_per_hour"]:
        print(
            f"  {report['bytes'] / _GIB:.2f} GiB, {report['bytes_per_hour'] / _GIB:.2f} GiB an hour of media"
        )
    print(f"  {report['cache']}: {report['cache_bytes'] / _GIB:.2f} GiB in all")
    left_out = report["left_out"]
    if left_out:
        print(f"{len(left_out):,} clips could not be prepared", file=sys.stderr)
        for clip in left_out[:_SHOWN]:
            print(f"  {clip['reason']}", file=sys.stderr)
        if len(left_out) > _SHOWN:
            print(f"  and {len(left_out) - _SHOWN:,} more (all of them with --json)", file=sys.stderr)
