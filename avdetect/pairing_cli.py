"""`python -m avdetect data pair`: a joint set of faces and voices, its report and its probes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avdetect.pairing import Pairing
    from avdetect.shortcuts import Measurement
    from avdetect.types import Item

PROBED = 400
_DFD = "dfd-20-4-4"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `data pair`."""
    parser.add_argument(
        "faces", type=Path, metavar="FACES", help="manifest with real and fake faces, e.g. of dfd"
    )
    parser.add_argument(
        "voices",
        type=Path,
        metavar="VOICES",
        help="manifest with real and fake voices, e.g. of asvspoof2019-la",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="manifest, .csv or .parquet")
    parser.add_argument(
        "--protocol",
        type=Path,
        metavar="FILE",
        help=f"split the faces by this file of data/protocols (default: their own split, DFD by {_DFD})",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="which clips go together (default: 0)"
    )
    parser.add_argument("--per-cell", type=int, metavar="N", help="pairs in each cell and split")
    parser.add_argument(
        "--lip-sync-negative",
        action="store_true",
        help="label every pair as a lip-sync mismatch, not as unknown",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--render", type=Path, metavar="DIR", help="write the pairs as clips, all treated alike"
    )
    form.add_argument("--unpaired", action="store_true", help="list the chosen faces and voices one by one")
    parser.add_argument(
        "--probe",
        type=int,
        default=PROBED,
        metavar="N",
        help=f"pairs to open for the probes, 0 for none (default: {PROBED})",
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as json too")


def run(args: argparse.Namespace) -> int:
    """Write the joint manifest and report: 0 done, 1 some pairs could not be rendered.

    Raises AvdetectError where the manifests or the folder cannot be used.
    """
    from avdetect.errors import InputError
    from avdetect.manifest import check_target, read_manifest, write_manifest
    from avdetect.outputs import check_output, open_output
    from avdetect.pairing import pair

    check_target(args.out)
    if args.json:
        check_output(args.json, "--json", [args.faces, args.voices])
    if args.per_cell is not None and args.per_cell < 1:
        raise InputError(f"--per-cell is {args.per_cell}, must be at least 1")
    faces = _split(read_manifest(args.faces), args.protocol)
    pairing = pair(faces, read_manifest(args.voices), args.seed, args.per_cell)
    rows: list[Sequence[Item]] = [quad.pairs(args.lip_sync_negative) for quad in pairing.quads]
    report = {"manifest": str(args.out), **pairing.report(), "not_rendered": []}
    if args.render:
        rows, report["not_rendered"] = _rendered(rows, args)
        report["rendered"] = len(rows) * 4
    items = pairing.unpaired() if args.unpaired else [item for row in rows for item in row]
    write_manifest(items, args.out)
    report["probes"] = probes(pairing, rows, args.probe, args.workers)
    _print(report)
    if args.json:
        with open_output(args.json, "--json") as file:
            file.write(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return int(bool(report["not_rendered"]))


def _split(faces: list[Item], protocol: Path | None) -> list[Item]:
    """The faces with the protocol's split; without one with their own, those of DFD actor-disjoint."""
    from avdetect.protocols import dfd_protocol, read_protocol

    if protocol is not None:
        return read_protocol(protocol).apply(faces)
    return faces if any(face.split for face in faces) else dfd_protocol(_DFD).apply(faces)


def _rendered(
    rows: Sequence[Sequence[Item]], args: argparse.Namespace
) -> tuple[list[Sequence[Item]], list[str]]:
    from avdetect.progress import track
    from avdetect.treatment import Treatment, render

    made: list[Sequence[Item]] = []
    reasons = []
    for row in track(render(rows, args.render, Treatment(), args.workers), "rendering", len(rows)):
        if isinstance(row, str):
            reasons.append(row)
        else:
            made.append(row)
    return made, reasons


def probes(
    pairing: Pairing, rows: Sequence[Sequence[Item]], number: int, workers: int = 1
) -> dict[str, Any] | None:
    """What tells the classes apart without content: metadata alone, silence alone; and real from real between the
    two sources as they lie. None where no clips are opened; about `number` pairs are, where their files are there.

    Two pairs of each quad are opened that share neither face nor voice, now one diagonal, now the other: no clip
    stands on both sides of one question.
    """
    from avdetect.pairing import sound_of
    from avdetect.shortcuts import separability, told_apart
    from avdetect.types import Claim

    if number <= 0:
        return None
    step = max(1, -(-2 * len(rows) // number))
    # bit_count, not turn: clips that are dealt in turns would meet the same diagonal every time
    chosen = [
        row[at] for turn, row in enumerate(rows[::step]) for at in ((0, 3), (1, 2))[turn.bit_count() % 2]
    ]
    items, measured = _opened(chosen, workers)
    if not items:
        return None
    quads = pairing.quads[::step]
    _, real = _opened({quad.real.path: quad.real for quad in quads}.values(), workers)
    _, bonafide = _opened({sound_of(quad.bonafide): quad.bonafide for quad in quads}.values(), workers)
    claims = (Claim.FACE_MANIPULATION, Claim.VOICE_CLONING)
    return {
        "pairs": len(items),
        "metadata": [asdict(separability(items, measured, claim)) for claim in claims],
        "silence": [asdict(separability(items, measured, claim, "non-speech")) for claim in claims],
        "real_vs_real": {
            "real_faces": len(real),
            "bonafide_voices": len(bonafide),
            "as_they_lie": told_apart(real, bonafide),
        },
    }


def _opened(items: Iterable[Item], workers: int) -> tuple[list[Item], list[Measurement]]:
    """The items whose files are there and can be read, and what was measured of them."""
    from avdetect.shortcuts import Unreadable, measure_items

    there = [one for one in items if one.path.is_file() and (one.audio_path or one.path).is_file()]
    read = [
        (item, row)
        for item, row in zip(there, measure_items(there, workers), strict=True)
        if not isinstance(row, Unreadable)
    ]
    return [item for item, _ in read], [row for _, row in read]


def _print(report: dict[str, Any]) -> None:
    print(f"{report['manifest']}: {report['pairs']:,} pairs, seed {report['seed']}")
    for split, cells in report["cells"].items():
        print(f"  {split}: " + "; ".join(f"{number:,} {cell}" for cell, number in cells.items()))
        print(
            "    from " + ", ".join(f"{number:,} {kind}" for kind, number in report["files"][split].items())
        )
    sexes = report["pairs_by_sex"]
    print(f"  sexes match in {sexes['matched']:,} pairs, one is unknown in {sexes['unknown']:,}")
    for reason, number in report["left_out"].items():
        print(f"  left out: {number:,} {reason}")
    if "rendered" in report:
        print(f"  {report['rendered']:,} pairs rendered, {len(report['not_rendered']):,} fours left out")
    for reason in report["not_rendered"]:
        print(f"    {reason}")
    if report["probes"] is None:
        print("  no probes: no clips were opened")
    else:
        _print_probes(report["probes"])


def _print_probes(found: dict[str, Any]) -> None:
    print(f"probes, AUC (0.5 is chance), {found['pairs']:,} pairs:")
    for name in ("metadata", "silence"):
        for row in found[name]:
            held_out = _number(row["held_out_sources"])
            print(
                f"  {name} alone, {row['claim']}: {_number(row['random_folds'])}, sources held out {held_out}"
            )
    between = found["real_vs_real"]
    print(
        f"  real from real, {between['real_faces']:,} faces and {between['bonafide_voices']:,} voices as they lie: "
        f"{_number(between['as_they_lie'])}; a pair holds one of each"
    )


def _number(value: float | None) -> str:
    return "too few clips" if value is None else f"{value:.2f}"
