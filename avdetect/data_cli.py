"""`python -m avdetect data`: arguments in, tables out."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avdetect import pairing_cli, prepare_cli

if TYPE_CHECKING:
    from avdetect.checks import Finding
    from avdetect.shortcuts import Measurement
    from avdetect.types import Item

_SAMPLE = 2_000


def add_arguments(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `data` and its own commands to the command line."""
    data = subparsers.add_parser("data", help="index, check and list data sets")
    commands = data.add_subparsers(dest="data_command", required=True, metavar="COMMAND")
    _add_index(commands.add_parser("index", help="turn a downloaded data set into a manifest"))
    _add_check(commands.add_parser("check", help="find what is wrong with a manifest, and its shortcuts"))
    pairing_cli.add_arguments(
        commands.add_parser("pair", help="join faces and voices of two sets, every class with every other")
    )
    prepare_cli.add_arguments(commands.add_parser("prepare", help="prepare a manifest's clips for training"))
    listing = commands.add_parser("list", help="known data sets: labels, size, licence, how to get them")
    listing.add_argument("name", nargs="?", metavar="NAME", help="say everything about this one")
    protocols = commands.add_parser("protocols", help="write the split files anew, to the same bytes")
    protocols.add_argument("--out", type=Path, required=True, metavar="DIR")
    protocols.add_argument(
        "--official", type=Path, metavar="DIR", help="folder with the sets' published lists"
    )


