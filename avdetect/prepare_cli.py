"""`python -m avdetect data prepare`: every clip of a manifest into the cache that training reads."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avdetect.prepared import PreparedClip
    from avdetect.windows import WindowSettings

WINDOW = 10.0
"""Seconds of the pieces that training keeps clips in, unless its recipe says otherwise."""
_SHORTEST, _LONGEST = 0.2, 600.0  # seconds of a window: longer ones would fill the memory with face crops
_SHOWN = 10
_GIB = 1 << 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `data prepare`."""
    parser.add_argument("manifest", type=Path, metavar="MANIFEST")
    parser.add_argument(
        "--cache", type=Path, required=True, metavar="DIR", help="what is there is kept and used"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")
    parser.add_argument(
        "--window",
        type=float,
        default=WINDOW,
        metavar="SECONDS",
        help=f"as `window` in the training recipe (default: {WINDOW:g})",
    )
    parser.add_argument(
        "--hop", type=float, metavar="SECONDS", help="between two windows (default: their length)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as json too")


def run(args: argparse.Namespace) -> int:
    """Prepare every clip; 1 where some could not be. A run that was killed goes on where it stopped.

    Raises AvdetectError where the manifest, the cache folder or the settings cannot be used.
    """
    from avdetect.errors import InputError
    from avdetect.manifest import read_manifest
    from avdetect.windows import WindowSettings

    hop = args.window if args.hop is None else args.hop
    if not _SHORTEST <= hop <= args.window <= _LONGEST or args.workers < 1:
        raise InputError(
            f"--window and --hop must be {_SHORTEST} to {_LONGEST} s, --hop at most --window, --workers at least 1"
        )
    items = read_manifest(args.manifest)
    try:
        args.cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{args.cache}: cannot be a cache folder ({error.strerror or error})") from error
    report = _report(_prepared(items, args, WindowSettings(args.window, hop)))
    report |= {"cache": str(args.cache), "cache_bytes": _size(args.cache)}
    _print(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(bool(report["left_out"]))


def _prepared(
    items: Sequence[Any], args: argparse.Namespace, settings: WindowSettings
) -> Iterable[PreparedClip]:
    from concurrent.futures.process import BrokenProcessPool

    from avdetect.errors import AvdetectError
    from avdetect.prepared import prepare_all
    from avdetect.progress import track

    try:
        yield from track(prepare_all(items, args.cache, settings, args.workers), "preparing", len(items))
    except BrokenProcessPool:
        raise AvdetectError(
            f"a worker was killed, perhaps for want of memory; what is done stays in {args.cache}: "
            "run this again with fewer --workers"
        ) from None
    except OSError as error:
        raise AvdetectError(f"{args.cache}: cannot be written ({error.strerror or error})") from error


def _report(clips: Iterable[PreparedClip]) -> dict[str, Any]:
    """Counts, hours of media, bytes of their windows, and the clips left out with the reason."""
    from avdetect.prepared import ARRAYS

    done = empty = windows = held = 0
    seconds = 0.0
    left_out = []
    for clip in clips:
        if clip.reason is not None:
            left_out.append({"file": str(clip.item.path), "reason": clip.reason})
            continue
        done += 1
        empty += not clip.windows
        windows += len(clip.windows)
        seconds += max((window.end for window in clip.windows), default=0.0)
        arrays = (getattr(window, name) for window in clip.windows for name in ARRAYS)
        held += sum(array.nbytes for array in arrays if array is not None)
    return {
        "clips": done,
        "clips_without_windows": empty,
        "windows": windows,
        "hours": seconds / 3600,
        "bytes": held,
        "bytes_per_hour": held / seconds * 3600 if seconds else None,
        "left_out": left_out,
    }


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*/*.safetensors"))


def _print(report: dict[str, Any]) -> None:
    print(f"{report['clips']:,} clips prepared, {report['windows']:,} windows of {report['hours']:.2f} hours")
    if report["clips_without_windows"]:
        print(f"  {report['clips_without_windows']:,} of them without a window: no sound, no face to assess")
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