def _add_index(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a data set of `data list`")
    parser.add_argument("root", type=Path, metavar="ROOT", help="the folder it was downloaded to")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="manifest, .csv or .parquet")
    parser.add_argument("--protocol", type=Path, metavar="FILE", help="split by this file of data/protocols")


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", type=Path, metavar="MANIFEST")
    parser.add_argument(
        "--no-media", action="store_true", help="leave the clips closed: no decoding, no shortcuts"
    )
    parser.add_argument(
        "--sample",
        type=int,
        default=_SAMPLE,
        metavar="N",
        help=f"clips to open, 0 for all (default: {_SAMPLE})",
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")
    parser.add_argument("--strict", action="store_true", help="exit 1 for warnings too")
    parser.add_argument("--json", metavar="FILE", help="write the findings as json, - for standard output")


def run(args: argparse.Namespace) -> int:
    """Run the chosen command: 0 done, 1 the check found errors or some clips could not be used.

    Raises AvdetectError for unusable input.
    """
    commands: dict[str, Callable[[argparse.Namespace], int]] = {
        "index": _index,
        "check": _check,
        "pair": pairing_cli.run,
        "prepare": prepare_cli.run,
        "list": _list,
        "protocols": _protocols,
    }
    return commands[args.data_command](args)


def _index(args: argparse.Namespace) -> int:
    from avdetect.checks import balance
    from avdetect.datasets import index
    from avdetect.manifest import check_target, write_manifest
    from avdetect.protocols import read_protocol

    check_target(args.out)
    protocol = read_protocol(args.protocol) if args.protocol else None
    with _progress("files seen") as seen:
        items, survey = index(args.name, args.root, seen)
    if protocol is not None:
        items = protocol.apply(items)
    write_manifest(items, args.out)
    print(f"{args.out}: {len(items):,} clips of {args.name}")
    for line in survey.report():
        print(f"  {line}")
    _print_balance(balance(items))
    if protocol is not None and (lost := sum(item.split is None for item in items)):
        print(f"  in no split of {protocol.name}: {lost:,} clips, their people on different sides or none")
    return 0


def _list(args: argparse.Namespace) -> int:
    from avdetect import plugins
    from avdetect.datasets import DATASETS, load

    if args.name:
        dataset = load(args.name)
        for field in ("title", "labels", "size", "licence", "access", "layout", "citation"):
            print(f"{field:>9}  {getattr(dataset, field)}")
        return 0
    names = [*DATASETS, *plugins.announced(plugins.DATASETS)]
    width = max(map(len, names))
    for name in names:
        dataset = load(name)
        print(f"{name:<{width}}  {dataset.title}")
        for field in ("labels", "size", "licence", "access"):
            print(f"{'':<{width}}  {field}: {getattr(dataset, field)}")
    return 0


def _protocols(args: argparse.Namespace) -> int:
    from avdetect.protocols import write_protocols

    for path in write_protocols(args.out, args.official):
        print(path)
    return 0


def _check(args: argparse.Namespace) -> int:
    from avdetect.outputs import check_output, open_output

    target = Path(args.json) if args.json not in (None, "-") else None
    if target is not None:
        check_output(target, "--json", [args.manifest])
    with redirect_stdout(sys.stderr) if args.json == "-" else nullcontext():
        report, failed = _checked(args)
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    if args.json == "-":
        sys.stdout.write(text)
    elif target is not None:
        with open_output(target, "--json") as file:
            file.write(text)
    return int(failed)


def _checked(args: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Everything found, printed and as a report, and whether it includes an error."""
    from avdetect.checks import Severity, balance, check_items, source_balance
    from avdetect.manifest import read_manifest

    items = read_manifest(args.manifest)
    with _progress("files compared") as compared:
        findings = check_items(items, compared)
    print(f"{args.manifest}: {len(items):,} clips")
    _print_balance(balance(items))
    for row in source_balance(items):
        if row.real_only or row.fake_only or row.both:
            print(f"  {row.claim} by source: {row.real_only} real, {row.fake_only} fake, {row.both} both")
    report: dict[str, Any] = {"manifest": str(args.manifest), "clips": len(items)}
    report["balance"] = [asdict(row) for row in balance(items)]
    if not args.no_media:
        findings += _check_media(items, args, report)
    for finding in findings:
        print(finding)
    report["findings"] = [asdict(finding) for finding in findings]
    failing = set(Severity) if args.strict else {Severity.ERROR}
    return report, any(finding.severity in failing for finding in findings)


def _check_media(items: Sequence[Item], args: argparse.Namespace, report: dict[str, Any]) -> list[Finding]:
    """Open clips: what cannot be read, how long they are, and by what the classes could be told apart."""
    from avdetect.checks import Severity, finding
    from avdetect.shortcuts import Unreadable, measure_items, sample

    chosen = [item for item in sample(items, args.sample or len(items)) if item.path.is_file()]
    with _progress("clips opened", len(chosen)) as opened:
        results = measure_items(chosen, args.workers, opened, pictures=True)
    failures = [result for result in results if isinstance(result, Unreadable)]
    read = [(item, row) for item, row in zip(chosen, results, strict=True) if not isinstance(row, Unreadable)]
    print(f"{len(chosen):,} clips opened, {len(failures):,} of them unreadable")
    if read:
        report["shortcuts"] = _print_shortcuts([item for item, _ in read], [row for _, row in read])
    damaged = [f"{item.path}: {'; '.join(row.warnings)}" for item, row in read if row.warnings]
    return [
        *finding(Severity.ERROR, "clips that cannot be read", [str(failure) for failure in failures]),
        *finding(Severity.WARNING, "clips read with a warning", damaged),
    ]


def _print_shortcuts(items: Sequence[Item], measured: Sequence[Measurement]) -> list[dict[str, Any]]:
    from avdetect.shortcuts import FEATURES, describe, separability
    from avdetect.types import CLAIMS

    hours = sum(row.duration for row in measured) / 3600
    print(f"  {hours:.2f} hours, from {min(row.duration for row in measured):.2f} s", end=" ")
    print(f"to {max(row.duration for row in measured):.2f} s a clip")
    found = []
    for claim in CLAIMS:
        rows = [separability(items, measured, claim, features) for features in ("all", *FEATURES)]
        if rows[0].random_folds is None:
            continue
        print(f"{claim}: AUC of metadata alone ({rows[0].real} real, {rows[0].fake} fake clips)")
        for row in rows:
            held_out = _number(row.held_out_sources)
            print(f"  {row.features:<10} {_number(row.random_folds)}   sources held out {held_out}")
        for name, real, fake in describe(items, measured, claim):
            print(f"  {name:<17} real {real:<34} fake {fake}")
        found += [asdict(row) for row in rows]
    return found


def _print_balance(rows: Sequence[Any]) -> None:
    for row in rows:
        if row.real or row.fake:
            where = row.split or "no split"
            print(f"  {row.claim} in {where}: {row.real:,} real, {row.fake:,} fake, {row.unknown:,} unknown")


def _number(value: float | None) -> str:
    return "  - " if value is None else f"{value:.2f}"


@contextmanager
def _progress(text: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr where that is a terminal; calling it with a number moves it there."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(text, total=total)
        yield lambda number: progress.update(task, completed=number)
